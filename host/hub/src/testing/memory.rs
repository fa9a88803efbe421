//! Storage in memory. Tests can make it fail and hold its commits.

use crate::{
    name::RoomId,
    rooms::storage::{Alarm, Batch, Commit, Engine, EngineError, EngineStatus, Range, RoomRecord},
};
use bytes::Bytes;
use std::{
    collections::{BTreeMap, VecDeque},
    future::poll_fn,
    ops::Bound,
    sync::{Arc, Mutex, MutexGuard},
    task::{Poll, Waker},
};

/// An [`Engine`] without a disk. Clones share the stored state, as a restarted host would.
///
/// ```
/// use tidegate_hub::{Engine, EngineError, RoomId, testing::MemoryEngine};
/// let memory = MemoryEngine::default();
/// memory.fail_next([EngineError::Full("no space".into())]);
/// assert_eq!(memory.get(&RoomId::new("chat", "tea").unwrap(), "cups"), Ok(None));
/// ```
#[derive(Clone, Default)]
pub struct MemoryEngine(Arc<Mutex<MemoryTables>>);

#[derive(Default)]
struct MemoryTables {
    rooms: BTreeMap<RoomId, Kept>,
    failures: VecDeque<EngineError>,
    held: bool,
    is_closed: bool,
    waiting: Vec<Waker>,
}

/// Stored state of one room.
#[derive(Default)]
struct Kept {
    entries: BTreeMap<String, Bytes>,
    log: BTreeMap<u32, Bytes>,
    stored: RoomRecord,
}

impl MemoryEngine {
    /// Makes the next commits fail, each with one of these errors.
    pub fn fail_next(&self, failures: impl IntoIterator<Item = EngineError>) {
        self.state().failures.extend(failures);
    }

    /// Lets commits succeed again.
    pub fn fail_no_more(&self) {
        self.state().failures.clear();
    }

    /// Refuses reads and commits until [`open`](MemoryEngine::open), as an engine does after a failed
    /// write.
    pub fn close(&self) {
        self.state().is_closed = true;
    }

    /// Accepts reads and commits again.
    pub fn open(&self) {
        self.state().is_closed = false;
    }

    /// Holds commits from now on.
    pub fn hold(&self) {
        self.state().held = true;
    }

    /// Lets held commits go on.
    pub fn release(&self) {
        let waiting = {
            let mut state = self.state();
            state.held = false;
            std::mem::take(&mut state.waiting)
        };
        waiting.into_iter().for_each(Waker::wake);
    }

    /// Returns the state for a read.
    fn read(&self) -> Result<MutexGuard<'_, MemoryTables>, EngineError> {
        let state = self.state();
        if state.is_closed {
            return Err(closed());
        }
        Ok(state)
    }

    fn state(&self) -> MutexGuard<'_, MemoryTables> {
        self.0
            .lock()
            .expect("nothing panics while it holds the memory")
    }
}

impl MemoryTables {
    fn apply(&mut self, batch: Batch) -> Result<(), EngineError> {
        if self.is_closed {
            return Err(closed());
        }
        if let Some(failure) = self.failures.pop_front() {
            return Err(failure);
        }
        let Kept {
            entries,
            log,
            stored,
        } = self.rooms.entry(batch.room.clone()).or_default();
        if batch.clear {
            entries.clear();
        }
        for (key, value) in batch.writes {
            match value {
                Some(value) => _ = entries.insert(key, value),
                None => _ = entries.remove(&key),
            }
        }
        log.extend(batch.log);
        *stored = batch.stored;
        if *stored == RoomRecord::default() {
            self.rooms.remove(&batch.room);
        }
        Ok(())
    }
}

fn closed() -> EngineError {
    EngineError::Closed("as the test says".into())
}

impl Engine for MemoryEngine {
    fn get(&self, room: &RoomId, key: &str) -> Result<Option<Bytes>, EngineError> {
        Ok(self
            .read()?
            .rooms
            .get(room)
            .and_then(|kept| kept.entries.get(key).cloned()))
    }

    fn range(&self, room: &RoomId, range: &Range<'_>) -> Result<Vec<(String, Bytes)>, EngineError> {
        let state = self.read()?;
        let Some(Kept { entries, .. }) = state.rooms.get(room) else {
            return Ok(Vec::new());
        };
        let within = entries
            .range::<str, (Bound<&str>, Bound<&str>)>((range.start, range.end))
            .map(|(key, value)| (key.clone(), value.clone()));
        Ok(if range.reverse {
            within.rev().take(range.limit).collect()
        } else {
            within.take(range.limit).collect()
        })
    }

    fn stored(&self, room: &RoomId) -> Result<RoomRecord, EngineError> {
        Ok(self
            .read()?
            .rooms
            .get(room)
            .map_or_else(RoomRecord::default, |kept| kept.stored))
    }

    fn log(&self, room: &RoomId) -> Result<Vec<Bytes>, EngineError> {
        Ok(self
            .read()?
            .rooms
            .get(room)
            .map_or_else(Vec::new, |kept| kept.log.values().cloned().collect()))
    }

    fn alarms(&self) -> Result<Vec<(RoomId, Alarm)>, EngineError> {
        let state = self.read()?;
        Ok(state
            .rooms
            .iter()
            .filter_map(|(room, kept)| Some((room.clone(), kept.stored.alarm?)))
            .collect())
    }

    fn commit(&self, batch: Batch) -> Commit {
        let (memory, mut batch) = (self.clone(), Some(batch));
        Box::pin(poll_fn(move |cx| {
            let mut state = memory.state();
            if state.held {
                state.waiting.push(cx.waker().clone());
                return Poll::Pending;
            }
            Poll::Ready(state.apply(batch.take().expect("polled once more after its end")))
        }))
    }

    fn status(&self) -> EngineStatus {
        if self.state().is_closed {
            EngineStatus::Closed("as the test says".into())
        } else {
            EngineStatus::Open
        }
    }
}
