//! The outbox: the bounded queue of messages to one client. Any thread fills it, and the task that
//! owns the client's socket (the drainer) empties it.
//!
//! An outbox is open until a close is queued or the client has gone (`abandon`). After that it
//! takes nothing. A close is always the last entry, and the first close wins.
//!
//! A message counts against the limits from the moment it is queued until the drainer reports it
//! `written`. Messages in between are *in flight*; only the drainer changes their counters. Without
//! them a slow client could hold a second outbox in the buffers of its socket.
//!
//! Memory is reserved in the budget of the process before a message is queued, and given back when
//! the message has been written. A large publication is reserved once by its maker, because all
//! followers share it. An outbox with much memory is a `Consumer`: it can be evicted if memory runs
//! short.
//!
//! Invariant: a message is admitted only within `outbox_bytes_max` and `outbox_messages_max`,
//! counting those in flight. There are two exceptions: an empty outbox takes one message of any
//! size, and a topic that drops its oldest publications keeps the newest one after messages in
//! flight.
//!
//! Nothing here waits. If there is no room, the caller gets `SendError::Full`, or the topic's
//! policy decides which message is lost. Writing, timeouts and the close handshake are left to the
//! owner.

pub use crate::realtime::outgoing::{Close, Outgoing};
use crate::{
    budget::{Budget, CONSUMER_BYTES_MIN, Charge, Consumer, MemoryKind, OutOfMemory},
    limits::Limits,
    message::Message,
    realtime::{
        outgoing,
        publication::{Overflow, Publication},
    },
};
use std::{
    collections::VecDeque,
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, Weak,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    task::{Context, Waker},
};

/// Why a message was not queued (WIT `websockets.send-error`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SendError {
    /// The client is leaving or gone.
    Closed,
    /// The outbox is at its bound. Wait until `queued` falls, or drop the message.
    Full,
    /// The message is larger than `message_bytes_max`.
    TooLarge,
}

impl fmt::Display for SendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            SendError::Closed => "the connection is closing or gone",
            SendError::Full => "the connection's outbox is full",
            SendError::TooLarge => "the message is larger than the host's limit",
        })
    }
}

impl std::error::Error for SendError {}

/// The destination of a drainer. It is called under the lock of the outbox, so it must not call the
/// outbox.
pub trait Sink {
    /// Returns true if it can take another entry.
    fn has_room(&self) -> bool;
    /// Takes an entry.
    fn put(&mut self, outgoing: Outgoing);
}

impl Sink for VecDeque<Outgoing> {
    fn has_room(&self) -> bool {
        true
    }

    fn put(&mut self, outgoing: Outgoing) {
        self.push_back(outgoing);
    }
}

impl Sink for Option<Outgoing> {
    fn has_room(&self) -> bool {
        self.is_none()
    }

    fn put(&mut self, outgoing: Outgoing) {
        *self = Some(outgoing);
    }
}

/// Result of a drain beside the entries.
#[derive(Debug)]
pub struct TakeOutcome {
    /// True if there was an entry to take.
    pub any: bool,
    /// True if no entry is left.
    pub all: bool,
    /// The close at the end of the queue: its time runs even while there is no room for it.
    pub close: Option<Close>,
}

/// The queue of messages to one client. Its limits are `outbox_bytes_max` and
/// `outbox_messages_max`; an empty outbox takes one message of any size.
///
/// ```
/// use tidegate_hub::{Limits, Message, Outbox, SendError};
/// let outbox = Outbox::new(&Limits { outbox_messages_max: 1, ..Default::default() });
/// assert_eq!(outbox.send(Message::text("first")), Ok(()));
/// assert_eq!(outbox.send(Message::text("second")), Err(SendError::Full));
/// ```
#[derive(Debug)]
pub struct Outbox {
    bytes_max: usize,
    messages_max: usize,
    message_bytes_max: usize,
    /// Bytes and messages that were taken and are not yet written. Only the drainer changes them.
    in_flight_bytes: AtomicUsize,
    in_flight_messages: AtomicUsize,
    budget: Arc<Budget>,
    /// True if memory is reserved for the queue.
    is_charged: AtomicBool,
    /// Number of bytes reserved for the same client outside this outbox.
    beside: AtomicUsize,
    is_registered: AtomicBool,
    is_evicted: AtomicBool,
    me: Weak<Outbox>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    queue: VecDeque<Outgoing>,
    /// Number of bytes in the queue.
    bytes: usize,
    /// Number of these bytes that other outboxes share; the next field counts the same for the
    /// entries that were taken and may not be written yet.
    shared: usize,
    shared_taken: usize,
    charge: Charge,
    /// True if a close is queued or the client has gone.
    closed: bool,
    /// Wakes the drainer if `is_watched` is true: then it waits for an entry. It is kept while the
    /// task is awake, for the next time.
    waker: Option<Waker>,
    is_watched: bool,
}

impl Outbox {
    /// Returns an empty outbox without a budget.
    pub fn new(limits: &Limits) -> Outbox {
        Outbox::build(limits, Arc::new(Budget::new(0)), Weak::new())
    }

    /// Returns an empty outbox whose memory is a part of the budget.
    pub(crate) fn in_budget(limits: &Limits, budget: &Arc<Budget>) -> Arc<Outbox> {
        Arc::new_cyclic(|me| Outbox::build(limits, budget.clone(), me.clone()))
    }

    fn build(limits: &Limits, budget: Arc<Budget>, me: Weak<Outbox>) -> Outbox {
        let state = State {
            queue: VecDeque::new(),
            bytes: 0,
            shared: 0,
            shared_taken: 0,
            charge: Charge::new(MemoryKind::Outbox),
            closed: false,
            waker: None,
            is_watched: false,
        };
        Outbox {
            bytes_max: limits.outbox_bytes_max,
            messages_max: limits.outbox_messages_max,
            message_bytes_max: limits.message_bytes_max,
            in_flight_bytes: AtomicUsize::new(0),
            in_flight_messages: AtomicUsize::new(0),
            budget,
            is_charged: AtomicBool::new(false),
            beside: AtomicUsize::new(0),
            is_registered: AtomicBool::new(false),
            is_evicted: AtomicBool::new(false),
            me,
            state: Mutex::new(state),
        }
    }

    /// Queues a message to this client alone.
    pub fn send(&self, message: Message) -> Result<(), SendError> {
        self.queue(Outgoing::Message(message))
    }

    /// Queues an entry for this client alone, which is no close.
    pub(crate) fn queue(&self, outgoing: Outgoing) -> Result<(), SendError> {
        let length = outgoing.len();
        if length > outgoing.length_max(self.message_bytes_max) {
            return Err(SendError::TooLarge);
        }
        let mut state = self.state();
        if state.closed {
            return Err(SendError::Closed);
        }
        if !self.admit(&mut state, length, 0) {
            return Err(SendError::Full);
        }
        state.push(outgoing);
        Outbox::wake(state);
        Ok(())
    }

    /// Returns true if a message of this length would be queued after `bytes` and `messages` more.
    pub(crate) fn has_room(&self, bytes: usize, messages: usize, length: usize) -> bool {
        self.has_room_after(&self.state(), bytes, messages, length)
    }

    /// Queues a publication. If it does not fit, `overflow` decides what is lost. Returns true if
    /// it was queued. If the oldest ones are dropped, the newest is lost only if messages to this
    /// client alone fill the outbox, or if memory is short.
    pub fn deliver(&self, publication: &Arc<Publication>, overflow: Overflow) -> bool {
        let length = publication.message.len();
        let mut state = self.state();
        if state.closed {
            return false;
        }
        if !self.admit(&mut state, length, outgoing::shared(length)) {
            match overflow {
                Overflow::Close => {
                    state.close(true, Close::new(1013, "too slow for what it follows"))
                }
                Overflow::DropOldest => {
                    while self.is_full(&state, length) && state.drop_oldest_publication() {}
                    // If only messages in flight are before it, the newest publication is kept: it
                    // takes the room of the ones that were dropped for it.
                    if !state.queue.is_empty()
                        && !self.admit(&mut state, length, outgoing::shared(length))
                    {
                        return false;
                    }
                    state.push(Outgoing::Publication(publication.clone()));
                }
            }
            let queued = overflow == Overflow::DropOldest;
            Outbox::wake(state);
            return queued;
        }
        state.push(Outgoing::Publication(publication.clone()));
        Outbox::wake(state);
        true
    }

    /// Queues a close after the entries in the queue. Later entries are refused. A second close has
    /// no effect.
    pub fn close(&self, close: Close) {
        let mut state = self.state();
        if !state.closed {
            state.close(false, close);
            Outbox::wake(state);
        }
    }

    /// Empties the queue and refuses all later entries, because the client has gone.
    pub fn abandon(&self) {
        let mut state = self.state();
        state.closed = true;
        state.queue = VecDeque::new();
        (state.bytes, state.shared, state.shared_taken) = (0, 0, 0);
        state.waker = None;
        self.in_flight_bytes.store(0, Ordering::Relaxed);
        self.in_flight_messages.store(0, Ordering::Relaxed);
        self.release(&mut state);
    }

    /// Moves the entries into `sink`, oldest first, while it has room. They count as queued until
    /// they are [`written`](Outbox::written).
    pub fn take(&self, sink: &mut impl Sink) -> TakeOutcome {
        self.take_from(&mut self.state(), sink)
    }

    /// As [`take`](Outbox::take); then the next entry wakes `cx`, until
    /// [`unwatch`](Outbox::unwatch).
    pub fn take_and_watch(&self, cx: &mut Context<'_>, sink: &mut impl Sink) -> TakeOutcome {
        let mut state = self.state();
        match &mut state.waker {
            Some(waker) => waker.clone_from(cx.waker()),
            None => state.waker = Some(cx.waker().clone()),
        }
        state.is_watched = true;
        self.take_from(&mut state, sink)
    }

    /// Stops the wake-ups: the drainer is awake and will look for entries without one.
    pub fn unwatch(&self) {
        self.state().is_watched = false;
    }

    /// Reports that everything that was taken has reached the network.
    pub fn written(&self) {
        self.in_flight_bytes.store(0, Ordering::Relaxed);
        self.in_flight_messages.store(0, Ordering::Relaxed);
        if self.is_charged.load(Ordering::Relaxed) {
            self.release(&mut self.state());
        }
    }

    /// Counts bytes that the owner queued beside the outbox, such as pongs. They count as queued
    /// until they are [`written`](Outbox::written).
    pub fn count_in_flight(&self, bytes: usize) {
        self.in_flight_bytes.store(
            self.in_flight_bytes.load(Ordering::Relaxed) + bytes,
            Ordering::Relaxed,
        );
    }

    /// Returns true if the client has to be dropped at once, because memory is short. The owner is
    /// woken when this changes.
    pub fn is_evicted(&self) -> bool {
        self.is_evicted.load(Ordering::Relaxed)
    }

    /// As [`Charge::fit`], for memory that is held for the same client beside its outbox. All of it
    /// counts when the largest consumers are closed.
    #[inline]
    pub fn charge_beside(&self, charge: &mut Charge, bytes: usize) -> Result<(), OutOfMemory> {
        if charge.is_free(bytes) {
            Ok(())
        } else {
            self.reserve_beside(charge, bytes)
        }
    }

    fn reserve_beside(&self, charge: &mut Charge, bytes: usize) -> Result<(), OutOfMemory> {
        let before = charge.bytes();
        charge.fit(&self.budget, bytes)?;
        match charge.bytes().checked_sub(before) {
            Some(0) => {}
            Some(more) => {
                let beside = self.beside.fetch_add(more, Ordering::Relaxed) + more;
                self.register(beside);
            }
            None => {
                _ = self
                    .beside
                    .fetch_sub(before - charge.bytes(), Ordering::Relaxed)
            }
        }
        Ok(())
    }

    /// Returns true if a payload of this length is within the limits and, without the bytes of it
    /// that are shared, within the budget. Then its memory is reserved.
    fn admit(&self, state: &mut State, length: usize, shared: usize) -> bool {
        let (bytes, count) = self.pending(state);
        if !self.fits_after(bytes, count, length) {
            return false;
        }
        let weight = weight(bytes + length, count + 1);
        // The common case: so few bytes are free, whether they are shared or not.
        state.charge.is_free(weight) || self.reserve(state, weight, shared)
    }

    #[cold]
    fn reserve(&self, state: &mut State, weight: usize, shared: usize) -> bool {
        let weight = weight.saturating_sub(self.shared(state) + shared);
        let fits = state.charge.fit(&self.budget, weight).is_ok();
        if state.charge.bytes() > 0 {
            self.is_charged.store(true, Ordering::Relaxed);
            self.register(state.charge.bytes());
        }
        fits
    }

    /// Gives back the memory that was reserved for entries that have gone.
    fn release(&self, state: &mut State) {
        let (bytes, count) = self.pending(state);
        let weight = weight(bytes, count).saturating_sub(self.shared(state));
        // A smaller reservation is never refused.
        _ = state.charge.fit(&self.budget, weight);
        self.is_charged
            .store(state.charge.bytes() > 0, Ordering::Relaxed);
    }

    /// Returns the bytes of the pending entries that do not count as memory of this outbox.
    fn shared(&self, state: &mut State) -> usize {
        if self.in_flight_messages.load(Ordering::Relaxed) == 0 {
            state.shared_taken = 0;
        }
        state.shared + state.shared_taken
    }

    fn register(&self, bytes: usize) {
        if bytes >= CONSUMER_BYTES_MIN && !self.is_registered.swap(true, Ordering::Relaxed) {
            self.budget.register(self.me.clone());
        }
    }

    fn take_from(&self, state: &mut State, sink: &mut impl Sink) -> TakeOutcome {
        if state.queue.is_empty() {
            return TakeOutcome {
                any: false,
                all: true,
                close: None,
            };
        }
        let close = state.last_close();
        let (mut bytes, mut messages, mut shared) = (0, 0, 0);
        while sink.has_room()
            && let Some(outgoing) = state.queue.pop_front()
        {
            bytes += outgoing.len();
            shared += outgoing.shared();
            messages += 1;
            sink.put(outgoing);
        }
        state.bytes -= bytes;
        if shared > 0 {
            state.shared_taken = self.shared(state) - state.shared + shared;
            state.shared -= shared;
        }
        let add = |counter: &AtomicUsize, n| {
            counter.store(counter.load(Ordering::Relaxed) + n, Ordering::Relaxed)
        };
        add(&self.in_flight_bytes, bytes);
        add(&self.in_flight_messages, messages);
        TakeOutcome {
            all: state.queue.is_empty(),
            any: messages > 0,
            close,
        }
    }

    /// Returns the bytes that are queued and not yet written to the network.
    pub fn queued(&self) -> usize {
        self.state().bytes + self.in_flight_bytes.load(Ordering::Relaxed)
    }

    /// Returns true if a close is queued or the client has gone.
    pub fn is_closed(&self) -> bool {
        self.state().closed
    }

    fn is_full(&self, state: &State, length: usize) -> bool {
        !self.has_room_after(state, 0, 0, length)
    }

    fn has_room_after(&self, state: &State, bytes: usize, messages: usize, length: usize) -> bool {
        let pending = self.pending(state);
        self.fits_after(pending.0 + bytes, pending.1 + messages, length)
    }

    /// Returns bytes and number of the messages that are queued and not yet written.
    fn pending(&self, state: &State) -> (usize, usize) {
        let bytes = state.bytes + self.in_flight_bytes.load(Ordering::Relaxed);
        (
            bytes,
            state.queue.len() + self.in_flight_messages.load(Ordering::Relaxed),
        )
    }

    fn fits_after(&self, bytes: usize, count: usize, length: usize) -> bool {
        count < self.messages_max && (bytes == 0 || bytes + length <= self.bytes_max)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state
            .lock()
            .expect("nothing panics while it holds an outbox")
    }

    /// Wakes the drainer outside the lock, because its first step is to take the lock.
    fn wake(mut state: MutexGuard<'_, State>) {
        if !std::mem::take(&mut state.is_watched) {
            return;
        }
        let waker = state.waker.take();
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

/// Returns the bytes of memory that `count` payloads of `bytes` bytes take.
fn weight(bytes: usize, count: usize) -> usize {
    bytes + count * size_of::<Outgoing>()
}

impl Consumer for Outbox {
    fn bytes(&self) -> usize {
        self.state().charge.bytes() + self.beside.load(Ordering::Relaxed)
    }

    fn evict(&self) {
        let mut state = self.state();
        self.is_evicted.store(true, Ordering::Relaxed);
        if !state.closed {
            state.close(true, Close::new(1013, "the server is short of memory"));
        }
        Outbox::wake(state);
    }
}

impl State {
    fn push(&mut self, outgoing: Outgoing) {
        self.bytes += outgoing.len();
        self.shared += outgoing.shared();
        self.queue.push_back(outgoing);
    }

    fn close(&mut self, forget_queue: bool, close: Close) {
        if forget_queue {
            self.queue = VecDeque::new();
            (self.bytes, self.shared) = (0, 0);
        }
        self.closed = true;
        self.queue.push_back(Outgoing::Close(close));
    }

    fn last_close(&self) -> Option<Close> {
        match self.queue.back() {
            Some(Outgoing::Close(close)) if self.closed => Some(close.clone()),
            _ => None,
        }
    }

    /// Drops the oldest publication. Returns false if there is none: messages to this client alone
    /// are not dropped for a publication.
    fn drop_oldest_publication(&mut self) -> bool {
        let Some(at) = self
            .queue
            .iter()
            .position(|outgoing| matches!(outgoing, Outgoing::Publication(_)))
        else {
            return false;
        };
        if let Some(dropped) = self.queue.remove(at) {
            self.bytes -= dropped.len();
            self.shared -= dropped.shared();
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outbox(bytes: usize, messages: usize) -> Outbox {
        Outbox::new(&Limits {
            outbox_bytes_max: bytes,
            outbox_messages_max: messages,
            message_bytes_max: 100,
            ..Limits::default()
        })
    }

    #[test]
    fn memory_is_reserved_for_unwritten_entries_less_their_shared_bytes() {
        const KIB: usize = 1 << 10;
        let limits = Limits {
            outbox_bytes_max: 1024 * KIB,
            ..Limits::default()
        };
        type Put = fn(&Outbox);
        let own: Put = |outbox| outbox.send(Message::binary(vec![0; 10 * KIB])).unwrap();
        let small: Put = |outbox| assert!(outbox.deliver(&publication("small"), Overflow::Close));
        let large: Put =
            |outbox| assert!(outbox.deliver(&publication(&"x".repeat(50 * KIB)), Overflow::Close));
        let cases = [
            ("small publications", small, 100, 0),
            ("messages", own, 1, 0),
            ("messages", own, 9, 96),
            ("large publications", large, 9, 48),
        ];
        for (name, put, count, expected) in cases {
            let budget = Arc::new(Budget::new(100 << 20));
            let outbox = Outbox::in_budget(&limits, &budget);
            let reserved = || budget.reserved_for(MemoryKind::Outbox) / KIB;
            (0..count).for_each(|_| put(&outbox));
            assert_eq!(reserved(), expected, "{count} {name}");
            let mut batch = VecDeque::new();
            outbox.take(&mut batch);
            assert_eq!(reserved(), expected, "{count} {name} in flight");
            if expected > 0 {
                put(&outbox);
                assert!(
                    reserved() >= expected,
                    "one more beside {count} {name} in flight"
                );
                outbox.take(&mut batch);
            }
            outbox.written();
            assert_eq!(reserved(), 0, "{count} {name} written");
            put(&outbox);
            assert_eq!(reserved(), 0, "one after {count} {name}");
        }
    }

    fn publication(text: &str) -> Arc<Publication> {
        Arc::new(Publication::new(Message::text(text.to_owned())))
    }

    fn drain(outbox: &Outbox) -> Vec<String> {
        let mut batch = VecDeque::new();
        outbox.take(&mut batch);
        outbox.written();
        batch.iter().map(describe).collect()
    }

    fn describe(outgoing: &Outgoing) -> String {
        match outgoing {
            Outgoing::Close(close) => format!("close {}", close.code),
            other => {
                let message = other
                    .message()
                    .expect("only messages and closes are queued");
                String::from_utf8_lossy(message.bytes()).into_owned()
            }
        }
    }

    #[test]
    fn an_outbox_refuses_entries_beyond_its_bounds() {
        let by_bytes = outbox(10, 9);
        assert_eq!(
            by_bytes.send(Message::text("1234567890ab")),
            Ok(()),
            "one message always fits"
        );
        assert_eq!(by_bytes.send(Message::text("c")), Err(SendError::Full));
        let by_count = outbox(100, 2);
        assert_eq!(
            [(); 3].map(|()| by_count.send(Message::text("m"))),
            [Ok(()), Ok(()), Err(SendError::Full)]
        );
        assert_eq!(
            by_count.send(Message::binary(vec![0; 101])),
            Err(SendError::TooLarge)
        );
    }

    #[test]
    fn entries_in_flight_count_until_they_are_written() {
        let outbox = outbox(10, 9);
        outbox.send(Message::text("12345678")).unwrap();
        let mut batch = VecDeque::new();
        outbox.take(&mut batch);
        assert_eq!(
            (outbox.queued(), outbox.send(Message::text("abc"))),
            (8, Err(SendError::Full))
        );
        outbox.written();
        assert_eq!(
            (outbox.queued(), outbox.send(Message::text("abc"))),
            (0, Ok(()))
        );
    }

    #[test]
    fn a_slow_follower_is_closed_with_1013_and_its_queue_forgotten() {
        let outbox = outbox(100, 2);
        assert!(outbox.deliver(&publication("a"), Overflow::Close));
        assert!(outbox.deliver(&publication("b"), Overflow::Close));
        assert!(!outbox.deliver(&publication("c"), Overflow::Close));
        assert_eq!(drain(&outbox), ["close 1013"]);
        assert_eq!(outbox.send(Message::text("late")), Err(SendError::Closed));
    }

    #[test]
    fn a_slow_follower_loses_its_oldest_publications_but_no_message_of_its_own() {
        let outbox = outbox(100, 3);
        outbox.send(Message::text("own")).unwrap();
        for text in ["a", "b", "c", "d"] {
            assert!(outbox.deliver(&publication(text), Overflow::DropOldest));
        }
        assert_eq!(drain(&outbox), ["own", "c", "d"]);
    }

    #[test]
    fn the_newest_publication_is_kept_while_an_older_one_is_being_written() {
        let outbox = outbox(10, 9);
        assert!(outbox.deliver(&publication("12345678"), Overflow::DropOldest));
        let mut batch = VecDeque::new();
        outbox.take(&mut batch);
        for text in ["old", "newest"] {
            assert!(
                outbox.deliver(&publication(text), Overflow::DropOldest),
                "{text}"
            );
        }
        assert_eq!(drain(&outbox), ["newest"]);
    }

    #[test]
    fn a_drainer_takes_entries_while_it_has_room_and_learns_of_a_waiting_close() {
        let outbox = outbox(100, 9);
        outbox.send(Message::text("one")).unwrap();
        outbox.send(Message::text("second")).unwrap();
        outbox.close(Close::new(1000, ""));
        let mut sink = None;
        let taken = outbox.take(&mut sink);
        assert_eq!(
            (taken.any, taken.all, taken.close),
            (true, false, Some(Close::new(1000, "")))
        );
        assert_eq!(
            (sink.as_ref().map(describe), outbox.queued()),
            (Some("one".into()), 9)
        );
        assert!(!outbox.take(&mut sink).any, "it has no room");
        outbox.written();
        assert_eq!(
            (outbox.queued(), drain(&outbox)),
            (6, vec!["second".to_owned(), "close 1000".into()])
        );
    }

    #[test]
    fn a_close_follows_the_queued_entries_and_comes_once() {
        let outbox = outbox(100, 9);
        outbox.send(Message::text("bye")).unwrap();
        outbox.close(Close::new(1000, ""));
        outbox.close(Close::new(1001, ""));
        assert_eq!(drain(&outbox), ["bye", "close 1000"]);
    }
}
