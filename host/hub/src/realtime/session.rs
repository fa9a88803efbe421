//! The life of one WebSocket connection as a state machine: it decides which event the app gets
//! next, when to read, when to ping, when to close, and when the connection is over.
//!
//! The task that owns the socket owns the session. It reports each thing that happens (a message, a
//! close frame, the end of a call, bytes on their way out), and asks what to do next. The session
//! does no I/O and reads no clock, so a test can play any order of events and moments.
//!
//! States: `Open`; then `Closing` (our close frame is out) or `Answering` (the peer's close came
//! and waits for the calls before it); then `Ended` (the socket is done) and `Over` (the app has
//! had its last event).
//!
//! Invariants: at most one call into the app runs at a time. The app gets `Open` first, then
//! messages in their order, then `Close` exactly once; a silent session gets none of them. A
//! message that comes after the close has begun never reaches the app.
//!
//! Reading stops while the messages that wait for the app reach the limits of the inbox. So a slow
//! app slows its client down by TCP, and memory stays bounded. A silence during such a pause is no
//! proof against the peer, so no pong is expected then.
//!
//! Frames, the close code of a fault, and the judgement whether bytes still move are left to the
//! owner.

use crate::{
    event::CloseEvent,
    limits::{CONTROL_FRAMES_PERIOD, Limits},
    message::Message,
    realtime::outbox::Close,
};
use std::{
    mem,
    time::{Duration, Instant},
};

/// The session. After each thing that happened, the owner of the socket asks in this order:
/// [`next_call`](Session::next_call), [`wants_read`](Session::wants_read),
/// [`poll_time`](Session::poll_time).
///
/// ```
/// use std::time::Instant;
/// use tidegate_hub::{Limits, Message, Session, realtime::session::Event};
/// let mut session = Session::new(&Limits::default(), Instant::now());
/// assert_eq!(session.next_call(), Some(Event::Open));
/// session.handle_returned(true);
/// session.handle_message(Message::text("hi"), Instant::now());
/// assert_eq!(session.next_call(), Some(Event::Messages(vec![Message::text("hi")])));
/// ```
pub struct Session {
    times: Times,
    inbox: Vec<Message>,
    inbox_bytes: usize,
    /// Number of bytes of the messages in the running call.
    calling_bytes: usize,
    inbox_bytes_max: usize,
    inbox_messages_max: usize,
    phase: Phase,
    calling: bool,
    opening: Opening,
    /// Last time at which anything came from the peer.
    heard: Instant,
    /// Last time at which anything came from the peer or moved towards it.
    busy: Instant,
    opened: Instant,
    ping: Ping,
    control_frames: ControlFrames,
}

/// An event for the app.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The connection is open.
    Open,
    /// Messages in their order; never empty.
    Messages(Vec<Message>),
    /// The last event: the connection has ended.
    Close(CloseEvent),
}

/// The next action that depends on time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wait {
    /// Wait until this moment; if there is none, until something happens.
    Until(Option<Instant>),
    /// Send a ping, and report when it has [left](Session::handle_ping_left).
    Ping,
    /// Begin to close with this code and reason now.
    Close(Close),
    /// Drop the socket now: the peer does not answer.
    Drop,
}

struct Times {
    ping_every: Duration,
    pong_within: Duration,
    idle_max: Duration,
    lifetime_max: Duration,
    close_within: Duration,
}

#[derive(Debug, PartialEq, Eq)]
enum Opening {
    /// `Open` is still to be handed out.
    Due,
    Done,
    /// The app gets no event: the connection was accepted only to be closed.
    Silent,
}

enum Phase {
    Open,
    /// Our close frame is out; the peer's close frame is due at a fixed time.
    Closing {
        close: Close,
        until: Instant,
    },
    /// The peer's close frame came. It is answered after the messages before it have been handled.
    Answering {
        close: Close,
        until: Instant,
    },
    /// The socket is done; `Close` is still to be handed out.
    Ended(CloseEvent),
    /// Everything was handed out.
    Over,
}

enum Ping {
    At(Instant),
    /// The ping was asked for and is still in the host: the time for its answer does not run yet.
    Due,
    /// The ping left the host at `at`; the answer is due at `until`.
    Sent {
        at: Instant,
        until: Instant,
    },
    Off,
}

/// Number of pings and pongs in the second that began at `since`.
struct ControlFrames {
    since: Instant,
    count: usize,
    max: usize,
}

impl Session {
    /// Returns the session of a connection whose handshake is complete.
    pub fn new(limits: &Limits, now: Instant) -> Session {
        Session {
            times: Times {
                ping_every: limits.ping_every,
                pong_within: limits.pong_within,
                idle_max: limits.idle_max,
                lifetime_max: limits.lifetime_max,
                close_within: limits.close_within,
            },
            inbox: Vec::new(),
            inbox_bytes: 0,
            calling_bytes: 0,
            inbox_bytes_max: limits.inbox_bytes_max,
            inbox_messages_max: limits.inbox_messages_max,
            phase: Phase::Open,
            calling: false,
            opening: Opening::Due,
            heard: now,
            busy: now,
            opened: now,
            ping: if limits.ping_every.is_zero() {
                Ping::Off
            } else {
                Ping::At(now + limits.ping_every)
            },
            control_frames: ControlFrames {
                since: now,
                count: 0,
                max: limits.control_frames_max,
            },
        }
    }

    /// Returns the session of a connection that was accepted only to be closed: the app gets no
    /// event.
    pub fn silent(limits: &Limits, now: Instant) -> Session {
        Session {
            opening: Opening::Silent,
            ..Session::new(limits, now)
        }
    }

    /// Handles a message. After a close has begun, the app no longer gets messages.
    pub fn handle_message(&mut self, message: Message, now: Instant) {
        self.handle_answered_message(now);
        if matches!(self.phase, Phase::Open) && self.opening != Opening::Silent {
            self.inbox_bytes += message.len();
            self.inbox.push(message);
        }
    }

    /// Handles a message that needs no call.
    pub fn handle_answered_message(&mut self, now: Instant) {
        self.handle_part(now);
    }

    /// Handles bytes from the peer: it is alive, and not idle.
    pub fn handle_part(&mut self, now: Instant) {
        self.heard = now;
        self.busy = now;
    }

    /// Handles a ping or a pong. Returns false if there were too many in this second: then the
    /// owner closes with 1008.
    #[must_use]
    pub fn handle_control(&mut self, now: Instant) -> bool {
        self.handle_part(now);
        let frames = &mut self.control_frames;
        if now.saturating_duration_since(frames.since) >= CONTROL_FRAMES_PERIOD {
            (frames.since, frames.count) = (now, 0);
        }
        frames.count += 1;
        frames.count <= frames.max
    }

    /// Handles the report that the ping of [`poll_time`](Session::poll_time) has left the host, or
    /// is still leaving it. The time for its answer runs from now on.
    pub fn handle_ping_left(&mut self, now: Instant) {
        if matches!(self.ping, Ping::Due | Ping::Sent { .. }) {
            self.ping = Ping::Sent {
                at: now,
                until: now + self.times.pong_within,
            };
        }
    }

    /// Returns true if the answer to a ping that left the host is late. An owner that knows that
    /// the ping has not left the machine yet reports
    /// [`handle_ping_left`](Session::handle_ping_left) before it asks
    /// [`poll_time`](Session::poll_time).
    pub fn is_pong_late(&self, now: Instant) -> bool {
        matches!(self.phase, Phase::Open)
            && matches!(self.ping, Ping::Sent { at, until } if self.heard <= at && now >= until && self.wants_read())
    }

    /// Returns true if the time of outgoing bytes matters.
    pub fn has_idle_limit(&self) -> bool {
        !self.times.idle_max.is_zero()
    }

    /// Returns true if the connection ends at `now` because it is idle. An owner that knows that
    /// earlier bytes are still on their way to the peer reports
    /// [`handle_sent`](Session::handle_sent) before it asks [`poll_time`](Session::poll_time).
    pub fn is_idle(&self, now: Instant) -> bool {
        matches!(self.phase, Phase::Open)
            && self.has_idle_limit()
            && now >= self.busy + self.times.idle_max
    }

    /// Handles the report that bytes moved towards the peer.
    pub fn handle_sent(&mut self, now: Instant) {
        self.busy = now;
    }

    /// Handles the peer's close frame. If the peer began the close, the owner answers it when the
    /// session is [`ready_to_answer`](Session::ready_to_answer), and reports that.
    pub fn handle_peer_close(&mut self, close: Option<Close>, now: Instant) {
        self.phase = match mem::replace(&mut self.phase, Phase::Over) {
            Phase::Open => {
                let close = close.unwrap_or(Close::new(1005, ""));
                Phase::Answering {
                    close,
                    until: now + self.times.close_within,
                }
            }
            Phase::Closing { close, .. } => Phase::Ended(ended(close, true, false)),
            other => other,
        }
    }

    /// Returns true if the peer waits for the answer to its close, and all events before it are
    /// done.
    pub fn ready_to_answer(&self) -> bool {
        matches!(self.phase, Phase::Answering { .. }) && self.is_quiet()
    }

    /// Handles the report that the peer's close was answered.
    pub fn handle_answered(&mut self) {
        self.phase = match mem::replace(&mut self.phase, Phase::Over) {
            Phase::Answering { close, .. } => Phase::Ended(ended(close, true, true)),
            other => other,
        }
    }

    /// Returns true if no call runs and no message waits.
    pub fn is_quiet(&self) -> bool {
        !self.calling && self.inbox.is_empty() && self.opening != Opening::Due
    }

    /// Returns true if either side has begun a close.
    pub fn is_closing(&self) -> bool {
        !matches!(self.phase, Phase::Open)
    }

    /// Handles the report that our close frame is on its way. Messages that wait are still
    /// delivered.
    pub fn handle_closing(&mut self, close: Close, now: Instant) {
        if matches!(self.phase, Phase::Open) {
            self.phase = Phase::Closing {
                close,
                until: now + self.times.close_within,
            };
        }
    }

    /// Handles the end of the socket. Without a complete close handshake the end is not clean.
    pub fn handle_disconnect(&mut self) {
        self.phase = match mem::replace(&mut self.phase, Phase::Over) {
            Phase::Open => Phase::Ended(lost(true)),
            Phase::Closing { close, .. } => Phase::Ended(ended(close, false, false)),
            Phase::Answering { close, .. } => Phase::Ended(ended(close, false, true)),
            other => other,
        }
    }

    /// Handles the report that the owner dropped the socket because the peer did not answer.
    pub fn handle_dropped(&mut self) {
        if matches!(self.phase, Phase::Open) {
            self.phase = Phase::Ended(lost(false));
        }
        self.handle_disconnect();
    }

    /// Handles the end of the call that [`next_call`](Session::next_call) asked for; `well` is true
    /// if there was no fault. After a fault the waiting messages are dropped, and the owner closes
    /// with 1011.
    pub fn handle_returned(&mut self, well: bool) {
        self.calling = false;
        self.calling_bytes = 0;
        if !well {
            self.inbox = Vec::new();
            self.inbox_bytes = 0;
        }
    }

    /// Returns the event for the next call into the app, if none is running.
    pub fn next_call(&mut self) -> Option<Event> {
        if self.calling {
            return None;
        }
        let event = self.next_event()?;
        self.calling = true;
        Some(event)
    }

    fn next_event(&mut self) -> Option<Event> {
        if self.opening == Opening::Due {
            self.opening = Opening::Done;
            return Some(Event::Open);
        }
        if !self.inbox.is_empty() {
            self.calling_bytes = mem::take(&mut self.inbox_bytes);
            return Some(Event::Messages(mem::take(&mut self.inbox)));
        }
        if !matches!(self.phase, Phase::Ended(_)) {
            return None;
        }
        match mem::replace(&mut self.phase, Phase::Over) {
            Phase::Ended(info) if self.opening == Opening::Done => Some(Event::Close(info)),
            _ => None,
        }
    }

    /// Returns the bytes of the messages that wait for the app or are in its running call.
    pub fn held_bytes(&self) -> usize {
        self.inbox_bytes + self.calling_bytes
    }

    /// Returns true if there is room for more from the client. One message always fits.
    pub fn wants_read(&self) -> bool {
        match self.phase {
            Phase::Open => {
                self.inbox.len() < self.inbox_messages_max
                    && self.inbox_bytes < self.inbox_bytes_max
            }
            Phase::Closing { .. } => true,
            Phase::Answering { .. } | Phase::Ended(_) | Phase::Over => false,
        }
    }

    /// Returns true if the socket has no further use.
    pub fn is_ended(&self) -> bool {
        matches!(self.phase, Phase::Ended(_) | Phase::Over)
    }

    /// Returns true if everything is done: no call runs and none will follow.
    pub fn is_over(&self) -> bool {
        matches!(self.phase, Phase::Over) && !self.calling && self.inbox.is_empty()
    }

    /// Returns the action that is due at `now`, or the time of the next question.
    pub fn poll_time(&mut self, now: Instant) -> Wait {
        match &self.phase {
            Phase::Open => self.poll_open(now),
            Phase::Closing { until, .. } | Phase::Answering { until, .. } if now >= *until => {
                Wait::Drop
            }
            Phase::Closing { until, .. } | Phase::Answering { until, .. } => {
                Wait::Until(Some(*until))
            }
            Phase::Ended(_) | Phase::Over => Wait::Until(None),
        }
    }

    fn poll_open(&mut self, now: Instant) -> Wait {
        let ends = [
            (self.opened, self.times.lifetime_max, "its lifetime is over"),
            (self.busy, self.times.idle_max, "idle"),
        ];
        let ends =
            ends.map(|(since, max, reason)| ((!max.is_zero()).then_some(since + max), reason));
        if let Some((_, reason)) = ends.iter().find(|(at, _)| at.is_some_and(|at| now >= at)) {
            return Wait::Close(Close::new(1001, reason));
        }
        let ping = match self.ping {
            Ping::At(at) if now >= at => {
                self.ping = Ping::Due;
                return Wait::Ping;
            }
            // The owner judges how long the peer may take until the ping has left.
            Ping::Due => None,
            // While the host does not read, a pong cannot arrive: silence is no proof against the
            // peer.
            Ping::Sent { at, .. } if self.heard > at || !self.wants_read() => {
                let next = at.max(self.heard) + self.times.ping_every;
                self.ping = Ping::At(next);
                Some(next)
            }
            Ping::Sent { until, .. } if now >= until => return Wait::Drop,
            Ping::Sent { until, .. } => Some(until),
            Ping::At(at) => Some(at),
            Ping::Off => None,
        };
        Wait::Until(ends.iter().filter_map(|(at, _)| *at).chain(ping).min())
    }
}

fn ended(Close { code, reason }: Close, clean: bool, by_peer: bool) -> CloseEvent {
    CloseEvent {
        code,
        reason,
        was_clean: clean,
        is_peer_initiated: by_peer,
    }
}

fn lost(by_peer: bool) -> CloseEvent {
    CloseEvent {
        code: 1006,
        reason: String::new(),
        was_clean: false,
        is_peer_initiated: by_peer,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns a session whose `Open` has been handled, and the moment at which it began.
    fn opened(limits: Limits) -> (Session, Instant) {
        let now = Instant::now();
        let mut session = Session::new(&limits, now);
        assert_eq!(session.next_call(), Some(Event::Open));
        session.handle_returned(true);
        (session, now)
    }

    fn text(text: &str) -> Message {
        Message::text(text.to_owned())
    }

    fn told(code: u16, clean: bool, by_peer: bool) -> Option<Event> {
        Some(Event::Close(CloseEvent {
            code,
            reason: String::new(),
            was_clean: clean,
            is_peer_initiated: by_peer,
        }))
    }

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn messages_wait_for_open_and_come_together_in_order() {
        let now = Instant::now();
        let mut session = Session::new(&Limits::default(), now);
        session.handle_message(text("a"), now);
        assert_eq!(session.next_call(), Some(Event::Open));
        session.handle_message(text("b"), now);
        assert_eq!(session.next_call(), None, "one event at a time");
        session.handle_returned(true);
        assert_eq!(
            session.next_call(),
            Some(Event::Messages(vec![text("a"), text("b")]))
        );
    }

    #[test]
    fn reading_stops_while_enough_waits_and_goes_on_after_it_was_taken() {
        let limits = Limits {
            inbox_messages_max: 2,
            inbox_bytes_max: 10,
            ..Limits::default()
        };
        for messages in [&["a", "b"][..], &["one that is larger than all"]] {
            let (mut session, now) = opened(limits.clone());
            for message in messages {
                assert!(session.wants_read());
                session.handle_message(text(message), now);
            }
            assert!(!session.wants_read(), "{messages:?}");
            assert!(session.next_call().is_some());
            assert!(session.wants_read());
        }
    }

    #[test]
    fn the_app_hears_of_the_end_once_and_after_the_last_message() {
        let (mut session, now) = opened(Limits::default());
        session.handle_message(text("last"), now);
        session.handle_peer_close(Some(Close::new(4001, "")), now);
        assert!(
            !session.ready_to_answer(),
            "what came before the close goes first"
        );
        assert_eq!(
            session.next_call(),
            Some(Event::Messages(vec![text("last")]))
        );
        session.handle_returned(true);
        assert!(session.ready_to_answer());
        session.handle_answered();
        session.handle_disconnect();
        assert_eq!(session.next_call(), told(4001, true, true));
        assert!(!session.is_over());
        session.handle_returned(true);
        assert_eq!(session.next_call(), None);
        assert!(session.is_over());
    }

    #[test]
    fn the_end_is_told_as_it_was() {
        type Step = fn(&mut Session, Instant);
        let ours: Step = |session, now| session.handle_closing(Close::new(1001, ""), now);
        let cases: [(&[Step], Option<Event>); 7] = [
            (
                &[
                    |session, now| session.handle_peer_close(None, now),
                    |session, _| session.handle_answered(),
                ],
                told(1005, true, true),
            ),
            (
                &[
                    |session, now| session.handle_peer_close(None, now),
                    |session, _| session.handle_dropped(),
                ],
                told(1005, false, true),
            ),
            (
                &[|session, _| session.handle_disconnect()],
                told(1006, false, true),
            ),
            (
                &[|session, _| session.handle_dropped()],
                told(1006, false, false),
            ),
            (
                &[ours, |session, now| {
                    session.handle_peer_close(Some(Close::new(1001, "")), now)
                }],
                told(1001, true, false),
            ),
            (
                &[ours, |session, _| session.handle_disconnect()],
                told(1001, false, false),
            ),
            (
                &[ours, |session, _| session.handle_dropped()],
                told(1001, false, false),
            ),
        ];
        for (index, (steps, expected)) in cases.into_iter().enumerate() {
            let (mut session, now) = opened(Limits::default());
            steps.iter().for_each(|step| step(&mut session, now));
            assert_eq!(session.next_call(), expected, "case {index}");
        }
    }

    #[test]
    fn a_fault_forgets_what_waits_and_nothing_comes_after_a_close_began() {
        let (mut session, now) = opened(Limits::default());
        session.handle_message(text("trap"), now);
        session.next_call().unwrap();
        session.handle_message(text("behind"), now);
        session.handle_returned(false);
        session.handle_closing(Close::new(1011, ""), now);
        session.handle_message(text("late"), now);
        assert_eq!(session.next_call(), None);
        session.handle_peer_close(Some(Close::new(1011, "")), now);
        assert_eq!(session.next_call(), told(1011, true, false));
    }

    #[test]
    fn a_connection_that_was_accepted_to_be_closed_is_never_told_of() {
        let now = Instant::now();
        let mut session = Session::silent(&Limits::default(), now);
        session.handle_message(text("hello?"), now);
        session.handle_closing(Close::new(4403, ""), now);
        session.handle_peer_close(None, now);
        assert_eq!(session.next_call(), None);
        assert!(session.is_over());
    }

    #[test]
    fn a_silent_peer_is_pinged_and_then_dropped() {
        let (mut session, start) = opened(Limits::default());
        assert_eq!(
            session.poll_time(start),
            Wait::Until(Some(start + 30 * SECOND))
        );
        assert_eq!(session.poll_time(start + 30 * SECOND), Wait::Ping);
        session.handle_ping_left(start + 30 * SECOND);
        assert_eq!(
            session.poll_time(start + 31 * SECOND),
            Wait::Until(Some(start + 40 * SECOND))
        );
        assert!(session.is_pong_late(start + 40 * SECOND));
        assert_eq!(session.poll_time(start + 40 * SECOND), Wait::Drop);
        session.handle_dropped();
        assert_eq!(session.next_call(), told(1006, false, false));
    }

    #[test]
    fn a_peer_that_answers_is_pinged_again_later() {
        type Step = fn(&mut Session, Instant);
        let answers: [(&str, Step); 3] = [
            ("a pong, or a ping of its own", |session, now| {
                assert!(session.handle_control(now))
            }),
            ("a part of a message", |session, now| {
                session.handle_part(now)
            }),
            ("a message", |session, now| {
                session.handle_answered_message(now)
            }),
        ];
        for (name, answer) in answers {
            let (mut session, start) = opened(Limits::default());
            assert_eq!(session.poll_time(start + 30 * SECOND), Wait::Ping);
            session.handle_ping_left(start + 30 * SECOND);
            answer(&mut session, start + 32 * SECOND);
            assert!(!session.is_pong_late(start + 40 * SECOND), "{name}");
            assert_eq!(
                session.poll_time(start + 40 * SECOND),
                Wait::Until(Some(start + 62 * SECOND)),
                "{name}"
            );
            assert_eq!(session.poll_time(start + 62 * SECOND), Wait::Ping, "{name}");
        }
    }

    #[test]
    fn the_time_for_a_pong_begins_when_the_ping_has_left_the_host() {
        let (mut session, start) = opened(Limits::default());
        assert_eq!(session.poll_time(start + 30 * SECOND), Wait::Ping);
        assert_eq!(
            session.poll_time(start + 90 * SECOND),
            Wait::Until(None),
            "it still waits for the socket"
        );
        session.handle_ping_left(start + 90 * SECOND);
        assert_eq!(
            session.poll_time(start + 90 * SECOND),
            Wait::Until(Some(start + 100 * SECOND))
        );
        session.handle_ping_left(start + 100 * SECOND);
        assert_eq!(
            session.poll_time(start + 100 * SECOND),
            Wait::Until(Some(start + 110 * SECOND)),
            "it had not left the machine"
        );
        assert_eq!(session.poll_time(start + 110 * SECOND), Wait::Drop);
    }

    #[test]
    fn control_frames_have_a_rate() {
        let (mut session, start) = opened(Limits {
            control_frames_max: 3,
            ..Limits::default()
        });
        let mut admitted = |at: Duration| [(); 4].map(|()| session.handle_control(start + at));
        assert_eq!(admitted(Duration::ZERO), [true, true, true, false]);
        assert_eq!(admitted(SECOND / 2), [false; 4]);
        assert_eq!(
            admitted(SECOND),
            [true, true, true, false],
            "the next second"
        );
    }

    #[test]
    fn a_peer_that_is_not_read_is_not_blamed_for_its_silence() {
        let (mut session, start) = opened(Limits {
            inbox_messages_max: 1,
            ..Limits::default()
        });
        session.handle_message(text("waits"), start);
        assert_eq!(session.poll_time(start + 30 * SECOND), Wait::Ping);
        session.handle_ping_left(start + 30 * SECOND);
        assert!(!session.is_pong_late(start + 50 * SECOND));
        assert_eq!(
            session.poll_time(start + 50 * SECOND),
            Wait::Until(Some(start + 60 * SECOND))
        );
    }

    #[test]
    fn idle_and_lifetime_limits_close_with_1001() {
        let off = Limits {
            ping_every: Duration::ZERO,
            ..Limits::default()
        };
        let idle = Limits {
            idle_max: 60 * SECOND,
            ..off.clone()
        };
        let (mut session, start) = opened(idle);
        session.handle_message(text("x"), start + 30 * SECOND);
        assert_eq!(
            session.poll_time(start + 60 * SECOND),
            Wait::Until(Some(start + 90 * SECOND))
        );
        session.handle_part(start + 80 * SECOND);
        assert_eq!(
            session.poll_time(start + 90 * SECOND),
            Wait::Until(Some(start + 140 * SECOND)),
            "a part of a message counts"
        );
        assert!(session.handle_control(start + 90 * SECOND));
        assert_eq!(
            session.poll_time(start + 140 * SECOND),
            Wait::Until(Some(start + 150 * SECOND)),
            "so do pings and pongs"
        );
        assert!(session.is_idle(start + 150 * SECOND));
        session.handle_sent(start + 150 * SECOND);
        assert_eq!(
            session.poll_time(start + 150 * SECOND),
            Wait::Until(Some(start + 210 * SECOND)),
            "and what is still on its way"
        );
        assert_eq!(
            session.poll_time(start + 210 * SECOND),
            Wait::Close(Close::new(1001, "idle"))
        );
        let lifetime = Limits {
            lifetime_max: 60 * SECOND,
            ..off.clone()
        };
        let (mut session, start) = opened(lifetime);
        session.handle_message(text("x"), start + 59 * SECOND);
        assert_eq!(
            session.poll_time(start + 60 * SECOND),
            Wait::Close(Close::new(1001, "its lifetime is over"))
        );
        assert_eq!(opened(off).0.poll_time(start), Wait::Until(None));
    }

    #[test]
    fn a_peer_that_does_not_close_is_dropped_after_five_seconds() {
        let (mut session, start) = opened(Limits::default());
        session.handle_closing(Close::new(1000, ""), start);
        assert_eq!(
            session.poll_time(start),
            Wait::Until(Some(start + 5 * SECOND))
        );
        assert_eq!(session.poll_time(start + 5 * SECOND), Wait::Drop);
    }
}
