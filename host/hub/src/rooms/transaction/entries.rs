//! Reads and writes of a room's storage, and its alarm, as the events of a transaction see them.

use super::{State, Transaction};
use crate::rooms::{
    overlay,
    storage::{Alarm, EngineError, Range, RoomRecord, prefix_end},
};
use bytes::Bytes;
use std::{fmt, ops::Bound};

/// An error of a room's write (WIT `room.storage-error`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StorageError {
    /// The key is empty or longer than this many bytes.
    Key(usize),
    /// The value is longer than this many bytes.
    Value(usize),
    /// The room would hold more than this many bytes.
    Room(usize),
    /// One event would write and send more than this many bytes: call `flush` in between. It is
    /// also the error if memory is short.
    Event(usize),
    /// The engine failed. This ends the event.
    Engine(EngineError),
}

impl fmt::Display for StorageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StorageError::Key(max) => write!(f, "a key has 1 to {max} bytes"),
            StorageError::Value(max) => write!(f, "a value has at most {max} bytes"),
            StorageError::Room(max) => write!(f, "a room holds at most {max} bytes"),
            StorageError::Event(max) => write!(f, "one event writes and sends at most {max} bytes"),
            StorageError::Engine(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for StorageError {}

impl From<EngineError> for StorageError {
    fn from(error: EngineError) -> StorageError {
        StorageError::Engine(error)
    }
}

impl Transaction {
    /// Returns the value of a key.
    pub fn get(&self, key: &str) -> Result<Option<Bytes>, EngineError> {
        self.value(&self.state(), key)
    }

    /// Writes a key.
    pub fn put(&self, key: &str, value: Bytes) -> Result<(), StorageError> {
        let limits = self.hub.limits();
        if key.is_empty() || key.len() > limits.room_key_bytes_max {
            return Err(StorageError::Key(limits.room_key_bytes_max));
        }
        if value.len() > limits.room_value_bytes_max {
            return Err(StorageError::Value(limits.room_value_bytes_max));
        }
        let (mut state, size) = (self.state(), key.len() + value.len());
        let before = self
            .value(&state, key)?
            .map_or(0, |old| key.len() + old.len());
        let grown = size as i64 - before as i64;
        if grown > 0 && self.bytes(&mut state)? + grown > limits.room_bytes_max as i64 {
            return Err(StorageError::Room(limits.room_bytes_max));
        }
        self.write(&mut state, key, Some(value))?;
        state.event.bytes += grown;
        Ok(())
    }

    /// Deletes a key. Returns true if it existed. Fails if the event exceeds its bound.
    pub fn delete(&self, key: &str) -> Result<bool, StorageError> {
        let mut state = self.state();
        let Some(old) = self.value(&state, key)? else {
            return Ok(false);
        };
        self.write(&mut state, key, None)?;
        state.event.bytes -= (key.len() + old.len()) as i64;
        Ok(true)
    }

    /// Deletes all keys. The alarm stays.
    pub fn clear(&self) -> Result<(), EngineError> {
        let mut state = self.state();
        state.event.bytes -= self.bytes(&mut state)?;
        state.event.weight -= state.event.overlay.weight();
        state.event.overlay.clear();
        Ok(())
    }

    fn write(
        &self,
        state: &mut State,
        key: &str,
        value: Option<Bytes>,
    ) -> Result<(), StorageError> {
        let (more, less) = state.event.overlay.cost(key, value.as_ref());
        let (mut allowance, ..) = self.allowance(state);
        let refused = |_| StorageError::Event(self.hub.limits().room_event_bytes_max);
        allowance.admit(more, less).map_err(refused)?;
        state.event.overlay.insert(key, value);
        Ok(())
    }

    /// Returns a page of entries in the order of their keys. It ends at the range's limit, at 1,000
    /// entries, or with the entry that makes it 1 MiB. It is empty only if there are no entries.
    pub fn entries(&self, range: Range<'_>) -> Result<Vec<(String, Bytes)>, EngineError> {
        let state = self.state();
        overlay::page(
            &*self.engine,
            &self.room,
            [&state.kept.overlay, &state.event.overlay],
            range,
        )
    }

    /// As [`entries`](Transaction::entries), for keys that begin with `prefix` (WIT `room.query`),
    /// from `start` to `end`.
    pub fn query(
        &self,
        prefix: &str,
        start: Option<&str>,
        end: Option<&str>,
        reverse: bool,
        limit: usize,
    ) -> Result<Vec<(String, Bytes)>, EngineError> {
        let behind = prefix_end(prefix);
        let end = [end, behind.as_deref()].into_iter().flatten().min();
        let start = Bound::Included(start.map_or(prefix, |start| start.max(prefix)));
        self.entries(Range {
            start,
            end: end.map_or(Bound::Unbounded, Bound::Excluded),
            reverse,
            limit,
        })
    }

    /// Returns the room's alarm.
    pub fn alarm(&self) -> Result<Option<Alarm>, EngineError> {
        let mut state = self.state();
        match state.event.alarm.or(state.kept.alarm) {
            Some(alarm) => Ok(alarm),
            None => Ok(self.stored(&mut state)?.alarm),
        }
    }

    /// Sets the alarm to a Unix time in milliseconds, or removes it.
    pub fn set_alarm(&self, at: Option<u64>) {
        self.state().event.alarm = Some(at.map(|at| Alarm { at, attempt: 1 }));
    }

    fn value(&self, state: &State, key: &str) -> Result<Option<Bytes>, EngineError> {
        match state
            .event
            .overlay
            .find(key)
            .or_else(|| state.kept.overlay.find(key))
        {
            Some(value) => Ok(value),
            None => self.engine.get(&self.room, key),
        }
    }

    /// Returns the room's size with all changes.
    fn bytes(&self, state: &mut State) -> Result<i64, EngineError> {
        Ok(self.stored(state)?.bytes as i64 + state.kept.bytes + state.event.bytes)
    }

    pub(super) fn stored(&self, state: &mut State) -> Result<RoomRecord, EngineError> {
        match state.stored {
            Some(stored) => Ok(stored),
            None => Ok(*state.stored.insert(self.engine.stored(&self.room)?)),
        }
    }
}
