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
/// use tidegate_hub::{Limits, Message, Session, realtime::session::ConnectionEvent};
/// let mut session = Session::new(&Limits::default(), Instant::now());
/// assert_eq!(session.next_call(), Some(ConnectionEvent::Open));
/// session.handle_returned(true);
/// session.handle_message(Message::text("hi"), Instant::now());
/// assert_eq!(session.next_call(), Some(ConnectionEvent::Messages(vec![Message::text("hi")])));
/// ```
pub struct Session {
    times: SessionTimes,
    inbox: Vec<Message>,
    inbox_bytes: usize,
    /// Number of bytes of the messages in the running call.
    calling_bytes: usize,
    inbox_bytes_max: usize,
    inbox_messages_max: usize,
    phase: SessionPhase,
    calling: bool,
    opening: OpenState,
    /// Last time at which anything came from the peer.
    heard: Instant,
    /// Last time at which anything came from the peer or moved towards it.
    busy: Instant,
    opened: Instant,
    ping: PingState,
    control_frames: ControlFrames,
}

/// An event for the app.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConnectionEvent {
    /// The connection is open.
    Open,
    /// Messages in their order; never empty.
    Messages(Vec<Message>),
    /// The last event: the connection has ended.
    Close(CloseEvent),
}

/// The next action that depends on time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TimedAction {
    /// Wait until this moment; if there is none, until something happens.
    Until(Option<Instant>),
    /// Send a ping, and report when it has [left](Session::handle_ping_left).
    Ping,
    /// Begin to close with this code and reason now.
    Close(Close),
    /// Drop the socket now: the peer does not answer.
    Drop,
}

struct SessionTimes {
    ping_every: Duration,
    pong_within: Duration,
    idle_max: Duration,
    lifetime_max: Duration,
    close_within: Duration,
}

#[derive(Debug, PartialEq, Eq)]
enum OpenState {
    /// `Open` is still to be handed out.
    Due,
    Done,
    /// The app gets no event: the connection was accepted only to be closed.
    Silent,
}

enum SessionPhase {
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

enum PingState {
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
            times: SessionTimes {
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
            phase: SessionPhase::Open,
            calling: false,
            opening: OpenState::Due,
            heard: now,
            busy: now,
            opened: now,
            ping: if limits.ping_every.is_zero() {
                PingState::Off
            } else {
                PingState::At(now + limits.ping_every)
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
            opening: OpenState::Silent,
            ..Session::new(limits, now)
        }
    }

    /// Handles a message. After a close has begun, the app no longer gets messages.
    pub fn handle_message(&mut self, message: Message, now: Instant) {
        self.handle_answered_message(now);
        if matches!(self.phase, SessionPhase::Open) && self.opening != OpenState::Silent {
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
        if matches!(self.ping, PingState::Due | PingState::Sent { .. }) {
            self.ping = PingState::Sent {
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
        matches!(self.phase, SessionPhase::Open)
            && matches!(self.ping, PingState::Sent { at, until } if self.heard <= at && now >= until && self.wants_read())
    }

    /// Returns true if the time of outgoing bytes matters.
    pub fn has_idle_limit(&self) -> bool {
        !self.times.idle_max.is_zero()
    }

    /// Returns true if the connection ends at `now` because it is idle. An owner that knows that
    /// earlier bytes are still on their way to the peer reports
    /// [`handle_sent`](Session::handle_sent) before it asks [`poll_time`](Session::poll_time).
    pub fn is_idle(&self, now: Instant) -> bool {
        matches!(self.phase, SessionPhase::Open)
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
        self.phase = match mem::replace(&mut self.phase, SessionPhase::Over) {
            SessionPhase::Open => {
                let close = close.unwrap_or(Close::new(1005, ""));
                SessionPhase::Answering {
                    close,
                    until: now + self.times.close_within,
                }
            }
            SessionPhase::Closing { close, .. } => SessionPhase::Ended(ended(close, true, false)),
            other => other,
        }
    }

    /// Returns true if the peer waits for the answer to its close, and all events before it are
    /// done.
    pub fn ready_to_answer(&self) -> bool {
        matches!(self.phase, SessionPhase::Answering { .. }) && self.is_quiet()
    }

    /// Handles the report that the peer's close was answered.
    pub fn handle_answered(&mut self) {
        self.phase = match mem::replace(&mut self.phase, SessionPhase::Over) {
            SessionPhase::Answering { close, .. } => SessionPhase::Ended(ended(close, true, true)),
            other => other,
        }
    }

    /// Returns true if no call runs and no message waits.
    pub fn is_quiet(&self) -> bool {
        !self.calling && self.inbox.is_empty() && self.opening != OpenState::Due
    }

    /// Returns true if either side has begun a close.
    pub fn is_closing(&self) -> bool {
        !matches!(self.phase, SessionPhase::Open)
    }

    /// Handles the report that our close frame is on its way. Messages that wait are still
    /// delivered.
    pub fn handle_closing(&mut self, close: Close, now: Instant) {
        if matches!(self.phase, SessionPhase::Open) {
            self.phase = SessionPhase::Closing {
                close,
                until: now + self.times.close_within,
            };
        }
    }

    /// Handles the end of the socket. Without a complete close handshake the end is not clean.
    pub fn handle_disconnect(&mut self) {
        self.phase = match mem::replace(&mut self.phase, SessionPhase::Over) {
            SessionPhase::Open => SessionPhase::Ended(lost(true)),
            SessionPhase::Closing { close, .. } => SessionPhase::Ended(ended(close, false, false)),
            SessionPhase::Answering { close, .. } => SessionPhase::Ended(ended(close, false, true)),
            other => other,
        }
    }

    /// Handles the report that the owner dropped the socket because the peer did not answer.
    pub fn handle_dropped(&mut self) {
        if matches!(self.phase, SessionPhase::Open) {
            self.phase = SessionPhase::Ended(lost(false));
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
    pub fn next_call(&mut self) -> Option<ConnectionEvent> {
        if self.calling {
            return None;
        }
        let event = self.next_event()?;
        self.calling = true;
        Some(event)
    }

    fn next_event(&mut self) -> Option<ConnectionEvent> {
        if self.opening == OpenState::Due {
            self.opening = OpenState::Done;
            return Some(ConnectionEvent::Open);
        }
        if !self.inbox.is_empty() {
            self.calling_bytes = mem::take(&mut self.inbox_bytes);
            return Some(ConnectionEvent::Messages(mem::take(&mut self.inbox)));
        }
        if !matches!(self.phase, SessionPhase::Ended(_)) {
            return None;
        }
        match mem::replace(&mut self.phase, SessionPhase::Over) {
            SessionPhase::Ended(info) if self.opening == OpenState::Done => {
                Some(ConnectionEvent::Close(info))
            }
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
            SessionPhase::Open => {
                self.inbox.len() < self.inbox_messages_max
                    && self.inbox_bytes < self.inbox_bytes_max
            }
            SessionPhase::Closing { .. } => true,
            SessionPhase::Answering { .. } | SessionPhase::Ended(_) | SessionPhase::Over => false,
        }
    }

    /// Returns true if the socket has no further use.
    pub fn is_ended(&self) -> bool {
        matches!(self.phase, SessionPhase::Ended(_) | SessionPhase::Over)
    }

    /// Returns true if everything is done: no call runs and none will follow.
    pub fn is_over(&self) -> bool {
        matches!(self.phase, SessionPhase::Over) && !self.calling && self.inbox.is_empty()
    }

    /// Returns the action that is due at `now`, or the time of the next question.
    pub fn poll_time(&mut self, now: Instant) -> TimedAction {
        match &self.phase {
            SessionPhase::Open => self.poll_open(now),
            SessionPhase::Closing { until, .. } | SessionPhase::Answering { until, .. }
                if now >= *until =>
            {
                TimedAction::Drop
            }
            SessionPhase::Closing { until, .. } | SessionPhase::Answering { until, .. } => {
                TimedAction::Until(Some(*until))
            }
            SessionPhase::Ended(_) | SessionPhase::Over => TimedAction::Until(None),
        }
    }

    fn poll_open(&mut self, now: Instant) -> TimedAction {
        let ends = [
            (self.opened, self.times.lifetime_max, "its lifetime is over"),
            (self.busy, self.times.idle_max, "idle"),
        ];
        let ends =
            ends.map(|(since, max, reason)| ((!max.is_zero()).then_some(since + max), reason));
        if let Some((_, reason)) = ends.iter().find(|(at, _)| at.is_some_and(|at| now >= at)) {
            return TimedAction::Close(Close::new(1001, reason));
        }
        let ping = match self.ping {
            PingState::At(at) if now >= at => {
                self.ping = PingState::Due;
                return TimedAction::Ping;
            }
            // The owner judges how long the peer may take until the ping has left.
            PingState::Due => None,
            // While the host does not read, a pong cannot arrive: silence is no proof against the
            // peer.
            PingState::Sent { at, .. } if self.heard > at || !self.wants_read() => {
                let next = at.max(self.heard) + self.times.ping_every;
                self.ping = PingState::At(next);
                Some(next)
            }
            PingState::Sent { until, .. } if now >= until => return TimedAction::Drop,
            PingState::Sent { until, .. } => Some(until),
            PingState::At(at) => Some(at),
            PingState::Off => None,
        };
        TimedAction::Until(ends.iter().filter_map(|(at, _)| *at).chain(ping).min())
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
mod tests;
