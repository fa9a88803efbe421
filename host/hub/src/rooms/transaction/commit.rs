//! The commits of a transaction: they begin, end, and release the effects.

use super::{Staged, State, Transaction};
use crate::{
    realtime::history::Position,
    rooms::{
        effects::Effects,
        storage::{Batch, Commit, EngineError, LogHead, RoomRecord},
    },
};
use std::{
    future::poll_fn,
    mem,
    task::{Poll, ready},
};

/// A commit in progress, and the changes that follow from it. It belongs to the transaction, not to
/// the call that began it: a guest's flush may be given up because the event takes too long, and
/// the next event must not run before it is known which state is durable.
pub(super) struct PendingCommit {
    commit: Commit,
    /// The record after the commit, if it succeeds.
    stored: RoomRecord,
    changes_alarm: bool,
    effects: Effects,
}

impl Transaction {
    /// Returns the number of flushes. An event that flushed must not run again, because a part of
    /// it is durable.
    pub fn flushes(&self) -> u64 {
        self.state().flushes
    }

    /// Commits the changes of this event so far and of everything before it; then others see them
    /// (WIT `room.flush`).
    pub async fn flush(&self) -> Result<(), EngineError> {
        self.state().flushes += 1;
        self.keep();
        self.commit().await
    }

    /// Commits the kept changes, then releases their effects. After an error none of them has
    /// happened.
    pub async fn commit(&self) -> Result<(), EngineError> {
        self.finish().await;
        let number = self.state().commits;
        self.begin();
        self.finish().await;
        self.outcome(number)
    }

    /// Returns the number of the commit that will contain the kept changes.
    pub(crate) fn number(&self) -> u64 {
        self.state().commits
    }

    /// Returns true if nothing was kept since the last commit.
    pub(crate) fn is_clean(&self) -> bool {
        let Staged {
            overlay,
            alarm,
            effects,
            numbered,
            ..
        } = &self.state().kept;
        overlay.is_empty() && alarm.is_none() && effects.is_empty() && *numbered == 0
    }

    /// Returns the outcome of the commit with this number, which must have ended.
    pub(crate) fn outcome(&self, number: u64) -> Result<(), EngineError> {
        let failed = self
            .state()
            .failed
            .iter()
            .find(|(failed, _)| *failed == number)
            .map(|(_, error)| error.clone());
        failed.map_or(Ok(()), Err)
    }

    /// Starts to commit the kept changes. If nothing has to be stored, the effects are released at
    /// once.
    fn begin(&self) {
        let now = self.hub.now().wall;
        let mut state = self.state();
        let Staged {
            overlay,
            bytes,
            alarm,
            effects,
            numbered,
            ..
        } = mem::take(&mut state.kept);
        let base = state.base.take();
        let logged = base
            .filter(|_| numbered > 0 && self.hub.limits().history_messages_max > 0)
            .map(|base| LogHead {
                position: Position {
                    sequence: base.sequence + numbered,
                    ..base
                },
                expires: now + self.hub.limits().history_age_max.as_millis() as u64,
            });
        state.commits += 1;
        if overlay.is_empty() && alarm.is_none() && logged.is_none() {
            drop(state);
            effects.release(&self.hub, &self.room);
            self.refit(&mut self.state());
            return;
        }
        let before = match self.stored(&mut state) {
            Ok(before) => before,
            Err(error) => return self.handle_failure(&mut state, error, alarm.is_some()),
        };
        let bytes = before.bytes.saturating_add_signed(bytes);
        let stored = RoomRecord {
            bytes,
            alarm: alarm.unwrap_or(before.alarm),
            history: logged.or(before.history),
        };
        let log = logged.map_or_else(Vec::new, |_| effects.log(now, self.hub.limits()));
        let batch = Batch {
            room: self.room.clone(),
            clear: overlay.clear,
            writes: overlay.writes,
            log,
            stored,
        };
        let changes_alarm = stored.alarm != before.alarm;
        state.committing = Some(PendingCommit {
            commit: self.engine.commit(batch),
            stored,
            changes_alarm,
            effects,
        });
    }

    /// Waits for the running commit, if there is one. This is the only place where a commit becomes
    /// known as durable: it updates the index of alarms and releases the effects.
    pub(crate) async fn finish(&self) {
        let done = poll_fn(|cx| {
            let mut state = self.state();
            let Some(committing) = &mut state.committing else {
                return Poll::Ready(None);
            };
            let outcome = ready!(committing.commit.as_mut().poll(cx));
            Poll::Ready(
                state
                    .committing
                    .take()
                    .map(|committing| (outcome, committing)),
            )
        });
        let Some((
            outcome,
            PendingCommit {
                stored,
                changes_alarm,
                effects,
                ..
            },
        )) = done.await
        else {
            return;
        };
        let mut state = self.state();
        match outcome {
            Ok(()) => {
                state.stored = Some(stored);
                drop(state);
                self.hub.counters().commits.add(1);
                self.hub
                    .alarms()
                    .commit(&self.room, stored.alarm, self.hub.now());
                effects.release(&self.hub, &self.room);
                self.refit(&mut self.state());
            }
            Err(error) => self.handle_failure(&mut state, error, changes_alarm),
        }
    }

    fn handle_failure(&self, state: &mut State, error: EngineError, changes_alarm: bool) {
        let number = state.commits - 1;
        state.failed.push((number, error));
        // Read the stored state again, because the engine may not know the outcome of the commit.
        state.stored = None;
        if changes_alarm {
            self.hub.alarms().mark_unknown(&self.room, self.hub.now());
        }
        self.refit(state);
    }

    /// Gives back the memory that was reserved for the changes of a commit.
    fn refit(&self, state: &mut State) {
        let weight = state.kept.weight + state.event.weight;
        // A smaller reservation is never refused.
        _ = state.charge.fit(self.hub.budget(), weight);
    }
}
