//! A socket that records the bytes that move and the directions that wait, for the clock of its
//! connection.
//!
//! Owner: hyper. The socket drops an abandoned body while its answer is written, and looks for the
//! end of the connection while hyper does not read.

use crate::{
    http::connection_state::{ConnectionState, add, tail_of},
    http::linger,
    http::pace::{ClientEnd, ClientSocket},
    memory::ConnectionMemory,
};
use bytes::{Buf as _, Bytes};
use std::{
    io,
    pin::Pin,
    sync::{Arc, atomic::Ordering::Relaxed},
    task::{Context, Poll},
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// A socket that records the bytes that move and the directions that wait.
pub(crate) struct PacedSocket<Io> {
    io: Io,
    /// Bytes that were read before; they come first.
    ahead: Bytes,
    state: Arc<ConnectionState>,
    memory: Arc<ConnectionMemory>,
    /// Maximum number of bytes of an abandoned body that are dropped.
    discard_max: usize,
}

impl<Io> PacedSocket<Io> {
    pub(crate) fn new(
        io: Io,
        ahead: Bytes,
        state: Arc<ConnectionState>,
        memory: Arc<ConnectionMemory>,
        discard_max: usize,
    ) -> PacedSocket<Io> {
        PacedSocket {
            io,
            ahead,
            state,
            memory,
            discard_max,
        }
    }

    pub(crate) fn into_inner(self) -> Io {
        self.io
    }
}

impl<Io: ClientSocket> PacedSocket<Io> {
    fn note_written(
        &mut self,
        cx: &mut Context<'_>,
        poll: Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        match &poll {
            Poll::Ready(Ok(written)) => add(&self.state.sent, *written),
            Poll::Ready(Err(error)) => self.state.note_failure(error),
            Poll::Pending => {}
        }
        let (was_writing, is_writing) = (self.state.is_writing.load(Relaxed), poll.is_pending());
        if was_writing || is_writing {
            self.state.is_writing.store(is_writing, Relaxed);
            // The kernel accepts more only when a third of its buffer is free. On a slow link, the
            // client has read a part long before that.
            let acknowledged = self
                .state
                .sent
                .load(Relaxed)
                .saturating_sub(self.io.unacknowledged());
            self.state.acknowledged.store(acknowledged, Relaxed);
        }
        if is_writing && self.state.request.is_discarding.load(Relaxed) {
            self.discard(cx);
        }
        poll
    }

    /// Drops bytes from the client.
    fn discard(&mut self, cx: &mut Context<'_>) {
        let discarded = &self.state.request.discarded;
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
            ClientEnd::None => {}
            ClientEnd::Unread => self.state.request.has_unread.store(true, Relaxed),
            // The client may still wait for its answer: the clock decides.
            ClientEnd::Sending => self.state.has_ended_sending.store(true, Relaxed),
            ClientEnd::Both => return true,
        }
        false
    }
}

impl<Io: AsyncRead + Unpin> AsyncRead for PacedSocket<Io> {
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
            self.state.note_failure(error);
        }
        self.state.is_reading.store(poll.is_pending(), Relaxed);
        let read = &buffer.filled()[before..];
        if !read.is_empty() {
            self.memory
                .handle_read(read.len(), self.state.is_busy())
                .map_err(|error| io::Error::new(io::ErrorKind::OutOfMemory, error))?;
            add(&self.state.received, read.len());
            self.state
                .tail
                .store(tail_of(self.state.tail.load(Relaxed), read), Relaxed);
        }
        poll
    }
}

impl<Io: ClientSocket> AsyncWrite for PacedSocket<Io> {
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
        if self.state.is_unwatched() && self.has_left(cx) {
            // The socket has the reason: the client's machine has reset the connection, or no
            // longer answers.
            let error = match linger::poll_drop(&mut self.io, cx) {
                Poll::Ready(Err(error)) => error,
                _ => io::ErrorKind::ConnectionReset.into(),
            };
            self.state.note_failure(&error);
            return Poll::Ready(Err(error));
        }
        let poll = Pin::new(&mut self.io).poll_flush(cx);
        if let Poll::Ready(Err(error)) = &poll {
            self.state.note_failure(error);
        }
        poll
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
