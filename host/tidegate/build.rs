//! Puts into the binary what `tidegate new` writes: the SDK's sources, and the examples that are templates.

use std::{
    env,
    fmt::Write as _,
    fs, io,
    path::{Path, PathBuf},
};

/// What a crate needs to build against the SDK, without tests.
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
    // The versions that this was tested with, and that this machine may have already.
    list(
        &root,
        "VERSIONS",
        ["rust-toolchain.toml", "Cargo.lock"]
            .into_iter()
            .map(str::to_owned),
        &mut code,
    )?;
    fs::write(
        Path::new(&env::var("OUT_DIR").expect("Cargo sets it")).join("carried.rs"),
        code,
    )
}

/// A constant of names and contents of all files below these paths.
fn list(
    root: &Path,
    name: &str,
    paths: impl Iterator<Item = String>,
    code: &mut String,
) -> io::Result<()> {
    _ = writeln!(code, "pub(crate) const {name}: &[(&str, &[u8])] = &[");
    for path in paths {
        println!("cargo::rerun-if-changed={}", root.join(&path).display());
        let mut files = Vec::new();
        collect(&root.join(&path), &mut files)?;
        files.sort();
        for file in files {
            let within = file.strip_prefix(root).expect("it is below the root");
            _ = writeln!(
                code,
                "    ({:?}, include_bytes!({:?})),",
                within.display().to_string(),
                file.display().to_string()
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
