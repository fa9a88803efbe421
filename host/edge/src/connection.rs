//! One WebSocket's task: moves frames, time and calls between the socket, its session and the app.

use crate::{
    answer::log_fault,
    server::Lifeline,
    wire::{Received, Wire},
};
use std::{
    collections::VecDeque,
    future::Future,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Instant,
};
use tidegate_hub::{
    App, Call, Close, Fault, Limits, Opened, Outgoing, Request, Session,
    session::{Due, Event},
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::{Sleep, sleep_until},
};

/// Ends when the app has heard of the connection's end, and the socket is closed.
pub(crate) struct Connection<Io> {
    wire: Wire<Io>,
    session: Session,
    conn: Opened,
    app: Arc<dyn App>,
    _lifeline: Lifeline,
    /// For the first event.
    request: Option<Box<Request>>,
    call: Option<Call<'static, ()>>,
    /// Taken out of the outbox and not framed yet.
    batch: VecDeque<Outgoing>,
    reading: Reading,
    clock: Option<Pin<Box<Sleep>>>,
    /// The session's next moment may have changed.
    clock_is_stale: bool,
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
    /// `request`: the head of the upgrade, or none for a connection that the app is not told of.
    pub(crate) fn new(
        wire: Wire<Io>,
        conn: Opened,
        app: Arc<dyn App>,
        limits: &Limits,
        lifeline: Lifeline,
        request: Option<Box<Request>>,
    ) -> Connection<Io> {
        let begin = if request.is_some() { Session::new } else { Session::silent };
        Connection {
            session: begin(limits, Instant::now()),
            wire,
            conn,
            app,
            _lifeline: lifeline,
            request,
            call: None,
            batch: VecDeque::new(),
            reading: Reading::Frames,
            clock: None,
            clock_is_stale: true,
        }
    }

    fn poll_read(&mut self, cx: &mut Context<'_>) -> bool {
        match self.reading {
            Reading::Frames if self.session.wants_read() && self.wire.has_room() => self.poll_frames(cx),
            Reading::Discard if self.wire.poll_discard(cx).is_ready() => {
                self.end();
                true
            }
            _ => false,
        }
    }

    fn poll_frames(&mut self, cx: &mut Context<'_>) -> bool {
        let Connection { wire, session, reading, clock_is_stale, .. } = self;
        let mut progress = false;
        let mut now = None;
        let poll = wire.poll_receive(cx, |received| {
            progress = true;
            let now = *now.get_or_insert_with(Instant::now);
            match received {
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
        if progress && !self.session.is_closing() {
            self.wire.reply();
        }
        poll.is_ready() || progress
    }

    fn poll_call(&mut self, cx: &mut Context<'_>) -> bool {
        let mut progress = false;
        loop {
            if self.call.is_none() {
                let Some(event) = self.session.next_call() else { break };
                self.call = Some(self.begin(event));
            }
            let Some(Poll::Ready(outcome)) = self.call.as_mut().map(|call| call.as_mut().poll(cx)) else { break };
            self.call = None;
            self.session.handle_returned(outcome.is_ok());
            if let Err(fault) = outcome {
                self.handle_fault(&fault);
            }
            progress = true;
        }
        progress
    }

    fn begin(&mut self, event: Event) -> Call<'static, ()> {
        let (app, conn) = (self.app.clone(), self.conn.clone());
        match event {
            Event::Open => match self.request.take() {
                Some(request) => app.open(conn, *request),
                None => Box::pin(async { Ok(()) }),
            },
            Event::Messages(messages) => app.messages(conn, messages),
            Event::Close(info) => app.close(conn, info),
        }
    }

    fn handle_fault(&mut self, fault: &Fault) {
        let id = log_fault(fault, &format!("connection {}", self.conn.id()));
        let close = match fault {
            Fault::Busy => Close::new(1013, "busy, try again shortly"),
            _ => Close { code: 1011, reason: format!("internal error (id {id})") },
        };
        self.conn.outbox().close(close);
    }

    fn poll_write(&mut self, cx: &mut Context<'_>) -> bool {
        if self.session.is_ended() {
            return false;
        }
        let mut progress = false;
        loop {
            let written = self.batch.is_empty() && self.wire.is_flushed();
            // Taken even while the socket is stuck: it may be a close, whose time has to run.
            let taken = self.conn.outbox().poll_take(cx, &mut self.batch, written).is_ready();
            if taken {
                self.notice_close();
                progress = true;
            }
            match self.poll_batch(cx) {
                Poll::Pending => return progress,
                Poll::Ready(Err(_)) => {
                    self.end();
                    return true;
                }
                Poll::Ready(Ok(())) if taken => {}
                Poll::Ready(Ok(())) => return self.advance_end() || progress,
            }
        }
    }

    /// A close is always the last in the outbox.
    fn notice_close(&mut self) {
        if let Some(Outgoing::Close(close)) = self.batch.back() {
            self.session.handle_closing(close.clone(), Instant::now());
            self.clock_is_stale = true;
        }
    }

    /// Ready when everything that was taken is written.
    fn poll_batch(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            while self.wire.has_room()
                && let Some(outgoing) = self.batch.pop_front()
            {
                match outgoing {
                    Outgoing::Close(close) => self.wire.close(&close),
                    Outgoing::Message(message) => self.wire.send(&message),
                    Outgoing::Publication(publication) => self.wire.send(&publication.message),
                }
            }
            ready!(self.wire.poll_flush(cx))?;
            if self.batch.is_empty() {
                return Poll::Ready(Ok(()));
            }
        }
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

    fn poll_clock(&mut self, cx: &mut Context<'_>) -> bool {
        let mut progress = false;
        loop {
            if std::mem::take(&mut self.clock_is_stale) {
                progress |= self.handle_time();
            }
            let Some(clock) = &mut self.clock else { return progress };
            if clock.as_mut().poll(cx).is_pending() {
                return progress;
            }
            self.clock_is_stale = true;
        }
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
        let discarding = matches!(self.reading, Reading::Discard) && self.session.is_closing() && self.batch.is_empty();
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
        let connection = &mut *self;
        loop {
            let mut progress = connection.poll_read(cx);
            progress |= connection.poll_call(cx);
            progress |= connection.poll_write(cx);
            progress |= connection.poll_clock(cx);
            connection.poll_end_of_socket(cx);
            if connection.session.is_over() {
                return Poll::Ready(());
            }
            if !progress {
                return Poll::Pending;
            }
        }
    }
}
