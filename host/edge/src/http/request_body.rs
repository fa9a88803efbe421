//! The body of a request, whichever version of HTTP carries it.
//!
//! Owner: the exchange, then the app, a form, or the code that gathers a whole body. A body without
//! content has no state. Any other body records in the state of its connection whether a reader
//! waits for it, which bytes came, and whether it was read to its end. When the connection's clock
//! gives up a slow client, the body ends with [`BodyFailure::Late`].
//!
//! Invariant: each frame and each drop is recorded, so the connection knows without a poll whether
//! the body was abandoned.

use crate::http::connection_state::{ConnectionState, add, tail_of};
use bytes::Bytes;
use http_body::{Body as _, SizeHint};
use hyper::body::Incoming;
use std::{
    fmt,
    pin::Pin,
    sync::{
        Arc, PoisonError,
        atomic::Ordering::{Acquire, Relaxed},
    },
    task::{Context, Poll, ready},
};
use tidegate_hub::{BodyError, Frame, app::Stream};

/// A request's body.
pub(crate) enum RequestBody {
    /// The request has no content.
    Empty,
    /// Content that hyper reads. It is on the heap, because most requests have none, and futures
    /// would reserve the room for it.
    Hyper(Box<HyperBody>),
}

/// Content of a request, from hyper.
pub(crate) struct HyperBody {
    body: Incoming,
    state: Arc<ConnectionState>,
    has_ended: bool,
}

/// Reason for the early end of a request's body.
#[derive(Debug)]
pub(crate) enum BodyFailure {
    /// The client was too slow.
    Late,
    /// The client left, or violated the protocol.
    Broken(hyper::Error),
}

impl fmt::Display for BodyFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BodyFailure::Late => write!(f, "the client sent the body too slowly"),
            BodyFailure::Broken(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for BodyFailure {}

impl RequestBody {
    /// Wraps the body of the request that its connection has just begun.
    pub(crate) fn new(body: Incoming, state: &Arc<ConnectionState>) -> RequestBody {
        if body.is_end_stream() {
            return RequestBody::Empty;
        }
        state.request.has_reader.store(true, Relaxed);
        RequestBody::Hyper(Box::new(HyperBody {
            body,
            state: state.clone(),
            has_ended: false,
        }))
    }
}

impl http_body::Body for RequestBody {
    type Data = Bytes;
    type Error = BodyFailure;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, BodyFailure>>> {
        match &mut *self {
            RequestBody::Empty => Poll::Ready(None),
            RequestBody::Hyper(body) => body.poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            RequestBody::Empty => true,
            RequestBody::Hyper(body) => body.has_ended || body.body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            RequestBody::Empty => SizeHint::with_exact(0),
            RequestBody::Hyper(body) => body.body.size_hint(),
        }
    }
}

/// The body on its way to the app.
impl Stream for RequestBody {
    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame, BodyError>>> {
        http_body::Body::poll_frame(self, cx).map(|next| {
            next.map(|outcome| match outcome.map(http_body::Frame::into_data) {
                Ok(Ok(bytes)) => Ok(Frame::Data(bytes)),
                Ok(Err(frame)) => Ok(Frame::Trailers(frame.into_trailers().unwrap_or_default())),
                Err(error) => Err(BodyError(error.to_string())),
            })
        })
    }

    fn length(&self) -> Option<u64> {
        self.size_hint().exact()
    }
}

impl HyperBody {
    fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, BodyFailure>>> {
        if self.has_ended {
            return Poll::Ready(None);
        }
        let request = &self.state.request;
        let poll = Pin::new(&mut self.body).poll_frame(cx);
        if poll.is_pending() {
            // This comes before the load of `is_late`: either the writer of `is_late` sees the
            // waker, or this load sees the flag.
            match &mut *request.waker.lock().unwrap_or_else(PoisonError::into_inner) {
                Some(waker) => waker.clone_from(cx.waker()),
                none => *none = Some(cx.waker().clone()),
            }
        }
        if request.is_late.load(Acquire) {
            self.has_ended = true;
            request.wants_body.store(false, Relaxed);
            return Poll::Ready(Some(Err(BodyFailure::Late)));
        }
        request.wants_body.store(poll.is_pending(), Relaxed);
        if matches!(poll, Poll::Ready(None)) || self.body.is_end_stream() {
            request.has_read_body.store(true, Relaxed);
        }
        if let Poll::Ready(Some(Ok(frame))) = &poll
            && let Some(data) = frame.data_ref()
        {
            add(&request.body_received, data.len());
            request
                .body_tail
                .store(tail_of(request.body_tail.load(Relaxed), data), Relaxed);
        }
        Poll::Ready(ready!(poll).map(|frame| frame.map_err(BodyFailure::Broken)))
    }
}

impl Drop for HyperBody {
    fn drop(&mut self) {
        let request = &self.state.request;
        request.wants_body.store(false, Relaxed);
        request.has_reader.store(false, Relaxed);
        // The last bytes of a body of known length are its end, which a reader need not poll for.
        if self.body.is_end_stream() {
            request.has_read_body.store(true, Relaxed);
        }
    }
}
