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
    ops::Bound,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    time::Duration,
};
use tidegate_hub::{EngineError, RoomId, storage::Range};

/// Of blocks that were read.
const CACHE_BYTES: u64 = 64 << 20;
/// Bytes of a table's latest writes that are kept in memory before they are flushed. A flush needs as much space on the disk.
const MEMTABLE_BYTES: u64 = 16 << 20;
/// Bytes of full journals from which on the store flushes what still needs them, so that they can go.
const JOURNALS_BYTES: u64 = 64 << 20;
/// Flushes of a table that may wait when a commit begins, and tables that may wait to be merged: below the numbers (4 and 30) at
/// which the store holds a commit up.
const SEALED_MAX: usize = 2;
const UNMERGED_MAX: usize = 20;
/// Time between two checks whether the store has flushed enough.
const FLUSH_PAUSE: Duration = Duration::from_millis(1);

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
    /// The `next` number.
    pub(crate) meta: Keyspace,
}

impl Tables {
    /// Opens a generation that is complete. `directory` is the data directory, for what is reported.
    pub(crate) fn open(generation: &Path, directory: &Path) -> Result<Tables, OpenError> {
        let damaged = |text: &str| OpenError::new(directory, Why::Corrupt(text.to_owned()));
        // The store would make a new one in its place.
        if !generation.join("version").exists() {
            return Err(damaged("a part of it is gone"));
        }
        let opened = catch_unwind(AssertUnwindSafe(|| Tables::create(generation)));
        let tables = opened.map_err(|_| damaged("the store could not read it"))?.map_err(|error| OpenError::of_store(directory, error))?;
        Ok(tables)
    }

    /// Makes the tables of a new generation, without any rows.
    pub(crate) fn create(generation: &Path) -> fjall::Result<Tables> {
        let store = Database::builder(generation).cache_size(CACHE_BYTES).max_journaling_size(JOURNALS_BYTES).open()?;
        let table = |name: &str| store.keyspace(name, || KeyspaceCreateOptions::default().max_memtable_size(MEMTABLE_BYTES));
        let (rooms, entries, alarms) = (table("rooms")?, table("entries")?, table("alarms")?);
        let (garbage, meta) = (table("garbage")?, table("meta")?);
        Ok(Tables { rooms, entries, alarms, garbage, meta, store })
    }

    /// Every table, always in the same order.
    pub(crate) fn all(&self) -> [&Keyspace; 5] {
        [&self.rooms, &self.entries, &self.alarms, &self.garbage, &self.meta]
    }

    /// Waits until the store has flushed enough for another commit: it would wait without end for its own threads, which end with
    /// the first error of the disk. Refused if they have.
    pub(crate) fn wait_for_flushes(&self) -> fjall::Result<()> {
        loop {
            self.store.persist(fjall::PersistMode::Buffer)?;
            let is_flushed = |table: &Keyspace| table.sealed_memtable_count() <= SEALED_MAX && table.l0_table_count() < UNMERGED_MAX;
            if self.all().into_iter().all(is_flushed) {
                return Ok(());
            }
            std::thread::sleep(FLUSH_PAUSE);
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
