//! One WebSocket's task: moves frames, time and calls between the socket, its session and the app.

use crate::{
    answer::{ACCESS, Place, log_fault},
    lifeline::Lifeline,
    server::{Server, Version},
    wire::{Received, Wire},
};
use std::{
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
    time::Instant,
};
use tidegate_hub::{
    Call, Close, Fault, Opened, Request, Session,
    outbox::Sink,
    session::{Due, Event},
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::{Sleep, sleep_until},
};
use tracing::field::display;

/// The first event, for the version that accepted the connection.
pub(crate) struct First {
    pub(crate) version: Arc<Version>,
    pub(crate) request: Request,
}

/// Ends when the app has heard of the connection's end, and the socket is closed.
pub(crate) struct Connection<Io> {
    wire: Wire<Io>,
    session: Session,
    conn: Opened,
    server: Arc<Server>,
    _lifeline: Lifeline,
    first: Option<Box<First>>,
    /// What the call is for, in development.
    event: Option<String>,
    call: Option<Call<'static, ()>>,
    reading: Reading,
    /// The socket takes no more for now; what waits in the outbox waits for that.
    stuck: bool,
    clock: Option<Pin<Box<Sleep>>>,
    /// The session's next moment may have changed.
    clock_is_stale: bool,
    outside: Option<Outside>,
    /// The socket may have something to read.
    readable: bool,
}

/// Wakes the task for the socket or the clock, and leaves a note of it: when only a message to send
/// woke the task, as most often in a broadcast, neither is worth a look.
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
        let note = Arc::new(Note { woken: AtomicBool::new(true), task });
        Outside { waker: note.clone().into(), note }
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
    /// The peer broke the protocol: what came before is answered, then this is sent.
    Broken(Close),
    /// Our close is out and the rest is not decoded any more.
    Discard,
    Gone,
}

impl<Io: AsyncRead + AsyncWrite + Unpin> Connection<Io> {
    /// `first`: none for a connection that the app is not told of.
    pub(crate) fn new(wire: Wire<Io>, conn: Opened, server: Arc<Server>, lifeline: Lifeline, first: Option<Box<First>>) -> Connection<Io> {
        let begin = if first.is_some() { Session::new } else { Session::silent };
        Connection {
            session: begin(server.hub.limits(), Instant::now()),
            wire,
            conn,
            server,
            _lifeline: lifeline,
            first,
            event: None,
            call: None,
            reading: Reading::Frames,
            stuck: false,
            clock: None,
            clock_is_stale: true,
            outside: None,
            readable: true,
        }
    }

    /// Takes the waker for socket and clock, and looks whether they woke the task.
    fn look_outside(&mut self, task: &Waker) -> Outside {
        let outside = match self.outside.take() {
            Some(outside) if outside.note.task.will_wake(task) => outside,
            _ => Outside::new(task.clone()),
        };
        if outside.note.woken.load(Ordering::Relaxed) && outside.note.woken.swap(false, Ordering::Acquire) {
            self.readable = true;
            self.clock_is_stale |= self.clock.as_ref().is_some_and(|clock| clock.is_elapsed());
        }
        outside
    }

    /// Ready when the connection is over.
    fn poll_all(&mut self, cx: &mut Context<'_>, outside: &mut Context<'_>) -> Poll<()> {
        loop {
            let mut progress = self.poll_read(outside);
            progress |= self.poll_call(cx);
            progress |= self.poll_write(cx, outside);
            progress |= self.poll_clock(outside);
            self.poll_end_of_socket(outside);
            if self.session.is_over() {
                return Poll::Ready(());
            }
            if !progress {
                return Poll::Pending;
            }
        }
    }

    fn poll_read(&mut self, cx: &mut Context<'_>) -> bool {
        match self.reading {
            Reading::Frames if self.readable && self.session.wants_read() && self.wire.has_room() => self.poll_frames(cx),
            Reading::Discard if self.wire.poll_discard(cx).is_ready() => {
                self.end();
                true
            }
            _ => false,
        }
    }

    fn poll_frames(&mut self, cx: &mut Context<'_>) -> bool {
        let Connection { wire, session, conn, reading, clock_is_stale, .. } = self;
        let mut now = None;
        let poll = wire.poll_receive(cx, |received| {
            let now = *now.get_or_insert_with(Instant::now);
            match received {
                Received::Message(message) if !session.is_closing() && conn.answer_automatically(&message) => {
                    session.handle_answered_message(now)
                }
                Received::Message(message) => session.handle_message(message, now),
                Received::Alive => session.handle_heard(now),
                Received::Close(close) => {
                    session.handle_peer_close(close, now);
                    *clock_is_stale = true;
                }
                Received::Broken(_) if session.is_closing() => *reading = Reading::Discard,
                Received::Broken(close) => *reading = Reading::Broken(close),
                Received::Gone => {
                    *reading = Reading::Gone;
                    session.handle_disconnect();
                }
            }
            matches!(reading, Reading::Frames) && session.wants_read()
        });
        if now.is_some() && !self.session.is_closing() {
            self.wire.reply();
        }
        self.readable = poll.is_ready();
        self.readable
    }

    fn poll_call(&mut self, cx: &mut Context<'_>) -> bool {
        let mut returned = false;
        loop {
            if self.call.is_none() {
                let Some(event) = self.session.next_call() else { break };
                // What the app sends now is looked at behind the call: nobody has to wake us for it.
                self.conn.outbox().unwatch();
                self.call = Some(self.begin(event));
            }
            let Some(Poll::Ready(outcome)) = self.call.as_mut().map(|call| call.as_mut().poll(cx)) else { break };
            self.call = None;
            self.session.handle_returned(outcome.is_ok());
            if let Err(fault) = outcome {
                self.handle_fault(&fault);
            }
            returned = true;
        }
        // What could not be read while messages waited can be now.
        returned && self.readable
    }

    fn begin(&mut self, event: Event) -> Call<'static, ()> {
        let (conn, version) = (self.conn.clone(), self.server.version());
        self.event = self.server.config.pages.is_some().then(|| format!("{event:?}"));
        let is_gone = || conn.outbox().is_closed() && conn.route().is_some_and(|route| !version.table.has_successor(route));
        self.log_access(&event);
        match event {
            // No version that is served has a handler for it.
            Event::Messages(_) | Event::Close(_) if is_gone() => Box::pin(async { Ok(()) }),
            Event::Open => match self.first.take() {
                Some(first) => first.version.app.clone().open(conn, first.request),
                None => Box::pin(async { Ok(()) }),
            },
            Event::Messages(mut messages) => {
                // Those that came before the room had the connection.
                messages.retain(|message| !conn.answer_automatically(message));
                match messages.is_empty() {
                    true => Box::pin(async { Ok(()) }),
                    false => version.app.clone().messages(conn, messages),
                }
            }
            Event::Close(info) => {
                // Nobody is there any more: what is sent or published to it now is refused, not queued.
                conn.outbox().abandon();
                version.app.clone().close(conn, info)
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
        let (connection, room, route) = (display(conn.id()), conn.room().map(display), conn.route().map(|route| route.pattern.as_str()));
        match end {
            None => tracing::debug!(target: ACCESS, connection, room, route, "opened"),
            Some(info) => tracing::debug!(target: ACCESS, connection, room, route, code = info.code, by_peer = info.by_peer, "closed"),
        }
    }

    fn handle_fault(&mut self, fault: &Fault) {
        let id = log_fault(fault, Place { conn: Some(&self.conn), ..Place::default() });
        if let Some(event) = &self.event {
            let (route, attachment) = (self.conn.route().map_or("", |route| &route.pattern), self.conn.attachment());
            tracing::error!(id, route, event, attachment = %String::from_utf8_lossy(&attachment), "the event that failed");
        }
        let close = match fault {
            Fault::Busy => Close::new(1013, "busy, try again shortly"),
            Fault::Closed(_) => Close::new(1013, "the room is closed for now"),
            Fault::Unavailable(_) => Close::new(1013, "the room's storage is not available, try again shortly"),
            _ => Close { code: 1011, reason: format!("internal error (id {id})") },
        };
        self.conn.outbox().close(close);
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, outside: &mut Context<'_>) -> bool {
        if self.session.is_ended() {
            return false;
        }
        let (was_full, mut progress) = (!self.wire.has_room(), false);
        loop {
            // Asked even while the socket is stuck: there may be a close, whose time has to run.
            let taken = self.conn.outbox().take_and_watch(cx, &mut self.wire);
            progress |= taken.close.is_some_and(|close| self.notice_close(close));
            if taken.any && self.session.has_idle_limit() {
                self.session.handle_sent(Instant::now());
            }
            let poll = self.wire.poll_flush(outside);
            self.stuck = poll.is_pending();
            match poll {
                Poll::Pending => return progress,
                Poll::Ready(Err(_)) => {
                    self.end();
                    return true;
                }
                Poll::Ready(Ok(())) if taken.all => break,
                Poll::Ready(Ok(())) => {}
            }
        }
        self.conn.outbox().written();
        // With room again, what was left unread meanwhile is worth a look.
        self.advance_end() || progress || was_full
    }

    /// Our close is on its way; whether that is new.
    fn notice_close(&mut self, close: Close) -> bool {
        if self.session.is_closing() {
            return false;
        }
        self.session.handle_closing(close, Instant::now());
        self.clock_is_stale = true;
        true
    }

    /// What waited until everything before it was handled and written: the answer to a close, or to a broken frame.
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
            progress |= self.handle_time();
            if let Some(clock) = &mut self.clock {
                self.clock_is_stale |= clock.as_mut().poll(outside).is_ready();
            }
        }
        progress
    }

    fn handle_time(&mut self) -> bool {
        match self.session.poll_time(Instant::now()) {
            Due::Wait(until) => {
                self.set_clock(until.map(Into::into));
                return false;
            }
            Due::Ping => {
                self.wire.ping();
                self.clock_is_stale = true;
            }
            Due::Close(close) => {
                self.conn.outbox().close(close);
                self.set_clock(None);
            }
            Due::Drop => {
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

    fn end(&mut self) {
        self.reading = Reading::Gone;
        self.session.handle_disconnect();
    }

    /// The last bytes and our end of the socket, as far as the peer takes them at once.
    fn poll_end_of_socket(&mut self, cx: &mut Context<'_>) {
        let ended = self.session.is_ended();
        let discarding = matches!(self.reading, Reading::Discard) && self.session.is_closing() && !self.stuck;
        if ended {
            self.wire.reply(); // the peer's close may have come while ours waited
        }
        if (ended || discarding) && self.wire.poll_flush(cx).is_ready() {
            _ = self.wire.poll_shutdown(cx);
        }
    }
}

impl<Io: AsyncRead + AsyncWrite + Unpin> Future for Connection<Io> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let outside = self.look_outside(cx.waker());
        let poll = self.poll_all(cx, &mut Context::from_waker(&outside.waker));
        self.outside = Some(outside);
        poll
    }
}
