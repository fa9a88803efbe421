//! The floors of ARCHITECTURE.md, read from `cargo metadata` and the sources: which crates and
//! modules may import which, and which crates the hub must not use.

use serde_json::Value;
use std::{
    collections::{BTreeMap, BTreeSet},
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

/// A crate of the workspace, its directory, and its `[dependencies]` (of any target).
struct Member {
    name: String,
    directory: PathBuf,
    dependencies: BTreeSet<String>,
}

fn members() -> Vec<Member> {
    let mut cargo = Command::new(env!("CARGO"));
    let output = cargo
        .args([
            "metadata",
            "--no-deps",
            "--offline",
            "--format-version",
            "1",
        ])
        .current_dir(workspace())
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    let string = |value: &Value| value.as_str().unwrap().to_owned();
    let member = |package: &Value| Member {
        name: string(&package["name"]),
        directory: Path::new(&string(&package["manifest_path"]))
            .parent()
            .unwrap()
            .to_owned(),
        // Dependencies for tests and for build scripts have a kind.
        dependencies: list(&package["dependencies"])
            .filter(|it| it["kind"].is_null())
            .map(|it| string(&it["name"]))
            .collect(),
    };
    list(&metadata["packages"]).map(member).collect()
}

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../..")
        .canonicalize()
        .expect("this crate lies in the workspace")
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().unwrap().iter()
}

/// The crates of the workspace that each crate may depend on. A crate that is not listed is an app
/// or a tool.
const FLOORS: [(&str, &[&str]); 6] = [
    ("tidegate-routing", &[]),
    ("tidegate-hub", &["tidegate-routing"]),
    ("tidegate-edge", &["tidegate-routing", "tidegate-hub"]),
    ("tidegate-wasm", &["tidegate-routing", "tidegate-hub"]),
    ("tidegate-disk", &["tidegate-hub"]),
    (
        "tidegate-cli",
        &[
            "tidegate-routing",
            "tidegate-hub",
            "tidegate-edge",
            "tidegate-wasm",
            "tidegate-disk",
        ],
    ),
];

/// Heavy dependencies have one owner each. A star stands for any ending. The edge uses the server
/// part of hyper-util, wasm uses its client.
const OWNERS: [(&str, &str); 15] = [
    ("fjall", "tidegate-disk"),
    ("wasmtime*", "tidegate-wasm"),
    ("wasm-*", "tidegate-wasm"),
    ("hyper", "tidegate-edge"),
    ("hyper-rustls", "tidegate-wasm"),
    ("rustls*", "tidegate-wasm"),
    ("tokio-tungstenite", "tidegate-edge"),
    ("tungstenite", "tidegate-edge"),
    ("clap", "tidegate-cli"),
    ("anyhow", "tidegate-cli"),
    ("tracing-subscriber", "tidegate-cli"),
    ("toml", "tidegate-cli"),
    ("mimalloc", "tidegate-cli"),
    ("libmimalloc-sys", "tidegate-cli"),
    ("wit-bindgen*", "tidegate"),
];

/// All crates that the hub uses outside of std and the workspace. The floor below it uses none.
const HUB_MAY_USE: [&str; 9] = [
    "bytes",
    "bytestring",
    "form_urlencoded",
    "http",
    "serde",
    "serde_json",
    "tidegate-routing",
    "tokio",
    "tracing",
];

/// Crates that no component contains: guests are small and build quickly.
const NOT_IN_GUESTS: [&str; 5] = ["tidegate-hub", "tokio", "tracing", "bytes", "http"];

fn is_like(pattern: &str, name: &str) -> bool {
    pattern
        .strip_suffix('*')
        .map_or(pattern == name, |prefix| name.starts_with(prefix))
}

#[test]
fn crates_import_only_lower_layers() {
    let members = members();
    let ours: BTreeSet<&str> = members.iter().map(|member| member.name.as_str()).collect();
    assert!(
        FLOORS
            .iter()
            .filter(|(name, _)| ours.contains(name))
            .count()
            >= 5,
        "the crates were renamed: name them here too"
    );
    for member in &members {
        let floor = FLOORS
            .iter()
            .find(|(name, _)| *name == member.name)
            .map(|(_, may)| *may);
        let is_tool = member.directory == workspace().join("bench");
        let may = match floor {
            Some(may) => may,
            // A component contains the routing only; the hub is the host of native tests.
            None if member.name == "tidegate" => &["tidegate-routing", "tidegate-hub"],
            None if is_tool => &["tidegate-hub", "tidegate-edge", "tidegate-disk"],
            None => &["tidegate"],
        };
        let wrong: Vec<&String> = member
            .dependencies
            .iter()
            .filter(|it| ours.contains(it.as_str()) && !may.contains(&it.as_str()))
            .collect();
        assert!(
            wrong.is_empty(),
            "{} may import {may:?} of the workspace, and imports {wrong:?} as well",
            member.name
        );
    }
}

#[test]
fn a_heavy_dependency_has_one_owner() {
    for member in members()
        .iter()
        .filter(|member| !member.directory.starts_with(workspace().join("bench")))
    {
        for name in &member.dependencies {
            let owner = OWNERS
                .iter()
                .find(|(pattern, _)| is_like(pattern, name))
                .map(|(_, owner)| *owner);
            assert!(
                owner.is_none_or(|owner| owner == member.name),
                "{} imports {name}, which is {owner:?}'s alone",
                member.name
            );
        }
        let beyond: Vec<&String> = member
            .dependencies
            .iter()
            .filter(|name| !HUB_MAY_USE.contains(&name.as_str()))
            .collect();
        assert!(
            member.name != "tidegate-hub" || beyond.is_empty(),
            "the hub imports {beyond:?}"
        );
        assert!(
            member.name != "tidegate-routing" || member.dependencies.is_empty(),
            "routing imports {:?}",
            member.dependencies
        );
    }
}

#[test]
fn a_component_contains_routing_and_no_other_crate_of_the_host() {
    let all = built_for("tidegate", &[]);
    let guest = built_for("tidegate", &["--target", "wasm32-wasip2"]);
    assert!(
        guest.contains("tidegate-routing"),
        "a component routes as the host does: {guest:?}"
    );
    for name in NOT_IN_GUESTS {
        assert!(
            all.contains(name),
            "{name} is in native tests of apps, or was renamed: name it here too"
        );
        assert!(!guest.contains(name), "a component contains {name}");
    }
}

/// Names of all crates that a package is built with, for this machine or for the target that the
/// arguments name.
fn built_for(package: &str, arguments: &[&str]) -> BTreeSet<String> {
    let output = Command::new(env!("CARGO"))
        .args(["tree", "--offline", "--locked", "--edges", "normal"])
        .args(["--prefix", "none", "--format", "{p}", "--package", package])
        .args(arguments)
        .current_dir(workspace())
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout)
        .lines()
        .filter_map(|line| line.split(' ').next())
        .map(str::to_owned)
        .collect()
}

#[test]
fn the_hub_never_reads_a_clock_a_file_a_socket_or_the_environment() {
    let of_std = [
        "Instant::now",
        "SystemTime::now",
        ".elapsed()",
        "std::fs",
        "std::net",
        "std::env",
        "std::process",
        "std::thread",
    ];
    // Its channels and locks need no runtime, so the hub may use them.
    let of_tokio = [
        "tokio::{",
        "tokio::time",
        "tokio::net",
        "tokio::fs",
        "tokio::io",
        "tokio::task",
        "tokio::spawn",
        "tokio::runtime",
    ];
    let outside = [&of_std[..], &of_tokio].concat();
    let core = ["tidegate-routing", "tidegate-hub"];
    for source in core.into_iter().flat_map(sources) {
        let code = source.code();
        for name in &outside {
            assert!(
                !mentions(&code, name),
                "{} uses {name}",
                source.path.display()
            );
        }
    }
}

/// Returns true if code names this path, also in a nested `use std::{fs, ..}`.
fn mentions(code: &str, name: &str) -> bool {
    let nested = name.strip_prefix("std::").is_some_and(|module| {
        code.split("use std::{").skip(1).any(|rest| {
            let group = rest.split(';').next().unwrap_or_default();
            words(group).any(|word| word == module)
        })
    });
    code.contains(name) || nested
}

#[test]
fn only_the_command_reads_arguments_and_environment() {
    for (name, _) in FLOORS.iter().filter(|(name, _)| *name != "tidegate-cli") {
        for source in sources(name) {
            let code = source.code();
            let reads = ["env::args", "env::var"]
                .into_iter()
                .find(|reads| code.contains(reads));
            assert_eq!(reads, None, "{}", source.path.display());
        }
    }
}

#[test]
fn every_source_file_opens_with_a_doc_comment() {
    let root = workspace();
    let mut files = Vec::new();
    for dir in ["host", "guest-sdk", "examples", "bench", "tests"] {
        collect(&root.join(dir), &mut files);
    }
    assert!(files.len() > 30);
    for path in files {
        let text = fs::read_to_string(&path).unwrap();
        let summary = text
            .lines()
            .next()
            .and_then(|line| line.strip_prefix("//! "));
        assert!(
            summary.is_some_and(|summary| summary.len() > 5),
            "{} does not open with `//!` and a sentence",
            path.display()
        );
    }
}

#[test]
fn no_module_of_a_crate_is_part_of_a_cycle() {
    let host = workspace().join("host");
    for member in members()
        .iter()
        .filter(|member| member.directory.starts_with(&host) || member.name == "tidegate")
    {
        let graph = graph(&sources_in(&member.directory));
        let tied: BTreeSet<&str> = cycles(&graph).into_iter().flatten().collect();
        let imports = |module: &&str| {
            graph[*module]
                .iter()
                .filter(|other| tied.contains(other.as_str()))
                .collect::<Vec<_>>()
        };
        let list: String = tied
            .iter()
            .map(|module| format!("  {module} imports {:?}\n", imports(module)))
            .collect();
        assert!(
            tied.is_empty(),
            "{}: modules import each other\n{list}",
            member.name
        );
    }
}

/// Lists the names that several types may have: `mirror NAME` for one concept in the SDK and in a
/// crate of the host, `pair NAME` for the two sides of the SDK's world, `homonym NAME COUNT` for a
/// name with COUNT meanings that still has to be split.
const TYPE_NAMES: &str = include_str!("type_names.txt");

/// Types at the top level of a module, as the names and the files that define them. Guests, tools
/// and tests are programs of their own.
fn type_names() -> BTreeMap<String, BTreeSet<PathBuf>> {
    let mut names: BTreeMap<String, BTreeSet<PathBuf>> = BTreeMap::new();
    let host = workspace().join("host");
    for member in members() {
        let is_guest = member
            .directory
            .components()
            .any(|part| part.as_os_str() == "tests");
        if is_guest || !(member.directory.starts_with(&host) || member.name == "tidegate") {
            continue;
        }
        for source in sources_in(&member.directory) {
            for name in source.code().lines().filter_map(type_name) {
                let path = source.path.strip_prefix(workspace()).unwrap().to_owned();
                names.entry(name.to_owned()).or_default().insert(path);
            }
        }
    }
    names
}

/// Name of the type that a line without indentation defines.
fn type_name(line: &str) -> Option<&str> {
    let line = match line.strip_prefix("pub") {
        Some(rest) => rest.trim_start_matches(|c| c != ' ').trim_start(),
        None => line,
    };
    ["struct ", "enum ", "trait ", "type ", "union "]
        .into_iter()
        .find_map(|keyword| line.strip_prefix(keyword))
        .and_then(|rest| words(rest).next())
}

#[test]
fn a_type_name_has_one_meaning() {
    // Number of definitions that a name may have.
    let mut allowed: BTreeMap<&str, usize> = BTreeMap::new();
    for line in TYPE_NAMES.lines().filter(|line| !line.starts_with('#')) {
        let mut fields = line.split_whitespace();
        match (fields.next(), fields.next(), fields.next()) {
            (Some("mirror" | "pair"), Some(name), _) => {
                *allowed.entry(name).or_insert(1) += 1;
            }
            (Some("homonym"), Some(name), Some(count)) => {
                *allowed.entry(name).or_insert(1) += count.parse::<usize>().unwrap() - 1;
            }
            _ => assert!(line.is_empty(), "type_names.txt: {line}"),
        }
    }
    let names = type_names();
    assert!(names.len() > 200, "the crates moved: name them here too");
    let new: String = names
        .iter()
        .filter(|(name, files)| files.len() > *allowed.get(name.as_str()).unwrap_or(&1))
        .map(|(name, files)| format!("  {name}: {files:?}\n"))
        .collect();
    assert!(
        new.is_empty(),
        "rename a type, or list a mirror in tests/type_names.txt:\n{new}"
    );
}

/// One source file, and the path of its module.
struct Source {
    path: PathBuf,
    /// The module's path, as in "outbox" or "command::serve"; empty for the root.
    module: String,
    text: String,
}

impl Source {
    /// Returns the text without comments and without the tests, which stand at the end or in a
    /// `tests.rs`.
    fn code(&self) -> String {
        if self.path.ends_with("tests.rs") {
            return String::new();
        }
        let code = self
            .text
            .split("\n#[cfg(test)]\nmod tests {")
            .next()
            .unwrap_or_default();
        code.lines()
            .filter(|line| !line.trim_start().starts_with("//"))
            .map(|line| format!("{line}\n"))
            .collect()
    }
}

fn sources(package: &str) -> Vec<Source> {
    members()
        .iter()
        .find(|member| member.name == package)
        .map(|member| sources_in(&member.directory))
        .unwrap_or_default()
}

fn sources_in(directory: &Path) -> Vec<Source> {
    let root = directory.join("src");
    let mut files = Vec::new();
    collect(&root, &mut files);
    let source = |path: PathBuf| {
        let relative = path.strip_prefix(&root).unwrap().with_extension("");
        let steps: Vec<String> = relative
            .iter()
            .map(|step| step.to_str().unwrap().to_owned())
            .collect();
        let module = steps.join("::");
        let module = module.strip_suffix("::mod").unwrap_or(&module).to_owned();
        let module = if module == "lib" || module == "main" {
            String::new()
        } else {
            module
        };
        Source {
            text: fs::read_to_string(&path).unwrap(),
            path,
            module,
        }
    };
    files.into_iter().map(source).collect()
}

fn collect(directory: &Path, files: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(directory) else {
        return;
    };
    for entry in entries.map(Result::unwrap) {
        let (path, name) = (entry.path(), entry.file_name());
        if path.is_dir() && name != "target" && !name.to_string_lossy().starts_with('.') {
            collect(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs")
            && name != "bindings.rs"
        {
            files.push(path);
        }
    }
    files.sort();
}

/// Returns the imports of each module of a crate. A name that the root re-exports belongs to its
/// own module.
fn graph(sources: &[Source]) -> BTreeMap<String, BTreeSet<String>> {
    let modules: BTreeSet<&str> = sources
        .iter()
        .map(|source| source.module.as_str())
        .filter(|module| !module.is_empty())
        .collect();
    let root = sources
        .iter()
        .find(|source| source.module.is_empty())
        .map(Source::code)
        .unwrap_or_default();
    let mut homes: BTreeMap<String, String> = BTreeMap::new();
    for tree in root
        .split("pub use ")
        .chain(root.split("pub(crate) use "))
        .skip(1)
    {
        for path in flatten(tree.split(';').next().unwrap_or_default()) {
            if let (Some(module), Some(name)) = (path.first(), path.last()) {
                homes.insert(name.clone(), module.clone());
            }
        }
    }
    let mut graph = BTreeMap::new();
    for source in sources.iter().filter(|source| !source.module.is_empty()) {
        let imports = paths(&source.code()).into_iter().filter_map(|path| {
            let longest = (1..=path.len())
                .rev()
                .map(|length| path[..length].join("::"))
                .find(|module| modules.contains(module.as_str()));
            longest.or_else(|| homes.get(path.first()?).cloned())
        });
        // A module and the modules inside it count as one for the others.
        let is_inside = |module: &String| {
            *module == source.module || source.module.starts_with(&format!("{module}::"))
        };
        graph.insert(
            source.module.clone(),
            imports.filter(|module| !is_inside(module)).collect(),
        );
    }
    graph
}

/// Returns every path that follows a `crate::`.
fn paths(code: &str) -> Vec<Vec<String>> {
    code.split("crate::").skip(1).flat_map(flatten).collect()
}

/// Splits the use tree at the beginning of a text: `a::{b, c::d}` is `a::b` and `a::c::d`.
fn flatten(tree: &str) -> Vec<Vec<String>> {
    let tree = tree.trim_start();
    if let Some(group) = tree.strip_prefix('{') {
        return split_group(group).into_iter().flat_map(flatten).collect();
    }
    let name: String = tree
        .chars()
        .take_while(|c| c.is_alphanumeric() || *c == '_')
        .collect();
    if name.is_empty() || name == "self" {
        return Vec::new();
    }
    match tree[name.len()..].strip_prefix("::").map(flatten) {
        Some(below) if !below.is_empty() => below
            .into_iter()
            .map(|path| [vec![name.clone()], path].concat())
            .collect(),
        _ => vec![vec![name]],
    }
}

/// Returns the items of a group, up to the brace that closes it.
fn split_group(group: &str) -> Vec<&str> {
    let (mut depth, mut start, mut parts) = (0, 0, Vec::new());
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => {
                parts.push(&group[start..at]);
                break;
            }
            '}' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(&group[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    parts
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !c.is_alphanumeric() && c != '_')
}

/// Returns the groups of modules that reach each other.
fn cycles(graph: &BTreeMap<String, BTreeSet<String>>) -> BTreeSet<BTreeSet<&str>> {
    let reach: BTreeMap<&str, BTreeSet<&str>> = graph
        .keys()
        .map(|module| (module.as_str(), reached(graph, module)))
        .collect();
    let leads = |from: &str, to: &str| reach.get(from).is_some_and(|reached| reached.contains(to));
    let group = |module: &str| -> BTreeSet<&str> {
        reach[module]
            .iter()
            .copied()
            .filter(|other| leads(other, module))
            .collect()
    };
    reach
        .keys()
        .map(|module| group(module))
        .filter(|group| !group.is_empty())
        .collect()
}

fn reached<'a>(graph: &'a BTreeMap<String, BTreeSet<String>>, from: &str) -> BTreeSet<&'a str> {
    let (mut seen, mut next) = (BTreeSet::new(), Vec::from_iter(&graph[from]));
    while let Some(module) = next.pop() {
        if seen.insert(module.as_str()) {
            next.extend(graph.get(module).into_iter().flatten());
        }
    }
    seen
}

#[test]
fn imports_are_parsed_and_cycles_are_found() {
    let code = "use crate::{A, b::{C, d::E}, f};\nlet x = crate::g::h();\n";
    let paths: Vec<String> = paths(code).iter().map(|path| path.join("::")).collect();
    assert_eq!(paths, ["A", "b::C", "b::d::E", "f", "g::h"]);
    assert!(
        mentions("use std::{\n    env,\n    io,\n};", "std::env")
            && !mentions("use std::{fmt};", "std::env")
    );
    let graph = |edges: &[(&str, &str)]| {
        let mut graph: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for (from, to) in edges {
            graph
                .entry(from.to_string())
                .or_default()
                .insert(to.to_string());
        }
        graph
    };
    assert_eq!(
        cycles(&graph(&[("a", "b"), ("b", "c"), ("a", "c")])),
        BTreeSet::new()
    );
    assert_eq!(
        cycles(&graph(&[("b", "a"), ("a", "b"), ("c", "a")])),
        BTreeSet::from([BTreeSet::from(["a", "b"])])
    );
}
