//! The crate of an app: its location, its sources, and its build by Cargo.

use super::tree::Sources;
use crate::{colour, command_error::CommandError, logging};
use anyhow::{Context as _, anyhow};
use serde_json::Value;
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant, SystemTime},
};

/// A crate that builds a component.
#[derive(Clone, Debug)]
pub(crate) struct Project {
    dir: PathBuf,
    /// True if `cargo component` builds it: its bindings come from its own WIT.
    is_cargo_component: bool,
    /// Path of the built component.
    artifact: PathBuf,
    /// Cargo's target directory.
    target: PathBuf,
    workspace: PathBuf,
    /// Sources that are known before the first build.
    sources: Sources,
}

/// A successful build.
pub(crate) struct Build {
    pub(crate) took: Duration,
    /// True if the component changed.
    pub(crate) is_new: bool,
}

impl Project {
    /// Reads the metadata of the crate in this directory from Cargo.
    pub(crate) fn find(dir: &Path) -> Result<Project, CommandError> {
        let dir = dir
            .canonicalize()
            .with_context(|| format!("can't read {}", dir.display()))?;
        let manifest = dir.join("Cargo.toml");
        if !manifest.is_file() {
            return Err(CommandError::usage(format!(
                "{} has no Cargo.toml: `tidegate new NAME` writes a project",
                dir.display()
            )));
        }
        let metadata = metadata(&manifest, &["--no-deps"])?;
        Ok(Project::read(&metadata, &dir, &manifest).ok_or_else(|| {
            anyhow!(
                "{} has no library of crate-type cdylib, which a component needs: add it to [lib]",
                manifest.display()
            )
        })?)
    }

    fn read(metadata: &Value, dir: &Path, manifest: &Path) -> Option<Project> {
        let is_ours = |package: &&Value| {
            package["manifest_path"]
                .as_str()
                .is_some_and(|path| Path::new(path) == manifest)
        };
        let package = metadata["packages"].as_array()?.iter().find(is_ours)?;
        let is_cdylib = |target: &&Value| {
            target["crate_types"]
                .as_array()
                .is_some_and(|types| types.iter().any(|kind| kind == "cdylib"))
        };
        let name = package["targets"].as_array()?.iter().find(is_cdylib)?["name"]
            .as_str()?
            .replace('-', "_");
        let component = &package["metadata"]["component"];
        let is_cargo_component =
            component["target"].is_object() || component["dependencies"].is_object();
        let target = if is_cargo_component {
            "wasm32-wasip1"
        } else {
            "wasm32-wasip2"
        };
        let target_directory = PathBuf::from(metadata["target_directory"].as_str()?);
        let artifact = target_directory
            .join(target)
            .join("debug")
            .join(format!("{name}.wasm"));
        let workspace = metadata["workspace_root"]
            .as_str()
            .map_or(dir, Path::new)
            .to_owned();
        let sources = Sources {
            packages: packages(metadata, dir),
            files: settings(dir, &workspace),
        };
        Some(Project {
            dir: dir.to_owned(),
            is_cargo_component,
            artifact,
            target: target_directory,
            workspace,
            sources,
        })
    }

    /// Returns the sources that are known before the first build.
    pub(crate) fn declared(&self) -> &Sources {
        &self.sources
    }

    /// Returns all sources after a build: also transitive path dependencies, and files that the
    /// compiler read elsewhere. Returns none if Cargo fails.
    pub(crate) fn sources(&self) -> Option<Sources> {
        let target = if self.is_cargo_component {
            "wasm32-wasip1"
        } else {
            "wasm32-wasip2"
        };
        // The build has fetched all dependencies for this target, so no network is needed.
        let metadata = metadata(
            &self.dir.join("Cargo.toml"),
            &["--offline", "--filter-platform", target],
        )
        .ok()?;
        let mut files = settings(&self.dir, &self.workspace);
        files.extend(read_files(
            &fs::read_to_string(self.artifact.with_extension("d")).unwrap_or_default(),
            &self.workspace,
        ));
        Some(Sources {
            packages: packages(&metadata, &self.dir),
            files,
        })
    }

    /// Returns Cargo's target directory.
    pub(crate) fn target(&self) -> &Path {
        &self.target
    }

    /// Returns the files among the sources that a build writes.
    pub(crate) fn made_sources(&self) -> [PathBuf; 2] {
        [
            self.workspace.join("Cargo.lock"),
            self.dir.join("src/bindings.rs"),
        ]
    }

    /// Returns the directory of the crate.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Returns the path of the built component.
    pub(crate) fn artifact(&self) -> &Path {
        &self.artifact
    }

    /// Builds the component, and prints Cargo's output. The error is the compiler's diagnostics.
    pub(crate) fn build(&self) -> Result<Build, String> {
        let (began, before) = (Instant::now(), self.modified());
        let colour = colour::is_on();
        let mut cargo = Command::new("cargo");
        if self.is_cargo_component {
            cargo.args(["component", "build"]);
        } else {
            cargo.args(["build", "--target", "wasm32-wasip2"]);
        }
        cargo.args([
            "--message-format",
            if colour {
                "json-diagnostic-rendered-ansi"
            } else {
                "json"
            },
        ]);
        cargo.args(["--color", if colour { "always" } else { "never" }]);
        let cargo = cargo
            .current_dir(&self.dir)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = cargo
            .spawn()
            .map_err(|error| format!("can't run cargo: {error}"))?;
        let (stdout, progress) = (
            child.stdout.take().expect("it is piped"),
            child.stderr.take().expect("it is piped"),
        );
        let progress =
            thread::spawn(move || show(BufReader::new(progress).lines().map_while(Result::ok)));
        let diagnostics = show(
            BufReader::new(stdout)
                .lines()
                .map_while(Result::ok)
                .filter_map(|line| rendered(&line)),
        );
        let progress = progress.join().unwrap_or_default();
        let status = child
            .wait()
            .map_err(|error| format!("can't wait for cargo: {error}"))?;
        if status.success() {
            Ok(Build {
                took: began.elapsed(),
                is_new: self.modified() != before,
            })
        } else if diagnostics.is_empty() {
            Err(progress)
        } else {
            Err(diagnostics)
        }
    }

    fn modified(&self) -> Option<SystemTime> {
        self.artifact
            .metadata()
            .and_then(|metadata| metadata.modified())
            .ok()
    }
}

fn metadata(manifest: &Path, args: &[&str]) -> anyhow::Result<Value> {
    let mut cargo = Command::new("cargo");
    cargo
        .args(["metadata", "--format-version", "1"])
        .args(args)
        .arg("--manifest-path")
        .arg(manifest)
        .stdin(Stdio::null());
    let output = cargo
        .output()
        .context("can't run cargo: install it (https://rustup.rs)")?;
    if !output.status.success() {
        return Err(anyhow!(
            "{}",
            String::from_utf8_lossy(&output.stderr).trim()
        ));
    }
    serde_json::from_slice(&output.stdout).context("cargo metadata")
}

/// Returns files that configure Cargo, which lie outside of packages or are hidden.
fn settings(dir: &Path, workspace: &Path) -> BTreeSet<PathBuf> {
    const NAMES: [&str; 6] = [
        "Cargo.toml",
        "Cargo.lock",
        "rust-toolchain",
        "rust-toolchain.toml",
        ".cargo/config",
        ".cargo/config.toml",
    ];
    [dir, workspace]
        .iter()
        .flat_map(|folder| NAMES.map(|name| folder.join(name)))
        .collect()
}

/// Returns the directories of the package in `dir`, and of its local dependencies. A path
/// dependency whose directory is missing is included, since it may be created.
fn packages(metadata: &Value, dir: &Path) -> BTreeSet<PathBuf> {
    let packages = || metadata["packages"].as_array().into_iter().flatten();
    let folder = |package: &Value| {
        Some(
            Path::new(package["manifest_path"].as_str()?)
                .parent()?
                .to_owned(),
        )
    };
    let by_id: BTreeMap<&str, &Value> = packages()
        .filter_map(|package| Some((package["id"].as_str()?, package)))
        .collect();
    let id_of = |path: &Path| {
        by_id
            .iter()
            .find(|(_, package)| folder(package).is_some_and(|it| it == path))
            .map(|(id, _)| *id)
    };
    let nodes = metadata["resolve"]["nodes"]
        .as_array()
        .into_iter()
        .flatten();
    let resolved: BTreeMap<&str, &Value> = nodes
        .filter_map(|node| Some((node["id"].as_str()?, &node["dependencies"])))
        .collect();

    let mut folders = BTreeSet::from([dir.to_owned()]);
    let mut next: Vec<&str> = id_of(dir).into_iter().collect();
    let mut seen = BTreeSet::new();
    while let Some(id) = next.pop() {
        if !seen.insert(id) {
            continue;
        }
        // With [patch] a package from a registry may have a path dependency.
        next.extend(
            resolved
                .get(id)
                .and_then(|ids| ids.as_array())
                .into_iter()
                .flatten()
                .filter_map(Value::as_str),
        );
        let Some(package) = by_id.get(id).filter(|package| package["source"].is_null()) else {
            continue;
        };
        folders.extend(folder(package));
        if let Some(folder) = folder(package) {
            wit_paths(&package["metadata"]["component"], &mut |path| {
                _ = folders.insert(folder.join(path))
            });
        }
        for dependency in package["dependencies"].as_array().into_iter().flatten() {
            if let Some(path) = dependency["path"].as_str().map(Path::new) {
                folders.insert(path.to_owned());
                next.extend(id_of(path));
            }
        }
    }
    folders
}

/// Calls `found` with each `path` in `[package.metadata.component]`: files and directories of WIT.
fn wit_paths(component: &Value, found: &mut impl FnMut(&str)) {
    for (name, value) in component.as_object().into_iter().flatten() {
        match value {
            Value::String(path) if name == "path" => found(path),
            other => wit_paths(other, found),
        }
    }
}

/// Returns the files that a build read, from its dep-info: one makefile rule, in which a space of a
/// path has a backslash before it.
fn read_files(dep_info: &str, workspace: &Path) -> Vec<PathBuf> {
    let Some((_, files)) = dep_info
        .lines()
        .next()
        .and_then(|rule| rule.split_once(": "))
    else {
        return Vec::new();
    };
    let files = files.replace("\\ ", "\0");
    files
        .split(' ')
        .filter(|file| !file.is_empty())
        .map(|file| workspace.join(file.replace('\0', " ")))
        .collect()
}

/// Returns the rendered diagnostic in a line of rustc's JSON.
fn rendered(line: &str) -> Option<String> {
    let message: Value = serde_json::from_str(line).ok()?;
    Some(
        message["message"]["rendered"]
            .as_str()?
            .trim_end()
            .to_owned(),
    )
}

/// Prints the texts as they arrive, and returns all of them.
fn show(texts: impl Iterator<Item = String>) -> String {
    texts.fold(String::new(), |all, text| {
        logging::print(&format!("{text}\n"));
        all + &text + "\n"
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn project(metadata: Value) -> Option<Project> {
        let package = json!({
            "manifest_path": "/w/my-app/Cargo.toml",
            "targets": [{ "name": "my-app", "crate_types": ["cdylib"] }],
            "metadata": metadata,
        });
        let other = json!({ "manifest_path": "/w/Cargo.toml", "targets": [], "metadata": null });
        let metadata = json!({ "packages": [other, package], "target_directory": "/t" });
        Project::read(
            &metadata,
            Path::new("/w/my-app"),
            Path::new("/w/my-app/Cargo.toml"),
        )
    }

    #[test]
    fn cargo_component_builds_crates_with_their_own_bindings() {
        let by_cargo = project(json!({ "component": { "package": "a:b" } })).unwrap();
        assert_eq!(
            (by_cargo.is_cargo_component, by_cargo.artifact()),
            (false, Path::new("/t/wasm32-wasip2/debug/my_app.wasm"))
        );
        let by_component =
            project(json!({ "component": { "package": "a:b", "target": { "path": "wit" } } }))
                .unwrap();
        assert_eq!(
            (by_component.is_cargo_component, by_component.artifact()),
            (true, Path::new("/t/wasm32-wasip1/debug/my_app.wasm"))
        );
    }

    #[test]
    fn sources_include_all_local_packages() {
        let package = |id: &str, source: Value, paths: &[&str]| {
            let dependencies: Vec<Value> =
                paths.iter().map(|path| json!({ "path": path })).collect();
            json!({ "id": id, "manifest_path": format!("/w/{id}/Cargo.toml"), "source": source, "dependencies": dependencies })
        };
        let registry = || json!("registry+https://github.com/rust-lang/crates.io-index");
        let mut app = package("app", Value::Null, &["/w/lib", "/elsewhere/gone"]);
        let target = json!({ "path": "wit", "dependencies": { "a:b": { "path": "/wit/b.wit" }, "c:d": "1.0.0" } });
        app["metadata"] = json!({ "component": { "package": "x:path", "target": target } });
        let all = [
            app,
            package("lib", Value::Null, &["/w/deep", "/w/app"]),
            package("deep", Value::Null, &[]),
            package("unused", Value::Null, &[]),
            package("patched", Value::Null, &[]),
            package("from-registry", registry(), &[]),
        ];
        let node =
            |id: &str, dependencies: &[&str]| json!({ "id": id, "dependencies": dependencies });
        let nodes = [
            node("app", &["lib", "from-registry"]),
            node("lib", &[]),
            node("from-registry", &["patched"]),
            node("unused", &[]),
        ];
        let cases = [
            (
                Value::Null,
                vec![
                    "/elsewhere/gone",
                    "/w/app",
                    "/w/app/wit",
                    "/w/deep",
                    "/w/lib",
                    "/wit/b.wit",
                ],
            ),
            (
                json!({ "nodes": nodes }),
                vec![
                    "/elsewhere/gone",
                    "/w/app",
                    "/w/app/wit",
                    "/w/deep",
                    "/w/lib",
                    "/w/patched",
                    "/wit/b.wit",
                ],
            ),
        ];
        for (resolve, folders) in cases {
            let found = packages(
                &json!({ "packages": all, "resolve": resolve }),
                Path::new("/w/app"),
            );
            assert_eq!(
                found,
                folders.iter().map(PathBuf::from).collect(),
                "{resolve}"
            );
        }
        assert_eq!(
            packages(&Value::Null, Path::new("/w/app")),
            BTreeSet::from(["/w/app".into()])
        );
    }

    #[test]
    fn dep_info_lists_the_files_that_were_read() {
        let files = |text: &str| read_files(text, Path::new("/w"));
        let listed = ["/w/src/lib.rs", "/else/a b.html", "/w/x.txt"].map(PathBuf::from);
        assert_eq!(
            files("/t/my_app.wasm: /w/src/lib.rs /else/a\\ b.html x.txt\n"),
            listed
        );
        assert_eq!(files("/t/my_app.wasm:\n"), Vec::<PathBuf>::new());
        assert_eq!(files(""), Vec::<PathBuf>::new());
    }
}
