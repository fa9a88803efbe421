//! Why a data directory can't be used, and what to do about it.

use std::{
    fmt, io,
    path::{Path, PathBuf},
};

/// Why the storage was not opened. Each is one line that names the directory.
#[derive(Debug)]
pub struct OpenError {
    directory: PathBuf,
    why: Why,
}

#[derive(Debug)]
pub(crate) enum Why {
    /// It can't be made, or others may read it.
    Directory(io::Error),
    /// Another process has it.
    Locked,
    /// Another version of this host wrote it.
    Format(String),
    /// It can't be read or written.
    Io(io::Error),
    /// What is in it is not what was written.
    Corrupt(String),
    /// Something is there already.
    Exists,
}

impl OpenError {
    pub(crate) fn new(directory: &Path, why: Why) -> OpenError {
        OpenError { directory: directory.to_owned(), why }
    }

    /// Whether another process has the directory open.
    pub fn is_locked(&self) -> bool {
        matches!(self.why, Why::Locked)
    }

    /// Of the store's own errors.
    pub(crate) fn of_store(directory: &Path, error: fjall::Error) -> OpenError {
        let why = match error {
            fjall::Error::Locked => Why::Locked,
            fjall::Error::Io(error) => Why::Io(error),
            fjall::Error::InvalidVersion(version) => Why::Format(format!("{version:?}")),
            other => Why::Corrupt(other.to_string()),
        };
        OpenError::new(directory, why)
    }
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let directory = self.directory.display();
        match &self.why {
            Why::Directory(error) => write!(f, "can't use {directory} for the data of rooms: {error}; name another with --data"),
            Why::Locked => write!(f, "another process has {directory} open: stop it, or name another directory with --data"),
            Why::Format(found) => {
                write!(f, "{directory} was written by another version of tidegate (format {found}): use that version, or another directory")
            }
            Why::Io(error) => write!(f, "can't read or write {directory}: {error}"),
            Why::Corrupt(text) => write!(f, "{directory} is damaged: {text}; restore a backup, or move it away to begin anew"),
            Why::Exists => write!(f, "{directory} exists already: name a directory that does not"),
        }
    }
}

impl std::error::Error for OpenError {}
