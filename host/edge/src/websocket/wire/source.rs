//! Input and output of the frame decoder: it reads the socket through the buffer of its thread, and
//! its own control frames go to the output of the connection.

use crate::websocket::fragments::Fragments;
use bytes::Bytes;
use std::{
    io::{self, Read, Write},
    ops::Range,
    pin::Pin,
    task::{Context, Poll},
};
use tokio::io::{AsyncRead, ReadBuf};

/// Input of the decoder. Its own control frames go to `out`.
pub(super) struct Source<'a, 'cx, Io> {
    pub(super) io: &'a mut Io,
    pub(super) cx: &'a mut Context<'cx>,
    pub(super) shared: &'a mut [u8],
    /// Range of `shared` that was read and not passed on.
    pub(super) filled: Range<usize>,
    pub(super) unread: &'a mut Bytes,
    pub(super) out: &'a mut Vec<u8>,
    /// Number of bytes received so far.
    pub(super) count: &'a mut u64,
    pub(super) fragments: &'a mut Fragments,
    pub(super) fragments_max: usize,
}

impl<Io: AsyncRead + Unpin> Source<'_, '_, Io> {
    fn fill(&mut self) -> io::Result<()> {
        let mut buffer = ReadBuf::new(self.shared);
        match Pin::new(&mut *self.io).poll_read(self.cx, &mut buffer) {
            Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
            Poll::Ready(Err(error)) => Err(error),
            Poll::Ready(Ok(())) => {
                self.filled = 0..buffer.filled().len();
                *self.count += self.filled.len() as u64;
                Ok(())
            }
        }
    }

    /// Keeps the bytes that were not passed on for the next read.
    pub(super) fn keep_rest(&mut self) {
        if !self.filled.is_empty() {
            *self.unread = Bytes::copy_from_slice(&self.shared[self.filled.clone()]);
        }
    }
}

impl<Io: AsyncRead + Unpin> Read for Source<'_, '_, Io> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.fragments.exceeded() {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let length = if !self.unread.is_empty() {
            let length = buffer.len().min(self.unread.len());
            buffer[..length].copy_from_slice(&self.unread.split_to(length));
            if self.unread.is_empty() {
                *self.unread = Bytes::new();
            }
            length
        } else {
            if self.filled.is_empty() {
                self.fill()?;
            }
            let length = buffer.len().min(self.filled.len());
            buffer[..length].copy_from_slice(&self.shared[self.filled.start..][..length]);
            self.filled.start += length;
            length
        };
        // Zero admitted bytes would mean the end of the socket.
        match self.fragments.admit(&buffer[..length], self.fragments_max) {
            0 if length > 0 => Err(io::ErrorKind::InvalidData.into()),
            admitted => Ok(admitted),
        }
    }
}

impl<Io> Write for Source<'_, '_, Io> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Out(self.out).write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Output of the decoder when it does not read.
pub(super) struct Out<'a>(pub(super) &'a mut Vec<u8>);

impl Read for Out<'_> {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        Err(io::ErrorKind::WouldBlock.into())
    }
}

impl Write for Out<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
