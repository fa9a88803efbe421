//! Maintenance of the storage by an operator: list, export, delete, verify, back up.

use crate::{
    OpenError, Storage,
    directory::{self, Directory},
    guarded::guarded,
    open_error::Why,
    row::{Row, entry_of, room_key, room_of},
    space::Space,
    tables::Tables,
};
use fjall::Readable as _;
use rustix::{
    fs::{CWD, RenameFlags},
    io::Errno,
};
use std::{
    collections::{HashMap, HashSet},
    ffi::OsStr,
    fmt, fs,
    io::{self, ErrorKind},
    path::Path,
};
use tidegate_hub::{Batch, Engine as _, EngineError, RoomId, RoomRecord};

/// Results of [`Storage::verify`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VerifyReport {
    /// Rooms that keep something.
    pub rooms: usize,
    /// Their entries.
    pub entries: usize,
    /// Bytes of keys and values.
    pub bytes: u64,
    /// Errors, one line each; empty if the storage is intact.
    pub wrong: Vec<String>,
}

impl VerifyReport {
    fn wrong(&mut self, what: impl fmt::Display) {
        self.wrong.push(what.to_string());
    }
}

impl Storage {
    /// A page of rooms in the order of class and name: those of the class, after `after`, at most
    /// `limit`.
    pub fn rooms(
        &self,
        class: Option<&str>,
        after: Option<&RoomId>,
        limit: usize,
    ) -> Result<Vec<(RoomId, RoomRecord)>, EngineError> {
        let prefix = class.map_or_else(Vec::new, |class| [class.as_bytes(), b"\0"].concat());
        let start = after
            .map_or_else(
                || prefix.clone(),
                |after| [&room_key(after)[..], b"\0"].concat(),
            )
            .max(prefix.clone());
        let generation = self.shared.generation()?;
        let rows = guarded(|| {
            let rows = generation
                .tables
                .rooms
                .range(start..)
                .take(limit)
                .map(|guard| guard.into_inner());
            rows.collect::<fjall::Result<Vec<_>>>()
        })?;
        let within = rows
            .into_iter()
            .take_while(|(key, _)| key.starts_with(&prefix));
        within
            .map(|(key, row)| read(&key, &row).map(|(room, row)| (room, row.stored)))
            .collect()
    }

    /// Deletes a room with all that it keeps; whether it was there. Waits until that is durable.
    pub async fn delete(&self, room: &RoomId) -> Result<bool, EngineError> {
        let there = self.row(room)?.is_some();
        if there {
            self.commit(Batch {
                clear: true,
                ..Batch::new(room.clone(), RoomRecord::default())
            })
            .await?;
        }
        Ok(there)
    }

    /// About as many entries as all rooms have: more, if much was overwritten.
    pub fn entries_about(&self) -> usize {
        self.shared
            .generation()
            .map_or(0, |generation| generation.tables.entries.approximate_len())
    }

    /// Reads everything and compares: each block with its checksum, each room's size with its
    /// entries, alarms with rooms. `each` is called with each entry.
    pub fn verify(&self, each: impl FnMut()) -> Result<VerifyReport, EngineError> {
        verify(&self.shared.generation()?.tables, each)
    }

    /// Copies everything as it is at one moment, while commits go on, into a directory that is not
    /// there yet. The copy is made beside it, under the same name with `.incomplete` at its end, is
    /// read again, and only then gets its name. So a copy with its final name is complete.
    /// `each` is called with each row, once for its copy and once for its check.
    pub fn backup(&self, to: &Path, mut each: impl FnMut()) -> Result<(), OpenError> {
        let fail = |why| OpenError::new(to, why);
        let (parent, name) = (
            directory::parent(to),
            to.file_name().ok_or_else(|| fail(Why::Exists))?,
        );
        if to.symlink_metadata().is_ok() {
            return Err(fail(Why::Exists));
        }
        if is_inside(parent, &self.directory).map_err(|error| fail(Why::Io(error)))? {
            return Err(fail(Why::Inside));
        }
        let beside = parent.join([name, OsStr::new(".incomplete")].join(OsStr::new("")));
        clear(&beside)?;
        let made = self.copy(&beside, &mut each).and_then(|()| {
            let named = rename_new(&beside, to).and_then(|()| directory::sync(parent));
            named.map_err(|error| {
                if error.kind() == ErrorKind::AlreadyExists {
                    fail(Why::Exists)
                } else {
                    fail(Why::Io(error))
                }
            })
        });
        made.inspect_err(|_| _ = fs::remove_dir_all(&beside))
    }

    fn copy(&self, to: &Path, mut each: impl FnMut()) -> Result<(), OpenError> {
        let failed = |error| OpenError::of_engine(to, error);
        let generation = self.shared.generation().map_err(failed)?;
        let mut copy = Directory::create_incomplete(to)?;
        let io = |error| OpenError::new(to, Why::Io(error));
        let space = Space::of(to).map_err(io)?;
        let (number, path) = copy.next().map_err(io)?;
        let file_bytes = space.measure().map_err(failed)?.file_bytes();
        let copied = generation
            .copy(&path, file_bytes, &mut each, || space.check_copy(0))
            .map_err(failed)?;
        let verified = verify(&copied.tables, &mut each).map_err(failed)?;
        if let Some(wrong) = verified.wrong.into_iter().next() {
            return Err(OpenError::new(to, Why::Unverified(wrong)));
        }
        drop(copied);
        copy.set_current(number)
            .and_then(|()| copy.complete())
            .map_err(io)
    }
}

/// Whether a path, as far as it is there, leads into the directory.
fn is_inside(path: &Path, directory: &Path) -> io::Result<bool> {
    let directory = directory.canonicalize()?;
    let existing = path
        .ancestors()
        .map(|path| {
            if path.as_os_str().is_empty() {
                Path::new(".")
            } else {
                path
            }
        })
        .find(|path| path.exists());
    Ok(existing
        .unwrap_or(Path::new("."))
        .canonicalize()?
        .starts_with(directory))
}

/// Takes away what an earlier backup, which was killed, has left; refused if it is anything else,
/// or that backup still runs.
fn clear(beside: &Path) -> Result<(), OpenError> {
    if beside.symlink_metadata().is_err() {
        return Ok(());
    }
    if !directory::is_incomplete(beside) && fs::remove_dir(beside).is_err() {
        return Err(OpenError::new(beside, Why::InTheWay));
    }
    let removed = directory::lock_incomplete(beside).map(|lock| (lock, fs::remove_dir_all(beside)));
    match removed {
        Ok((_lock, Err(error))) if error.kind() != ErrorKind::NotFound => {
            Err(OpenError::new(beside, Why::Io(error)))
        }
        Err(error) if error.is_locked() => Err(error),
        _ => Ok(()),
    }
}

/// Renames a directory, and replaces nothing.
fn rename_new(from: &Path, to: &Path) -> io::Result<()> {
    match rustix::fs::renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        // Some file systems can't. They replace nothing but an empty directory.
        Err(Errno::INVAL | Errno::NOSYS) if to.symlink_metadata().is_err() => fs::rename(from, to),
        renamed => Ok(renamed?),
    }
}

fn verify(tables: &Tables, mut each: impl FnMut()) -> Result<VerifyReport, EngineError> {
    let snapshot = tables.store.snapshot();
    let mut found = VerifyReport::default();
    let mut by_number = HashMap::<u64, (RoomId, u64)>::new();
    let mut logs = HashSet::new();
    let mut alarms = 0;
    for guard in snapshot.iter(&tables.rooms) {
        let (key, row) = guarded(|| guard.into_inner())?;
        match read(&key, &row) {
            Ok((room, row)) => {
                found.rooms += 1;
                alarms += usize::from(row.stored.alarm.is_some());
                logs.extend((row.log != 0).then_some(row.log));
                by_number.insert(row.number, (room, row.stored.bytes));
            }
            Err(error) => found.wrong(error),
        }
    }
    let garbage = snapshot
        .iter(&tables.garbage)
        .map(|guard| guarded(|| guard.key()))
        .collect::<Result<Vec<_>, _>>()?;
    for guard in snapshot.iter(&tables.entries) {
        let (key, value) = guarded(|| guard.into_inner())?;
        each();
        let Some((number, text)) = entry_of(&key) else {
            found.wrong("an entry's key is no text");
            continue;
        };
        let size = (text.len() + value.len()) as u64;
        match by_number.get_mut(&number) {
            Some((_, left)) => {
                found.entries += 1;
                found.bytes += size;
                *left = left.wrapping_sub(size);
            }
            None if logs.contains(&number) => {}
            None if garbage.iter().any(|own| **own == number.to_be_bytes()) => {}
            None => found.wrong(format_args!("the entry {text:?} is of no room")),
        }
    }
    for (room, left) in by_number.values().filter(|(_, left)| *left != 0) {
        found.wrong(format_args!(
            "the size of {room} is wrong by {} bytes",
            *left as i64
        ));
    }
    let listed = snapshot.iter(&tables.alarms).count();
    if listed != alarms {
        found.wrong(format_args!(
            "{listed} alarms are listed, and {alarms} rooms have one"
        ));
    }
    Ok(found)
}

fn read(key: &[u8], row: &[u8]) -> Result<(RoomId, Row), EngineError> {
    let room = room_of(key)
        .ok_or_else(|| EngineError::Corrupt("the name of a room can't be read".into()))?;
    let row = Row::decode(row).ok_or_else(|| {
        EngineError::Corrupt(format!("what is kept of the room {room} can't be read"))
    })?;
    Ok((room, row))
}
