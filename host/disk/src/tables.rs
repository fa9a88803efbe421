//! The store and its tables.

use crate::{
    OpenError,
    guarded::guarded,
    open_error::Why,
    row::{Row, entry_key, entry_of, room_key},
    space::{FILE_BYTES_MAX, Usage},
};
use bytes::Bytes;
use fjall::{AbstractTree as _, Database, Keyspace, KeyspaceCreateOptions, compaction::Leveled};
use std::{
    ops::Bound,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};
use tidegate_hub::{EngineError, RoomId, rooms::storage::Range};

/// Of blocks that were read.
const CACHE_BYTES: u64 = 64 << 20;
/// Bytes of full journals from which on the store flushes what still needs them, so that they can
/// go.
const JOURNALS_BYTES: u64 = 64 << 20;
/// Flushes of a table that may wait when a commit begins, and tables that may wait to be merged:
/// below the numbers (4 and 30) at which the store holds a commit up, without an end if one of its
/// threads has failed meanwhile.
const SEALED_MAX: usize = 1;
const UNMERGED_MAX: usize = 20;
/// Files of a table's first level that are merged.
const UNMERGED_DUE: usize = 4;
/// Longest time that the store may take for its flushes and merges while a commit waits. The
/// storage is closed then, and opens again.
const FLUSH_WITHIN: Duration = Duration::from_secs(60);
/// Files that one merge takes at most: of the first level its own and those of the next, of the
/// others one and those below it.
const MERGED_NEXT: u64 = 6;
const MERGED_MAX: u64 = 12;
/// Merges of one table in a row.
const MERGES_MAX: usize = 100;
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
    /// Decides which files are merged.
    merging: Arc<Leveled>,
}

impl Tables {
    /// Opens a generation that is complete. `directory` is the data directory, for what is
    /// reported.
    pub(crate) fn open(
        generation: &Path,
        directory: &Path,
        file_bytes: u64,
    ) -> Result<Tables, OpenError> {
        let damaged = |text: &str| OpenError::new(directory, Why::Corrupt(text.to_owned()));
        // The store would make a new one in its place.
        if !generation.join("version").exists() {
            return Err(damaged("a part of it is gone"));
        }
        let opened = catch_unwind(AssertUnwindSafe(|| Tables::create(generation, file_bytes)));
        let tables = opened
            .map_err(|_| damaged("the store could not read it"))?
            .map_err(|error| OpenError::of_store(directory, error))?;
        Ok(tables)
    }

    /// Opens the tables of a generation, or makes them without any rows where there are none. New
    /// ones are flushed at `file_bytes`, and have files of that size. On a small disk the store
    /// merges nothing by itself: see [`merge`](Tables::merge).
    pub(crate) fn create(generation: &Path, file_bytes: u64) -> fjall::Result<Tables> {
        let store = Database::builder(generation)
            .cache_size(CACHE_BYTES)
            .max_journaling_size(JOURNALS_BYTES)
            .open()?;
        let merging = Leveled::default().with_table_target_size(file_bytes);
        let is_small = file_bytes < FILE_BYTES_MAX;
        // The store's threads would merge without asking for space.
        let by_store = if is_small {
            merging.clone().with_l0_threshold(u8::MAX)
        } else {
            merging.clone()
        };
        let (by_store, merging) = (Arc::new(by_store), Arc::new(merging));
        let options = || {
            KeyspaceCreateOptions::default()
                .max_memtable_size(file_bytes)
                .compaction_strategy(by_store.clone())
        };
        let table = |name: &str| store.keyspace(name, options);
        let (rooms, entries, alarms) = (table("rooms")?, table("entries")?, table("alarms")?);
        let (garbage, meta) = (table("garbage")?, table("meta")?);
        Ok(Tables {
            rooms,
            entries,
            alarms,
            garbage,
            meta,
            merging,
            store,
        })
    }

    /// Every table, always in the same order.
    pub(crate) fn all(&self) -> [&Keyspace; 5] {
        [
            &self.rooms,
            &self.entries,
            &self.alarms,
            &self.garbage,
            &self.meta,
        ]
    }

    /// Bytes of the tables' files.
    pub(crate) fn bytes(&self) -> u64 {
        self.all().into_iter().map(Keyspace::disk_space).sum()
    }

    /// Bytes of writes that are not in tables yet.
    pub(crate) fn unflushed_bytes(&self) -> u64 {
        self.store.write_buffer_size()
    }

    /// Bytes that merges of tables may take at once, before they give back what they have merged.
    pub(crate) fn merging_bytes(&self, file_bytes: u64) -> u64 {
        let merged = |table: &Keyspace| {
            (table.l0_table_count() as u64 + MERGED_NEXT).max(MERGED_MAX) * file_bytes
        };
        self.all()
            .into_iter()
            .map(|table| merged(table).min(table.disk_space()))
            .sum()
    }

    /// Bytes that the tables take, and that the store may take by itself.
    pub(crate) fn usage(&self, file_bytes: u64) -> Usage {
        Usage {
            tables: self.bytes(),
            unflushed: self.unflushed_bytes(),
            merging: self.merging_bytes(file_bytes),
        }
    }

    /// Waits until the store has flushed and merged enough for another commit: it would wait
    /// without end for its own threads, which end with the first error of the disk. Refused if they
    /// have, and if they take too long.
    pub(crate) fn wait_for_flushes(&self) -> Result<(), EngineError> {
        let is_ready = |table: &Keyspace| {
            table.sealed_memtable_count() <= SEALED_MAX && table.l0_table_count() < UNMERGED_MAX
        };
        self.wait_until(|| self.all().into_iter().all(is_ready))
    }

    /// Flushes every write into a table. While it runs, nothing else may write.
    pub(crate) fn flush(&self) -> Result<(), EngineError> {
        for table in self.all() {
            guarded(|| table.rotate_memtable())?;
        }
        self.wait_until(|| {
            self.all()
                .into_iter()
                .all(|table| table.sealed_memtable_count() == 0)
        })
    }

    /// True if the store leaves it to its owner to merge tables, and some are due.
    pub(crate) fn are_merges_due(&self, file_bytes: u64) -> bool {
        file_bytes < FILE_BYTES_MAX
            && self
                .all()
                .into_iter()
                .any(|table| table.l0_table_count() >= UNMERGED_DUE)
    }

    /// Merges what the store would merge in time, and removes the files that this replaces, as long
    /// as `may_go_on`. After an error, such as of a full disk, files that were begun stay until the
    /// store is opened again.
    pub(crate) fn merge(&self, may_go_on: impl Fn() -> bool) -> Result<(), EngineError> {
        for table in self.all() {
            for _ in 0..MERGES_MAX {
                self.finish_merges()?;
                if !may_go_on() {
                    return Ok(());
                }
                let before = (
                    table.table_count(),
                    table.l0_table_count(),
                    table.disk_space(),
                );
                let unread = self.first_read().saturating_sub(1);
                guarded(|| Ok(table.tree.compact(self.merging.clone(), unread)?))?;
                if before
                    == (
                        table.table_count(),
                        table.l0_table_count(),
                        table.disk_space(),
                    )
                {
                    break;
                }
            }
        }
        self.finish_merges()
    }

    /// Waits for the store's own merges, and removes files that merges have replaced and that no
    /// read needs. The store does that only when it flushes a table.
    pub(crate) fn finish_merges(&self) -> Result<(), EngineError> {
        self.wait_until(|| self.store.active_compactions() == 0)?;
        for table in self.all() {
            let unread = self.first_read();
            guarded(|| {
                Ok(table
                    .tree
                    .get_version_history_lock()
                    .maintenance(table.path(), unread)?)
            })?;
        }
        Ok(())
    }

    /// Number of the first batch that a read which runs now, or begins later, may have to leave
    /// out.
    fn first_read(&self) -> u64 {
        let reads = &self.store.supervisor.snapshot_tracker;
        let next = reads.get();
        if reads.open_snapshots() == 0 {
            next
        } else {
            reads.get_seqno_safe_to_gc()
        }
    }

    fn wait_until(&self, is_done: impl Fn() -> bool) -> Result<(), EngineError> {
        let deadline = Instant::now() + FLUSH_WITHIN;
        loop {
            guarded(|| self.store.persist(fjall::PersistMode::Buffer))?;
            if is_done() {
                return Ok(());
            }
            if Instant::now() >= deadline {
                return Err(EngineError::Io(format!(
                    "the store has not flushed and merged its tables in {} s",
                    FLUSH_WITHIN.as_secs()
                )));
            }
            std::thread::sleep(FLUSH_PAUSE);
        }
    }

    /// The number that the next room gets.
    pub(crate) fn next_number(&self) -> Result<u64, EngineError> {
        let next = guarded(|| self.meta.get("next"))?;
        Ok(next
            .and_then(|bytes| Some(u64::from_be_bytes((*bytes).try_into().ok()?)))
            .unwrap_or(1))
    }

    pub(crate) fn row(&self, room: &RoomId) -> Result<Option<Row>, EngineError> {
        let Some(bytes) = guarded(|| self.rooms.get(room_key(room)))? else {
            return Ok(None);
        };
        let damaged =
            || EngineError::Corrupt(format!("what is kept of the room {room} can't be read"));
        Row::decode(&bytes).map(Some).ok_or_else(damaged)
    }

    pub(crate) fn value(&self, number: u64, key: &str) -> Result<Option<Bytes>, EngineError> {
        let value = guarded(|| self.entries.get(entry_key(number, key)))?;
        Ok(value.map(|value| Bytes::copy_from_slice(&value)))
    }

    pub(crate) fn range(
        &self,
        number: u64,
        range: &Range<'_>,
    ) -> Result<Vec<(String, Bytes)>, EngineError> {
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
