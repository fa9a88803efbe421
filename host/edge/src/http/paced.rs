//! The clock of an HTTP/1.1 connection that hyper reads and writes.
//!
//! hyper does not report what it waits for. So the socket (`Paced`), the request's body and the
//! answer's body record their events in one place, [`Shared`], and the connection's task asks the
//! [`Watch`] after each poll of hyper whether the client is late. The task owns the `Watch`; all
//! parts share the `Shared`, and each of its counters has one writer.
//!
//! `Watch` distinguishes four waits: for the next request (`Head`, idle or begun), for the
//! request's body, for the client to read its answer, and, after the client has ended its sending
//! direction, for any progress. A late body ends for the app, which then has `ANSWER_WITHIN` to
//! answer; every other verdict except `Look` ends the connection.
//!
//! Invariant: a meter counts only time in which the host waits for the client, so a slow app does
//! not make a slow client.
//!
//! Most records are plain stores. The clock is read when a connection becomes idle and while the
//! host waits for the client. There is one timer, which is moved only when it fires too early.
//!
//! `pace` has the rules and meters; `http1` acts on the verdict.

use crate::{
    http::answer::{Body, FramePoll, HeldAnswer},
    http::linger,
    http::pace::{End, Meter, Rule, Socket, poll_timer},
    http::turn::Requests,
    memory::Memory,
    server::Config,
};
use bytes::{Buf as _, Bytes};
use http::{HeaderMap, Version, header};
use http_body::{Body as _, SizeHint};
use std::{
    io,
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{
            AtomicBool, AtomicU64,
            Ordering::{Relaxed, Release},
        },
    },
    task::{Context, Poll, Waker, ready},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, Sleep, sleep_until},
};

/// Maximum time for an app to answer a client whose request's body was too slow. Then the
/// connection ends.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);

/// Time between checks of a connection while a request is handled and bytes of the client are not
/// read: the end of the connection would come after them.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// State shared by the parts of one connection.
#[derive(Default)]
pub(crate) struct Shared {
    /// An answer that `held` writes instead of hyper.
    pub(crate) held: Mutex<Option<Box<HeldAnswer>>>,
    received: AtomicU64,
    sent: AtomicU64,
    /// Number of bytes of `sent` that the client's machine had acknowledged when the socket last
    /// accepted no more.
    acknowledged: AtomicU64,
    is_reading: AtomicBool,
    is_writing: AtomicBool,
    /// True if the socket failed with `TimedOut`: the client acknowledges too slowly, or its
    /// machine no longer answers.
    is_given_up: AtomicBool,
    /// True if the client has ended its sending direction.
    has_ended_sending: AtomicBool,
    /// True if the current request asks for the end of the connection.
    wants_close: AtomicBool,
    /// The last eight bytes that were read.
    tail: AtomicU64,
    pub(super) in_flight: InFlight,
    is_broken_off: AtomicBool,
    /// Number of requests that begin in one poll.
    pub(crate) requests: Requests,
}

/// A request and its answer.
#[derive(Default)]
pub(super) struct InFlight {
    /// Number of requests so far.
    count: AtomicU64,
    /// True between a request's head and the end of its answer.
    is_open: AtomicBool,
    /// True if its answer has begun.
    is_answered: AtomicBool,
    has_body: AtomicBool,
    /// True if the request's body has been read to its end.
    pub(super) has_read_body: AtomicBool,
    /// True while the request's body has a reader.
    pub(super) has_reader: AtomicBool,
    /// True if further bytes of the client are dropped while the answer is written.
    is_discarding: AtomicBool,
    /// Number of bytes dropped.
    discarded: AtomicU64,
    /// True if bytes are available that are not read.
    has_unread: AtomicBool,
    /// Number of bytes read from the body; `body_tail` has the last eight of them.
    pub(super) body_received: AtomicU64,
    pub(super) body_tail: AtomicU64,
    /// Value of `received` at the end of the exchange.
    received: AtomicU64,
    /// True while a reader waits for more of the body.
    pub(super) wants_body: AtomicBool,
    /// True if the client is too slow; the body has then ended.
    pub(super) is_late: AtomicBool,
    /// Waker of the body's reader.
    pub(super) waker: Mutex<Option<Waker>>,
}

impl Shared {
    /// Returns true if the socket has accepted all written bytes.
    pub(crate) fn is_flushed(&self) -> bool {
        !self.is_writing.load(Relaxed)
    }

    /// Returns true if the socket failed with `TimedOut`. hyper does not report it if no request is
    /// open.
    pub(crate) fn is_given_up(&self) -> bool {
        self.is_given_up.load(Relaxed)
    }

    #[cold]
    fn note_failure(&self, error: &io::Error) {
        if error.kind() == io::ErrorKind::TimedOut {
            self.is_given_up.store(true, Relaxed);
        }
    }

    /// Returns true while a request is handled or answered.
    pub(crate) fn is_busy(&self) -> bool {
        self.in_flight.is_open.load(Relaxed)
    }

    /// Returns true if the client of the current request was too slow with its body.
    pub(crate) fn is_late(&self) -> bool {
        self.in_flight.is_late.load(Relaxed)
    }

    /// Returns true if the current request has been read to its end.
    pub(crate) fn has_read_body(&self) -> bool {
        self.in_flight.has_read_body.load(Relaxed)
    }

    /// Returns true if an answer to the current request has begun.
    pub(crate) fn is_answered(&self) -> bool {
        self.in_flight.is_answered.load(Relaxed)
    }

    /// Records the head of a request.
    pub(crate) fn begin(&self, has_body: bool) {
        let in_flight = &self.in_flight;
        in_flight
            .count
            .store(in_flight.count.load(Relaxed) + 1, Relaxed);
        in_flight.is_answered.store(false, Relaxed);
        in_flight.has_body.store(has_body, Relaxed);
        in_flight.has_read_body.store(!has_body, Relaxed);
        in_flight.has_reader.store(false, Relaxed);
        in_flight.has_unread.store(false, Relaxed);
        in_flight.body_received.store(0, Relaxed);
        in_flight.is_open.store(true, Relaxed);
    }

    /// Records whether the request asks for the end of the connection (RFC 9112 section 9.6). Only
    /// held answers need it.
    pub(crate) fn note_connection(&self, headers: &HeaderMap) {
        let values = headers
            .get_all(header::CONNECTION)
            .iter()
            .filter_map(|value| value.to_str().ok());
        let wants_close = values
            .flat_map(|value| value.split(','))
            .any(|option| option.trim().eq_ignore_ascii_case("close"));
        self.wants_close.store(wants_close, Relaxed);
    }

    /// Returns true if the connection may serve another request after an answer that hyper does not
    /// write.
    pub(crate) fn may_go_on(&self) -> bool {
        !self.wants_close.load(Relaxed) && self.has_read_body()
    }

    /// Returns true if the request has a body that has not been read to its end and never will be.
    pub(crate) fn is_body_abandoned(&self) -> bool {
        !self.has_read_body() && !self.in_flight.has_reader.load(Relaxed)
    }

    /// From now on, drops the rest of an abandoned body when the answer can't be written: a client
    /// that sends first and reads later would never read it. The connection has to end with the
    /// answer, or bytes of the next request would be dropped.
    pub(crate) fn discard_body(&self) {
        self.in_flight.is_discarding.store(true, Relaxed);
    }

    /// Wraps the body of the answer for hyper.
    pub(crate) fn answer(self: Arc<Shared>, version: Version, body: Body) -> AnswerBody {
        self.in_flight.is_answered.store(true, Relaxed);
        // HTTP/1.0 has no chunks.
        let ends_with_connection =
            version == Version::HTTP_10 && body.size_hint().exact().is_none();
        AnswerBody {
            body,
            shared: self,
            failure: None,
            ends_with_connection,
        }
    }

    /// Returns true if an answer broke off that ends with its connection: only a reset
    /// distinguishes it from a whole one (RFC 9112 section 8).
    pub(crate) fn is_broken_off(&self) -> bool {
        self.is_broken_off.load(Relaxed)
    }

    /// Returns true if a request is handled and hyper does not read, so that it does not notice a
    /// client that leaves.
    fn is_unwatched(&self) -> bool {
        let in_flight = &self.in_flight;
        in_flight.is_open.load(Relaxed) && !in_flight.wants_body.load(Relaxed)
    }

    /// Ends the body of the request, because its client is too slow.
    fn give_up_body(&self) {
        self.in_flight.is_late.store(true, Release);
        if let Some(waker) = self
            .in_flight
            .waker
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
        {
            waker.wake();
        }
    }

    /// Returns true if bytes of the next request came, but not its whole head.
    fn has_part_of_head(&self) -> bool {
        let in_flight = &self.in_flight;
        let came_since = self.received.load(Relaxed) != in_flight.received.load(Relaxed);
        // Several requests may come at once, the last of them in part. The last bytes read are then
        // not the end of the earlier request.
        let came_before = in_flight.count.load(Relaxed) > 0 && !self.ends_request();
        came_since || came_before
    }

    /// Returns true if the last bytes read are the end of the last request: of its head, its last
    /// chunk and trailers, or its body.
    fn ends_request(&self) -> bool {
        let (tail, in_flight) = (self.tail.load(Relaxed), &self.in_flight);
        let is_blank_line = tail as u16 == u16::from_be_bytes(*b"\n\n")
            || tail & 0xff_ffff == u64::from_be_bytes(*b"\0\0\0\0\0\n\r\n");
        let read = in_flight.body_received.load(Relaxed).min(8);
        let is_body = in_flight.has_body.load(Relaxed)
            && read > 0
            && (tail ^ in_flight.body_tail.load(Relaxed)) << (64 - 8 * read) == 0;
        is_blank_line || is_body
    }
}

/// Returns the last eight bytes of a stream that ended with `tail` and continues with these bytes.
pub(super) fn tail_of(tail: u64, bytes: &[u8]) -> u64 {
    match bytes.last_chunk() {
        Some(last) => u64::from_be_bytes(*last),
        None => bytes
            .iter()
            .fold(tail, |tail, byte| tail << 8 | u64::from(*byte)),
    }
}

/// Adds to a counter that has only one writer.
pub(super) fn add(counter: &AtomicU64, n: usize) {
    counter.store(counter.load(Relaxed) + n as u64, Relaxed);
}

/// A socket that records the bytes that move and the directions that wait.
pub(crate) struct Paced<Io> {
    io: Io,
    /// Bytes that were read before; they come first.
    ahead: Bytes,
    shared: Arc<Shared>,
    memory: Arc<Memory>,
    /// Maximum number of bytes of an abandoned body that are dropped.
    discard_max: usize,
}

impl<Io> Paced<Io> {
    pub(crate) fn new(
        io: Io,
        ahead: Bytes,
        shared: Arc<Shared>,
        memory: Arc<Memory>,
        discard_max: usize,
    ) -> Paced<Io> {
        Paced {
            io,
            ahead,
            shared,
            memory,
            discard_max,
        }
    }

    pub(crate) fn into_inner(self) -> Io {
        self.io
    }
}

impl<Io: Socket> Paced<Io> {
    fn note_written(
        &mut self,
        cx: &mut Context<'_>,
        poll: Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        match &poll {
            Poll::Ready(Ok(written)) => add(&self.shared.sent, *written),
            Poll::Ready(Err(error)) => self.shared.note_failure(error),
            Poll::Pending => {}
        }
        let (was_writing, is_writing) = (self.shared.is_writing.load(Relaxed), poll.is_pending());
        if was_writing || is_writing {
            self.shared.is_writing.store(is_writing, Relaxed);
            // The kernel accepts more only when a third of its buffer is free. On a slow link, the
            // client has read a part long before that.
            let acknowledged = self
                .shared
                .sent
                .load(Relaxed)
                .saturating_sub(self.io.unacknowledged());
            self.shared.acknowledged.store(acknowledged, Relaxed);
        }
        if is_writing && self.shared.in_flight.is_discarding.load(Relaxed) {
            self.discard(cx);
        }
        poll
    }

    /// Drops bytes from the client.
    fn discard(&mut self, cx: &mut Context<'_>) {
        let discarded = &self.shared.in_flight.discarded;
        while discarded.load(Relaxed) < self.discard_max as u64 {
            match linger::poll_drop(&mut self.io, cx) {
                Poll::Ready(Ok(bytes)) if bytes > 0 => add(discarded, bytes),
                _ => return,
            }
        }
    }

    /// Returns true if the client has left, as far as that is visible without reading.
    fn has_left(&self, cx: &mut Context<'_>) -> bool {
        let end = self.io.poll_end(cx);
        match end {
            End::None => {}
            End::Unread => self.shared.in_flight.has_unread.store(true, Relaxed),
            // The client may still wait for its answer: the clock decides.
            End::Sending => self.shared.has_ended_sending.store(true, Relaxed),
            End::Both => return true,
        }
        false
    }
}

impl<Io: AsyncRead + Unpin> AsyncRead for Paced<Io> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let poll = if self.ahead.is_empty() {
            Pin::new(&mut self.io).poll_read(cx, buffer)
        } else {
            let bytes = self.ahead.len().min(buffer.remaining());
            buffer.put_slice(&self.ahead[..bytes]);
            self.ahead.advance(bytes);
            Poll::Ready(Ok(()))
        };
        if let Poll::Ready(Err(error)) = &poll {
            self.shared.note_failure(error);
        }
        self.shared.is_reading.store(poll.is_pending(), Relaxed);
        let read = &buffer.filled()[before..];
        if !read.is_empty() {
            self.memory
                .handle_read(read.len(), self.shared.is_busy())
                .map_err(|error| io::Error::new(io::ErrorKind::OutOfMemory, error))?;
            add(&self.shared.received, read.len());
            self.shared
                .tail
                .store(tail_of(self.shared.tail.load(Relaxed), read), Relaxed);
        }
        poll
    }
}

impl<Io: Socket> AsyncWrite for Paced<Io> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let poll = Pin::new(&mut self.io).poll_write(cx, bytes);
        self.note_written(cx, poll)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let poll = Pin::new(&mut self.io).poll_write_vectored(cx, parts);
        self.note_written(cx, poll)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    /// hyper flushes whenever it is polled.
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.shared.is_unwatched() && self.has_left(cx) {
            // The socket has the reason: the client's machine has reset the connection, or no
            // longer answers.
            let error = match linger::poll_drop(&mut self.io, cx) {
                Poll::Ready(Err(error)) => error,
                _ => io::ErrorKind::ConnectionReset.into(),
            };
            self.shared.note_failure(&error);
            return Poll::Ready(Err(error));
        }
        let poll = Pin::new(&mut self.io).poll_flush(cx);
        if let Poll::Ready(Err(error)) = &poll {
            self.shared.note_failure(error);
        }
        poll
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

/// An answer's body, whose end is the end of the exchange.
pub(crate) struct AnswerBody {
    body: Body,
    shared: Arc<Shared>,
    failure: Option<io::Error>,
    ends_with_connection: bool,
}

impl http_body::Body for AnswerBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> FramePoll {
        if let Some(failure) = self.failure.take() {
            return Poll::Ready(Some(Err(failure)));
        }
        match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
            // hyper drops the connection at once, including its unwritten bytes. It has to write
            // the head and the pieces so far first.
            Some(Err(failure)) => {
                self.failure = Some(failure);
                self.shared
                    .is_broken_off
                    .store(self.ends_with_connection, Relaxed);
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            frame => Poll::Ready(frame),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for AnswerBody {
    fn drop(&mut self) {
        let in_flight = &self.shared.in_flight;
        in_flight.is_open.store(false, Relaxed);
        in_flight
            .received
            .store(self.shared.received.load(Relaxed), Relaxed);
    }
}

/// Verdict of a connection's clock on its client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Late {
    /// The client has sent no request for too long.
    Idle,
    /// A request's head took too long.
    Head,
    /// A request's body comes too slowly. The app may still answer.
    Body,
    /// The app did not answer after that.
    Answer,
    /// The client reads its answer too slowly.
    Reader,
    /// The client has ended its sending direction and has taken no bytes for a while since then: it
    /// has left.
    Left,
    /// The client is not late, but hyper has to be polled to find out whether the client is still
    /// connected.
    Look,
}

/// The clock of a connection.
pub(crate) struct Watch {
    times: Times,
    /// Number of the exchange at the last check.
    count: u64,
    head: Head,
    body: Meter,
    /// End of the app's time to answer, after the body was given up.
    answer_until: Option<Instant>,
    reader: Meter,
    /// Set when the client has ended its sending direction: the number of bytes sent by then, and
    /// the time by which more must be sent.
    left: Option<(u64, Instant)>,
    /// Time of the next check whether the client is still connected.
    look_at: Option<Instant>,
    timer: Option<Pin<Box<Sleep>>>,
}

struct Times {
    idle_within: Duration,
    header_within: Duration,
    body: Rule,
    reader: Rule,
    half_close_within: Duration,
    /// Maximum waiting time during a drain.
    drain: Duration,
}

/// State of the next request.
enum Head {
    /// Another request is being answered.
    None,
    /// It is due at `until`; `received` bytes had come in all.
    Idle { until: Instant, received: u64 },
    /// Its head has begun, and is due at `until`.
    Begun { until: Instant },
}

impl Watch {
    pub(crate) fn new(config: &Config) -> Watch {
        let times = Times {
            idle_within: config.idle_within,
            header_within: config.header_within,
            body: Rule::new(config.read_within, config.bytes_per_second_min),
            reader: Rule::new(config.write_within, config.bytes_per_second_min),
            half_close_within: config.half_close_within,
            drain: config.drain_within / 2,
        };
        let (body, reader) = (Meter::default(), Meter::default());
        // No exchange has this number.
        Watch {
            times,
            count: u64::MAX,
            head: Head::None,
            body,
            answer_until: None,
            reader,
            left: None,
            look_at: None,
            timer: None,
        }
    }

    /// Returns a verdict if the next request has been waited for, or its head has been coming, for
    /// this time.
    pub(crate) fn has_waited(&self, time: Duration, shared: &Shared) -> Option<Late> {
        let (since, late) = match self.head {
            Head::Idle { until, received } if received == shared.received.load(Relaxed) => {
                (until - self.times.idle_within, Late::Idle)
            }
            Head::Begun { until } => (until - self.times.header_within, Late::Head),
            Head::Idle { .. } | Head::None => return None,
        };
        let is_waiting = self.count == shared.in_flight.count.load(Relaxed) && !shared.is_busy();
        (is_waiting && since + time <= Instant::now()).then_some(late)
    }

    /// Shortens the limits from now on, so that slow clients do not hold the drain.
    pub(crate) fn drain(&mut self) {
        self.times.body = self.times.body.at_most(self.times.drain);
        self.times.reader = self.times.reader.at_most(self.times.drain);
        self.times.half_close_within = self.times.half_close_within.min(self.times.drain);
        // Without a timer, all limits are checked again.
        self.timer = None;
    }

    /// Checks whether the client is late. The caller has polled hyper before.
    pub(crate) fn poll_late(&mut self, shared: &Shared, cx: &mut Context<'_>) -> Poll<Late> {
        loop {
            if let Some(late) = self.look(shared) {
                return Poll::Ready(late);
            }
            let due = [
                self.head.until(),
                self.body.due(self.times.body),
                self.answer_until,
                self.reader.due(self.times.reader),
                self.left.map(|(_, until)| until),
                self.look_at,
            ];
            let Some(due) = due.into_iter().flatten().min() else {
                return Poll::Pending;
            };
            match &mut self.timer {
                // The timer may fire too early, and is then reset.
                Some(timer) if timer.deadline() <= due && !timer.is_elapsed() => {
                    return Poll::Pending;
                }
                Some(timer) => timer.as_mut().reset(due),
                timer => *timer = Some(Box::pin(sleep_until(due))),
            }
            let timer = self.timer.as_mut().expect("it was just set");
            ready!(poll_timer(timer.as_mut(), cx));
        }
    }

    fn look(&mut self, shared: &Shared) -> Option<Late> {
        let in_flight = &shared.in_flight;
        let (is_open, count) = (
            in_flight.is_open.load(Relaxed),
            in_flight.count.load(Relaxed),
        );
        if count != self.count {
            self.count = count;
            self.head = Head::None;
            self.answer_until = None;
            self.body.reset();
        }
        if let Some(late) = self.look_at_head(shared, is_open) {
            return Some(late);
        }
        let waits_for_body =
            is_open && in_flight.wants_body.load(Relaxed) && shared.is_reading.load(Relaxed);
        if self.has_changed(self.body.is_waiting(), waits_for_body)
            && self.body.note(
                shared.received.load(Relaxed),
                waits_for_body,
                self.times.body,
                Instant::now(),
            )
            && self.answer_until.is_none()
        {
            self.answer_until = Some(Instant::now() + ANSWER_WITHIN);
            shared.give_up_body();
            return Some(Late::Body);
        }
        if self
            .answer_until
            .is_some_and(|until| Instant::now() >= until)
        {
            return Some(Late::Answer);
        }
        let waits_for_reader = shared.is_writing.load(Relaxed);
        if self.has_changed(self.reader.is_waiting(), waits_for_reader) {
            let acknowledged = shared.acknowledged.load(Relaxed);
            if self.reader.note(
                acknowledged,
                waits_for_reader,
                self.times.reader,
                Instant::now(),
            ) {
                return Some(Late::Reader);
            }
        }
        if shared.has_ended_sending.load(Relaxed)
            && let Some(late) = self.look_at_half_closed(shared, is_open)
        {
            return Some(late);
        }
        self.look_at_client(shared)
    }

    /// Checks a client that has ended its sending direction: it counts as connected while its
    /// answer makes progress.
    fn look_at_half_closed(&mut self, shared: &Shared, is_open: bool) -> Option<Late> {
        if !is_open {
            self.left = None;
            return None;
        }
        let (sent, now) = (shared.sent.load(Relaxed), Instant::now());
        match self.left {
            Some((before, until)) if before == sent => (now >= until).then_some(Late::Left),
            _ => {
                self.left = Some((sent, now + self.times.half_close_within));
                None
            }
        }
    }

    fn look_at_client(&mut self, shared: &Shared) -> Option<Late> {
        if !shared.is_unwatched()
            || !shared.in_flight.has_unread.load(Relaxed)
            || shared.has_ended_sending.load(Relaxed)
        {
            self.look_at = None;
            return None;
        }
        if self.look_at.is_some() && !self.is_due() {
            return None;
        }
        let now = Instant::now();
        let is_due = self.look_at.is_some_and(|at| at <= now);
        if is_due || self.look_at.is_none() {
            self.look_at = Some(now + LOOK_EVERY);
        }
        is_due.then_some(Late::Look)
    }

    fn look_at_head(&mut self, shared: &Shared, is_open: bool) -> Option<Late> {
        if is_open {
            self.head = Head::None;
            return None;
        }
        let begun = |now: Instant, times: &Times| Head::Begun {
            until: now + times.header_within,
        };
        match self.head {
            Head::None => {
                let now = Instant::now();
                self.head = match shared.has_part_of_head() {
                    true => begun(now, &self.times),
                    false => Head::Idle {
                        until: now + self.times.idle_within,
                        received: shared.received.load(Relaxed),
                    },
                };
            }
            Head::Idle { received, .. } if received != shared.received.load(Relaxed) => {
                self.head = begun(Instant::now(), &self.times)
            }
            Head::Idle { until, .. } | Head::Begun { until }
                if !self.is_due() || Instant::now() < until => {}
            Head::Idle { .. } => return Some(Late::Idle),
            Head::Begun { .. } => return Some(Late::Head),
        }
        None
    }

    /// Returns true if a meter has to be updated: its state has changed, or it waits and time has
    /// passed.
    fn has_changed(&self, was_waiting: bool, is_waiting: bool) -> bool {
        was_waiting != is_waiting || (is_waiting && self.is_due())
    }

    /// Returns true if the timer has fired. Otherwise no limit can have passed.
    fn is_due(&self) -> bool {
        self.timer.as_ref().is_none_or(|timer| timer.is_elapsed())
    }
}

impl Head {
    fn until(&self) -> Option<Instant> {
        match self {
            Head::None => None,
            Head::Idle { until, .. } | Head::Begun { until } => Some(*until),
        }
    }
}
