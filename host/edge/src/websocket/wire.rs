//! WebSocket frames on a socket: tungstenite decodes the received bytes; sent messages are framed
//! once and written together.
//!
//! A `Wire` owns the socket, the decoder and the bytes that wait in each direction. The decoder
//! reads through `Source`, which counts frames and bytes, and writes its own control frames to
//! the same output buffer as the messages, so that frames never interleave.
//!
//! An idle connection holds almost no buffers. All connections of a thread read into one shared
//! buffer, and a connection keeps only the bytes that could not be decoded yet. Output is framed in
//! a buffer that is passed from connection to connection, and that a connection keeps only while
//! the socket takes no more.
//!
//! Invariant: bytes are sent in the order of framing, and a large payload, which is not copied, is
//! written directly after its header.
//!
//! Left to others: closes, pings and timeouts to the session, the pace of the client to the
//! connection, the limit of the queue to the outbox.

mod source;

use crate::{http::pace::ClientSocket, websocket::fragments::Fragments};
use bytes::Bytes;
use source::{Out, Source};
use std::{
    cell::{Cell, RefCell},
    io::{self, IoSlice},
    mem,
    pin::Pin,
    task::{Context, Poll, ready},
};
use tidegate_hub::{
    Close, Limits, Message, Outgoing, limits::TURN_FRAMES_MAX, realtime::outbox::Sink,
};
use tokio::io::ReadBuf;
use tokio_tungstenite::tungstenite::{
    self,
    error::{CapacityError, ProtocolError},
    protocol::{
        CloseFrame, Role, WebSocketConfig, WebSocketContext,
        frame::{
            Utf8Bytes,
            coding::{Control, Data, OpCode},
        },
    },
};

/// Size of the buffer that the connections of a thread share, in bytes.
const READ_BYTES: usize = 16 << 10;
/// Size of the decoder's own buffer, which each connection keeps, in bytes.
const DECODER_BYTES: usize = 512;
/// Size of the largest payload that is copied, in bytes. A larger one is written from its place
/// after its header.
const COPY_BYTES_MAX: usize = 16 << 10;
/// Number of framed bytes waiting for the socket at which framing stops.
const OUT_BYTES_MAX: usize = 64 << 10;

thread_local! {
    static SHARED: RefCell<Box<[u8]>> = RefCell::new(vec![0; READ_BYTES].into());
    /// A free write buffer of the thread: the last one that was written to its end.
    static SPARE: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// An event from the peer.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum WireEvent {
    Message(Message),
    /// A ping, which is answered with the next flush.
    Ping,
    Pong,
    /// The peer's close frame.
    Close(Option<Close>),
    /// The peer violated the protocol: close with this and read no more.
    Broken(Close),
    /// The socket ended.
    Gone,
    /// The socket failed with `TimedOut`: the client acknowledges too slowly, or its machine no
    /// longer answers.
    GivenUp,
}

/// One socket after its handshake.
pub(crate) struct Wire<Io> {
    io: Io,
    decoder: WebSocketContext,
    fragments: Fragments,
    fragments_max: usize,
    /// Bytes that were read from the socket and are not yet decoded.
    unread: Bytes,
    out: Vec<u8>,
    /// Number of bytes of `out` that have been written.
    written: usize,
    /// Large payload that follows `out`.
    large: Bytes,
    /// Number of bytes received from the socket; `sent` is the number written to it.
    received: u64,
    sent: u64,
    /// Number of bytes of control frames that were framed and not yet counted.
    control_bytes: usize,
    /// Number of the app's pings that were framed and not yet answered.
    pongs_due: u32,
}

impl<Io: ClientSocket> Wire<Io> {
    /// `unread` has the bytes that came after the request's head.
    pub(crate) fn new(mut io: Io, unread: Bytes, limits: &Limits) -> Wire<Io> {
        let config = WebSocketConfig::default()
            .read_buffer_size(DECODER_BYTES)
            .write_buffer_size(0)
            .max_message_size(Some(limits.message_bytes_max))
            .max_frame_size(Some(limits.frame_bytes_max));
        io.change_task();
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
            pongs_due: 0,
        }
    }

    /// Returns the number of bytes received so far.
    pub(crate) fn received(&self) -> u64 {
        self.received
    }

    /// Returns the number of bytes that the kernel has accepted so far.
    pub(crate) fn sent(&self) -> u64 {
        self.sent
    }

    /// Returns the number of bytes that have moved so far, in both directions.
    pub(crate) fn moved(&self) -> u64 {
        self.received + self.sent
    }

    /// Returns the number of bytes that the client's machine has acknowledged so far. It makes a
    /// system call.
    pub(crate) fn acknowledged(&self) -> u64 {
        self.sent.saturating_sub(self.io.unacknowledged())
    }

    /// Returns true if a frame, or a message of several, has begun and is not whole.
    pub(crate) fn is_within_message(&self) -> bool {
        self.fragments.is_within_message()
    }

    /// Passes received events to `take`. Returns ready if `take` has enough or [`TURN_FRAMES_MAX`]
    /// frames have come, and pending if the socket has no more.
    pub(crate) fn poll_receive(
        &mut self,
        cx: &mut Context<'_>,
        mut take: impl FnMut(WireEvent) -> bool,
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
                let event = match decoder.read(&mut source) {
                    Err(tungstenite::Error::Io(error))
                        if error.kind() == io::ErrorKind::WouldBlock =>
                    {
                        break Poll::Pending;
                    }
                    Err(_) if source.fragments.exceeded() => {
                        WireEvent::Broken(Close::new(1009, "a message of too many fragments"))
                    }
                    outcome => wire_event(outcome),
                };
                let frames = source.fragments.total().wrapping_sub(frames_before);
                // Pongs are framed during the read: at most as many as one write may have.
                let is_due = matches!(event, WireEvent::Pong) && self.pongs_due > 0;
                if is_due {
                    // The app asked for it: it is no event, and does not count as a flood.
                    self.pongs_due -= 1;
                }
                let goes_on = is_due || take(event);
                if !goes_on || frames >= TURN_FRAMES_MAX || source.out.len() >= OUT_BYTES_MAX {
                    break Poll::Ready(());
                }
            };
            source.keep_rest();
            self.control_bytes += self.out.len() - out_before;
            poll
        })
    }

    /// Returns the number of bytes of pongs that were framed since the last call.
    pub(crate) fn take_control_bytes(&mut self) -> usize {
        mem::take(&mut self.control_bytes)
    }

    /// Returns the number of bytes of a message that has begun and is not whole.
    pub(crate) fn partial_bytes(&self) -> usize {
        self.fragments.partial()
    }

    /// Drops a partly received message. The caller must not receive afterwards.
    pub(crate) fn forget_partial(&mut self) {
        self.fragments = Fragments::default();
        self.unread = Bytes::new();
        self.decoder = WebSocketContext::new(Role::Server, Some(*self.decoder.get_config()));
    }

    /// Drops the bytes that wait for the socket. The caller must not write afterwards.
    pub(crate) fn forget_out(&mut self) {
        (self.out, self.written, self.large) = (Vec::new(), 0, Bytes::new());
    }

    /// Reads and drops bytes until the peer is gone.
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

    /// Frames a message, which is written with the next flush.
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

    /// Frames a ping of the app, which is written with the next flush.
    fn ping_for_app(&mut self, payload: &[u8]) {
        if self.out.capacity() == 0 {
            self.out = SPARE.take();
        }
        put_header(&mut self.out, OpCode::Control(Control::Ping), payload.len());
        self.out.extend_from_slice(payload);
        self.pongs_due = self.pongs_due.saturating_add(1);
    }

    /// Frames a ping of the host. Everything before it must be written, or it could come within a large
    /// message.
    pub(crate) fn ping(&mut self) {
        // The decoder refuses only after a close frame; then no ping is due.
        _ = self.decoder.write(
            &mut Out(&mut self.out),
            tungstenite::Message::Ping(Bytes::new()),
        );
    }

    /// Frames the decoder's answers: pongs, and the answer to the peer's close.
    pub(crate) fn reply(&mut self) {
        let before = self.out.len();
        // The result "closed" is expected after the answer to a close.
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

    /// Returns ready when all frames have been written.
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

    /// Resets the connection on drop, since the client takes no more bytes.
    pub(crate) fn abort(&self) {
        self.io.abort();
    }

    /// Ends our side of the socket.
    pub(crate) fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

impl<Io: ClientSocket> Sink for Wire<Io> {
    fn has_room(&self) -> bool {
        self.large.is_empty() && self.out.len() < OUT_BYTES_MAX
    }

    fn put(&mut self, outgoing: Outgoing) {
        match outgoing {
            Outgoing::Close(close) => self.close(&close),
            Outgoing::Message(message) => self.send(&message),
            Outgoing::Ping(payload) => self.ping_for_app(&payload),
            Outgoing::Publication(publication) => self.send(&publication.message),
        }
    }
}

fn wire_event(outcome: tungstenite::Result<tungstenite::Message>) -> WireEvent {
    use tungstenite::{Error, Message as Frame};
    match outcome {
        Ok(Frame::Text(text)) => match bytestring::ByteString::try_from(Bytes::from(text)) {
            Ok(text) => WireEvent::Message(Message::Text(text)),
            Err(_) => broken_utf8(),
        },
        Ok(Frame::Binary(bytes)) => WireEvent::Message(Message::Binary(bytes)),
        Ok(Frame::Close(close)) => WireEvent::Close(close.map(|close| Close {
            code: close.code.into(),
            reason: close.reason.as_str().to_owned(),
        })),
        Ok(Frame::Ping(_)) => WireEvent::Ping,
        Ok(_) => WireEvent::Pong,
        Err(Error::Utf8(_)) => broken_utf8(),
        Err(Error::Capacity(CapacityError::MessageTooLong { .. })) => {
            WireEvent::Broken(Close::new(1009, "the message is too large"))
        }
        Err(Error::Io(error)) if error.kind() == io::ErrorKind::TimedOut => WireEvent::GivenUp,
        Err(Error::Protocol(ProtocolError::ResetWithoutClosingHandshake)) => WireEvent::Gone,
        Err(Error::Protocol(_)) => WireEvent::Broken(Close::new(1002, "not a valid frame")),
        Err(_) => WireEvent::Gone,
    }
}

/// Writes the header of one final frame without a mask (RFC 6455 section 5.2). The library's
/// general form costs twice as much, and each follower of a topic gets a header of its own.
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

fn broken_utf8() -> WireEvent {
    WireEvent::Broken(Close::new(1007, "the text is not UTF-8"))
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
    async fn frames_are_counted_within_messages() {
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
            // The decoder receives some hundred bytes at once.
            let frames = messages * parts;
            assert!(
                frames <= TURN_FRAMES_MAX + DECODER_BYTES.max(parts),
                "{messages} messages of {parts} frames"
            );
        }
    }
}
