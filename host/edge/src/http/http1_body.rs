//! The body of an answer as hyper writes it: its end is the end of the exchange.

use crate::{
    http::answer::{AnswerBody, FramePoll},
    http::connection_state::ConnectionState,
};
use bytes::Bytes;
use http::Version;
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
        Http1Body {
            body,
            state,
            failure: None,
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
        match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
            // hyper drops the connection at once, including its unwritten bytes. It has to write
            // the head and the pieces so far first.
            Some(Err(failure)) => {
                self.failure = Some(failure);
                self.state
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

impl Drop for Http1Body {
    fn drop(&mut self) {
        let request = &self.state.request;
        request.is_open.store(false, Relaxed);
        request
            .received
            .store(self.state.received.load(Relaxed), Relaxed);
    }
}
