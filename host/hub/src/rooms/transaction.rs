//! The transaction of a room: the changes of its events since the last commit.
//!
//! It has two layers. The event that runs writes to `event`; when the event ends well, `keep` adds
//! it to `kept`, and after a fault `discard` drops it. Reads see both layers above the stored
//! state. A commit takes all of `kept`: writes go to the storage as one batch, and the effects
//! (messages, publications, closes, feeds) are released when the batch is durable. If it fails,
//! none of them happens.
//!
//! A flush is a commit in the middle of an event. The running commit belongs to the transaction and
//! not to the future that waits for it, because a guest's call may be given up while it flushes:
//! the next event must not run before it is known what is durable. `finish` is the only place where
//! a commit becomes known as durable.
//!
//! Every write and effect of an event is weighed before it is staged, so that one event cannot fill
//! the memory: `room_event_bytes_max` bounds the event, the budget of the process bounds all of
//! them.

mod audience;
mod broadcasts;
mod commit;
mod entries;
#[cfg(test)]
mod tests;

pub use crate::rooms::pending_feed::PendingFeed;
use crate::{
    budget::{Charge, MemoryKind},
    hub::Hub,
    limits::ALARM_ATTEMPTS_MAX,
    name::{ConnId, RoomId},
    realtime::history::Position,
    rooms::{
        alarms::pause,
        allowance::Allowance,
        effects::Effects,
        overlay::Overlay,
        storage::{Alarm, Engine, EngineError, RoomRecord},
    },
};
use commit::PendingCommit;
pub use entries::StorageError;
use std::{
    mem,
    sync::{Arc, Mutex, MutexGuard},
};

/// The changes of a room since its last commit. Events that ended well are kept; the running event
/// may still be discarded. Reads see both. A clone shares the state.
///
/// ```
/// use std::sync::Arc;
/// use tidegate_hub::{Hub, Limits, RoomId, Transaction, testing::MemoryEngine};
/// let hub = Hub::new(Limits::default(), Default::default(), 1);
/// let tea = Transaction::new(hub, Arc::new(MemoryEngine::default()), RoomId::new("chat", "tea").unwrap());
/// tea.put("cups", "2".into()).unwrap();
/// assert_eq!(tea.get("cups").unwrap(), Some("2".into()));
/// tea.discard();
/// assert_eq!(tea.get("cups").unwrap(), None);
/// ```
#[derive(Clone)]
pub struct Transaction {
    hub: Arc<Hub>,
    engine: Arc<dyn Engine>,
    room: RoomId,
    state: Arc<Mutex<State>>,
}

struct State {
    /// The stored record, once it was read.
    stored: Option<RoomRecord>,
    /// Position of the room's topic without the kept events, once it was asked for.
    base: Option<Position>,
    kept: Staged,
    event: Staged,
    flushes: u64,
    /// Reservation for the bytes of `kept` and `event`.
    charge: Charge,
    /// The commit that has started and whose outcome has not been taken yet.
    committing: Option<PendingCommit>,
    /// Number of commits that have started. The writes and effects in `kept` belong to the next
    /// one.
    commits: u64,
    /// Failed commits by their number.
    failed: Vec<(u64, EngineError)>,
}

/// Changes of some events.
#[derive(Default)]
struct Staged {
    overlay: Overlay,
    /// Number of bytes that the overlay adds to the room's size.
    bytes: i64,
    alarm: Option<Option<Alarm>>,
    effects: Effects,
    /// Number of broadcasts that have a number.
    numbered: u64,
    /// Connections that joined with the running event.
    joined: Vec<ConnId>,
    /// Number of bytes of memory that all changes here take until the commit.
    weight: usize,
}

impl Transaction {
    /// Returns a transaction without changes.
    pub fn new(hub: Arc<Hub>, engine: Arc<dyn Engine>, room: RoomId) -> Transaction {
        let (stored, base, kept, event, flushes, committing, commits, failed) = Default::default();
        let charge = Charge::new(MemoryKind::Transaction);
        let state = State {
            stored,
            base,
            kept,
            event,
            flushes,
            charge,
            committing,
            commits,
            failed,
        };
        Transaction {
            hub,
            engine,
            room,
            state: Arc::new(Mutex::new(state)),
        }
    }

    /// Returns the room.
    pub fn room(&self) -> &RoomId {
        &self.room
    }

    /// Returns the bound of the running event, its effects, and the effects of the events before
    /// it.
    fn allowance<'a>(
        &'a self,
        state: &'a mut State,
    ) -> (Allowance<'a>, &'a mut Effects, &'a Effects) {
        let State {
            kept,
            event,
            charge,
            ..
        } = state;
        let (max, budget) = (self.hub.limits().room_event_bytes_max, self.hub.budget());
        (
            Allowance {
                weight: &mut event.weight,
                kept: kept.weight,
                max,
                budget,
                charge,
            },
            &mut event.effects,
            &kept.effects,
        )
    }

    /// Keeps the changes of the running event, which has ended well.
    pub fn keep(&self) {
        self.state().keep();
    }

    /// Discards the changes of the running event.
    pub fn discard(&self) {
        self.state().event = Staged::default();
    }

    /// Undoes the changes of the running event. Connections that joined or left with it stay so
    /// (WIT `room.rollback`).
    pub fn rollback(&self) {
        let mut state = self.state();
        let Staged {
            effects, joined, ..
        } = mem::take(&mut state.event);
        let effects = effects.members_only();
        state.event = Staged {
            weight: effects.weight(),
            effects,
            joined,
            ..Staged::default()
        };
    }

    /// Returns true if the kept changes and the answers that wait for the commit are so large that
    /// it is time to commit.
    pub(crate) fn is_heavy(&self, answers: usize) -> bool {
        self.state().kept.weight + answers >= self.hub.limits().room_event_bytes_max
    }

    /// Handles a failure of the alarm's handler: the alarm is set for another try, or removed after
    /// its last one. Returns true if it is tried again.
    pub fn retry_alarm(&self, alarm: Alarm, now: u64) -> bool {
        let again = alarm.attempt < ALARM_ATTEMPTS_MAX;
        let next = Alarm {
            at: now + pause(alarm.attempt + 1),
            attempt: alarm.attempt + 1,
        };
        self.state().kept.alarm = Some(again.then_some(next));
        again
    }

    /// Restores the alarm, because its handler could not be called, which is no fault of the app.
    pub(crate) fn restore_alarm(&self, alarm: Alarm) {
        let mut state = self.state();
        let is_stored = state
            .stored
            .is_some_and(|stored| stored.alarm == Some(alarm));
        state.kept.alarm = (!is_stored).then_some(Some(alarm));
    }

    /// Returns the durable alarm.
    pub(crate) fn stored_alarm(&self) -> Result<Option<Alarm>, EngineError> {
        Ok(self.stored(&mut self.state())?.alarm)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state
            .lock()
            .expect("nothing panics while it holds a transaction")
    }
}

impl State {
    fn keep(&mut self) {
        let Staged {
            overlay,
            bytes,
            alarm,
            effects,
            numbered,
            weight,
            ..
        } = mem::take(&mut self.event);
        self.kept.weight += weight;
        self.kept.numbered += numbered;
        self.kept.overlay.absorb(overlay);
        self.kept.bytes += bytes;
        self.kept.alarm = alarm.or(self.kept.alarm);
        self.kept.effects.absorb(effects);
    }
}
