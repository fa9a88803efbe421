//! The store and its tables.

use crate::{
    OpenError,
    guarded::guarded,
    open_error::Why,
    row::{Row, entry_key, entry_of, room_key},
};
use bytes::Bytes;
use fjall::{Database, Keyspace, KeyspaceCreateOptions};
use std::{
    fs::DirBuilder,
    ops::Bound,
    os::unix::fs::{DirBuilderExt as _, PermissionsExt as _},
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
};
use tidegate_hub::{EngineError, RoomId, storage::Range};

/// Of what this host writes; one that finds another refuses it.
const FORMAT: u64 = 1;
/// Of blocks that were read.
const CACHE_BYTES: u64 = 64 << 20;

/// Handles: cloning shares the store.
#[derive(Clone)]
pub(crate) struct Tables {
    pub(crate) store: Database,
    /// Class and name → [`Row`].
    pub(crate) rooms: Keyspace,
    /// Number and key → value.
    pub(crate) entries: Keyspace,
    /// Class and name of rooms that have an alarm → nothing.
    pub(crate) alarms: Keyspace,
    /// Numbers whose entries are garbage → nothing.
    pub(crate) garbage: Keyspace,
    /// `format`, and the `next` number.
    pub(crate) meta: Keyspace,
}

impl Tables {
    /// Makes the directory, of mode 0700, if there is none.
    pub(crate) fn open(directory: &Path) -> Result<Tables, OpenError> {
        make(directory).map_err(|error| OpenError::new(directory, Why::Directory(error)))?;
        let opened = catch_unwind(AssertUnwindSafe(|| Tables::open_store(directory)));
        let damaged = |_| OpenError::new(directory, Why::Corrupt("the store could not read it".into()));
        let tables = opened.map_err(damaged)?.map_err(|error| OpenError::of_store(directory, error))?;
        tables.check_format(directory)?;
        Ok(tables)
    }

    fn open_store(directory: &Path) -> fjall::Result<Tables> {
        let store = Database::builder(directory).cache_size(CACHE_BYTES).open()?;
        let table = |name: &str| store.keyspace(name, KeyspaceCreateOptions::default);
        let (rooms, entries, alarms) = (table("rooms")?, table("entries")?, table("alarms")?);
        let (garbage, meta) = (table("garbage")?, table("meta")?);
        Ok(Tables { rooms, entries, alarms, garbage, meta, store })
    }

    fn check_format(&self, directory: &Path) -> Result<(), OpenError> {
        let of_store = |error| OpenError::of_store(directory, error);
        match self.meta.get("format").map_err(of_store)? {
            Some(found) if *found == FORMAT.to_be_bytes() => Ok(()),
            Some(found) => Err(OpenError::new(directory, Why::Format(format!("{found:?}")))),
            None if self.rooms.is_empty().map_err(of_store)? => {
                self.meta.insert("format", FORMAT.to_be_bytes()).map_err(of_store)?;
                self.store.persist(fjall::PersistMode::SyncAll).map_err(of_store)
            }
            None => Err(OpenError::new(directory, Why::Corrupt("it has rooms, and does not say of which format".into()))),
        }
    }

    /// The number that the next room gets.
    pub(crate) fn next_number(&self) -> Result<u64, EngineError> {
        let next = guarded(|| self.meta.get("next"))?;
        Ok(next.and_then(|bytes| Some(u64::from_be_bytes((*bytes).try_into().ok()?))).unwrap_or(1))
    }

    pub(crate) fn row(&self, room: &RoomId) -> Result<Option<Row>, EngineError> {
        let Some(bytes) = guarded(|| self.rooms.get(room_key(room)))? else { return Ok(None) };
        let damaged = || EngineError::Corrupt(format!("what is kept of the room {room} can't be read"));
        Row::decode(&bytes).map(Some).ok_or_else(damaged)
    }

    pub(crate) fn value(&self, number: u64, key: &str) -> Result<Option<Bytes>, EngineError> {
        let value = guarded(|| self.entries.get(entry_key(number, key)))?;
        Ok(value.map(|value| Bytes::copy_from_slice(&value)))
    }

    pub(crate) fn range(&self, number: u64, range: &Range<'_>) -> Result<Vec<(String, Bytes)>, EngineError> {
        let start = match range.start {
            Bound::Included(key) => Bound::Included(entry_key(number, key)),
            Bound::Excluded(key) => Bound::Excluded(entry_key(number, key)),
            Bound::Unbounded => Bound::Included(entry_key(number, "")),
        };
        let end = match range.end {
            Bound::Included(key) => Bound::Included(entry_key(number, key)),
            Bound::Excluded(key) => Bound::Excluded(entry_key(number, key)),
            Bound::Unbounded => Bound::Excluded(entry_key(number + 1, "")),
        };
        guarded(|| {
            let iter = self.entries.range((start, end));
            let read = |guard: fjall::Guard| {
                let (key, value) = guard.into_inner()?;
                Ok(entry_of(&key).map(|(_, key)| (key.to_owned(), Bytes::copy_from_slice(&value))))
            };
            let entries: fjall::Result<Vec<_>> = match range.reverse {
                true => iter.rev().take(range.limit).map(read).collect(),
                false => iter.take(range.limit).map(read).collect(),
            };
            entries
        })?
        .into_iter()
        .map(|entry| entry.ok_or_else(|| EngineError::Corrupt("a key of a room is no text".into())))
        .collect()
    }
}

fn make(directory: &Path) -> std::io::Result<()> {
    if !directory.exists() {
        return DirBuilder::new().recursive(true).mode(0o700).create(directory);
    }
    let mode = std::fs::metadata(directory)?.permissions().mode();
    match mode & 0o022 {
        0 => Ok(()),
        _ => Err(std::io::Error::other("others than its owner may write there")),
    }
}
