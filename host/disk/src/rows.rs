//! Rows of rooms in memory, so that a read of a room looks for its entry only.

use crate::{row::Row, tables::Tables};
use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard},
};
use tidegate_hub::{EngineError, RoomId};

/// Beyond it all are forgotten: they are read again as they are needed.
const ROWS_MAX: usize = 10_000;

/// Rows of rooms as of their last commit; none for a room that keeps nothing.
#[derive(Default)]
pub(crate) struct Rows(Mutex<HashMap<RoomId, Option<Row>>>);

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
