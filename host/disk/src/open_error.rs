//! Why a data directory can't be used, and what to do about it.

use rustix::io::Errno;
use std::{
    fmt,
    io::{self, ErrorKind},
    path::{Path, PathBuf},
};
use tidegate_hub::EngineError;

/// Errors of a disk that may be well again, and of a lack of space, memory or descriptors: a server
/// waits for their end.
const PASSING: [Errno; 11] = [
    Errno::IO,
    Errno::NOSPC,
    Errno::DQUOT,
    Errno::FBIG,
    Errno::MFILE,
    Errno::NFILE,
    Errno::NOMEM,
    Errno::AGAIN,
    Errno::INTR,
    Errno::TIMEDOUT,
    Errno::STALE,
];

/// Why the storage was not opened. Each is one line that names the directory.
#[derive(Debug)]
pub struct OpenError {
    directory: PathBuf,
    why: Why,
}

#[derive(Debug)]
pub(crate) enum Why {
    /// It can't be made, or others may write there.
    Directory(io::Error),
    /// There is no store in it, and none may be made.
    Missing,
    /// There are files in it, such as this one, and no store.
    Foreign(String),
    /// It is a backup that was not finished.
    Incomplete,
    /// The target of a backup is in the directory that is backed up.
    Inside,
    /// Another process has it.
    Locked,
    /// Another version of this host wrote it.
    Format(String),
    /// It can't be read or written.
    Io(io::Error),
    /// The disk is full, or could not be read or written by the store.
    Disk(EngineError),
    /// Its content differs from what was written.
    Corrupt(String),
    /// Something is there already.
    Exists,
    /// Something that is no unfinished backup is where one is made.
    InTheWay,
    /// The copy is not what it should be.
    Unverified(String),
}

impl OpenError {
    pub(crate) fn new(directory: &Path, why: Why) -> OpenError {
        OpenError {
            directory: directory.to_owned(),
            why,
        }
    }

    /// Whether another process has the directory open.
    pub fn is_locked(&self) -> bool {
        matches!(self.why, Why::Locked)
    }

    /// Returns true if a later try may succeed without anything that an operator does to the
    /// directory.
    pub(crate) fn is_passing(&self) -> bool {
        match &self.why {
            Why::Directory(error) | Why::Io(error) => {
                Errno::from_io_error(error).is_some_and(|error| PASSING.contains(&error))
            }
            Why::Disk(_) => true,
            _ => false,
        }
    }

    /// Converts an error that the storage engine returned.
    pub(crate) fn of_engine(directory: &Path, error: EngineError) -> OpenError {
        let why = match error {
            EngineError::Corrupt(text) => Why::Corrupt(text),
            other => Why::Disk(other),
        };
        OpenError::new(directory, why)
    }

    /// Converts an error of a read or write of a part of the store.
    pub(crate) fn of_part(directory: &Path, error: io::Error) -> OpenError {
        let why = match error.kind() {
            ErrorKind::NotFound => Why::Corrupt("a part of it is gone".into()),
            ErrorKind::InvalidData | ErrorKind::UnexpectedEof => Why::Corrupt(error.to_string()),
            _ => Why::Io(error),
        };
        OpenError::new(directory, why)
    }

    /// Of the store's own errors.
    pub(crate) fn of_store(directory: &Path, error: fjall::Error) -> OpenError {
        let why = match error {
            fjall::Error::Locked => Why::Locked,
            fjall::Error::Io(error) | fjall::Error::Storage(fjall::LsmError::Io(error)) => {
                return OpenError::of_part(directory, error);
            }
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
            Why::Directory(error) => write!(
                f,
                "can't use {directory} for the data of rooms: {error}; name another with --data"
            ),
            Why::Missing => {
                write!(
                    f,
                    "there is no directory {directory} with data of rooms: name the one that serve was given with --data"
                )
            }
            Why::Foreign(name) => {
                write!(
                    f,
                    "{directory} has other files, as {name:?}, and no data of rooms: name a new or empty directory with --data"
                )
            }
            Why::Incomplete => write!(
                f,
                "{directory} is a backup that was not finished: delete it, and make another"
            ),
            Why::Inside => write!(
                f,
                "{directory} is in the directory that is to be backed up: name one outside of it"
            ),
            Why::Locked => write!(
                f,
                "another process has {directory} open: stop it, or name another directory with --data"
            ),
            Why::Format(found) => {
                write!(
                    f,
                    "{directory} was written by another version of tidegate (format {found}): use that version, or another directory"
                )
            }
            Why::Io(error) => write!(f, "can't read or write {directory}: {error}"),
            Why::Disk(error) => write!(f, "can't open {directory}: {error}"),
            Why::Corrupt(text) => write!(
                f,
                "{directory} is damaged: {text}; restore a backup, or move it away to begin anew"
            ),
            Why::Exists => write!(
                f,
                "{directory} exists already: name a directory that does not"
            ),
            Why::InTheWay => write!(f, "{directory} is in the way of the backup: move it away"),
            Why::Unverified(text) => {
                write!(
                    f,
                    "the copy was not kept, because it is not well: {text}; `tidegate data verify` has the rest"
                )
            }
        }
    }
}

impl std::error::Error for OpenError {}
