//! WebSocket frames on a socket: what comes is decoded by tungstenite, what goes is framed once and written in one go.
//!
//! An idle connection holds no buffers to speak of: bytes are read into one that all connections of a
//! thread share, and only what could not be decoded yet is kept; frames are made in one that is handed
//! from connection to connection, and kept only while the socket takes no more.

use crate::{http::pace::Socket, websocket::fragments::Fragments};
use bytes::Bytes;
use std::{
    cell::{Cell, RefCell},
    io::{self, IoSlice, Read, Write},
    mem,
    ops::Range,
    pin::Pin,
    task::{Context, Poll, ready},
};
use tidegate_hub::{
    Close, Limits, Message, Outgoing, limits::TURN_FRAMES_MAX, realtime::outbox::Sink,
};
use tokio::io::{AsyncRead, ReadBuf};
use tokio_tungstenite::tungstenite::{
    self,
    error::{CapacityError, ProtocolError},
    protocol::{
        CloseFrame, Role, WebSocketConfig, WebSocketContext,
        frame::{
            Utf8Bytes,
            coding::{Data, OpCode},
        },
    },
};

/// Of the buffer that the connections of a thread share.
const READ_BYTES: usize = 16 << 10;
/// Of the decoder's own buffer, which each connection keeps.
const DECODER_BYTES: usize = 512;
/// A larger payload is not copied behind its header but written from where it is.
const COPY_BYTES_MAX: usize = 16 << 10;
/// Framed bytes that wait for the socket before no more is framed.
const OUT_BYTES_MAX: usize = 64 << 10;

thread_local! {
    static SHARED: RefCell<Box<[u8]>> = RefCell::new(vec![0; READ_BYTES].into());
    /// A write buffer that no connection of the thread needs now: the last one that was written to its end.
    static SPARE: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// What came from the peer.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Received {
    Message(Message),
    /// It is answered with the next flush.
    Ping,
    Pong,
    /// The peer's close frame.
    Close(Option<Close>),
    /// The peer broke the protocol: close with this and read no more.
    Broken(Close),
    /// The socket ended.
    Gone,
    /// The kernel gave the client up: it acknowledged nothing for too long.
    GivenUp,
}

/// One socket after its handshake.
pub(crate) struct Wire<Io> {
    io: Io,
    decoder: WebSocketContext,
    fragments: Fragments,
    fragments_max: usize,
    /// Read from the socket and not yet decoded.
    unread: Bytes,
    out: Vec<u8>,
    /// How much of `out` has been written.
    written: usize,
    /// Goes behind `out`.
    large: Bytes,
    /// Bytes that came from the socket and went to it.
    received: u64,
    sent: u64,
    /// Bytes of control frames that were framed and not yet counted.
    control_bytes: usize,
}

impl<Io: Socket> Wire<Io> {
    /// `unread`: what came behind the request's head.
    pub(crate) fn new(io: Io, unread: Bytes, limits: &Limits) -> Wire<Io> {
        let config = WebSocketConfig::default()
            .read_buffer_size(DECODER_BYTES)
            .write_buffer_size(0)
            .max_message_size(Some(limits.message_bytes_max))
            .max_frame_size(Some(limits.frame_bytes_max));
        Wire {
            io,
            decoder: WebSocketContext::new(Role::Server, Some(config)),
            fragments: Fragments::default(),
            fragments_max: limits.fragments_max,
            // A copy: even an empty slice would keep the whole buffer of the request's head alive.
            unread: Bytes::copy_from_slice(&unread),
            out: Vec::new(),
            written: 0,
            large: Bytes::new(),
            received: 0,
            sent: 0,
            control_bytes: 0,
        }
    }

    /// Bytes that have come so far.
    pub(crate) fn received(&self) -> u64 {
        self.received
    }

    /// Bytes that the kernel has taken so far.
    pub(crate) fn sent(&self) -> u64 {
        self.sent
    }

    /// Bytes that have moved so far, both ways.
    pub(crate) fn moved(&self) -> u64 {
        self.received + self.sent
    }

    /// Bytes that the client's machine has acknowledged so far. A system call.
    pub(crate) fn acknowledged(&self) -> u64 {
        self.sent.saturating_sub(self.io.unacknowledged())
    }

    /// Whether a frame, or a message of several, has begun and is not whole.
    pub(crate) fn is_within_message(&self) -> bool {
        self.fragments.is_within_message()
    }

    /// Hands over what comes until `take` has enough or [`TURN_FRAMES_MAX`] frames have come (ready), or nothing more is there (pending).
    pub(crate) fn poll_receive(
        &mut self,
        cx: &mut Context<'_>,
        mut take: impl FnMut(Received) -> bool,
    ) -> Poll<()> {
        SHARED.with_borrow_mut(|shared| {
            let Wire {
                io,
                decoder,
                fragments,
                unread,
                out,
                received: count,
                ..
            } = self;
            let (out_before, frames_before) = (out.len(), fragments.total());
            let mut source = Source {
                io,
                cx,
                shared,
                filled: 0..0,
                unread,
                out,
                count,
                fragments,
                fragments_max: self.fragments_max,
            };
            let poll = loop {
                let received = match decoder.read(&mut source) {
                    Err(tungstenite::Error::Io(error))
                        if error.kind() == io::ErrorKind::WouldBlock =>
                    {
                        break Poll::Pending;
                    }
                    Err(_) if source.fragments.exceeded() => {
                        Received::Broken(Close::new(1009, "a message of too many fragments"))
                    }
                    outcome => received(outcome),
                };
                let frames = source.fragments.total().wrapping_sub(frames_before);
                // Pongs are framed while this reads: no more of them than the socket is given at a time.
                if !take(received) || frames >= TURN_FRAMES_MAX || source.out.len() >= OUT_BYTES_MAX
                {
                    break Poll::Ready(());
                }
            };
            source.keep_rest();
            self.control_bytes += self.out.len() - out_before;
            poll
        })
    }

    /// Bytes of pongs that were framed since the last time.
    pub(crate) fn take_control_bytes(&mut self) -> usize {
        mem::take(&mut self.control_bytes)
    }

    /// Bytes of a message that has begun and is not whole.
    pub(crate) fn partial_bytes(&self) -> usize {
        self.fragments.partial()
    }

    /// Drops a partly received message. Nothing may be received afterwards.
    pub(crate) fn forget_partial(&mut self) {
        self.fragments = Fragments::default();
        self.unread = Bytes::new();
        self.decoder = WebSocketContext::new(Role::Server, Some(*self.decoder.get_config()));
    }

    /// Drops the bytes that wait for the socket. Nothing may be written afterwards.
    pub(crate) fn forget_out(&mut self) {
        (self.out, self.written, self.large) = (Vec::new(), 0, Bytes::new());
    }

    /// Reads and forgets, until the peer is gone.
    pub(crate) fn poll_discard(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        SHARED.with_borrow_mut(|shared| {
            loop {
                let mut buffer = ReadBuf::new(shared);
                match ready!(Pin::new(&mut self.io).poll_read(cx, &mut buffer)) {
                    Ok(()) if !buffer.filled().is_empty() => {}
                    _ => return Poll::Ready(()),
                }
            }
        })
    }

    /// Frames a message; it goes with the next flush.
    fn send(&mut self, message: &Message) {
        if self.out.capacity() == 0 {
            self.out = SPARE.take();
        }
        let opcode = if matches!(message, Message::Text(_)) {
            Data::Text
        } else {
            Data::Binary
        };
        put_header(&mut self.out, OpCode::Data(opcode), message.len());
        if message.len() <= COPY_BYTES_MAX {
            self.out.extend_from_slice(message.bytes());
        } else {
            self.large = message.bytes().clone();
        }
    }

    /// Frames a ping. Everything before it must be written: it would stand within a large message.
    pub(crate) fn ping(&mut self) {
        // Refused only when a close frame went out: then no ping is due any more.
        _ = self.decoder.write(
            &mut Out(&mut self.out),
            tungstenite::Message::Ping(Bytes::new()),
        );
    }

    /// Frames what the decoder has to answer: pongs, and the answer to the peer's close.
    pub(crate) fn reply(&mut self) {
        let before = self.out.len();
        // Says "closed" when that was the answer to a close: as it should be.
        _ = self.decoder.flush(&mut Out(&mut self.out));
        self.control_bytes += self.out.len() - before;
    }

    /// Frames our close.
    fn close(&mut self, close: &Close) {
        let frame = CloseFrame {
            code: close.code.into(),
            reason: Utf8Bytes::from(close.reason.as_str()),
        };
        _ = self.decoder.close(&mut Out(&mut self.out), Some(frame));
    }

    /// Ready when everything that was framed has been written.
    pub(crate) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.written < self.out.len() || !self.large.is_empty() {
            let first = &self.out[self.written..];
            let io = Pin::new(&mut self.io);
            let outcome = match (first.is_empty(), self.large.is_empty()) {
                (_, true) => io.poll_write(cx, first),
                (true, _) => io.poll_write(cx, &self.large),
                _ => io.poll_write_vectored(cx, &[IoSlice::new(first), IoSlice::new(&self.large)]),
            };
            let written = ready!(outcome)?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            let of_first = written.min(first.len());
            self.written += of_first;
            self.sent += written as u64;
            _ = self.large.split_to(written - of_first);
        }
        if self.written > 0 {
            self.written = 0;
            self.large = Bytes::new();
            let mut spare = mem::take(&mut self.out);
            spare.clear();
            SPARE.set(spare);
        }
        Poll::Ready(Ok(()))
    }

    /// The client takes nothing more: its socket ends at once when this is dropped.
    pub(crate) fn abort(&self) {
        self.io.abort();
    }

    /// Ends our side of the socket.
    pub(crate) fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

impl<Io: Socket> Sink for Wire<Io> {
    fn has_room(&self) -> bool {
        self.large.is_empty() && self.out.len() < OUT_BYTES_MAX
    }

    fn put(&mut self, outgoing: Outgoing) {
        match outgoing {
            Outgoing::Close(close) => self.close(&close),
            Outgoing::Message(message) => self.send(&message),
            Outgoing::Publication(publication) => self.send(&publication.message),
        }
    }
}

fn received(outcome: tungstenite::Result<tungstenite::Message>) -> Received {
    use tungstenite::{Error, Message as Frame};
    match outcome {
        Ok(Frame::Text(text)) => match bytestring::ByteString::try_from(Bytes::from(text)) {
            Ok(text) => Received::Message(Message::Text(text)),
            Err(_) => broken_utf8(),
        },
        Ok(Frame::Binary(bytes)) => Received::Message(Message::Binary(bytes)),
        Ok(Frame::Close(close)) => Received::Close(close.map(|close| Close {
            code: close.code.into(),
            reason: close.reason.as_str().to_owned(),
        })),
        Ok(Frame::Ping(_)) => Received::Ping,
        Ok(_) => Received::Pong,
        Err(Error::Utf8(_)) => broken_utf8(),
        Err(Error::Capacity(CapacityError::MessageTooLong { .. })) => {
            Received::Broken(Close::new(1009, "the message is too large"))
        }
        Err(Error::Io(error)) if error.kind() == io::ErrorKind::TimedOut => Received::GivenUp,
        Err(Error::Protocol(ProtocolError::ResetWithoutClosingHandshake)) => Received::Gone,
        Err(Error::Protocol(_)) => Received::Broken(Close::new(1002, "not a valid frame")),
        Err(_) => Received::Gone,
    }
}

/// Writes the header of a message that is one frame without a mask (RFC 6455 section 5.2). Not by the library, whose general form costs
/// twice as much: each follower of a topic gets a header of its own.
fn put_header(out: &mut Vec<u8>, opcode: OpCode, length: usize) {
    let first = 0x80 | u8::from(opcode);
    match length {
        0..126 => out.extend_from_slice(&[first, length as u8]),
        126..0x1_0000 => {
            let [a, b] = (length as u16).to_be_bytes();
            out.extend_from_slice(&[first, 126, a, b]);
        }
        _ => {
            out.extend_from_slice(&[first, 127]);
            out.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
}

fn broken_utf8() -> Received {
    Received::Broken(Close::new(1007, "the text is not UTF-8"))
}

/// What the decoder reads from; its own control frames go to `out`.
struct Source<'a, 'cx, Io> {
    io: &'a mut Io,
    cx: &'a mut Context<'cx>,
    shared: &'a mut [u8],
    /// The part of `shared` that was read and not handed out.
    filled: Range<usize>,
    unread: &'a mut Bytes,
    out: &'a mut Vec<u8>,
    /// Bytes that came so far.
    count: &'a mut u64,
    fragments: &'a mut Fragments,
    fragments_max: usize,
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

    fn keep_rest(&mut self) {
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
        // Nothing admitted would read as the end of the socket.
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

/// Where the decoder writes when it does not read.
struct Out<'a>(&'a mut Vec<u8>);

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

#[cfg(test)]
mod tests {
    use super::*;
    use tokio_tungstenite::tungstenite::protocol::frame::FrameHeader;

    #[test]
    fn headers_are_those_of_the_library() {
        for data in [Data::Text, Data::Binary] {
            for length in [
                0,
                1,
                125,
                126,
                127,
                0xff,
                0x100,
                0xfffe,
                0xffff,
                0x1_0000,
                0x1_0001,
                0xffff_ffff,
            ] {
                let header = FrameHeader {
                    opcode: OpCode::Data(data),
                    ..FrameHeader::default()
                };
                let (mut expected, mut out) = (Vec::new(), Vec::new());
                header.format(length as u64, &mut expected).unwrap();
                put_header(&mut out, OpCode::Data(data), length);
                assert_eq!(out, expected, "{data} of {length}");
            }
        }
    }

    #[tokio::test]
    async fn frames_are_counted_however_few_messages_they_are() {
        const EMPTY: [u8; 5] = [0x80, 0, 0, 0, 0];
        const MESSAGES: usize = 20;
        for parts in [1, 10, 500] {
            let frame = |first: u8| [&[first][..], &EMPTY].concat();
            let middle = frame(0x00).repeat(parts.max(2) - 2);
            let message = match parts {
                1 => frame(0x82),
                _ => [frame(0x02), middle, frame(0x80)].concat(),
            };
            let (mut client, server) = tokio::io::duplex(1 << 20);
            let bytes = message.repeat(MESSAGES * TURN_FRAMES_MAX.div_ceil(parts));
            tokio::io::AsyncWriteExt::write_all(&mut client, &bytes)
                .await
                .unwrap();
            let mut wire = Wire::new(server, Bytes::new(), &Limits::default());
            let mut messages = 0;
            let poll =
                wire.poll_receive(&mut Context::from_waker(std::task::Waker::noop()), |_| {
                    messages += 1;
                    true
                });
            assert!(poll.is_ready(), "{parts} frames a message");
            // The decoder is given some hundred bytes at once.
            let frames = messages * parts;
            assert!(
                frames <= TURN_FRAMES_MAX + DECODER_BYTES.max(parts),
                "{messages} messages of {parts} frames"
            );
        }
    }
}
