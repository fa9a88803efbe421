//! Deletes garbage and expired histories while no commit waits.

use super::WriteLoop;
use crate::{
    clock,
    guarded::guarded,
    row::{Row, room_of},
    space::Purpose,
};
use fjall::Slice;
use std::{
    ops::Bound,
    time::{Duration, SystemTime},
};
use tidegate_hub::{Batch, EngineError, RoomRecord};

/// Entries of garbage that are deleted at a time, while no commit waits.
const SWEEP: usize = 1000;
/// Time between two rounds through all rooms for histories that are too old.
const SWEEP_EVERY: Duration = Duration::from_secs(300);
/// Bytes that deleting one entry takes, about.
const SWEPT_BYTES: u64 = 256;

impl WriteLoop {
    /// Deletes some of what no room needs; whether there may be more. Gives up quietly if the disk
    /// can't be read, or lacks space.
    pub(super) fn sweep(&mut self) -> bool {
        let swept = self.sweep_garbage().and_then(|more| {
            if more {
                Ok(true)
            } else {
                self.forget_histories(unix_ms())
            }
        });
        swept
            .inspect_err(|error| tracing::debug!("nothing is swept for now: {error}"))
            .unwrap_or(false)
    }

    /// Entries and logs that rooms have given up.
    pub(super) fn sweep_garbage(&mut self) -> Result<bool, EngineError> {
        if self.garbage()?.is_none() {
            return Ok(false);
        }
        self.prepare_sweep(SWEEP)?;
        self.delete_garbage()
    }

    /// As [`sweep_garbage`](WriteLoop::sweep_garbage), until nothing is left, and with the last
    /// space.
    pub(super) fn sweep_all_garbage(&mut self) -> Result<(), EngineError> {
        while self.garbage()?.is_some() {
            self.check_last_delete(SWEPT_BYTES * SWEEP as u64)?;
            self.check_store()?;
            self.delete_garbage()?;
        }
        Ok(())
    }

    /// The first number whose entries are garbage.
    pub(super) fn garbage(&self) -> Result<Option<Slice>, EngineError> {
        guarded(|| {
            let first = self.generation.tables.garbage.first_key_value();
            first.map(|guard| guard.key()).transpose()
        })
    }

    /// Deletes some entries of the first number whose entries are garbage; true if there is one.
    pub(super) fn delete_garbage(&mut self) -> Result<bool, EngineError> {
        let Some(number) = self.garbage()? else {
            return Ok(false);
        };
        let tables = &self.generation.tables;
        let keys: Vec<_> = guarded(|| {
            tables
                .entries
                .prefix(&number)
                .take(SWEEP)
                .map(|guard| guard.key())
                .collect()
        })?;
        let mut write = tables.store.batch();
        if keys.len() < SWEEP {
            write.remove(&tables.garbage, number);
        }
        keys.into_iter()
            .for_each(|key| write.remove(&tables.entries, key));
        // Not synced: a commit after it syncs it, too, and if there is none it is swept again.
        self.commit(write)?;
        Ok(true)
    }

    /// Before a batch that sweeps up to so many entries is made: the store may be replaced for it.
    pub(super) fn prepare_sweep(&mut self, entries: usize) -> Result<(), EngineError> {
        self.make_space(SWEPT_BYTES * entries as u64, Purpose::Delete)?;
        self.check_store()
    }

    /// Gives up histories that are too old to be of use, and rooms that kept nothing else: some
    /// rooms at a time, all of them every few minutes.
    pub(super) fn forget_histories(&mut self, now: u64) -> Result<bool, EngineError> {
        if self.swept.is_empty() && clock::now() < self.sweep_at {
            return Ok(false);
        }
        let after = (Bound::Excluded(self.swept.clone()), Bound::Unbounded);
        let rooms = &self.generation.tables.rooms;
        let page: Vec<_> = guarded(|| {
            rooms
                .range::<Vec<u8>, _>(after)
                .take(SWEEP)
                .map(|guard| guard.into_inner())
                .collect()
        })?;
        self.swept = page
            .last()
            .filter(|_| page.len() == SWEEP)
            .map_or_else(Vec::new, |(key, _)| key.to_vec());
        self.sweep_at = clock::now() + SWEEP_EVERY;
        let rows = page
            .iter()
            .filter_map(|(key, row)| Some((room_of(key)?, Row::decode(row)?)));
        let old = rows.filter(|(_, row)| {
            row.stored
                .history
                .is_some_and(|history| history.expires <= now)
        });
        let batches: Vec<Batch> = old
            .map(|(room, row)| {
                Batch::new(
                    room,
                    RoomRecord {
                        history: None,
                        ..row.stored
                    },
                )
            })
            .collect();
        if !batches.is_empty() {
            self.prepare_sweep(batches.len())?;
            let (batch, rows) = self.prepare(batches, None)?;
            self.commit(batch)?;
            rows.iter()
                .for_each(|(room, row)| self.generation.rows.set(room, *row));
        }
        Ok(!self.swept.is_empty())
    }
}

fn unix_ms() -> u64 {
    SystemTime::UNIX_EPOCH
        .elapsed()
        .map_or(0, |since| since.as_millis() as u64)
}
