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
//! one on-close, which `closing` delivers after the end of the socket.
//!
//! An idle connection holds almost no buffers, and a message to send reads neither the clock nor
//! the socket: `Outside` records whether one of them woke the task.
//!
//! Left to others: frames to `wire`, the close handshake and timeouts to the session, limits and
//! order of messages to the hub, the on-close to `closing`.

use crate::{
    http::answer::{ACCESS, LogContext, log_fault},
    http::pace::{ClientSocket, PaceMeter, PaceRule, poll_timer},
    http::turn::yield_to_others,
    lifeline::Lifeline,
    server::{Server, Version},
    websocket::closing,
    websocket::closings::Closing,
    websocket::ping::Ping,
    websocket::wire::{Received, Wire},
};
use std::{
    future::Future,
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
    time::Instant,
};
use tidegate_hub::{
    Call, Close, CloseEvent, ConnectionGuard, Fault, Request, Session,
    budget::{Charge, Kind},
    limits::TURN_BYTES_MAX,
    realtime::{
        outbox::Sink,
        session::{Event, Wait},
    },
};
use tokio::time::{Sleep, sleep_until};
use tracing::field::display;

/// Maximum number of rounds of reading, calling and writing in one poll. After that, or after the
/// round in which it has moved [`TURN_BYTES_MAX`], the connection yields to the others of its
/// worker.
const ROUNDS_MAX: usize = 4;

/// The first event, for the version that accepted the connection.
pub(crate) struct First {
    pub(crate) version: Arc<Version>,
    pub(crate) request: Request,
}

/// A future that ends when the connection is over. It then hands the on-close to `closing`.
pub(crate) struct Connection<Io> {
    wire: Wire<Io>,
    session: Session,
    conn: ConnectionGuard,
    server: Arc<Server>,
    lifeline: Lifeline,
    first: Option<Box<First>>,
    /// Name of the call's event, during development.
    event: Option<String>,
    call: Option<Call<'static, ()>>,
    /// True if that call is the on-open.
    opening: bool,
    /// The connection's end for its last event, which is delivered without the socket.
    ended: Option<CloseEvent>,
    reading: Reading,
    /// True if the socket takes no more bytes now; the outbox waits for it.
    stuck: bool,
    clock: Option<Pin<Box<Sleep>>>,
    /// True if the session's next deadline may have changed.
    clock_is_stale: bool,
    outside: Option<Outside>,
    /// True if the socket may have bytes to read.
    readable: bool,
    ping: Ping,
    /// Number of bytes that the client's machine had acknowledged when the connection last seemed
    /// idle, if more had been sent.
    on_their_way: Option<u64>,
    /// `None` until the host waits for the client.
    pace: Option<Box<Pace>>,
    /// Memory of received messages, and of the one that is being received.
    charge: Charge,
}

/// Pace of the client, in each direction.
#[derive(Default)]
struct Pace {
    reading: PaceMeter,
    writing: PaceMeter,
    /// Time of the next check, if the host waits for the client.
    due: Option<tokio::time::Instant>,
    late: Option<Late>,
}

#[derive(Clone, Copy)]
enum Late {
    /// The rest of a message does not come.
    Upload,
    /// The client does not read the bytes that wait for it.
    Reader,
}

/// Waker for the socket and the clock, which records that it was used. If only a message to send
/// woke the task, as most often in a broadcast, the task polls neither of them.
struct Outside {
    note: Arc<Note>,
    waker: Waker,
}

struct Note {
    woken: AtomicBool,
    task: Waker,
}

impl Outside {
    fn new(task: Waker) -> Outside {
        let note = Arc::new(Note {
            woken: AtomicBool::new(true),
            task,
        });
        Outside {
            waker: note.clone().into(),
            note,
        }
    }
}

impl Wake for Note {
    fn wake(self: Arc<Note>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Note>) {
        self.woken.store(true, Ordering::Release);
        self.task.wake_by_ref();
    }
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
    /// `first` is `None` for a connection that the app does not hear about.
    pub(crate) fn new(
        wire: Wire<Io>,
        conn: ConnectionGuard,
        server: Arc<Server>,
        lifeline: Lifeline,
        first: Option<Box<First>>,
    ) -> Connection<Io> {
        let begin = if first.is_some() {
            Session::new
        } else {
            Session::silent
        };
        Connection {
            session: begin(server.hub.limits(), Instant::now()),
            wire,
            conn,
            server,
            lifeline,
            first,
            event: None,
            call: None,
            opening: false,
            ended: None,
            reading: Reading::Frames,
            stuck: false,
            clock: None,
            clock_is_stale: true,
            outside: None,
            readable: true,
            ping: Ping::None,
            on_their_way: None,
            pace: None,
            charge: Charge::new(Kind::Request),
        }
    }

    /// Takes the waker for socket and clock, and checks whether they woke the task.
    fn look_outside(&mut self, task: &Waker) -> Outside {
        let outside = match self.outside.take() {
            Some(outside) if outside.note.task.will_wake(task) => outside,
            _ => Outside::new(task.clone()),
        };
        if outside.note.woken.load(Ordering::Relaxed)
            && outside.note.woken.swap(false, Ordering::Acquire)
        {
            self.readable = true;
            self.clock_is_stale |= self.clock.as_ref().is_some_and(|clock| clock.is_elapsed());
        }
        outside
    }

    /// Returns ready when the connection is over.
    fn poll_all(&mut self, cx: &mut Context<'_>, outside: &mut Context<'_>) -> Poll<()> {
        if self.conn.outbox().is_evicted() {
            self.handle_eviction();
        }
        let before = self.wire.moved();
        for _ in 0..ROUNDS_MAX {
            let mut progress = self.poll_read(outside);
            progress |= self.poll_call(cx);
            progress |= self.poll_write(cx, outside);
            self.look_at_pace(false);
            progress |= self.poll_clock(outside);
            self.poll_end_of_socket(outside);
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
                if self.readable && self.session.wants_read() && self.wire.has_room() =>
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
            clock_is_stale,
            ..
        } = self;
        let (mut now, before, mut is_pinged, mut is_given_up) =
            (None, wire.received(), false, false);
        let poll = wire.poll_receive(cx, |received| {
            is_pinged |= received == Received::Ping;
            let now = *now.get_or_insert_with(Instant::now);
            match received {
                Received::Message(message)
                    if !session.is_closing() && conn.answer_automatically(&message) =>
                {
                    session.handle_answered_message(now)
                }
                Received::Message(message) => session.handle_message(message, now),
                Received::Ping | Received::Pong if session.handle_control(now) => {}
                Received::Ping | Received::Pong if session.is_closing() => {
                    *reading = Reading::Discard
                }
                Received::Ping | Received::Pong => {
                    server.hub.counters().control_floods.add(1);
                    *reading = Reading::Broken(Close::new(1008, "too many pings and pongs"));
                }
                Received::Close(close) => {
                    session.handle_peer_close(close, now);
                    *clock_is_stale = true;
                }
                Received::Broken(_) if session.is_closing() => *reading = Reading::Discard,
                Received::Broken(close) => *reading = Reading::Broken(close),
                Received::Gone | Received::GivenUp => {
                    is_given_up = received == Received::GivenUp;
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
            self.give_up(Late::Reader);
        }
        // Any byte is a sign of life, even within a message that takes long.
        if self.wire.received() != before {
            self.session.handle_part(now.unwrap_or_else(Instant::now));
        }
        self.readable = poll.is_ready();
        match self.wire.take_control_bytes() {
            0 => {}
            pongs => self.conn.outbox().count_in_flight(pongs),
        }
        self.charge_messages();
        self.readable
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
        if self.stuck && !self.session.is_ended() {
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

    fn poll_call(&mut self, cx: &mut Context<'_>) -> bool {
        let mut returned = false;
        loop {
            if self.call.is_none() {
                let Some(event) = self.session.next_call() else {
                    break;
                };
                // The outbox is checked after the call, so messages from the app need not wake the
                // task.
                self.conn.outbox().unwatch();
                self.opening = matches!(event, Event::Open);
                self.call = Some(self.begin(event));
            }
            let Some(Poll::Ready(outcome)) = self.call.as_mut().map(|call| call.as_mut().poll(cx))
            else {
                break;
            };
            self.call = None;
            // For a connection of a room, the room records that the on-open was delivered.
            if self.opening
                && self.conn.room().is_none()
                && outcome.as_ref().err().is_none_or(Fault::has_begun)
            {
                self.conn.handle_opening();
            }
            self.session.handle_returned(outcome.is_ok());
            self.charge_messages();
            if let Err(fault) = outcome {
                self.handle_fault(&fault);
            }
            returned = true;
        }
        // Bytes that were left unread while messages waited can be read now.
        returned && self.readable
    }

    fn begin(&mut self, event: Event) -> Call<'static, ()> {
        let (conn, version) = (self.conn.clone(), self.server.version());
        self.event = self
            .server
            .config
            .pages
            .is_some()
            .then(|| format!("{event:?}"));
        let is_gone = || {
            conn.outbox().is_closed()
                && conn
                    .route()
                    .is_some_and(|route| !version.router.has_successor(route))
        };
        self.log_access(&event);
        match event {
            // No served version has a handler for it.
            Event::Messages(_) if is_gone() => Box::pin(async { Ok(()) }),
            Event::Open => match self.first.take() {
                Some(first) => first.version.app.clone().open(conn, first.request),
                None => Box::pin(async { Ok(()) }),
            },
            Event::Messages(mut messages) => {
                // These messages came before the room received the connection.
                if conn.has_auto_response() {
                    messages.retain(|message| !conn.answer_automatically(message));
                }
                match messages.is_empty() {
                    true => Box::pin(async { Ok(()) }),
                    false => version.app.clone().messages(conn, messages),
                }
            }
            Event::Close(info) => {
                self.ended = Some(info);
                Box::pin(async { Ok(()) })
            }
        }
    }

    fn log_access(&self, event: &Event) {
        let end = match event {
            Event::Open => None,
            Event::Messages(_) => return,
            Event::Close(info) => Some(info),
        };
        let conn = &self.conn;
        let (connection, room, route) = (
            display(conn.id()),
            conn.room().map(display),
            conn.route().map(|route| route.pattern.as_str()),
        );
        match end {
            None => tracing::debug!(target: ACCESS, connection, room, route, "opened"),
            Some(info) => {
                tracing::debug!(target: ACCESS, connection, room, route, code = info.code, is_peer_initiated = info.is_peer_initiated, "closed")
            }
        }
    }

    fn handle_fault(&mut self, fault: &Fault) {
        let id = log_fault(
            fault,
            LogContext {
                conn: Some(&self.conn),
                ..LogContext::default()
            },
        );
        if let Some(event) = &self.event {
            let (route, attachment) = (
                self.conn.route().map_or("", |route| &route.pattern),
                self.conn.attachment(),
            );
            tracing::error!(id, route, event, attachment = %String::from_utf8_lossy(&attachment), "the event that failed");
        }
        let close = match fault {
            Fault::Busy => Close::new(1013, "busy, try again shortly"),
            Fault::Shortage => Close::new(1013, "the server is short of memory"),
            Fault::Closed(_) => Close::new(1013, "the room is closed for now"),
            Fault::Unavailable(_) => Close::new(
                1013,
                "the room's storage is not available, try again shortly",
            ),
            _ => Close {
                code: 1011,
                reason: format!("internal error (id {id})"),
            },
        };
        self.conn.outbox().close(close);
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, outside: &mut Context<'_>) -> bool {
        if self.session.is_ended() {
            return false;
        }
        let (was_full, mut progress) = (!self.wire.has_room(), false);
        loop {
            // The outbox is polled even while the socket is stuck: it may contain a close, whose
            // timeout has to start.
            let taken = self.conn.outbox().take_and_watch(cx, &mut self.wire);
            progress |= taken.close.is_some_and(|close| self.notice_close(close));
            if taken.any && self.session.has_idle_limit() {
                self.session.handle_sent(Instant::now());
            }
            let poll = self.wire.poll_flush(outside);
            self.stuck = poll.is_pending();
            match poll {
                Poll::Pending => return progress,
                Poll::Ready(Err(error)) => {
                    if error.kind() == io::ErrorKind::TimedOut {
                        self.give_up(Late::Reader);
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

    /// Handles the end of a write: all frames are written. Returns true if a ping is framed now.
    fn advance_ping(&mut self) -> bool {
        match self.ping {
            Ping::Due if !self.session.is_closing() => {
                self.ping = Ping::Framed {
                    start: self.wire.sent(),
                };
                self.wire.ping();
                true
            }
            Ping::Framed { start } => {
                self.ping = Ping::written(start, self.wire.sent(), self.wire.acknowledged());
                self.session.handle_ping_left(Instant::now());
                self.clock_is_stale = true;
                false
            }
            Ping::None | Ping::Due | Ping::Queued { .. } => false,
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
            .on_their_way
            .map_or(acknowledged < sent, |before| acknowledged > before)
        {
            self.session.handle_sent(now);
        }
        self.on_their_way = (acknowledged < sent).then_some(acknowledged);
    }

    /// Checks whether the host waits for the client, which is rare.
    #[inline]
    fn look_at_pace(&mut self, time_passed: bool) {
        if self.pace.is_some() || self.stuck || self.wire.is_within_message() {
            self.update_pace(time_passed);
        }
    }

    /// Updates the meters. While their state stays the same, they are updated only when time has
    /// passed.
    fn update_pace(&mut self, time_passed: bool) {
        let is_open = !self.session.is_closing();
        let owes = is_open
            && matches!(self.reading, Reading::Frames)
            && !self.readable
            && self.wire.is_within_message()
            && self.session.wants_read();
        let takes = is_open && self.stuck;
        let noted = self.pace.as_ref().map_or((false, false), |pace| {
            (pace.reading.is_waiting(), pace.writing.is_waiting())
        });
        if (owes, takes) != noted || ((owes || takes) && time_passed) {
            self.note_pace(owes, takes);
        }
    }

    fn note_pace(&mut self, owes: bool, takes: bool) {
        let (config, now) = (&self.server.config, tokio::time::Instant::now());
        let pace = self.pace.get_or_insert_default();
        if owes || pace.reading.is_waiting() {
            let rule = PaceRule::new(config.read_within, config.bytes_per_second_min);
            if pace.reading.note(self.wire.received(), owes, rule, now) {
                pace.late = Some(Late::Upload);
            }
            // Each message has its own time.
            if !self.wire.is_within_message() {
                pace.reading.reset();
            }
            pace.due = pace.reading.due(rule);
        }
        if takes || pace.writing.is_waiting() {
            let rule = PaceRule::new(config.write_within, config.bytes_per_second_min);
            if pace
                .writing
                .note(self.wire.acknowledged(), takes, rule, now)
            {
                pace.late = Some(Late::Reader);
            }
            let due = pace.writing.due(rule);
            pace.due = if pace.reading.is_waiting() {
                pace.due.into_iter().chain(due).min()
            } else {
                due
            };
        }
        let clock = self.clock.as_ref().map(|clock| clock.deadline());
        self.clock_is_stale |= pace.late.is_some()
            || pace
                .due
                .is_some_and(|due| clock.is_none_or(|clock| due < clock));
    }

    fn give_up(&self, late: Late) {
        let counters = self.server.hub.counters();
        let reason = match late {
            Late::Upload => {
                counters.stalled_uploads.add(1);
                "it sent a message too slowly"
            }
            Late::Reader => {
                self.wire.abort();
                counters.stalled_readers.add(1);
                "it took its messages too slowly"
            }
        };
        tracing::debug!(target: ACCESS, connection = %self.conn.id(), "gave up a connection: {reason}");
    }

    /// Notes that our close is on its way. Returns true if that is new.
    fn notice_close(&mut self, close: Close) -> bool {
        if self.session.is_closing() {
            return false;
        }
        self.session.handle_closing(close, Instant::now());
        self.clock_is_stale = true;
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

    fn poll_clock(&mut self, outside: &mut Context<'_>) -> bool {
        let mut progress = false;
        while std::mem::take(&mut self.clock_is_stale) {
            self.look_at_pace(true);
            progress |= self.handle_time();
            if let Some(clock) = &mut self.clock {
                self.clock_is_stale |= poll_timer(clock.as_mut(), outside).is_ready();
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
        let late = self.pace.as_mut().and_then(|pace| pace.late.take());
        if let Some(late) = late {
            self.give_up(late);
        }
        match if late.is_some() {
            Wait::Drop
        } else {
            self.session.poll_time(now)
        } {
            Wait::Until(until) => {
                let due = self.pace.as_ref().and_then(|pace| pace.due);
                self.set_clock(until.map(Into::into).into_iter().chain(due).min());
                return false;
            }
            Wait::Ping => {
                self.ping = Ping::Due;
                self.clock_is_stale = true;
            }
            Wait::Close(close) => {
                self.conn.outbox().close(close);
                self.set_clock(None);
            }
            Wait::Drop => {
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
    fn hand_over(&mut self) {
        if let Some(info) = self.ended.take().filter(|_| self.conn.has_opened()) {
            let closing = Closing {
                conn: self.conn.hand_over(),
                info,
                _lifeline: self.lifeline.clone(),
            };
            tokio::spawn(closing::deliver(self.server.clone(), closing));
        }
    }

    fn end(&mut self) {
        self.reading = Reading::Gone;
        self.session.handle_disconnect();
    }

    /// Writes the last bytes and our end of the socket, as far as the peer takes them at once.
    fn poll_end_of_socket(&mut self, cx: &mut Context<'_>) {
        let ended = self.session.is_ended();
        let discarding =
            matches!(self.reading, Reading::Discard) && self.session.is_closing() && !self.stuck;
        if ended {
            self.wire.reply(); // the peer's close may have come while ours waited
        }
        if (ended || discarding) && self.wire.poll_flush(cx).is_ready() {
            _ = self.wire.poll_shutdown(cx);
        }
    }
}

impl<Io: ClientSocket> Future for Connection<Io> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let outside = self.look_outside(cx.waker());
        let poll = self.poll_all(cx, &mut Context::from_waker(&outside.waker));
        self.outside = Some(outside);
        if poll.is_ready() {
            self.hand_over();
        }
        poll
    }
}
