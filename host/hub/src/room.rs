//! One room as a state machine: who waits for it, whether it runs, is awake or sleeps, and when it is closed for a while.

use crate::limits::{WAKE_FAILURES_MAX, WAKE_PAUSE};
use std::{collections::VecDeque, time::Duration};

/// `I` is an instance of the app, `E` an event and who waits for its outcome. Times are Unix milliseconds.
pub(crate) struct Room<I, E> {
    phase: Phase<I>,
    inbox: VecDeque<E>,
    /// Wakes that failed, in a row.
    failures: u32,
    closed_until: u64,
}

enum Phase<I> {
    Asleep,
    /// Somebody takes turns, and has the instance if there is one.
    Running,
    Awake {
        instance: I,
        since: u64,
    },
}

/// What follows from an event's coming.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Posted<I> {
    /// Nobody takes turns: begin, with this instance if the room is awake.
    Start(Option<I>),
    /// It waits for its turn.
    Queued,
}

/// Why an event was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    /// Too many wait.
    Full,
    /// The room fails to wake: closed for so long.
    Closed(Duration),
}

impl<I, E> Default for Room<I, E> {
    fn default() -> Room<I, E> {
        Room { phase: Phase::Asleep, inbox: VecDeque::new(), failures: 0, closed_until: 0 }
    }
}

impl<I, E> Room<I, E> {
    /// An event has come.
    pub(crate) fn post(&mut self, event: E, inbox_max: usize, now: u64) -> Result<Posted<I>, Refused> {
        self.check_open(now)?;
        if self.inbox.len() >= inbox_max {
            return Err(Refused::Full);
        }
        self.inbox.push_back(event);
        Ok(match std::mem::replace(&mut self.phase, Phase::Running) {
            Phase::Running => Posted::Queued,
            Phase::Asleep => Posted::Start(None),
            Phase::Awake { instance, .. } => Posted::Start(Some(instance)),
        })
    }

    /// Whether the room may be woken.
    pub(crate) fn check_open(&self, now: u64) -> Result<(), Refused> {
        match self.closed_until.checked_sub(now).filter(|left| *left > 0) {
            None => Ok(()),
            Some(left) => Err(Refused::Closed(Duration::from_millis(left))),
        }
    }

    /// The events of the next turn, at most `max`. If there are none, the room takes the instance back and rests.
    pub(crate) fn next_turn(&mut self, max: usize, instance: &mut Option<I>, now: u64) -> VecDeque<E> {
        if self.inbox.is_empty() {
            self.phase = match instance.take() {
                Some(instance) => Phase::Awake { instance, since: now },
                None => Phase::Asleep,
            };
        }
        let rest = self.inbox.split_off(self.inbox.len().min(max));
        std::mem::replace(&mut self.inbox, rest)
    }

    /// The room has woken, or has failed to.
    pub(crate) fn handle_wake(&mut self, woke: bool, now: u64) {
        self.failures = if woke { 0 } else { self.failures + 1 };
        if self.failures >= WAKE_FAILURES_MAX {
            self.failures = 0;
            self.closed_until = now + WAKE_PAUSE.as_millis() as u64;
        }
    }

    /// Wakes that failed were those of another version of the app.
    pub(crate) fn forgive(&mut self) {
        (self.failures, self.closed_until) = (0, 0);
    }

    /// Since when it is awake without an event.
    pub(crate) fn idle_since(&self) -> Option<u64> {
        match self.phase {
            Phase::Awake { since, .. } => Some(since),
            _ => None,
        }
    }

    /// Puts an idle room to sleep: its instance, to be dropped.
    pub(crate) fn sleep(&mut self) -> Option<I> {
        match std::mem::replace(&mut self.phase, Phase::Asleep) {
            Phase::Awake { instance, .. } => Some(instance),
            other => {
                self.phase = other;
                None
            }
        }
    }

    /// Whether nothing of it has to be remembered: it sleeps, and would wake like any other.
    pub(crate) fn is_blank(&self, now: u64) -> bool {
        matches!(self.phase, Phase::Asleep) && self.failures == 0 && self.closed_until <= now
    }

    /// Whether it is awake, running or idle.
    pub(crate) fn is_awake(&self) -> bool {
        !matches!(self.phase, Phase::Asleep)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Tea = Room<&'static str, u32>;

    fn turn(room: &mut Tea, instance: &mut Option<&'static str>) -> Vec<u32> {
        room.next_turn(2, instance, 100).into()
    }

    #[test]
    fn events_of_one_room_wait_for_the_turn_that_runs() {
        let mut room = Tea::default();
        assert_eq!(room.post(1, 9, 0), Ok(Posted::Start(None)));
        for event in [2, 3] {
            assert_eq!(room.post(event, 9, 0), Ok(Posted::Queued));
        }
        let mut instance = Some("one");
        assert_eq!((turn(&mut room, &mut instance), turn(&mut room, &mut instance)), (vec![1, 2], vec![3]));
        assert_eq!(room.sleep(), None, "it runs");
        assert_eq!((turn(&mut room, &mut instance), instance), (vec![], None));
        assert_eq!(room.idle_since(), Some(100));
        assert_eq!(room.post(4, 9, 0), Ok(Posted::Start(Some("one"))));
    }

    #[test]
    fn a_room_that_sleeps_leaves_nothing_behind() {
        let mut room = Tea::default();
        room.post(1, 9, 0).unwrap();
        let mut instance = Some("one");
        while !turn(&mut room, &mut instance).is_empty() {}
        assert!(!room.is_blank(100) && room.is_awake());
        assert_eq!((room.sleep(), room.sleep()), (Some("one"), None));
        assert!(room.is_blank(100) && !room.is_awake());
        assert_eq!(room.post(2, 9, 100), Ok(Posted::Start(None)));
    }

    #[test]
    fn a_room_that_fails_to_wake_five_times_in_a_row_is_closed_for_thirty_seconds() {
        let mut room = Tea::default();
        for woke in [false, false, false, false, true, false, false, false, false] {
            room.handle_wake(woke, 1000);
            assert_eq!(room.check_open(1000), Ok(()));
        }
        room.handle_wake(false, 1000);
        assert_eq!(room.post(1, 9, 1000), Err(Refused::Closed(Duration::from_secs(30))));
        assert_eq!(room.post(1, 9, 30_999), Err(Refused::Closed(Duration::from_millis(1))));
        assert!(!room.is_blank(30_999));
        assert_eq!(room.post(1, 9, 31_000), Ok(Posted::Start(None)));
    }

    #[test]
    fn one_event_too_many_is_refused() {
        let mut room = Tea::default();
        assert_eq!(room.post(1, 2, 0), Ok(Posted::Start(None)));
        assert_eq!(room.post(2, 2, 0), Ok(Posted::Queued));
        assert_eq!(room.post(3, 2, 0), Err(Refused::Full));
    }
}
