//! The author's crate: where it is, and how it becomes a component.

use crate::{colour, failure::Failure, logging};
use anyhow::{Context as _, anyhow};
use serde_json::Value;
use std::{
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant, SystemTime},
};

/// A crate that makes a component.
#[derive(Clone, Debug)]
pub(crate) struct Project {
    dir: PathBuf,
    /// Built by `cargo component`: its bindings come from its own WIT.
    component: bool,
    artifact: PathBuf,
}

/// A build that went well.
pub(crate) struct Built {
    pub(crate) took: Duration,
    /// Whether there is another component than before.
    pub(crate) is_new: bool,
}

impl Project {
    /// Asks Cargo about the crate in this directory.
    pub(crate) fn find(dir: &Path) -> Result<Project, Failure> {
        let dir = dir.canonicalize().with_context(|| format!("can't read {}", dir.display()))?;
        let manifest = dir.join("Cargo.toml");
        if !manifest.is_file() {
            return Err(Failure::usage(format!("{} has no Cargo.toml: `tidegate new NAME` writes a project", dir.display())));
        }
        let mut cargo = Command::new("cargo");
        cargo.args(["metadata", "--no-deps", "--format-version", "1", "--manifest-path"]).arg(&manifest);
        let output = cargo.output().context("can't run cargo: is it installed (https://rustup.rs)?")?;
        if !output.status.success() {
            return Err(anyhow!("{}", String::from_utf8_lossy(&output.stderr).trim()).into());
        }
        let metadata: Value = serde_json::from_slice(&output.stdout).context("cargo metadata")?;
        Ok(Project::read(&metadata, &dir, &manifest)
            .ok_or_else(|| anyhow!("{} has no library of crate-type cdylib: a component is one", manifest.display()))?)
    }

    fn read(metadata: &Value, dir: &Path, manifest: &Path) -> Option<Project> {
        let is_ours = |package: &&Value| package["manifest_path"].as_str().is_some_and(|path| Path::new(path) == manifest);
        let package = metadata["packages"].as_array()?.iter().find(is_ours)?;
        let is_cdylib = |target: &&Value| target["crate_types"].as_array().is_some_and(|types| types.iter().any(|kind| kind == "cdylib"));
        let name = package["targets"].as_array()?.iter().find(is_cdylib)?["name"].as_str()?.replace('-', "_");
        let component = &package["metadata"]["component"];
        let component = component["target"].is_object() || component["dependencies"].is_object();
        let target = if component { "wasm32-wasip1" } else { "wasm32-wasip2" };
        let artifact = Path::new(metadata["target_directory"].as_str()?).join(target).join("debug").join(format!("{name}.wasm"));
        Some(Project { dir: dir.to_owned(), component, artifact })
    }

    /// Where the crate is.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// The component, once it was built.
    pub(crate) fn artifact(&self) -> &Path {
        &self.artifact
    }

    /// Builds the component; shows what Cargo says, and gives it back where the build failed.
    pub(crate) fn build(&self) -> Result<Built, String> {
        let (began, before) = (Instant::now(), self.made());
        let colour = colour::is_on();
        let mut cargo = Command::new("cargo");
        if self.component {
            cargo.args(["component", "build"]);
        } else {
            cargo.args(["build", "--target", "wasm32-wasip2"]);
        }
        cargo.args(["--message-format", if colour { "json-diagnostic-rendered-ansi" } else { "json" }]);
        cargo.args(["--color", if colour { "always" } else { "never" }]);
        let cargo = cargo.current_dir(&self.dir).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = cargo.spawn().map_err(|error| format!("can't run cargo: {error}"))?;
        let (stdout, progress) = (child.stdout.take().expect("it is piped"), child.stderr.take().expect("it is piped"));
        let progress = thread::spawn(move || show(BufReader::new(progress).lines().map_while(Result::ok)));
        let diagnostics = show(BufReader::new(stdout).lines().map_while(Result::ok).filter_map(|line| rendered(&line)));
        let progress = progress.join().unwrap_or_default();
        let status = child.wait().map_err(|error| format!("cargo was lost: {error}"))?;
        match status.success() {
            true => Ok(Built { took: began.elapsed(), is_new: self.made() != before }),
            false if diagnostics.is_empty() => Err(progress),
            false => Err(diagnostics),
        }
    }

    fn made(&self) -> Option<SystemTime> {
        self.artifact.metadata().and_then(|metadata| metadata.modified()).ok()
    }
}

/// What rustc wants to be read of a line of JSON.
fn rendered(line: &str) -> Option<String> {
    let message: Value = serde_json::from_str(line).ok()?;
    Some(message["message"]["rendered"].as_str()?.trim_end().to_owned())
}

/// Writes the texts to the terminal as they come; all of them.
fn show(texts: impl Iterator<Item = String>) -> String {
    texts.fold(String::new(), |all, text| {
        logging::say(&format!("{text}\n"));
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
        Project::read(&metadata, Path::new("/w/my-app"), Path::new("/w/my-app/Cargo.toml"))
    }

    #[test]
    fn cargo_component_builds_what_has_bindings_of_its_own() {
        let by_cargo = project(json!({ "component": { "package": "a:b" } })).unwrap();
        assert_eq!((by_cargo.component, by_cargo.artifact()), (false, Path::new("/t/wasm32-wasip2/debug/my_app.wasm")));
        let by_component = project(json!({ "component": { "package": "a:b", "target": { "path": "wit" } } })).unwrap();
        assert_eq!((by_component.component, by_component.artifact()), (true, Path::new("/t/wasm32-wasip1/debug/my_app.wasm")));
    }
}
