//! The project that `tidegate new` writes: an example, the files around it, and the SDK of this
//! binary's version.

use clap::ValueEnum;
use std::{fs, io, path::Path};

mod embedded {
    include!(concat!(env!("OUT_DIR"), "/embedded.rs"));
}

/// A template of an app.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Template {
    /// HTTP: text, a path parameter, JSON
    Hello,
    /// A WebSocket that returns each message
    Echo,
    /// Rooms with a history and a list of present members
    Chat,
    /// Server-Sent Events: a shared feed, and an endless response
    Feed,
}

impl Template {
    /// Returns the name of the example.
    fn example(self) -> &'static str {
        match self {
            Template::Hello => "hello",
            Template::Echo => "echo",
            Template::Chat => "chat",
            Template::Feed => "ticker",
        }
    }

    /// Returns the path of its page.
    pub(crate) fn page(self) -> &'static str {
        match self {
            Template::Hello => "/index.html",
            _ => "/",
        }
    }
}

/// The files around the example. Words in braces are replaced.
const PROJECT: [(&str, &str); 7] = [
    ("Cargo.toml", include_str!("../templates/Cargo.toml")),
    (".gitignore", include_str!("../templates/gitignore")),
    (".dockerignore", include_str!("../templates/dockerignore")),
    ("tidegate.toml", include_str!("../templates/tidegate.toml")),
    ("Dockerfile", include_str!("../templates/Dockerfile")),
    ("flake.nix", include_str!("../templates/flake.nix")),
    ("README.md", include_str!("../templates/README.md")),
];

/// Writes a project to an existing, empty directory. `name` is the name of the crate.
pub(crate) fn write(template: Template, name: &str, to: &Path) -> io::Result<()> {
    let words = [
        ("{name}", name.to_owned()),
        ("{package}", name.replace('_', "-")),
        ("{crate}", name.replace('-', "_")),
        ("{page}", template.page().to_owned()),
        ("{version}", env!("CARGO_PKG_VERSION").to_owned()),
    ];
    for (path, text) in PROJECT {
        let text = words.iter().fold(text.to_owned(), |text, (word, with)| {
            text.replace(word, with)
        });
        put(&to.join(path), text.as_bytes())?;
    }
    let example = format!("examples/{}/", template.example());
    for (path, bytes) in embedded::EXAMPLES {
        if let Some(path) = path.strip_prefix(&example) {
            put(&to.join(path), bytes)?;
        }
    }
    for (path, bytes) in embedded::VERSIONS {
        put(&to.join(path), bytes)?;
    }
    let vendor = to.join("vendor/tidegate");
    for (path, bytes) in embedded::SDK {
        put(&vendor.join(path), bytes)?;
    }
    put(&vendor.join("Cargo.toml"), sdk_workspace().as_bytes())
}

/// Returns the Cargo.toml of Tidegate's workspace, with only the members that the project contains.
fn sdk_workspace() -> String {
    let [(_, text)] = embedded::WORKSPACE else {
        unreachable!("one file is one entry")
    };
    let text = String::from_utf8_lossy(text);
    let members = text
        .find("members = [")
        .zip(text.find("[workspace.package]"));
    let (begin, end) = members.expect("the workspace lists its members first");
    format!(
        "{}members = [\"guest-sdk\", \"host/hub\", \"host/routing\"]\n\n{}",
        &text[..begin],
        &text[end..]
    )
}

fn put(path: &Path, bytes: &[u8]) -> io::Result<()> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    fs::write(path, bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_template_is_complete_and_has_no_word_left_in_braces() {
        for template in Template::value_variants() {
            let dir = tempfile::tempdir().unwrap();
            write(*template, "my_app", dir.path()).unwrap();
            for path in [
                "src/lib.rs",
                "conversations.toml",
                "assets/index.html",
                "vendor/tidegate/guest-sdk/src/lib.rs",
                "vendor/tidegate/wit/world.wit",
            ] {
                assert!(
                    dir.path().join(path).is_file(),
                    "{template:?} has no {path}"
                );
            }
            for (path, _) in PROJECT {
                let text = fs::read_to_string(dir.path().join(path)).unwrap();
                for word in ["{name}", "{package}", "{crate}", "{page}", "{version}"] {
                    assert!(!text.contains(word), "{template:?} {path}: {word}");
                }
            }
        }
    }
}
