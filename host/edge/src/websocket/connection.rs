//! The task of one WebSocket: moves frames, time and calls between the socket, its session and the
//! app.
//!
//! A `Connection` is a future that owns the socket (`Wire`), the protocol's state (`Session`,
//! which does no I/O), the registry entry with its outbox, at most one call of the app, and one
//! timer. A poll repeats the same round while it makes progress: read frames, poll the call, write
//! the outbox, check the client's pace, check the clock. After `ROUNDS_MAX` rounds it yields to
//! the other connections of its worker.
//!
//! Reading is `Frames` at first; `Broken` after a protocol error, until earlier messages are
//! handled; `Discard` after our close was queued; and `Gone` after the socket's end.
//!
//! Invariant: events reach the app in order, one call at a time. A delivered on-open gets exactly
//! one on-close, which `close_delivery` delivers after the end of the socket.
//!
//! An idle connection holds almost no buffers, and a message to send reads neither the clock nor
//! the socket: `IoWaker` records whether one of them woke the task.
//!
//! Left to others: frames to `wire`, the close handshake and timeouts to the session, limits and
//! order of messages to the hub, the on-close to `close_delivery`.

mod app_call;
mod client_pace;
mod io_waker;

use crate::{
    drain::DrainGuard,
    http::pace::{ClientSocket, PaceRule, poll_timer},
    http::turn::yield_to_others,
    server::{Server, Version},
    websocket::close_delivery,
    websocket::pending_closes::PendingClose,
    websocket::ping::PingDelivery,
    websocket::wire::{Wire, WireEvent},
};
use client_pace::{ClientPace, PaceViolation};
use io_waker::IoWaker;
use std::{
    future::Future,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Instant,
};
use tidegate_hub::{
    Call, Close, CloseEvent, ConnectionGuard, Request, Session,
    budget::{Charge, MemoryKind},
    limits::TURN_BYTES_MAX,
    realtime::{outbox::Sink, session::TimedAction},
};
use tokio::time::{Sleep, sleep_until};

/// Maximum number of rounds of reading, calling and writing in one poll. After that, or after the
/// round in which it has moved [`TURN_BYTES_MAX`], the connection yields to the others of its
/// worker.
const ROUNDS_MAX: usize = 4;

/// The first event, for the version that accepted the connection.
pub(crate) struct OpenEvent {
    pub(crate) version: Arc<Version>,
    pub(crate) request: Request,
}

/// A future that ends when the connection is over. It then hands the on-close to `close_delivery`.
pub(crate) struct Connection<Io> {
    wire: Wire<Io>,
    session: Session,
    conn: ConnectionGuard,
    server: Arc<Server>,
    drain: DrainGuard,
    open_event: Option<Box<OpenEvent>>,
    /// Name of the call's event, during development.
    event: Option<String>,
    call: Option<Call<'static, ()>>,
    /// True if that call is the on-open.
    is_opening: bool,
    /// The connection's end for its last event, which is delivered without the socket.
    ended: Option<CloseEvent>,
    reading: Reading,
    /// True if the socket takes no more bytes now; the outbox waits for it.
    is_blocked: bool,
    clock: Option<Pin<Box<Sleep>>>,
    /// True if the session's next deadline may have changed.
    is_clock_stale: bool,
    io_waker: Option<IoWaker>,
    /// True if the socket may have bytes to read.
    is_readable: bool,
    ping: PingDelivery,
    /// Number of bytes that the client's machine had acknowledged when the connection last seemed
    /// idle, if more had been sent.
    acknowledged_when_idle: Option<u64>,
    /// `None` until the host waits for the client.
    pace: Option<Box<ClientPace>>,
    /// Memory of received messages, and of the one that is being received.
    charge: Charge,
}

enum Reading {
    Frames,
    /// The peer violated the protocol: earlier messages are answered, then this close is sent.
    Broken(Close),
    /// Our close is queued, and further bytes are no longer decoded.
    Discard,
    Gone,
}

impl<Io: ClientSocket> Connection<Io> {
    /// `open_event` is `None` for a connection that the app does not hear about.
    pub(crate) fn new(
        wire: Wire<Io>,
        conn: ConnectionGuard,
        server: Arc<Server>,
        drain: DrainGuard,
        open_event: Option<Box<OpenEvent>>,
    ) -> Connection<Io> {
        let new_session = if open_event.is_some() {
            Session::new
        } else {
            Session::silent
        };
        Connection {
            session: new_session(server.hub.limits(), Instant::now()),
            wire,
            conn,
            server,
            drain,
            open_event,
            event: None,
            call: None,
            is_opening: false,
            ended: None,
            reading: Reading::Frames,
            is_blocked: false,
            clock: None,
            is_clock_stale: true,
            io_waker: None,
            is_readable: true,
            ping: PingDelivery::None,
            acknowledged_when_idle: None,
            pace: None,
            charge: Charge::new(MemoryKind::Request),
        }
    }

    /// Takes the waker for socket and clock, and checks whether they woke the task.
    fn take_io_waker(&mut self, task: &Waker) -> IoWaker {
        let io_waker = match self.io_waker.take() {
            Some(io_waker) if io_waker.will_wake(task) => io_waker,
            _ => IoWaker::new(task.clone()),
        };
        if io_waker.take_wake() {
            self.is_readable = true;
            self.is_clock_stale |= self.clock.as_ref().is_some_and(|clock| clock.is_elapsed());
        }
        io_waker
    }

    /// Returns ready when the connection is over.
    fn poll_all(&mut self, cx: &mut Context<'_>, io_cx: &mut Context<'_>) -> Poll<()> {
        if self.conn.outbox().is_evicted() {
            self.handle_eviction();
        }
        let before = self.wire.moved();
        for _ in 0..ROUNDS_MAX {
            let mut progress = self.poll_read(io_cx);
            progress |= self.poll_call(cx);
            progress |= self.poll_write(cx, io_cx);
            self.check_pace(false);
            progress |= self.poll_clock(io_cx);
            self.poll_socket_end(io_cx);
            if self.session.is_over() {
                return Poll::Ready(());
            }
            if !progress {
                return Poll::Pending;
            }
            if self.wire.moved() - before >= TURN_BYTES_MAX as u64 {
                break;
            }
        }
        yield_to_others(cx);
        Poll::Pending
    }

    fn poll_read(&mut self, cx: &mut Context<'_>) -> bool {
        match self.reading {
            Reading::Frames
                if self.is_readable && self.session.wants_read() && self.wire.has_room() =>
            {
                self.poll_frames(cx)
            }
            Reading::Discard if self.wire.poll_discard(cx).is_ready() => {
                self.end();
                true
            }
            _ => false,
        }
    }

    fn poll_frames(&mut self, cx: &mut Context<'_>) -> bool {
        let Connection {
            wire,
            session,
            conn,
            server,
            reading,
            is_clock_stale,
            ..
        } = self;
        let (mut now, before, mut is_pinged, mut is_given_up) =
            (None, wire.received(), false, false);
        let poll = wire.poll_receive(cx, |received| {
            is_pinged |= received == WireEvent::Ping;
            let now = *now.get_or_insert_with(Instant::now);
            match received {
                WireEvent::Message(message)
                    if !session.is_closing() && conn.answer_automatically(&message) =>
                {
                    session.handle_answered_message(now)
                }
                WireEvent::Message(message) => session.handle_message(message, now),
                WireEvent::Ping | WireEvent::Pong if session.handle_control(now) => {}
                WireEvent::Ping | WireEvent::Pong if session.is_closing() => {
                    *reading = Reading::Discard
                }
                WireEvent::Ping | WireEvent::Pong => {
                    server.hub.counters().control_floods.add(1);
                    *reading = Reading::Broken(Close::new(1008, "too many pings and pongs"));
                }
                WireEvent::Close(close) => {
                    session.handle_peer_close(close, now);
                    *is_clock_stale = true;
                }
                WireEvent::Broken(_) if session.is_closing() => *reading = Reading::Discard,
                WireEvent::Broken(close) => *reading = Reading::Broken(close),
                WireEvent::Gone | WireEvent::GivenUp => {
                    is_given_up = received == WireEvent::GivenUp;
                    *reading = Reading::Gone;
                    session.handle_disconnect();
                }
            }
            matches!(reading, Reading::Frames) && session.wants_read()
        });
        if is_pinged && !self.session.is_closing() {
            self.wire.reply();
        }
        if is_given_up {
            self.give_up(PaceViolation::Reader);
        }
        // Any byte is a sign of life, even within a message that takes long.
        if self.wire.received() != before {
            self.session.handle_part(now.unwrap_or_else(Instant::now));
        }
        self.is_readable = poll.is_ready();
        match self.wire.take_control_bytes() {
            0 => {}
            pongs => self.conn.outbox().count_in_flight(pongs),
        }
        self.charge_messages();
        self.is_readable
    }

    /// Reserves the memory of received bytes. If there is none, the connection ends.
    fn charge_messages(&mut self) {
        let bytes = self.wire.partial_bytes() + self.session.held_bytes();
        if self
            .conn
            .outbox()
            .charge_beside(&mut self.charge, bytes)
            .is_err()
        {
            self.conn
                .outbox()
                .close(Close::new(1013, "the server is short of memory"));
            self.stop_reading();
        }
    }

    /// Handles the eviction of this connection: the server is short of memory, and this connection
    /// holds much of it. Its queue was replaced by a close. If the client does not take even that,
    /// the socket is dropped.
    fn handle_eviction(&mut self) {
        self.stop_reading();
        if self.is_blocked && !self.session.is_ended() {
            self.wire.forget_out();
            self.session.handle_dropped();
            self.reading = Reading::Gone;
        }
    }

    fn stop_reading(&mut self) {
        if let Reading::Frames | Reading::Broken(_) = self.reading {
            self.reading = Reading::Discard;
            self.wire.forget_partial();
            // A smaller amount than before is never refused.
            _ = self
                .conn
                .outbox()
                .charge_beside(&mut self.charge, self.session.held_bytes());
        }
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, io_cx: &mut Context<'_>) -> bool {
        if self.session.is_ended() {
            return false;
        }
        let (was_full, mut progress) = (!self.wire.has_room(), false);
        loop {
            // The outbox is polled even while the socket is blocked: it may contain a close, whose
            // timeout has to start.
            let taken = self.conn.outbox().take_and_watch(cx, &mut self.wire);
            progress |= taken.close.is_some_and(|close| self.notice_close(close));
            if taken.any && self.session.has_idle_limit() {
                self.session.handle_sent(Instant::now());
            }
            let poll = self.wire.poll_flush(io_cx);
            self.is_blocked = poll.is_pending();
            match poll {
                Poll::Pending => return progress,
                Poll::Ready(Err(error)) => {
                    if error.kind() == io::ErrorKind::TimedOut {
                        self.give_up(PaceViolation::Reader);
                    }
                    self.end();
                    return true;
                }
                Poll::Ready(Ok(())) if self.advance_ping() => {}
                Poll::Ready(Ok(())) if taken.all => break,
                Poll::Ready(Ok(())) => {}
            }
        }
        self.conn.outbox().written();
        // The queue has room again, so bytes that were left unread can be read.
        self.advance_end() || progress || was_full
    }

    /// Notes that our close is on its way. Returns true if that is new.
    fn notice_close(&mut self, close: Close) -> bool {
        if self.session.is_closing() {
            return false;
        }
        self.session.handle_closing(close, Instant::now());
        self.is_clock_stale = true;
        true
    }

    /// Sends the answer to a close or to an invalid frame, after everything before it was handled
    /// and written.
    fn advance_end(&mut self) -> bool {
        if self.session.ready_to_answer() {
            self.wire.reply();
            self.session.handle_answered();
            return true;
        }
        if self.session.is_quiet()
            && let Reading::Broken(close) = &self.reading
        {
            self.conn.outbox().close(close.clone());
            self.reading = Reading::Discard;
            return true;
        }
        false
    }

    /// Handles the end of a write: all frames are written. Returns true if a ping is framed now.
    fn advance_ping(&mut self) -> bool {
        match self.ping {
            PingDelivery::Due if !self.session.is_closing() => {
                self.ping = PingDelivery::Framed {
                    start: self.wire.sent(),
                };
                self.wire.ping();
                true
            }
            PingDelivery::Framed { start } => {
                self.ping =
                    PingDelivery::written(start, self.wire.sent(), self.wire.acknowledged());
                self.session.handle_ping_left(Instant::now());
                self.is_clock_stale = true;
                false
            }
            PingDelivery::None | PingDelivery::Due | PingDelivery::Queued { .. } => false,
        }
    }

    /// Handles a late pong. The link may be slow rather than the client.
    fn excuse_pong(&mut self, now: Instant) {
        let config = &self.server.config;
        let rule = PaceRule::new(config.write_within, config.bytes_per_second_min);
        let pong_within = self.server.hub.limits().pong_within;
        if self
            .ping
            .excuses_pong(self.wire.acknowledged(), rule, pong_within)
        {
            self.session.handle_ping_left(now);
        }
    }

    /// Handles a long time without a message. While earlier bytes to the client still make
    /// progress, the connection is not idle.
    fn excuse_idleness(&mut self, now: Instant) {
        let (sent, acknowledged) = (self.wire.sent(), self.wire.acknowledged());
        if self
            .acknowledged_when_idle
            .map_or(acknowledged < sent, |before| acknowledged > before)
        {
            self.session.handle_sent(now);
        }
        self.acknowledged_when_idle = (acknowledged < sent).then_some(acknowledged);
    }

    fn poll_clock(&mut self, io_cx: &mut Context<'_>) -> bool {
        let mut progress = false;
        while std::mem::take(&mut self.is_clock_stale) {
            self.check_pace(true);
            progress |= self.handle_time();
            if let Some(clock) = &mut self.clock {
                self.is_clock_stale |= poll_timer(clock.as_mut(), io_cx).is_ready();
            }
        }
        progress
    }

    fn handle_time(&mut self) -> bool {
        let now = Instant::now();
        if self.session.is_pong_late(now) {
            self.excuse_pong(now);
        }
        if self.session.is_idle(now) {
            self.excuse_idleness(now);
        }
        let violation = self.pace.as_mut().and_then(|pace| pace.violation.take());
        if let Some(violation) = violation {
            self.give_up(violation);
        }
        match if violation.is_some() {
            TimedAction::Drop
        } else {
            self.session.poll_time(now)
        } {
            TimedAction::Until(until) => {
                let due = self.pace.as_ref().and_then(|pace| pace.due);
                self.set_clock(until.map(Into::into).into_iter().chain(due).min());
                return false;
            }
            TimedAction::Ping => {
                self.ping = PingDelivery::Due;
                self.is_clock_stale = true;
            }
            TimedAction::Close(close) => {
                self.conn.outbox().close(close);
                self.set_clock(None);
            }
            TimedAction::Drop => {
                self.session.handle_dropped();
                self.reading = Reading::Gone;
                self.set_clock(None);
            }
        }
        true
    }

    fn set_clock(&mut self, until: Option<tokio::time::Instant>) {
        match (&mut self.clock, until) {
            (Some(clock), Some(until)) => clock.as_mut().reset(until),
            (clock, until) => *clock = until.map(|until| Box::pin(sleep_until(until))),
        }
    }

    /// Starts a task that delivers the on-close, if the app has received the on-open.
    fn start_close_delivery(&mut self) {
        if let Some(event) = self.ended.take().filter(|_| self.conn.has_opened()) {
            let close = PendingClose {
                conn: self.conn.hand_over(),
                event,
                _drain: self.drain.clone(),
            };
            tokio::spawn(close_delivery::deliver(self.server.clone(), close));
        }
    }

    fn end(&mut self) {
        self.reading = Reading::Gone;
        self.session.handle_disconnect();
    }

    /// Writes the last bytes and our end of the socket, as far as the peer takes them at once.
    fn poll_socket_end(&mut self, cx: &mut Context<'_>) {
        let has_ended = self.session.is_ended();
        let is_discarding = matches!(self.reading, Reading::Discard)
            && self.session.is_closing()
            && !self.is_blocked;
        if has_ended {
            self.wire.reply(); // the peer's close may have come while ours waited
        }
        if (has_ended || is_discarding) && self.wire.poll_flush(cx).is_ready() {
            _ = self.wire.poll_shutdown(cx);
        }
    }
}

impl<Io: ClientSocket> Future for Connection<Io> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let io_waker = self.take_io_waker(cx.waker());
        let poll = self.poll_all(cx, &mut Context::from_waker(io_waker.waker()));
        self.io_waker = Some(io_waker);
        if poll.is_ready() {
            self.start_close_delivery();
        }
        poll
    }
}
