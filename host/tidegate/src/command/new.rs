//! `tidegate new`: creates a project from the templates in this binary.

use crate::{args::NewArgs, command_error::CommandError, template};
use anyhow::Context as _;
use std::{fs, path::Path};

/// Names that Cargo refuses for a crate, or that would shadow a dependency of every app.
const TAKEN: [&str; 10] = [
    "tidegate",
    "core",
    "std",
    "alloc",
    "test",
    "proc_macro",
    "serde",
    "serde_json",
    "crate",
    "self",
];

/// Writes the project, completely or not at all, and prints the next steps.
pub(crate) fn run(args: &NewArgs) -> Result<(), CommandError> {
    let name = args
        .path
        .file_name()
        .and_then(|name| name.to_str())
        .unwrap_or_default();
    check(name).map_err(|why| {
        CommandError::usage(format!(
            "{} can't be the name of a crate: {why}",
            args.path.display()
        ))
    })?;
    if args.path.exists() {
        return Err(CommandError::usage(format!(
            "{} exists already: choose another name",
            args.path.display()
        )));
    }
    let beside = args.path.with_file_name(format!(".{name}.new"));
    let made =
        make(args, name, &beside).with_context(|| format!("can't write {}", args.path.display()));
    if made.is_err() {
        _ = fs::remove_dir_all(&beside);
    }
    made?;
    let page = args.template.page();
    super::print(&format!(
        "{} is ready:\n\n  cd {}\n  tidegate dev    # then open http://127.0.0.1:8080{page}, and change src/lib.rs\n  cargo test\n",
        args.path.display(),
        args.path.display()
    ))
}

fn make(args: &NewArgs, name: &str, beside: &Path) -> std::io::Result<()> {
    match fs::remove_dir_all(beside) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        _ => fs::create_dir_all(beside)?,
    }
    template::write(args.template, name, beside)?;
    fs::rename(beside, &args.path)
}

/// Checks a name by the rules of Cargo and of the Component Model.
fn check(name: &str) -> Result<(), String> {
    let taken = TAKEN.contains(&name.replace('-', "_").as_str());
    let words_begin = |name: &str| {
        name.split(['-', '_'])
            .all(|word| word.starts_with(|first: char| first.is_ascii_lowercase()))
    };
    let stray = name.chars().find(|char| {
        !char.is_ascii_lowercase() && !char.is_ascii_digit() && !['-', '_'].contains(char)
    });
    match stray {
        _ if name.is_empty() => Err("it is empty".into()),
        _ if taken => Err("it is the name of a crate that every app uses".into()),
        Some(stray) => Err(format!(
            "it contains {stray:?}; use lower-case letters, digits, - and _"
        )),
        None if !words_begin(name) => Err("each of its words must begin with a letter".into()),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::check;

    #[test]
    fn a_name_follows_the_rules_of_cargo_and_components() {
        for good in ["chat", "my-app", "my_app2", "a"] {
            assert_eq!(check(good), Ok(()), "{good}");
        }
        for bad in [
            "",
            "Chat",
            "2fast",
            "my--app",
            "a-2",
            "a.b",
            "naïve",
            "test",
            "tidegate",
            "serde-json",
            "-a",
            "a b",
        ] {
            assert!(check(bad).is_err(), "{bad:?}");
        }
    }
}
