//! The body of an answer as hyper writes it: its end is the end of the exchange. Trailers leave it
//! for the socket: see `trailers`.

use crate::{
    http::answer::{AnswerBody, FramePoll},
    http::connection_state::ConnectionState,
};
use bytes::Bytes;
use http::{HeaderMap, Version};
use http_body::{Body as _, SizeHint};
use std::{
    io,
    pin::Pin,
    sync::{Arc, atomic::Ordering::Relaxed},
    task::{Context, Poll, ready},
};

/// An answer's body, whose end is the end of the exchange.
pub(crate) struct Http1Body {
    body: AnswerBody,
    state: Arc<ConnectionState>,
    failure: Option<io::Error>,
    /// Trailers that the body had so far. Boxed because most answers have none.
    trailers: Option<Box<HeaderMap>>,
    /// True if the whole answer but its trailers has been given to hyper.
    has_pending_trailers: bool,
    ends_with_connection: bool,
}

impl Http1Body {
    /// Wraps the body of an answer that begins now.
    pub(crate) fn new(
        body: AnswerBody,
        version: Version,
        state: Arc<ConnectionState>,
    ) -> Http1Body {
        state.request.is_answered.store(true, Relaxed);
        // HTTP/1.0 has no chunks.
        let ends_with_connection =
            version == Version::HTTP_10 && body.size_hint().exact().is_none();
        if version != Version::HTTP_11 {
            state.trailers.accept(false);
        }
        Http1Body {
            body,
            state,
            failure: None,
            trailers: None,
            has_pending_trailers: false,
            ends_with_connection,
        }
    }
}

impl http_body::Body for Http1Body {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> FramePoll {
        if let Some(failure) = self.failure.take() {
            return Poll::Ready(Some(Err(failure)));
        }
        if self.has_pending_trailers {
            // The socket wakes the task when it is flushed.
            return if self.state.trailers.is_next() {
                Poll::Ready(None)
            } else {
                Poll::Pending
            };
        }
        loop {
            match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
                // hyper drops the connection at once, including its unwritten bytes. It has to
                // write the head and the pieces so far first.
                Some(Err(failure)) => {
                    self.failure = Some(failure);
                    self.state
                        .is_broken_off
                        .store(self.ends_with_connection, Relaxed);
                    break;
                }
                Some(Ok(frame)) => match frame.into_trailers() {
                    Ok(trailers) => self.trailers = Some(Box::new(trailers)),
                    Err(frame) => return Poll::Ready(Some(Ok(frame))),
                },
                None => {
                    self.has_pending_trailers = self
                        .trailers
                        .take()
                        .is_some_and(|trailers| self.state.trailers.store(*trailers));
                    if !self.has_pending_trailers {
                        return Poll::Ready(None);
                    }
                    break;
                }
            }
        }
        // hyper flushes the socket before the next poll.
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Http1Body {
    fn drop(&mut self) {
        let request = &self.state.request;
        request.is_open.store(false, Relaxed);
        request
            .received
            .store(self.state.received.load(Relaxed), Relaxed);
    }
}
