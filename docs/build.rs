//! Extracts the Rust of the guide and of the repository's README: each block becomes a module, so
//! that it is compiled and its tests run.

use std::{
    env, fs, io,
    path::{Path, PathBuf},
};

fn main() -> io::Result<()> {
    let root = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("Cargo sets it"));
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("Cargo sets it"));
    println!("cargo::rerun-if-changed=src");
    println!("cargo::rerun-if-changed=../README.md");
    let mut pages = Vec::new();
    collect(&root.join("src"), &mut pages)?;
    pages.sort();
    let mut modules = String::new();
    for page in pages {
        let path = page
            .strip_prefix(root.join("src"))
            .expect("collect lists files below src");
        modules += &write_modules(&page, path, &out)?;
    }
    modules += &write_modules(&root.join("../README.md"), Path::new("repository.md"), &out)?;
    fs::write(out.join("modules.rs"), modules)
}

/// Writes each block of a page to a file below `out`, and returns the declarations of its modules.
fn write_modules(page: &Path, path: &Path, out: &Path) -> io::Result<String> {
    let name = path
        .with_extension("")
        .to_string_lossy()
        .replace(['/', '-'], "_")
        .to_lowercase();
    let mut modules = String::new();
    for (index, (line, block)) in blocks(&fs::read_to_string(page)?).into_iter().enumerate() {
        let file = out.join(format!("{name}_{index}.rs"));
        let number = line + 1;
        fs::write(
            &file,
            format!("// {}, line {number}\n{block}", page.display()),
        )?;
        modules += &format!(
            "#[path = {:?}]\nmod {name}_{index};\n",
            file.display().to_string()
        );
    }
    Ok(modules)
}

/// Returns the Rust blocks of a page, each with the index of the line of its fence. As in rustdoc,
/// a line that begins with `# ` is compiled and not shown.
fn blocks(page: &str) -> Vec<(usize, String)> {
    let (mut blocks, mut current) = (Vec::new(), None);
    for (index, line) in page.lines().enumerate() {
        match (&mut current, line) {
            (None, line) if line == "```rust" || line.starts_with("```rust,") => {
                current = Some((index, String::new()))
            }
            (None, _) => {}
            (Some(_), "```") => blocks.extend(current.take()),
            (Some((_, block)), line) => {
                *block += if line == "#" {
                    ""
                } else {
                    line.strip_prefix("# ").unwrap_or(line)
                };
                block.push('\n');
            }
        }
    }
    blocks
}

/// Adds the Markdown files below a folder.
fn collect(folder: &Path, pages: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            collect(&path, pages)?;
        } else if path.extension().is_some_and(|extension| extension == "md") {
            pages.push(path);
        }
    }
    Ok(())
}
