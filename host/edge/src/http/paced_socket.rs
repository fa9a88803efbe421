//! A socket that records the bytes that move and the directions that wait, for the clock of its
//! connection.
//!
//! Owner: hyper. The socket drops an abandoned body while its answer is written, looks for the end
//! of the connection while hyper does not read, and adds trailers to a last chunk.

use crate::{
    http::connection_state::{ConnectionState, add, tail_of},
    http::linger,
    http::pace::{ClientEnd, ClientSocket},
    http::trailers::LAST_CHUNK,
    memory::ConnectionMemory,
};
use bytes::{Buf as _, Bytes};
use std::{
    io,
    pin::Pin,
    sync::{Arc, atomic::Ordering::Relaxed},
    task::{Context, Poll, ready},
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
    /// Rest of a last chunk with trailers, which replaces hyper's.
    last_chunk: Bytes,
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
            last_chunk: Bytes::new(),
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

    /// Returns true if a last chunk with trailers replaces the next bytes that hyper writes.
    fn has_last_chunk(&self) -> bool {
        self.state.trailers.is_next() || !self.last_chunk.is_empty()
    }

    /// Writes a last chunk with trailers in place of the one that hyper writes.
    #[cold]
    fn poll_write_last_chunk(
        &mut self,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if !bytes.starts_with(LAST_CHUNK) {
            // An answer that ends without its last chunk is not taken for a whole one.
            return Poll::Ready(Err(io::Error::other("hyper did not write a last chunk")));
        }
        if self.last_chunk.is_empty() {
            self.last_chunk = self.state.trailers.take_last_chunk().into();
        }
        while !self.last_chunk.is_empty() {
            let poll = Pin::new(&mut self.io).poll_write(cx, &self.last_chunk);
            let written = ready!(self.note_written(cx, poll))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.last_chunk.advance(written);
        }
        Poll::Ready(Ok(LAST_CHUNK.len()))
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
        if self.has_last_chunk() {
            return self.poll_write_last_chunk(cx, bytes);
        }
        let poll = Pin::new(&mut self.io).poll_write(cx, bytes);
        self.note_written(cx, poll)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.has_last_chunk() {
            let first = parts.iter().find(|part| !part.is_empty());
            return self.poll_write_last_chunk(cx, first.map_or(&[], |part| part));
        }
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
        if self.state.trailers.note_flush() {
            cx.waker().wake_by_ref();
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

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderMap;
    use std::task::Waker;
    use tidegate_hub::Budget;
    use tokio::io::{AsyncReadExt as _, duplex};

    #[tokio::test]
    async fn trailers_replace_a_last_chunk_and_no_other_bytes() {
        for capacity in [1, 2, 3, 7, 64] {
            let state = Arc::<ConnectionState>::default();
            let (io, mut client) = duplex(capacity);
            let mut io = PacedSocket::new(
                io,
                Bytes::new(),
                state.clone(),
                ConnectionMemory::new(&Arc::new(Budget::new(0))),
                0,
            );
            let reader = tokio::spawn(async move {
                let mut text = String::new();
                client.read_to_string(&mut text).await.map(|_| text)
            });
            let write = async |io: &mut PacedSocket<_>, mut bytes: &[u8]| {
                while !bytes.is_empty() {
                    let written = tokio::io::AsyncWriteExt::write(io, bytes).await.unwrap();
                    bytes = &bytes[written..];
                }
            };
            state.trailers.accept(true);
            write(&mut io, b"5\r\nhello\r\n").await;
            let mut fields = HeaderMap::new();
            fields.insert("x-a", "1".parse().unwrap());
            assert!(state.trailers.store(fields) && !state.trailers.is_next());
            tokio::io::AsyncWriteExt::flush(&mut io).await.unwrap();
            assert!(state.trailers.is_next());
            // The next answer may be in the same buffer.
            write(&mut io, b"0\r\n\r\nHTTP/1.1 200 OK").await;
            drop(io);
            assert_eq!(
                reader.await.unwrap().unwrap(),
                "5\r\nhello\r\n0\r\nx-a: 1\r\n\r\nHTTP/1.1 200 OK",
                "{capacity}"
            );
        }
    }

    #[tokio::test]
    async fn an_answer_never_ends_if_its_last_chunk_is_not_next() {
        let state = Arc::<ConnectionState>::default();
        let (io, _client) = duplex(64);
        let mut io = PacedSocket::new(
            io,
            Bytes::new(),
            state.clone(),
            ConnectionMemory::new(&Arc::new(Budget::new(0))),
            0,
        );
        state.trailers.accept(true);
        let mut fields = HeaderMap::new();
        fields.insert("x-a", "1".parse().unwrap());
        assert!(state.trailers.store(fields) && state.trailers.note_flush());
        let mut cx = Context::from_waker(Waker::noop());
        let poll = Pin::new(&mut io).poll_write(&mut cx, b"5\r\nhello\r\n");
        assert!(matches!(poll, Poll::Ready(Err(_))), "{poll:?}");
    }
}
