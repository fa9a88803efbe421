//! The project's files: tells what kind of file was changed, once the changes have come to rest.

use crate::failure::Failure;
use anyhow::Context as _;
use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher as _};
use std::path::{Path, PathBuf};
use tokio::sync::mpsc::UnboundedSender;

/// Folders whose files are made, not written.
const MADE: [&str; 4] = ["target", "node_modules", "tidegate-data", "tidegate-data.sock"];

/// What has to be done about a changed file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// The app is built again.
    Source,
    /// Settings are read again, and the app is loaded with them.
    Config,
    /// Pages take it in place.
    Style,
    /// Pages are told.
    Asset,
}

/// Tells of changes as long as it lives.
pub(crate) struct Watch {
    _watcher: RecommendedWatcher,
}

/// Which file is of which kind.
#[derive(Clone)]
struct Files {
    dir: PathBuf,
    config: PathBuf,
    assets: Option<PathBuf>,
    data: PathBuf,
}

impl Watch {
    pub(crate) fn new(
        dir: &Path,
        config: PathBuf,
        assets: Option<&Path>,
        data: &Path,
        changed: UnboundedSender<Kind>,
    ) -> Result<Watch, Failure> {
        let real = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_owned());
        let files = Files { dir: dir.to_owned(), config, assets: assets.map(real), data: real(data) };
        let folders = files.folders();
        let tell = move |event: notify::Result<notify::Event>| {
            let Ok(event) = event else { return };
            if matches!(event.kind, EventKind::Create(_) | EventKind::Modify(_) | EventKind::Remove(_)) {
                event.paths.iter().filter_map(|path| files.kind(path)).for_each(|kind| _ = changed.send(kind));
            }
        };
        let mut watcher = notify::recommended_watcher(tell).context("can't watch files")?;
        for (folder, mode) in folders {
            watcher.watch(&folder, mode).with_context(|| format!("can't watch {}", folder.display()))?;
        }
        Ok(Watch { _watcher: watcher })
    }
}

impl Files {
    /// The directory itself, and all below it that is not made; never `target` with its thousands of files.
    fn folders(&self) -> Vec<(PathBuf, RecursiveMode)> {
        let entries = self.dir.read_dir().into_iter().flatten().filter_map(Result::ok).map(|entry| entry.path());
        let below = entries.filter(|path| path.is_dir() && self.kind(path).is_some());
        let elsewhere = self.assets.iter().filter(|assets| !assets.starts_with(&self.dir)).cloned();
        let deep = below.chain(elsewhere).map(|path| (path, RecursiveMode::Recursive));
        deep.chain([(self.dir.clone(), RecursiveMode::NonRecursive)]).collect()
    }

    fn kind(&self, path: &Path) -> Option<Kind> {
        let within = self.assets.as_deref().and_then(|assets| path.strip_prefix(assets).ok());
        let inner = within.or_else(|| path.strip_prefix(&self.dir).ok())?;
        let names = || inner.iter().filter_map(|name| name.to_str());
        // What editors leave for a moment, and what version control keeps.
        let hidden = names().any(|name| name.starts_with('.') || name.ends_with('~') || name == "4913");
        let made = within.is_none() && names().next().is_some_and(|first| MADE.contains(&first)) || path.starts_with(&self.data);
        match within {
            _ if hidden || made => None,
            Some(_) if path.extension().is_some_and(|extension| extension == "css") => Some(Kind::Style),
            Some(_) => Some(Kind::Asset),
            None if path == self.config => Some(Kind::Config),
            None => Some(Kind::Source),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_file_is_of_one_kind_and_what_is_made_of_none() {
        let path = |path: &str| PathBuf::from(format!("/w/app/{path}"));
        let files = Files { dir: "/w/app".into(), config: path("tidegate.toml"), assets: Some(path("assets")), data: path("data") };
        let cases = [
            ("src/lib.rs", Some(Kind::Source)),
            ("Cargo.toml", Some(Kind::Source)),
            ("src/page.css", Some(Kind::Source)),
            ("tidegate.toml", Some(Kind::Config)),
            ("assets/style.css", Some(Kind::Style)),
            ("assets/index.html", Some(Kind::Asset)),
            ("assets/target/x.js", Some(Kind::Asset)),
            ("assets/.index.html.swp", None),
            ("target/wasm32-wasip2/debug/app.wasm", None),
            ("data/0.jnl", None),
            ("tidegate-data.sock", None),
            (".git/index", None),
            ("src/lib.rs~", None),
        ];
        for (file, kind) in cases {
            assert_eq!(files.kind(&path(file)), kind, "{file}");
        }
    }
}
