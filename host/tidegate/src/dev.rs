//! Parts of `tidegate dev`: the project and its files, the keyboard, and updates of open pages.

mod keys;
mod project;
mod tree;
mod updates;
mod watch;

pub(crate) use keys::Keys;
pub(crate) use project::{Build, Project};
pub(crate) use tree::{FileKind, ProjectPaths};
pub(crate) use updates::DevUpdates;
pub(crate) use watch::FileWatcher;
