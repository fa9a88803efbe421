//! Rows of rooms in memory, so that a read of a room looks for its entry only.

use crate::{row::Row, tables::Tables};
use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard},
};
use tidegate_hub::{EngineError, RoomId};

/// Rows in memory, at most. Those that were used least lately give way to others, and are read
/// again when they are needed.
const ROWS_MAX: usize = 10_000;

/// Rows of rooms as of their last commit; none for a room that keeps nothing.
#[derive(Default)]
pub(crate) struct Rows(Mutex<Generations>);

/// A cache in two halves: a row that is used moves to the young half, and when that is full it
/// becomes the old one, whose rows are forgotten. So names that are used once push out each other,
/// and not the rows of rooms that are in use.
#[derive(Default)]
struct Generations {
    young: HashMap<RoomId, Option<Row>>,
    old: HashMap<RoomId, Option<Row>>,
}

impl Generations {
    fn get(&mut self, room: &RoomId) -> Option<Option<Row>> {
        if let Some(row) = self.young.get(room) {
            return Some(*row);
        }
        let (room, row) = self.old.remove_entry(room)?;
        self.set(room, row);
        Some(row)
    }

    fn set(&mut self, room: RoomId, row: Option<Row>) {
        self.old.remove(&room);
        self.young.insert(room, row);
        if self.young.len() >= ROWS_MAX / 2 {
            self.old = std::mem::take(&mut self.young);
        }
    }
}

impl Rows {
    /// From memory, or else from the store.
    pub(crate) fn find(&self, tables: &Tables, room: &RoomId) -> Result<Option<Row>, EngineError> {
        let kept = self.rows().get(room);
        if let Some(row) = kept {
            return Ok(row);
        }
        let read = tables.row(room)?;
        let mut rows = self.rows();
        // It gives way to what was committed meanwhile.
        Ok(rows.get(room).unwrap_or_else(|| {
            rows.set(room.clone(), read);
            read
        }))
    }

    /// Keeps the committed row of a room in memory.
    pub(crate) fn set(&self, room: &RoomId, row: Option<Row>) {
        self.rows().set(room.clone(), row);
    }

    fn rows(&self) -> MutexGuard<'_, Generations> {
        self.0
            .lock()
            .expect("nothing panics while it holds the rows")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_in_use_stay_and_the_others_are_bounded() {
        let room = |number: usize| RoomId::new("chat", &number.to_string()).expect("a room");
        let mut rows = Generations::default();
        for number in 0..5 * ROWS_MAX {
            rows.set(room(number), None);
            assert!(rows.get(&room(0)).is_some(), "{number}");
            assert!(rows.young.len() + rows.old.len() <= ROWS_MAX);
        }
        assert!(rows.get(&room(1)).is_none());
        assert!(rows.get(&room(5 * ROWS_MAX - 1)).is_some());
    }
}
