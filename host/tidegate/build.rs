//! Embeds the files that `tidegate new` writes: the sources of the SDK, and the examples that serve
//! as templates.

use std::{
    env,
    fmt::Write as _,
    fs, io,
    path::{Path, PathBuf},
};

/// Paths that a crate needs to build against the SDK, without tests.
const SDK: [&str; 7] = [
    "guest-sdk/Cargo.toml",
    "guest-sdk/src",
    "host/hub/Cargo.toml",
    "host/hub/src",
    "host/routing/Cargo.toml",
    "host/routing/src",
    "wit",
];
const EXAMPLES: [&str; 4] = ["hello", "echo", "chat", "ticker"];

fn main() -> io::Result<()> {
    let root = PathBuf::from(env::var("CARGO_MANIFEST_DIR").expect("Cargo sets it"))
        .join("../..")
        .canonicalize()?;
    let examples = EXAMPLES.iter().flat_map(|name| {
        ["src", "assets", "conversations.toml"].map(|part| format!("examples/{name}/{part}"))
    });
    let mut code = String::new();
    list(&root, "SDK", SDK.into_iter().map(str::to_owned), &mut code)?;
    list(&root, "EXAMPLES", examples, &mut code)?;
    list(
        &root,
        "WORKSPACE",
        ["Cargo.toml".to_owned()].into_iter(),
        &mut code,
    )?;
    // The versions that were tested, and that the machine may have already.
    list(
        &root,
        "VERSIONS",
        ["rust-toolchain.toml", "Cargo.lock"]
            .into_iter()
            .map(str::to_owned),
        &mut code,
    )?;
    fs::write(
        Path::new(&env::var("OUT_DIR").expect("Cargo sets it")).join("embedded.rs"),
        code,
    )
}

/// Writes a constant with the names and contents of all files below these paths.
fn list(
    root: &Path,
    name: &str,
    paths: impl Iterator<Item = String>,
    code: &mut String,
) -> io::Result<()> {
    _ = writeln!(code, "pub(crate) const {name}: &[(&str, &[u8])] = &[");
    for path in paths {
        // Relative to this package, as are the includes below: a target directory that several
        // clones share would otherwise take the files of another clone.
        println!("cargo::rerun-if-changed=../../{path}");
        let mut files = Vec::new();
        collect(&root.join(&path), &mut files)?;
        files.sort();
        for file in files {
            let within = file.strip_prefix(root).expect("it is below the root");
            _ = writeln!(
                code,
                "    ({:?}, include_bytes!(concat!(env!(\"CARGO_MANIFEST_DIR\"), {:?}))),",
                within.display().to_string(),
                format!("/../../{}", within.display())
            );
        }
    }
    code.push_str("];\n");
    Ok(())
}

fn collect(path: &Path, files: &mut Vec<PathBuf>) -> io::Result<()> {
    if path.is_file() {
        files.push(path.to_owned());
        return Ok(());
    }
    for entry in fs::read_dir(path)? {
        collect(&entry?.path(), files)?;
    }
    Ok(())
}
