//! One room as a state machine: its queue, whether it sleeps, runs or is awake, and how long it is
//! closed after failed wakes.

use crate::{
    limits::{WAKE_FAILURES_MAX, WAKE_PAUSE},
    retry::Backoff,
    rooms::{
        awake::Ticket,
        inbox::{Inbox, InboxMax},
    },
};
use std::{collections::VecDeque, time::Duration};

/// The state of a room. `I` is an instance of the app; `E` is an event with the receiver of its
/// outcome. Times are monotonic milliseconds.
///
/// Events that must happen are never refused. If the host cannot hand them to the app, or cannot
/// keep their effects, they are `pending` in their order until the pause before the next try is
/// over. Each connection of the room has at most one pending event.
pub(crate) struct Room<I, E> {
    phase: Phase<I>,
    inbox: Inbox<E>,
    pending: VecDeque<E>,
    /// Time at which pending events are tried again.
    again_at: u64,
    backoff: Backoff,
    /// Number of consecutive wakes that failed.
    failures: u32,
    closed_until: u64,
    /// Ticket of the idle room. The owner of the index of awake rooms sets it.
    pub(crate) ticket: Option<Ticket>,
}

enum Phase<I> {
    Asleep,
    /// A task takes turns, and has the instance if there is one.
    Running,
    Awake {
        instance: I,
        since: u64,
    },
}

/// Result of the arrival of an event.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Admission<I> {
    /// No task takes turns: start one, with this instance if the room is awake.
    Start(Option<I>),
    /// The event waits for its turn.
    Queued,
    /// The event is pending until this time: call [`resume`](Room::resume) then.
    Pending(u64),
}

/// Why an event was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PostError {
    /// The queue is full.
    Full,
    /// The room fails to wake, and is closed for this long.
    Closed(Duration),
}

impl<I, E> Default for Room<I, E> {
    fn default() -> Room<I, E> {
        Room {
            phase: Phase::Asleep,
            inbox: Inbox::default(),
            pending: VecDeque::new(),
            again_at: 0,
            backoff: Backoff::default(),
            failures: 0,
            closed_until: 0,
            ticket: None,
        }
    }
}

impl<I, E> Room<I, E> {
    /// Queues an event of this many bytes, and returns its number.
    pub(crate) fn post(
        &mut self,
        event: E,
        bytes: usize,
        max: InboxMax,
        now: u64,
    ) -> Result<(u64, Admission<I>), PostError> {
        self.check_open(now)?;
        if self.inbox.is_full(bytes, max) {
            return Err(PostError::Full);
        }
        let number = self.inbox.push(event, bytes);
        Ok((number, self.start()))
    }

    /// Queues an event that must happen. It is never refused.
    pub(crate) fn post_required(&mut self, event: E, bytes: usize, now: u64) -> Admission<I> {
        if self.pending.is_empty() && self.check_open(now).is_ok() {
            self.inbox.push(event, bytes);
            return self.start();
        }
        if self.pending.is_empty() {
            self.again_at = self.closed_until;
        }
        // The room is closed, or earlier events are pending: this event is tried after them.
        self.pending.push_back(event);
        Admission::Pending(self.again_at)
    }

    /// Starts the next try at the time that [`post_required`](Room::post_required) or
    /// [`requeue`](Room::requeue) gave. Returns none if another time has replaced it.
    pub(crate) fn resume(&mut self, at: u64) -> Option<Admission<I>> {
        let is_due = at == self.again_at
            && !self.pending.is_empty()
            && !matches!(self.phase, Phase::Running);
        is_due.then(|| self.start())
    }

    /// Puts events of the running turn back that could not be handed over: they are the first of
    /// the next try. Returns the time of that try, and true if it is the first one.
    pub(crate) fn requeue(
        &mut self,
        events: impl DoubleEndedIterator<Item = E>,
        now: u64,
    ) -> (u64, bool) {
        let is_first = self.backoff.is_fresh();
        events
            .rev()
            .for_each(|event| self.pending.push_front(event));
        self.again_at = self.closed_until.max(now + self.backoff.pause());
        (self.again_at, is_first)
    }

    fn start(&mut self) -> Admission<I> {
        match std::mem::replace(&mut self.phase, Phase::Running) {
            Phase::Running => Admission::Queued,
            Phase::Asleep => Admission::Start(None),
            Phase::Awake { instance, .. } => Admission::Start(Some(instance)),
        }
    }

    /// Cancels the event with this number, and frees its bytes. Returns none if its turn has come.
    pub(crate) fn give_up(&mut self, number: u64) -> Option<E> {
        self.inbox.take(number)
    }

    /// Returns the bytes of the waiting events.
    pub(crate) fn waiting_bytes(&self) -> usize {
        self.inbox.bytes()
    }

    /// Cancels the waiting events for which `is_it` returns true.
    pub(crate) fn give_up_where(&mut self, is_it: impl Fn(&E) -> bool) -> Vec<E> {
        self.inbox.take_where(is_it)
    }

    /// Checks that the room may be woken.
    pub(crate) fn check_open(&self, now: u64) -> Result<(), PostError> {
        match self.closed_until.checked_sub(now).filter(|left| *left > 0) {
            None => Ok(()),
            Some(left) => Err(PostError::Closed(Duration::from_millis(left))),
        }
    }

    /// Returns the events of the next turn: at most `max`, and none after the one that makes them
    /// `bytes_max` bytes. Pending events come first, if it is time for them. If there are no
    /// events, the room takes the instance back and is idle.
    pub(crate) fn next_turn(
        &mut self,
        max: usize,
        bytes_max: usize,
        instance: &mut Option<I>,
        now: u64,
    ) -> Vec<E> {
        let mut events = Vec::new();
        if self.again_at <= now {
            events.extend(self.pending.drain(..self.pending.len().min(max)));
        }
        let mut bytes = 0;
        while events.len() < max
            && bytes < bytes_max
            && let Some((event, size)) = self.inbox.pop()
        {
            events.push(event);
            bytes += size;
        }
        if events.is_empty() {
            self.phase = match instance.take() {
                Some(instance) => Phase::Awake {
                    instance,
                    since: now,
                },
                None => Phase::Asleep,
            };
        }
        events
    }

    /// Notes that an event that must happen was handed over: the next pause is short again.
    pub(crate) fn handle_delivery(&mut self) {
        self.backoff = Backoff::default();
    }

    /// Notes that the room has woken, or has failed to.
    pub(crate) fn handle_wake(&mut self, woke: bool, now: u64) {
        self.failures = if woke { 0 } else { self.failures + 1 };
        if woke {
            // The obstacle to delivering pending events seems to be gone, so try them now.
            self.again_at = self.again_at.min(now);
        }
        if self.failures >= WAKE_FAILURES_MAX {
            self.failures = 0;
            self.closed_until = now + WAKE_PAUSE.as_millis() as u64;
        }
    }

    /// Forgets the failed wakes, which were those of another version of the app. Returns true if
    /// pending events can be tried now.
    pub(crate) fn reset_wake_failures(&mut self) -> bool {
        (self.failures, self.closed_until, self.again_at) = (0, 0, 0);
        !self.pending.is_empty()
    }

    /// Returns the time since which it has been awake without an event.
    pub(crate) fn idle_since(&self) -> Option<u64> {
        match self.phase {
            Phase::Awake { since, .. } => Some(since),
            _ => None,
        }
    }

    /// Puts an idle room to sleep. Returns its instance for the caller to drop.
    pub(crate) fn sleep(&mut self) -> Option<I> {
        match std::mem::replace(&mut self.phase, Phase::Asleep) {
            Phase::Awake { instance, .. } => Some(instance),
            other => {
                self.phase = other;
                None
            }
        }
    }

    /// Returns true if the room sleeps and has no state that differs from that of a new room.
    pub(crate) fn is_blank(&self, now: u64) -> bool {
        matches!(self.phase, Phase::Asleep)
            && self.pending.is_empty()
            && self.failures == 0
            && self.closed_until <= now
    }

    /// Returns true if it is awake, running or idle.
    pub(crate) fn is_awake(&self) -> bool {
        !matches!(self.phase, Phase::Asleep)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Tea = Room<&'static str, u32>;

    fn turn(room: &mut Tea, instance: &mut Option<&'static str>) -> Vec<u32> {
        room.next_turn(2, 100, instance, 100)
    }

    /// Posts an event of ten bytes to a room whose queue has this many places.
    fn post(
        room: &mut Tea,
        event: u32,
        events: usize,
        now: u64,
    ) -> Result<Admission<&'static str>, PostError> {
        room.post(
            event,
            10,
            InboxMax {
                events,
                bytes: 1000,
            },
            now,
        )
        .map(|(_, posted)| posted)
    }

    #[test]
    fn events_of_one_room_wait_for_the_turn_that_runs() {
        let mut room = Tea::default();
        assert_eq!(post(&mut room, 1, 9, 0), Ok(Admission::Start(None)));
        for event in [2, 3] {
            assert_eq!(post(&mut room, event, 9, 0), Ok(Admission::Queued));
        }
        let mut instance = Some("one");
        assert_eq!(
            (
                turn(&mut room, &mut instance),
                turn(&mut room, &mut instance)
            ),
            (vec![1, 2], vec![3])
        );
        assert_eq!(room.sleep(), None, "it runs");
        assert_eq!((turn(&mut room, &mut instance), instance), (vec![], None));
        assert_eq!(room.idle_since(), Some(100));
        assert_eq!(post(&mut room, 4, 9, 0), Ok(Admission::Start(Some("one"))));
    }

    #[test]
    fn a_room_that_sleeps_leaves_nothing_behind() {
        let mut room = Tea::default();
        post(&mut room, 1, 9, 0).unwrap();
        let mut instance = Some("one");
        while !turn(&mut room, &mut instance).is_empty() {}
        assert!(!room.is_blank(100) && room.is_awake());
        assert_eq!((room.sleep(), room.sleep()), (Some("one"), None));
        assert!(room.is_blank(100) && !room.is_awake());
        assert_eq!(post(&mut room, 2, 9, 100), Ok(Admission::Start(None)));
    }

    #[test]
    fn a_room_that_fails_to_wake_five_times_in_a_row_is_closed_for_thirty_seconds() {
        let mut room = Tea::default();
        for woke in [false, false, false, false, true, false, false, false, false] {
            room.handle_wake(woke, 1000);
            assert_eq!(room.check_open(1000), Ok(()));
        }
        room.handle_wake(false, 1000);
        assert_eq!(
            post(&mut room, 1, 9, 1000),
            Err(PostError::Closed(Duration::from_secs(30)))
        );
        assert_eq!(
            post(&mut room, 1, 9, 30_999),
            Err(PostError::Closed(Duration::from_millis(1)))
        );
        assert!(!room.is_blank(30_999));
        assert_eq!(post(&mut room, 1, 9, 31_000), Ok(Admission::Start(None)));
    }

    #[test]
    fn an_event_that_must_happen_is_taken_by_a_room_that_is_full_or_closed() {
        let mut room = Tea::default();
        assert_eq!(post(&mut room, 1, 1, 0), Ok(Admission::Start(None)));
        assert_eq!(
            (post(&mut room, 2, 1, 0), room.post_required(3, 10, 0)),
            (Err(PostError::Full), Admission::Queued)
        );
        let mut instance = None;
        assert_eq!(turn(&mut room, &mut instance), [1, 3]);
        (0..5).for_each(|_| room.handle_wake(false, 100));
        let reopens = 100 + 30_000;
        assert_eq!(room.requeue([3].into_iter(), 100), (reopens, true));
        assert_eq!(room.post_required(4, 10, 100), Admission::Pending(reopens));
        assert_eq!(turn(&mut room, &mut instance), [0; 0], "it rests");
        assert_eq!((room.resume(100), room.is_blank(reopens)), (None, false));
        assert_eq!(
            (room.resume(reopens), room.resume(reopens)),
            (Some(Admission::Start(None)), None)
        );
        assert_eq!(room.next_turn(9, 1000, &mut instance, reopens), [3, 4]);
        room.handle_delivery();
        assert_eq!(room.next_turn(9, 1000, &mut instance, reopens), [0; 0]);
        assert_eq!(
            (room.resume(reopens), room.is_blank(reopens)),
            (None, true),
            "nothing of it is left"
        );
    }

    #[test]
    fn pending_events_are_tried_again_after_longer_and_longer_pauses_and_others_do_not_wait_for_them()
     {
        let (mut room, mut instance, mut now) = (Tea::default(), None, 0);
        room.post_required(1, 10, now);
        for pause in [250, 500, 1000] {
            assert_eq!(room.next_turn(9, 1000, &mut instance, now), [1]);
            let (again, is_first) = room.requeue([1].into_iter(), now);
            assert_eq!((again, is_first), (now + pause, pause == 250));
            assert_eq!(post(&mut room, 7, 9, now), Ok(Admission::Queued));
            assert_eq!(
                (
                    room.next_turn(9, 1000, &mut instance, now),
                    room.next_turn(9, 1000, &mut instance, now)
                ),
                ([7].into(), [].into())
            );
            now = again;
            assert_eq!(
                (room.resume(now - 1), room.resume(now)),
                (None, Some(Admission::Start(None)))
            );
        }
        // As soon as the room wakes, they are next.
        room.requeue([].into_iter(), now);
        room.handle_wake(true, now);
        assert_eq!(room.next_turn(9, 1000, &mut instance, now), [1]);
    }

    #[test]
    fn one_event_too_many_is_refused() {
        let mut room = Tea::default();
        assert_eq!(post(&mut room, 1, 2, 0), Ok(Admission::Start(None)));
        assert_eq!(post(&mut room, 2, 2, 0), Ok(Admission::Queued));
        assert_eq!(post(&mut room, 3, 2, 0), Err(PostError::Full));
    }

    #[test]
    fn bytes_that_wait_are_bounded_and_one_event_is_always_taken() {
        let max = InboxMax {
            events: 9,
            bytes: 100,
        };
        let mut room = Tea::default();
        let mut posted = |event, bytes| room.post(event, bytes, max, 0).is_ok();
        assert_eq!([posted(1, 500), posted(2, 1)], [true, false]);
        assert_eq!(
            (room.next_turn(9, 1, &mut None, 0), room.waiting_bytes()),
            (vec![1], 0)
        );
        let mut posted = |event, bytes| room.post(event, bytes, max, 0).is_ok();
        assert_eq!(
            [posted(3, 60), posted(4, 41), posted(5, 40)],
            [true, false, true]
        );
        assert_eq!(
            room.next_turn(9, 60, &mut None, 0),
            vec![3],
            "a turn has a bound of bytes too"
        );
        assert_eq!(room.next_turn(9, 60, &mut None, 0), [5]);
    }

    #[test]
    fn an_event_that_is_given_up_takes_its_bytes_with_it_and_the_others_keep_their_order() {
        let max = InboxMax {
            events: 1000,
            bytes: 1_000_000,
        };
        let mut room = Tea::default();
        let numbers: Vec<u64> = (0..100)
            .map(|event| room.post(event, 10, max, 0).unwrap().0)
            .collect();
        for number in &numbers[..90] {
            assert!(room.give_up(*number).is_some());
            assert_eq!(room.give_up(*number), None, "once");
        }
        assert_eq!(
            (room.waiting_bytes(), room.inbox.places() <= 36),
            (100, true)
        );
        assert_eq!(room.give_up_where(|event| event % 2 == 0).len(), 5);
        assert_eq!(room.next_turn(99, 1000, &mut None, 0), [91, 93, 95, 97, 99]);
        assert_eq!(
            (
                room.next_turn(99, 1000, &mut None, 0),
                room.give_up(numbers[99])
            ),
            (vec![], None)
        );
    }
}
