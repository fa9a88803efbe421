//! The storage of rooms: reads in the caller's thread, commits by one thread for all.

use crate::{
    OpenError,
    guarded::guarded,
    row::{Row, room_of},
    rows::Rows,
    tables::Tables,
    writer::{Order, Writer},
};
use bytes::Bytes;
use std::{path::Path, sync::Arc};
use tidegate_hub::{
    Alarm, Batch, Engine, EngineError, RoomId, Stored,
    storage::{Commit, Range},
};
use tokio::sync::oneshot;

/// An open data directory. Dropping it finishes the commits that were asked for.
pub struct Storage {
    pub(crate) tables: Tables,
    rows: Arc<Rows>,
    writer: Writer,
}

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

    fn log(&self, room: &RoomId) -> Result<Vec<Bytes>, EngineError> {
        match self.row(room)? {
            Some(Row { log, .. }) if log != 0 => {
                let slots = self.tables.range(log, &Range::all(usize::MAX))?;
                Ok(slots.into_iter().map(|(_, publication)| publication).collect())
            }
            _ => Ok(Vec::new()),
        }
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
