//! Parses the grants of an app: environment variables and directories; also the assets directory.

use std::path::{Path, PathBuf};
use tidegate_wasm::Dir;

/// Parses "NAME=VALUE", or "NAME" for its value in this environment.
pub(crate) fn env(text: &str) -> Result<(String, String), String> {
    let (name, value) = match text.split_once('=') {
        Some((name, value)) => (name, Some(value.to_owned())),
        None => (text, std::env::var(text).ok()),
    };
    if name.is_empty() || text.contains('\0') {
        return Err(format!(
            "{text:?} is not a variable: write \"NAME=VALUE\", or \"NAME\" to pass on its value"
        ));
    }
    let value = value.ok_or_else(|| {
        format!("{name} is not set in this environment: set it, or write \"{name}=VALUE\"")
    })?;
    Ok((name.to_owned(), value))
}

/// Parses "HOST::GUEST" (read only) or "HOST::GUEST::rw" (read and write).
pub(crate) fn dir(text: &str, base: &Path) -> Result<Dir, String> {
    let parts: Vec<&str> = text.split("::").collect();
    let (host, guest, writable) = match parts[..] {
        [host, guest] => (host, guest, false),
        [host, guest, "rw"] => (host, guest, true),
        _ => ("", "", false),
    };
    if host.is_empty() || guest.is_empty() {
        return Err(format!(
            "{text:?} is not a grant of a directory: write \"HOST::GUEST\", or \"HOST::GUEST::rw\" to let the app write"
        ));
    }
    Ok(Dir {
        host: directory(host, base)?,
        guest: guest.to_owned(),
        writable,
    })
}

/// Parses the path of the assets directory, which must exist.
pub(crate) fn assets(text: &str, base: &Path) -> Result<PathBuf, String> {
    directory(text, base)
}

fn directory(text: &str, base: &Path) -> Result<PathBuf, String> {
    let path = base.join(text);
    match std::fs::metadata(&path) {
        Ok(metadata) if metadata.is_dir() => Ok(path),
        Ok(_) => Err(format!("{} is not a directory", path.display())),
        Err(error) => Err(format!(
            "can't read the directory {}: {error}",
            path.display()
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_variable_has_a_name_and_a_value() {
        let pair = |name: &str, value: &str| Some((name.to_owned(), value.to_owned()));
        let cases = [
            ("A=b", pair("A", "b")),
            ("A=b=c", pair("A", "b=c")),
            ("A=", pair("A", "")),
            ("CARGO_PKG_NAME", pair("CARGO_PKG_NAME", "tidegate-cli")),
            ("TIDEGATE_NEVER_SET", None),
            ("=b", None),
            ("", None),
        ];
        for (text, expected) in cases {
            assert_eq!(env(text).ok(), expected, "{text:?}");
        }
    }

    #[test]
    fn a_directory_is_read_only_without_rw() {
        let base = Path::new(env!("CARGO_MANIFEST_DIR"));
        let cases = [
            ("src::/data", Some(false)),
            ("src::/data::rw", Some(true)),
            ("src", None),
            ("src::", None),
            ("::/data", None),
            ("src::/data::ro", None),
            ("nowhere::/data", None),
            ("Cargo.toml::/data", None),
        ];
        for (text, writable) in cases {
            let expected = writable.map(|writable| Dir {
                host: base.join("src"),
                guest: "/data".into(),
                writable,
            });
            assert_eq!(dir(text, base).ok(), expected, "{text:?}");
        }
    }
}
