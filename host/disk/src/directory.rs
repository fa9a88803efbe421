//! The data directory: the lock that keeps other processes out, and the file that names the current
//! generation of the store.
//!
//! A *generation* is a whole store in a directory of its own, named by a number. The file `current`
//! names the one that counts; it is replaced in one step, so that another generation takes over as
//! a whole or not at all. All others are leftovers of a process that was killed, and are removed.
//!
//! ```text
//! tidegate.lock   locked as long as a process has the directory open
//! current         format of the store, and number of the generation that counts; without this file there is no store
//! 7/              that generation
//! incomplete      only in a backup that has not been finished
//! ```
//!
//! Invariant: nothing is written before it is clear that the directory is a store of this host, or
//! may become one.

use crate::{OpenError, open_error::Why};
use std::{
    fs::{self, DirBuilder, File, OpenOptions, TryLockError},
    io::{self, ErrorKind, Write as _},
    os::unix::fs::{DirBuilderExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

/// Version of the directory format that this host writes. A directory in another format is refused.
/// Format 1 had no generations.
const FORMAT: u64 = 2;
/// Locked as long as a process has the directory open.
const LOCK: &str = "tidegate.lock";
/// Names the generation that counts.
const CURRENT: &str = "current";
/// The next content of [`CURRENT`], before it is renamed.
const CURRENT_NEXT: &str = "current.next";
/// Stands in a backup until it is complete.
const INCOMPLETE: &str = "incomplete";
/// Tries to lock a directory, whose last owner may be about to end, and the time between two of
/// them.
const LOCK_TRIES: usize = 3;
const LOCK_PAUSE: Duration = Duration::from_millis(100);

/// Whether a store may be made where there is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Make {
    /// Only a store that is there is opened.
    Never,
    /// A directory that is new or empty becomes a store.
    IfEmpty,
}

/// A directory that this process has locked.
pub(crate) struct Directory {
    path: PathBuf,
    /// Dropping it gives the directory to others.
    _lock: File,
    /// The generation that counts; none before the first is complete.
    current: Option<u64>,
    /// The highest number that a generation was made for. One whose taking over failed may count
    /// after a crash: it is left alone.
    highest: u64,
}

/// Content of a directory.
enum Content {
    Store,
    /// Nothing, or what is left of a store that was never complete.
    Empty,
    Incomplete,
    /// A store in a format of an earlier version.
    Old,
    Foreign(String),
}

impl Directory {
    /// Locks the directory. It is created, of mode 0700, if there is none and `make` allows it.
    pub(crate) fn open(path: &Path, make: Make) -> Result<Directory, OpenError> {
        let fail = |why| Err(OpenError::new(path, why));
        let content = match look(path) {
            Ok(content) => content,
            Err(error)
                if error.kind() == ErrorKind::NotFound
                    && make == Make::IfEmpty
                    && !path.is_symlink() =>
            {
                create(path).map_err(|error| OpenError::new(path, Why::Directory(error)))?;
                Content::Empty
            }
            Err(error) if error.kind() == ErrorKind::NotFound => return fail(Why::Missing),
            Err(error) => return fail(Why::Directory(error)),
        };
        match (content, make) {
            (Content::Store, _) | (Content::Empty, Make::IfEmpty) => {}
            (Content::Empty, Make::Never) => return fail(Why::Missing),
            (Content::Incomplete, _) => return fail(Why::Incomplete),
            (Content::Old, _) => return fail(Why::Format("1".into())),
            (Content::Foreign(name), _) => return fail(Why::Foreign(name)),
        }
        let lock = lock(path)?;
        let mut directory = Directory {
            path: path.to_owned(),
            _lock: lock,
            current: None,
            highest: 0,
        };
        directory.current = directory.read_current()?;
        directory.highest = directory.current.unwrap_or(0);
        Ok(directory)
    }

    /// A directory for a backup, which is none to anybody else before
    /// [`complete`](Directory::complete).
    pub(crate) fn create_incomplete(path: &Path) -> Result<Directory, OpenError> {
        let made = create(path).and_then(|()| File::create_new(path.join(INCOMPLETE)));
        made.map_err(|error| OpenError::new(path, Why::Io(error)))?;
        Ok(Directory {
            path: path.to_owned(),
            _lock: lock(path)?,
            current: None,
            highest: 0,
        })
    }

    /// The backup is whole.
    pub(crate) fn complete(&self) -> io::Result<()> {
        fs::remove_file(self.path.join(INCOMPLETE))?;
        sync(&self.path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Directory of the generation that counts.
    pub(crate) fn current(&self) -> Option<PathBuf> {
        self.current
            .map(|number| self.path.join(number.to_string()))
    }

    /// Returns the number and the path of the next generation. This process never uses a number
    /// twice. Files that another process left at that path are removed first.
    pub(crate) fn next(&mut self) -> io::Result<(u64, PathBuf)> {
        let number = self.highest + 1;
        let path = self.path.join(number.to_string());
        match fs::remove_dir_all(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        create(&path)?;
        self.highest = number;
        Ok((number, path))
    }

    /// Forgets a first generation whose making failed, so that the next one has its number: a start
    /// takes no other for a leftover. Only for a directory in which no generation counts.
    pub(crate) fn begin_anew(&mut self) -> io::Result<()> {
        self.highest = 0;
        match fs::remove_file(self.path.join(CURRENT)) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            removed => removed.and_then(|()| sync(&self.path)),
        }
    }

    /// From now on this generation counts. Durable when it returns; after an error the one before
    /// it counts, or either of them after a crash of the machine: both have the same content.
    pub(crate) fn set_current(&mut self, number: u64) -> io::Result<()> {
        sync(&self.path.join(number.to_string()))?;
        let next = self.path.join(CURRENT_NEXT);
        let mut file = File::create(&next)?;
        file.write_all(encode(number).as_bytes())?;
        file.sync_all()?;
        fs::rename(&next, self.path.join(CURRENT))?;
        sync(&self.path)?;
        if self.current.is_none() {
            // A directory that was just made has to be found again after a crash, too.
            sync(parent(&self.path))?;
        }
        self.current = Some(number);
        Ok(())
    }

    /// Removes what a process that was killed has left: generations that do not count.
    pub(crate) fn remove_leftovers(&self) {
        let Ok(entries) = fs::read_dir(&self.path) else {
            return;
        };
        for entry in entries.flatten() {
            let number = entry.file_name().to_str().and_then(number);
            if number.is_some_and(|number| Some(number) != self.current)
                && let Err(error) = fs::remove_dir_all(entry.path())
            {
                tracing::warn!(
                    "can't remove the leftover {}: {error}",
                    entry.path().display()
                );
            }
        }
    }

    fn read_current(&self) -> Result<Option<u64>, OpenError> {
        let fail = |why| Err(OpenError::new(&self.path, why));
        match fs::read(self.path.join(CURRENT)) {
            Ok(bytes) => match decode(&bytes) {
                Some((FORMAT, number)) => Ok(Some(number)),
                Some((other, _)) => fail(Why::Format(other.to_string())),
                None => fail(Why::Corrupt(format!("its file {CURRENT:?} can't be read"))),
            },
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => fail(Why::Io(error)),
        }
    }
}

/// Content of [`CURRENT`].
fn encode(number: u64) -> String {
    format!("format {FORMAT}\ngeneration {number}\n")
}

/// Format and generation.
fn decode(bytes: &[u8]) -> Option<(u64, u64)> {
    let lines = std::str::from_utf8(bytes)
        .ok()?
        .strip_prefix("format ")?
        .strip_suffix('\n')?;
    let (format, generation) = lines.split_once("\ngeneration ")?;
    Some((number(format)?, number(generation)?))
}

/// Whether the directory is a backup that was not finished.
pub(crate) fn is_incomplete(path: &Path) -> bool {
    matches!(look(path), Ok(Content::Incomplete))
}

/// Locks a backup that was not finished, so that it can be removed: refused if one still makes it.
pub(crate) fn lock_incomplete(path: &Path) -> Result<File, OpenError> {
    lock(path)
}

/// Makes what was created, renamed or removed in a directory durable.
pub(crate) fn sync(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

/// The directory that has this one.
pub(crate) fn parent(path: &Path) -> &Path {
    path.parent()
        .filter(|parent| !parent.as_os_str().is_empty())
        .unwrap_or(Path::new("."))
}

fn look(path: &Path) -> io::Result<Content> {
    let metadata = fs::metadata(path)?;
    if !metadata.is_dir() {
        return Err(io::Error::new(
            ErrorKind::NotADirectory,
            "it is not a directory",
        ));
    }
    if metadata.permissions().mode() & 0o022 != 0 {
        return Err(io::Error::other("others than its owner may write there"));
    }
    let names = fs::read_dir(path)?
        .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
        .collect::<io::Result<Vec<_>>>()?;
    let has = |name: &str| names.iter().any(|other| other == name);
    // A process that was killed at its first start leaves these files. A file system puts
    // `lost+found` into its root.
    let is_leftover =
        |name: &&String| [LOCK, CURRENT_NEXT, "1", "lost+found"].contains(&name.as_str());
    if has(INCOMPLETE) {
        return Ok(Content::Incomplete);
    }
    if has(CURRENT) && has(LOCK) {
        return Ok(Content::Store);
    }
    if has("version") && has("keyspaces") {
        return Ok(Content::Old);
    }
    let foreign = names
        .iter()
        .find(|name| !is_leftover(name) || name.as_str() == "1" && !has(LOCK));
    Ok(foreign.map_or(Content::Empty, |name| Content::Foreign(name.clone())))
}

fn create(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

fn lock(path: &Path) -> Result<File, OpenError> {
    let io = |error| OpenError::new(path, Why::Io(error));
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(path.join(LOCK))
        .map_err(io)?;
    for left in (0..LOCK_TRIES).rev() {
        match file.try_lock() {
            Ok(()) => break,
            Err(TryLockError::WouldBlock) if left == 0 => {
                return Err(OpenError::new(path, Why::Locked));
            }
            Err(TryLockError::WouldBlock) => thread::sleep(LOCK_PAUSE),
            Err(TryLockError::Error(error)) => return Err(io(error)),
        }
    }
    Ok(file)
}

/// The number of a generation, as it is written.
fn number(name: &str) -> Option<u64> {
    name.parse()
        .ok()
        .filter(|number: &u64| *number > 0 && number.to_string() == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_content_decides_the_kind_of_a_directory() {
        let cases: [(&[&str], &str); 9] = [
            (&[], "empty"),
            (&[LOCK], "empty"),
            (&[LOCK, "1", CURRENT_NEXT], "empty"),
            (&["lost+found"], "empty"),
            (&["1"], "foreign"),
            (&["notes.txt", LOCK], "foreign"),
            (&[LOCK, CURRENT, "7", "notes.txt"], "store"),
            (&[LOCK, CURRENT, "1", INCOMPLETE], "incomplete"),
            (&["version", "keyspaces", "0.jnl", "lock"], "old"),
        ];
        for (names, expected) in cases {
            let dir = tempfile::tempdir().unwrap();
            names
                .iter()
                .for_each(|name| fs::write(dir.path().join(name), "").unwrap());
            let found = match look(dir.path()).unwrap() {
                Content::Store => "store",
                Content::Empty => "empty",
                Content::Incomplete => "incomplete",
                Content::Old => "old",
                Content::Foreign(_) => "foreign",
            };
            assert_eq!(found, expected, "{names:?}");
        }
    }

    #[test]
    fn only_a_complete_file_names_a_generation() {
        assert_eq!(decode(encode(7).as_bytes()), Some((FORMAT, 7)));
        let cases = [
            (
                "format 9\ngeneration 18446744073709551615\n",
                Some((9, u64::MAX)),
            ),
            ("format 2\ngeneration 0\n", None),
            ("format 2\ngeneration 07\n", None),
            ("format 2\ngeneration +7\n", None),
            ("format 2\ngeneration 7", None),
            ("format 2\n", None),
            ("7\n", None),
            ("", None),
        ];
        for (text, expected) in cases {
            assert_eq!(decode(text.as_bytes()), expected, "{text:?}");
        }
        assert_eq!(decode(&[0xff]), None);
    }
}
