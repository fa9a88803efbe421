//! The storage of rooms: reads in the caller's thread, commits by one thread for all.

use crate::{
    OpenError,
    guarded::guarded,
    row::{Row, room_of},
    tables::Tables,
    writer::{Order, Writer},
};
use bytes::Bytes;
use std::{
    collections::HashMap,
    path::Path,
    sync::{Arc, Mutex, MutexGuard},
};
use tidegate_hub::{
    Alarm, Batch, Engine, EngineError, RoomId, Stored,
    storage::{Commit, Range},
};
use tokio::sync::oneshot;

/// Rows that are kept in memory, so that a read of a room looks for its entry only.
const ROWS_MAX: usize = 10_000;

/// An open data directory. Dropping it finishes the commits that were asked for.
pub struct Storage {
    pub(crate) tables: Tables,
    rows: Arc<Rows>,
    writer: Writer,
}

/// Rows of rooms as of their last commit; none for a room that keeps nothing.
#[derive(Default)]
pub(crate) struct Rows(Mutex<HashMap<RoomId, Option<Row>>>);

impl Storage {
    /// Opens the directory, or makes it. Of two processes the second is refused. Blocks while it reads the log of an
    /// earlier run.
    pub fn open(directory: &Path) -> Result<Storage, OpenError> {
        let tables = Tables::open(directory)?;
        let rows = Arc::<Rows>::default();
        let writer = Writer::start(directory, tables.clone(), rows.clone())?;
        Ok(Storage { tables, rows, writer })
    }

    pub(crate) fn row(&self, room: &RoomId) -> Result<Option<Row>, EngineError> {
        self.rows.find(&self.tables, room)
    }
}

impl Rows {
    /// From memory, or else from the store.
    pub(crate) fn find(&self, tables: &Tables, room: &RoomId) -> Result<Option<Row>, EngineError> {
        let kept = self.rows().get(room).copied();
        if let Some(row) = kept {
            return Ok(row);
        }
        let read = tables.row(room)?;
        // It gives way to what was committed meanwhile.
        Ok(*self.make_place().entry(room.clone()).or_insert(read))
    }

    /// What was committed.
    pub(crate) fn set(&self, room: &RoomId, row: Option<Row>) {
        self.make_place().insert(room.clone(), row);
    }

    fn make_place(&self) -> MutexGuard<'_, HashMap<RoomId, Option<Row>>> {
        let mut rows = self.rows();
        if rows.len() >= ROWS_MAX {
            rows.clear();
        }
        rows
    }

    fn rows(&self) -> MutexGuard<'_, HashMap<RoomId, Option<Row>>> {
        self.0.lock().expect("nothing panics while it holds the rows")
    }
}

impl Engine for Storage {
    fn get(&self, room: &RoomId, key: &str) -> Result<Option<Bytes>, EngineError> {
        match self.row(room)? {
            Some(row) => self.tables.value(row.number, key),
            None => Ok(None),
        }
    }

    fn range(&self, room: &RoomId, range: &Range<'_>) -> Result<Vec<(String, Bytes)>, EngineError> {
        match self.row(room)? {
            Some(row) => self.tables.range(row.number, range),
            None => Ok(Vec::new()),
        }
    }

    fn stored(&self, room: &RoomId) -> Result<Stored, EngineError> {
        Ok(self.row(room)?.map_or_else(Stored::default, |row| row.stored))
    }

    fn alarms(&self) -> Result<Vec<(RoomId, Alarm)>, EngineError> {
        let keys: Vec<_> = guarded(|| self.tables.alarms.iter().map(|guard| guard.key()).collect())?;
        let mut alarms = Vec::with_capacity(keys.len());
        for key in keys {
            let room = room_of(&key).ok_or_else(|| EngineError::Corrupt("an alarm is of no room".into()))?;
            let alarm = self.tables.row(&room)?.and_then(|row| row.stored.alarm);
            alarms.extend(alarm.map(|alarm| (room, alarm)));
        }
        Ok(alarms)
    }

    fn commit(&self, batch: Batch) -> Commit {
        let queue = self.writer.queue();
        Box::pin(async move {
            let (done, outcome) = oneshot::channel();
            let closed = || EngineError::Closed("the storage is being closed".into());
            queue.send(Order { batch, done }).await.map_err(|_| closed())?;
            outcome.await.unwrap_or_else(|_| Err(closed()))
        })
    }
}
