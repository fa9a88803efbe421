//! What `tidegate dev` is made of: the project that it builds, its files, the terminal, and the news for open pages.

mod keys;
mod news;
mod project;
mod tree;
mod watch;

pub(crate) use keys::Keys;
pub(crate) use news::News;
pub(crate) use project::{Built, Project};
pub(crate) use tree::{Kind, Places};
pub(crate) use watch::Watch;
