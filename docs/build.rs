//! Takes the Rust out of the guide: each block of each page becomes a module, so that it is compiled, and its tests are run.

use std::{
    env, fs, io,
    path::{Path, PathBuf},
};

fn main() -> io::Result<()> {
    let root = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("Cargo sets it"));
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("Cargo sets it"));
    println!("cargo::rerun-if-changed=src");
    let mut pages = Vec::new();
    collect(&root.join("src"), &mut pages)?;
    pages.sort();
    let mut modules = String::new();
    for page in pages {
        let within = page
            .strip_prefix(root.join("src"))
            .expect("it is below it")
            .with_extension("");
        let name = within
            .to_string_lossy()
            .replace(['/', '-'], "_")
            .to_lowercase();
        for (index, (line, block)) in blocks(&fs::read_to_string(&page)?).into_iter().enumerate() {
            let file = out.join(format!("{name}_{index}.rs"));
            let number = line + 1;
            fs::write(
                &file,
                format!("// {}.md, line {number}\n{block}", within.display()),
            )?;
            modules += &format!(
                "#[path = {:?}]\nmod {name}_{index};\n",
                file.display().to_string()
            );
        }
    }
    fs::write(out.join("modules.rs"), modules)
}

/// The Rust of a page, each with the index of the line before it. As in rustdoc, what begins with `# ` is compiled and not shown.
fn blocks(page: &str) -> Vec<(usize, String)> {
    let (mut blocks, mut within) = (Vec::new(), None);
    for (index, line) in page.lines().enumerate() {
        match (&mut within, line) {
            (None, line) if line == "```rust" || line.starts_with("```rust,") => {
                within = Some((index, String::new()))
            }
            (None, _) => {}
            (Some(_), "```") => blocks.extend(within.take()),
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
