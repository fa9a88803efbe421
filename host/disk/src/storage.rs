//! The storage of rooms: reads in the caller's thread, commits by one thread for all.

use crate::{
    OpenError,
    directory::Make,
    generation::CurrentGeneration,
    guarded::guarded,
    row::{Row, room_of},
    writer::{Order, WriterThread},
};
use bytes::Bytes;
use std::{
    path::{Path, PathBuf},
    sync::Arc,
};
use tidegate_hub::{
    Alarm, Batch, Engine, EngineError, EngineStatus, RoomId, RoomRecord,
    rooms::storage::{Commit, Range},
};
use tokio::sync::oneshot;

/// An open data directory. Dropping it finishes the commits that were asked for.
///
/// After a failed write it is closed: reads and commits are refused with [`EngineError::Closed`],
/// and it opens again by itself, with everything that was acknowledged.
pub struct Storage {
    pub(crate) directory: PathBuf,
    pub(crate) shared: Arc<CurrentGeneration>,
    writer: WriterThread,
}

impl Storage {
    /// Opens the directory. A new or empty directory becomes a store. Any other directory that is
    /// not a store is refused and left as it is. If another process has the directory open, this
    /// one is refused. Blocks while it reads the log of an earlier run.
    pub fn open(directory: &Path) -> Result<Storage, OpenError> {
        Storage::with(directory, Make::IfEmpty, false)
    }

    /// As [`open`](Storage::open), for a server: if the disk is full or fails at this moment,
    /// returns a closed storage, which opens by itself as after a failed write. A directory that is
    /// damaged, no store, or open in another process is an error.
    pub fn start(directory: &Path) -> Result<Storage, OpenError> {
        Storage::with(directory, Make::IfEmpty, true)
    }

    /// As [`open`](Storage::open), and a directory that is no store yet is refused as well.
    pub fn open_existing(directory: &Path) -> Result<Storage, OpenError> {
        Storage::with(directory, Make::Never, false)
    }

    fn with(directory: &Path, make: Make, waits: bool) -> Result<Storage, OpenError> {
        let (writer, shared) = WriterThread::start(directory, make, waits)?;
        Ok(Storage {
            directory: directory.to_owned(),
            shared,
            writer,
        })
    }

    /// Gives back the space of what was overwritten and deleted, by a copy of everything else into
    /// new files. Takes as much space again while it runs, and commits wait for it. Blocks: not for
    /// async code.
    pub fn compact(&self) -> Result<(), EngineError> {
        let (done, outcome) = oneshot::channel();
        self.writer
            .queue()
            .blocking_send(Order::Compact(done))
            .map_err(|_| ended())?;
        outcome.blocking_recv().unwrap_or_else(|_| Err(ended()))
    }

    pub(crate) fn row(&self, room: &RoomId) -> Result<Option<Row>, EngineError> {
        let generation = self.shared.generation()?;
        generation.rows.find(&generation.tables, room)
    }
}

impl Engine for Storage {
    fn get(&self, room: &RoomId, key: &str) -> Result<Option<Bytes>, EngineError> {
        let generation = self.shared.generation()?;
        match generation.rows.find(&generation.tables, room)? {
            Some(row) => generation.tables.value(row.number, key),
            None => Ok(None),
        }
    }

    fn range(&self, room: &RoomId, range: &Range<'_>) -> Result<Vec<(String, Bytes)>, EngineError> {
        let generation = self.shared.generation()?;
        match generation.rows.find(&generation.tables, room)? {
            Some(row) => generation.tables.range(row.number, range),
            None => Ok(Vec::new()),
        }
    }

    fn stored(&self, room: &RoomId) -> Result<RoomRecord, EngineError> {
        Ok(self
            .row(room)?
            .map_or_else(RoomRecord::default, |row| row.stored))
    }

    fn log(&self, room: &RoomId) -> Result<Vec<Bytes>, EngineError> {
        let generation = self.shared.generation()?;
        match generation.rows.find(&generation.tables, room)? {
            Some(Row { log, .. }) if log != 0 => {
                let slots = generation.tables.range(log, &Range::all(usize::MAX))?;
                Ok(slots
                    .into_iter()
                    .map(|(_, publication)| publication)
                    .collect())
            }
            _ => Ok(Vec::new()),
        }
    }

    fn alarms(&self) -> Result<Vec<(RoomId, Alarm)>, EngineError> {
        let generation = self.shared.generation()?;
        let keys: Vec<_> = guarded(|| {
            generation
                .tables
                .alarms
                .iter()
                .map(|guard| guard.key())
                .collect()
        })?;
        let mut alarms = Vec::with_capacity(keys.len());
        for key in keys {
            let room = room_of(&key)
                .ok_or_else(|| EngineError::Corrupt("an alarm is of no room".into()))?;
            let alarm = generation
                .tables
                .row(&room)?
                .and_then(|row| row.stored.alarm);
            alarms.extend(alarm.map(|alarm| (room, alarm)));
        }
        Ok(alarms)
    }

    fn commit(&self, batch: Batch) -> Commit {
        let (queue, status) = (self.writer.queue(), self.status());
        Box::pin(async move {
            if let EngineStatus::Closed(why) = status {
                return Err(EngineError::Closed(why));
            }
            let (done, outcome) = oneshot::channel();
            queue
                .send(Order::Commit(batch, done))
                .await
                .map_err(|_| ended())?;
            outcome.await.unwrap_or_else(|_| Err(ended()))
        })
    }

    fn status(&self) -> EngineStatus {
        self.shared.status()
    }
}

fn ended() -> EngineError {
    EngineError::Closed("the host ends".into())
}
