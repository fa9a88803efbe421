//! One room as a state machine: who waits for it, whether it runs, is awake or sleeps, and when it is closed for a while.

use crate::{
    limits::{WAKE_FAILURES_MAX, WAKE_PAUSE},
    retry::Backoff,
};
use std::{collections::VecDeque, time::Duration};

/// `I` is an instance of the app, `E` an event and who waits for its outcome. Times are monotonic milliseconds.
///
/// Events that must happen are never refused. If the host cannot hand them to the app, or cannot keep what they did, they are
/// `pending`: in their order, until the pause before the next try is over. At most one of each connection of the room is.
pub(crate) struct Room<I, E> {
    phase: Phase<I>,
    inbox: VecDeque<E>,
    pending: VecDeque<E>,
    /// When pending events are tried again.
    again_at: u64,
    backoff: Backoff,
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
    /// It is pending until then: call [`resume`](Room::resume).
    Pending(u64),
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
        Room {
            phase: Phase::Asleep,
            inbox: VecDeque::new(),
            pending: VecDeque::new(),
            again_at: 0,
            backoff: Backoff::default(),
            failures: 0,
            closed_until: 0,
        }
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
        Ok(self.start())
    }

    /// An event has come that must happen.
    pub(crate) fn post_certain(&mut self, event: E, now: u64) -> Posted<I> {
        if self.pending.is_empty() && self.check_open(now).is_ok() {
            self.inbox.push_back(event);
            return self.start();
        }
        if self.pending.is_empty() {
            self.again_at = self.closed_until;
        }
        // Behind those that came before it.
        self.pending.push_back(event);
        Posted::Pending(self.again_at)
    }

    /// It is the time that [`post_certain`](Room::post_certain) or [`put_back`](Room::put_back) gave: begin; none if that has been
    /// overtaken.
    pub(crate) fn resume(&mut self, at: u64) -> Option<Posted<I>> {
        let is_due = at == self.again_at && !self.pending.is_empty() && !matches!(self.phase, Phase::Running);
        is_due.then(|| self.start())
    }

    /// These events of the turn that runs could not be handed over: they are the first of the next try. When that is, and whether it is
    /// the first one.
    pub(crate) fn put_back(&mut self, events: impl DoubleEndedIterator<Item = E>, now: u64) -> (u64, bool) {
        let is_first = self.backoff.is_fresh();
        events.rev().for_each(|event| self.pending.push_front(event));
        self.again_at = self.closed_until.max(now + self.backoff.pause());
        (self.again_at, is_first)
    }

    fn start(&mut self) -> Posted<I> {
        match std::mem::replace(&mut self.phase, Phase::Running) {
            Phase::Running => Posted::Queued,
            Phase::Asleep => Posted::Start(None),
            Phase::Awake { instance, .. } => Posted::Start(Some(instance)),
        }
    }

    /// Whether the room may be woken.
    pub(crate) fn check_open(&self, now: u64) -> Result<(), Refused> {
        match self.closed_until.checked_sub(now).filter(|left| *left > 0) {
            None => Ok(()),
            Some(left) => Err(Refused::Closed(Duration::from_millis(left))),
        }
    }

    /// The events of the next turn, at most `max`: pending ones first, if it is time for them. If there are none, the room takes the
    /// instance back and rests.
    pub(crate) fn next_turn(&mut self, max: usize, instance: &mut Option<I>, now: u64) -> VecDeque<E> {
        let mut events = VecDeque::new();
        if self.again_at <= now {
            events.extend(self.pending.drain(..self.pending.len().min(max)));
        }
        events.extend(self.inbox.drain(..self.inbox.len().min(max - events.len())));
        if events.is_empty() {
            self.phase = match instance.take() {
                Some(instance) => Phase::Awake { instance, since: now },
                None => Phase::Asleep,
            };
        }
        events
    }

    /// An event that must happen was handed over: the next pause is short again.
    pub(crate) fn handle_delivery(&mut self) {
        self.backoff = Backoff::default();
    }

    /// The room has woken, or has failed to.
    pub(crate) fn handle_wake(&mut self, woke: bool, now: u64) {
        self.failures = if woke { 0 } else { self.failures + 1 };
        if woke {
            // What kept pending events from being handed over is over, as it seems.
            self.again_at = self.again_at.min(now);
        }
        if self.failures >= WAKE_FAILURES_MAX {
            self.failures = 0;
            self.closed_until = now + WAKE_PAUSE.as_millis() as u64;
        }
    }

    /// Wakes that failed were those of another version of the app. Whether events are pending, which can be tried now.
    pub(crate) fn forgive(&mut self) -> bool {
        (self.failures, self.closed_until, self.again_at) = (0, 0, 0);
        !self.pending.is_empty()
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
        matches!(self.phase, Phase::Asleep) && self.pending.is_empty() && self.failures == 0 && self.closed_until <= now
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
    fn an_event_that_must_happen_is_taken_by_a_room_that_is_full_or_closed() {
        let mut room = Tea::default();
        assert_eq!(room.post(1, 1, 0), Ok(Posted::Start(None)));
        assert_eq!((room.post(2, 1, 0), room.post_certain(3, 0)), (Err(Refused::Full), Posted::Queued));
        let mut instance = None;
        assert_eq!(turn(&mut room, &mut instance), [1, 3]);
        (0..5).for_each(|_| room.handle_wake(false, 100));
        let reopens = 100 + 30_000;
        assert_eq!(room.put_back([3].into_iter(), 100), (reopens, true));
        assert_eq!(room.post_certain(4, 100), Posted::Pending(reopens));
        assert_eq!(turn(&mut room, &mut instance), [], "it rests");
        assert_eq!((room.resume(100), room.is_blank(reopens)), (None, false));
        assert_eq!((room.resume(reopens), room.resume(reopens)), (Some(Posted::Start(None)), None));
        assert_eq!(room.next_turn(9, &mut instance, reopens), [3, 4]);
        room.handle_delivery();
        assert_eq!(room.next_turn(9, &mut instance, reopens), []);
        assert_eq!((room.resume(reopens), room.is_blank(reopens)), (None, true), "nothing of it is left");
    }

    #[test]
    fn pending_events_are_tried_again_after_longer_and_longer_pauses_and_others_do_not_wait_for_them() {
        let (mut room, mut instance, mut now) = (Tea::default(), None, 0);
        room.post_certain(1, now);
        for pause in [250, 500, 1000] {
            assert_eq!(room.next_turn(9, &mut instance, now), [1]);
            let (again, is_first) = room.put_back([1].into_iter(), now);
            assert_eq!((again, is_first), (now + pause, pause == 250));
            assert_eq!(room.post(7, 9, now), Ok(Posted::Queued));
            assert_eq!((room.next_turn(9, &mut instance, now), room.next_turn(9, &mut instance, now)), ([7].into(), [].into()));
            now = again;
            assert_eq!((room.resume(now - 1), room.resume(now)), (None, Some(Posted::Start(None))));
        }
        // As soon as the room wakes, they are next.
        room.put_back([].into_iter(), now);
        room.handle_wake(true, now);
        assert_eq!(room.next_turn(9, &mut instance, now), [1]);
    }

    #[test]
    fn one_event_too_many_is_refused() {
        let mut room = Tea::default();
        assert_eq!(room.post(1, 2, 0), Ok(Posted::Start(None)));
        assert_eq!(room.post(2, 2, 0), Ok(Posted::Queued));
        assert_eq!(room.post(3, 2, 0), Err(Refused::Full));
    }
}
