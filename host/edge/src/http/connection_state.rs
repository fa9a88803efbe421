//! The state that the parts of one HTTP/1.1 connection share, and that of its current request.
//!
//! hyper does not report what it waits for. So the socket (`paced_socket`), the request's body and
//! the answer's body record their events here, and the connection's task reads them after each poll
//! of hyper.
//!
//! Invariant: each counter has one writer, so most records are plain stores.

use crate::{http::answer::HeldAnswer, http::trailers::PendingTrailers, http::turn::Requests};
use http::{HeaderMap, header};
use std::{
    io,
    sync::{
        Mutex, PoisonError,
        atomic::{
            AtomicBool, AtomicU64,
            Ordering::{Relaxed, Release},
        },
    },
    task::Waker,
};

/// State state by the parts of one connection.
#[derive(Default)]
pub(crate) struct ConnectionState {
    /// An answer that `held` writes instead of hyper.
    pub(crate) held: Mutex<Option<Box<HeldAnswer>>>,
    pub(super) received: AtomicU64,
    pub(super) sent: AtomicU64,
    /// Number of bytes of `sent` that the client's machine had acknowledged when the socket last
    /// accepted no more.
    pub(super) acknowledged: AtomicU64,
    pub(super) is_reading: AtomicBool,
    pub(super) is_writing: AtomicBool,
    /// True if the socket failed with `TimedOut`: the client acknowledges too slowly, or its
    /// machine no longer answers.
    pub(super) is_given_up: AtomicBool,
    /// True if the client has ended its sending direction.
    pub(super) has_ended_sending: AtomicBool,
    /// True if the current request asks for the end of the connection.
    pub(super) wants_close: AtomicBool,
    /// The last eight bytes that were read.
    pub(super) tail: AtomicU64,
    pub(super) request: RequestState,
    pub(super) is_broken_off: AtomicBool,
    /// Trailers of the current answer.
    pub(crate) trailers: PendingTrailers,
    /// Number of requests that begin in one poll.
    pub(crate) turn: Requests,
}

/// A request and its answer.
#[derive(Default)]
pub(super) struct RequestState {
    /// Number of requests so far.
    pub(super) count: AtomicU64,
    /// True between a request's head and the end of its answer.
    pub(super) is_open: AtomicBool,
    /// True if its answer has begun.
    pub(super) is_answered: AtomicBool,
    pub(super) has_body: AtomicBool,
    /// True if the request's body has been read to its end.
    pub(super) has_read_body: AtomicBool,
    /// True while the request's body has a reader.
    pub(super) has_reader: AtomicBool,
    /// True if further bytes of the client are dropped while the answer is written.
    pub(super) is_discarding: AtomicBool,
    /// Number of bytes dropped.
    pub(super) discarded: AtomicU64,
    /// True if bytes are available that are not read.
    pub(super) has_unread: AtomicBool,
    /// Number of bytes read from the body; `body_tail` has the last eight of them.
    pub(super) body_received: AtomicU64,
    pub(super) body_tail: AtomicU64,
    /// Value of `received` at the end of the exchange.
    pub(super) received: AtomicU64,
    /// True while a reader waits for more of the body.
    pub(super) wants_body: AtomicBool,
    /// True if the client is too slow; the body has then ended.
    pub(super) is_late: AtomicBool,
    /// Waker of the body's reader.
    pub(super) waker: Mutex<Option<Waker>>,
}

impl ConnectionState {
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
    pub(super) fn note_failure(&self, error: &io::Error) {
        if error.kind() == io::ErrorKind::TimedOut {
            self.is_given_up.store(true, Relaxed);
        }
    }

    /// Returns true while a request is handled or answered.
    pub(crate) fn is_busy(&self) -> bool {
        self.request.is_open.load(Relaxed)
    }

    /// Returns true if the client of the current request was too slow with its body.
    pub(crate) fn is_late(&self) -> bool {
        self.request.is_late.load(Relaxed)
    }

    /// Returns true if the current request has been read to its end.
    pub(crate) fn has_read_body(&self) -> bool {
        self.request.has_read_body.load(Relaxed)
    }

    /// Returns true if an answer to the current request has begun.
    pub(crate) fn is_answered(&self) -> bool {
        self.request.is_answered.load(Relaxed)
    }

    /// Records the head of a request.
    pub(crate) fn begin(&self, has_body: bool) {
        let request = &self.request;
        request
            .count
            .store(request.count.load(Relaxed) + 1, Relaxed);
        request.is_answered.store(false, Relaxed);
        request.has_body.store(has_body, Relaxed);
        request.has_read_body.store(!has_body, Relaxed);
        request.has_reader.store(false, Relaxed);
        request.has_unread.store(false, Relaxed);
        request.body_received.store(0, Relaxed);
        request.is_open.store(true, Relaxed);
        self.trailers.accept(false);
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
        !self.has_read_body() && !self.request.has_reader.load(Relaxed)
    }

    /// From now on, drops the rest of an abandoned body when the answer can't be written: a client
    /// that sends first and reads later would never read it. The connection has to end with the
    /// answer, or bytes of the next request would be dropped.
    pub(crate) fn discard_body(&self) {
        self.request.is_discarding.store(true, Relaxed);
    }

    /// Returns true if an answer broke off that ends with its connection: only a reset
    /// distinguishes it from a whole one (RFC 9112 section 8).
    pub(crate) fn is_broken_off(&self) -> bool {
        self.is_broken_off.load(Relaxed)
    }

    /// Returns true if a request is handled and hyper does not read, so that it does not notice a
    /// client that leaves.
    pub(super) fn is_unwatched(&self) -> bool {
        let request = &self.request;
        request.is_open.load(Relaxed) && !request.wants_body.load(Relaxed)
    }

    /// Ends the body of the request, because its client is too slow.
    pub(super) fn give_up_body(&self) {
        self.request.is_late.store(true, Release);
        if let Some(waker) = self
            .request
            .waker
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
        {
            waker.wake();
        }
    }

    /// Returns true if bytes of the next request came, but not its whole head.
    pub(super) fn has_part_of_head(&self) -> bool {
        let request = &self.request;
        let came_since = self.received.load(Relaxed) != request.received.load(Relaxed);
        // Several requests may come at once, the last of them in part. The last bytes read are then
        // not the end of the earlier request.
        let came_before = request.count.load(Relaxed) > 0 && !self.ends_request();
        came_since || came_before
    }

    /// Returns true if the last bytes read are the end of the last request: of its head, its last
    /// chunk and trailers, or its body.
    fn ends_request(&self) -> bool {
        let (tail, request) = (self.tail.load(Relaxed), &self.request);
        let is_blank_line = tail as u16 == u16::from_be_bytes(*b"\n\n")
            || tail & 0xff_ffff == u64::from_be_bytes(*b"\0\0\0\0\0\n\r\n");
        let read = request.body_received.load(Relaxed).min(8);
        let is_body = request.has_body.load(Relaxed)
            && read > 0
            && (tail ^ request.body_tail.load(Relaxed)) << (64 - 8 * read) == 0;
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
