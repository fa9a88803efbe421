//! Answers that are held open for long: feeds and pages, written without hyper.
//!
//! Owner: the task of the connection. hyper keeps two buffers for each of its connections, and a
//! held answer mostly waits without any. So `offer` stores the answer in `ConnectionState` and
//! never returns; `serve_requests` in `http1` finds it with `take`, takes the socket out of hyper
//! and calls `write`.
//!
//! `write` alternates between the body, the socket and the client: it gathers pieces while the
//! body has some, writes when the body waits or the buffer is full, and gives the buffer up while
//! it waits. It also listens, because the end of the client's bytes ends a live answer. The first
//! bytes of a next request are kept.
//!
//! The connection chooses the framing. HTTP/1.1 has chunks (RFC 9112 section 7.1). HTTP/1.0 has
//! none: the end of the connection is the end of the answer.
//!
//! Invariant: an answer that breaks off has no last chunk, or ends with a reset, so a client never
//! takes a part for the whole. If an answer in chunks ends whole, its connection goes back to hyper
//! with the bytes that the client has sent in the meantime.
//!
//! `sse::feed` and `pages` make the bodies; `pace` decides whether a client is too slow.

use crate::{
    drain::DrainGuard,
    http::answer::{AnswerBody, HeldAnswer, HeldFraming, HeldKind, HttpAnswer},
    http::connection_state::ConnectionState,
    http::pace::{ClientSocket, PaceMeter, PaceRule, stopped},
    http::trailers::LAST_CHUNK,
    server::Server,
};
use bytes::Bytes;
use http::{HeaderMap, StatusCode, response::Parts};
use std::{
    future::{Future, poll_fn},
    io,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll},
    time::SystemTime,
};
use tidegate_hub::{BodyError, Frame, app};
use tokio::{
    io::ReadBuf,
    time::{Instant, sleep},
};

/// Number of bytes that are gathered before a write.
const WRITE_BYTES: usize = 16 << 10;

/// Maximum number of bytes of later requests that are kept while an answer is held. With more, the
/// connection ends with the answer.
const AHEAD_BYTES_MAX: usize = 4 << 10;

/// Number of bytes in a read while an answer is held. The read shows whether the client leaves.
const LISTEN_BYTES: usize = 64;

/// Stores an answer that is to be held for the connection's task, and then never returns. Returns
/// any other answer for hyper. The connection chooses the framing.
pub(crate) async fn offer(
    state: &ConnectionState,
    framing: HeldFraming,
    answer: HttpAnswer,
) -> HttpAnswer {
    // These statuses have no content (RFC 9110 sections 15.3.5, 15.3.6 and 15.4.5).
    let has_no_content = [
        StatusCode::NO_CONTENT,
        StatusCode::RESET_CONTENT,
        StatusCode::NOT_MODIFIED,
    ]
    .contains(&answer.status());
    // If the socket still has to take a part of an earlier answer, hyper has to write it.
    if has_no_content || !state.is_flushed() {
        return answer;
    }
    match answer.into_parts() {
        (parts, AnswerBody::Held(body, kind)) => {
            let held = HeldAnswer {
                parts,
                body,
                kind,
                framing,
                goes_on: framing == HeldFraming::Chunked && state.may_go_on(),
            };
            *state.held.lock().expect("nothing panics while it holds it") = Some(Box::new(held));
            std::future::pending().await
        }
        (parts, body) => HttpAnswer::from_parts(parts, body),
    }
}

/// Takes the stored answer.
pub(crate) fn take(state: &ConnectionState) -> Option<Box<HeldAnswer>> {
    state
        .held
        .lock()
        .expect("nothing panics while it holds it")
        .take()
}

/// A connection whose held answer was written whole.
pub(crate) struct FinishedAnswer<Io> {
    pub(crate) io: Io,
    /// First bytes of the next requests.
    pub(crate) ahead: Bytes,
    /// True if the connection may serve another request: the answer's head has not ruled it out.
    pub(crate) goes_on: bool,
}

/// Writes the answer until it ends or the client leaves. Returns `None` if no connection is left.
/// `ahead` has the bytes that the client sent after its request.
///
/// # Errors
/// Returns `TimedOut` if the client reads too slowly.
pub(crate) async fn write<Io: ClientSocket>(
    io: Io,
    held: HeldAnswer,
    ahead: Bytes,
    server: Arc<Server>,
    drain: DrainGuard,
) -> io::Result<Option<FinishedAnswer<Io>>> {
    let mut io = HeldWriter {
        io,
        sent: 0,
        meter: None,
        server,
        drain,
    };
    let HeldAnswer {
        parts,
        mut body,
        kind,
        framing,
        goes_on,
    } = held;
    let goes_on = goes_on && ahead.len() <= AHEAD_BYTES_MAX && !*io.drain.stopping.borrow();
    let mut out = framing.head(&parts, goes_on);
    drop(parts);
    let mut read_ahead = ReadAhead::new(ahead);
    loop {
        let next = if read_ahead.has_ended {
            let server = io.server.clone();
            let next = next(&mut io.io, &mut body, !out.is_empty(), &mut read_ahead);
            // Boxed because its timers take room, which few answers need.
            Box::pin(next_or_gone(next, &server)).await
        } else {
            next(&mut io.io, &mut body, !out.is_empty(), &mut read_ahead).await
        };
        match next {
            HeldEvent::Frame(Ok(Frame::Data(bytes))) => framing.push_data(&mut out, &bytes),
            // Feeds, pages and loaders have none.
            HeldEvent::Frame(Ok(Frame::Trailers(_))) => {}
            HeldEvent::Frame(Err(_)) => {
                io.write_all(&out).await?;
                if framing == HeldFraming::UntilClose {
                    // Only a reset distinguishes it from a whole answer (RFC 9112 section 8).
                    io.io.abort();
                }
                return Ok(None);
            }
            HeldEvent::ReadAhead => {}
            HeldEvent::End => {
                framing.push_end(&mut out);
                io.write_all(&out).await?;
                return Ok(Some(FinishedAnswer {
                    io: io.io,
                    ahead: read_ahead.ahead,
                    goes_on,
                }));
            }
            HeldEvent::Ended if kind == HeldKind::Finite => read_ahead.has_ended = true,
            HeldEvent::Ended => return Ok(None),
            HeldEvent::Gone(outcome) => return outcome.map(|()| None),
            HeldEvent::Waiting => {
                io.write_all(&out).await?;
                out = Vec::new();
            }
        }
        if out.len() >= WRITE_BYTES {
            io.write_all(&out).await?;
            out = Vec::new();
        }
    }
}

/// Returns the next event of an answer whose client has ended its sending direction, until the
/// client counts as gone.
async fn next_or_gone(next: impl Future<Output = HeldEvent>, server: &Server) -> HeldEvent {
    let (mut next, within) = (pin!(next), server.config.half_close_within);
    let mut gone = pin!(server.give_up_half_closed(within));
    poll_fn(|cx| match next.as_mut().poll(cx) {
        Poll::Pending => gone.as_mut().poll(cx).map(|()| HeldEvent::Gone(Ok(()))),
        event => event,
    })
    .await
}

enum HeldEvent {
    Frame(Result<Frame, BodyError>),
    End,
    /// The body has nothing yet, and there are bytes to write.
    Waiting,
    /// The client has ended its sending direction.
    Ended,
    /// The client has left, or the kernel has given it up.
    Gone(io::Result<()>),
    /// The client has sent bytes, which are kept.
    ReadAhead,
}

/// Bytes that the client sends while its answer is held.
struct ReadAhead {
    ahead: Bytes,
    has_ended: bool,
}

impl ReadAhead {
    fn new(ahead: Bytes) -> ReadAhead {
        // This copies the bytes: a slice of hyper's buffer would keep all of it.
        ReadAhead {
            ahead: if ahead.is_empty() {
                Bytes::new()
            } else {
                Bytes::copy_from_slice(&ahead)
            },
            has_ended: false,
        }
    }

    /// Returns true if the next read is useful. After the first byte, the next write notices a
    /// client that leaves; a client that sends much would otherwise be read forever.
    fn is_wanted(&self) -> bool {
        self.ahead.is_empty() && !self.has_ended
    }
}

async fn next(
    io: &mut impl ClientSocket,
    body: &mut app::BodyStream,
    has_more: bool,
    read_ahead: &mut ReadAhead,
) -> HeldEvent {
    poll_fn(|cx| {
        match body.as_mut().poll_frame(cx) {
            Poll::Ready(Some(frame)) => return Poll::Ready(HeldEvent::Frame(frame)),
            Poll::Ready(None) => return Poll::Ready(HeldEvent::End),
            Poll::Pending if has_more => return Poll::Ready(HeldEvent::Waiting),
            Poll::Pending if !read_ahead.is_wanted() => {
                // The flush fails if the client does not take the bytes that the kernel has for it.
                return match std::task::ready!(Pin::new(&mut *io).poll_flush(cx)) {
                    Ok(()) => Poll::Pending,
                    Err(error) => Poll::Ready(HeldEvent::Gone(Err(error))),
                };
            }
            Poll::Pending => {}
        }
        let mut bytes = [0; LISTEN_BYTES];
        let mut buffer = ReadBuf::new(&mut bytes);
        match std::task::ready!(Pin::new(&mut *io).poll_read(cx, &mut buffer)) {
            Ok(()) if buffer.filled().is_empty() => Poll::Ready(HeldEvent::Ended),
            Ok(()) => {
                read_ahead.ahead = Bytes::copy_from_slice(buffer.filled());
                Poll::Ready(HeldEvent::ReadAhead)
            }
            Err(error) => Poll::Ready(HeldEvent::Gone(Err(error))),
        }
    })
    .await
}

/// A socket that measures whether the client reads.
struct HeldWriter<Io> {
    io: Io,
    sent: u64,
    /// `None` while the socket has accepted every write at once.
    meter: Option<Box<PaceMeter>>,
    server: Arc<Server>,
    drain: DrainGuard,
}

impl<Io: ClientSocket> HeldWriter<Io> {
    async fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut rest = bytes;
        let is_done = poll_fn(|cx| {
            Poll::Ready(match self.poll_write_all(cx, &mut rest) {
                Poll::Ready(outcome) => outcome.map(|()| true),
                Poll::Pending => Ok(false),
            })
        });
        // Boxed because its timer takes room, which a feed with a fast reader never needs.
        if is_done.await? {
            Ok(())
        } else {
            Box::pin(self.write_slowly(rest)).await
        }
    }

    fn poll_write_all(&mut self, cx: &mut Context<'_>, rest: &mut &[u8]) -> Poll<io::Result<()>> {
        while !rest.is_empty() {
            let written = std::task::ready!(Pin::new(&mut self.io).poll_write(cx, rest))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.sent += written as u64;
            *rest = &rest[written..];
        }
        Poll::Ready(Ok(()))
    }

    /// Writes the rest as the client reads. During a drain the limit is shorter, so that a slow
    /// client does not hold the drain.
    async fn write_slowly(&mut self, mut rest: &[u8]) -> io::Result<()> {
        let config = &self.server.config;
        let (mut rule, drain) = (
            PaceRule::new(config.write_within, config.bytes_per_second_min),
            config.drain_within / 2,
        );
        let (mut stopped, mut is_stopped) = (pin!(stopped(self.drain.stopping.clone())), false);
        let mut timer = pin!(sleep(rule.within));
        poll_fn(|cx| {
            if !is_stopped && stopped.as_mut().poll(cx).is_ready() {
                is_stopped = true;
                rule = rule.at_most(drain);
            }
            loop {
                let poll = self.poll_write_all(cx, &mut rest);
                let acknowledged = self.sent.saturating_sub(self.io.unacknowledged());
                let meter = self.meter.get_or_insert_default();
                if meter.note(acknowledged, poll.is_pending(), rule, Instant::now()) {
                    self.io.abort();
                    return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
                }
                let Some(due) = meter.due(rule) else {
                    return poll;
                };
                timer.as_mut().reset(due);
                std::task::ready!(timer.as_mut().poll(cx));
            }
        })
        .await
    }
}

impl HeldFraming {
    fn head(self, parts: &Parts, goes_on: bool) -> Vec<u8> {
        let version = match self {
            HeldFraming::Chunked => "HTTP/1.1",
            HeldFraming::UntilClose => "HTTP/1.0",
        };
        let (status, date) = (parts.status, httpdate::fmt_http_date(SystemTime::now()));
        let reason = status.canonical_reason().unwrap_or_default();
        let mut head = format!("{version} {} {reason}\r\n", status.as_str()).into_bytes();
        push_fields(&mut head, &parts.headers);
        head.extend_from_slice(format!("date: {date}\r\n").as_bytes());
        if self == HeldFraming::Chunked {
            if !goes_on {
                head.extend_from_slice(b"connection: close\r\n");
            }
            head.extend_from_slice(b"transfer-encoding: chunked\r\n");
        }
        head.extend_from_slice(b"\r\n");
        head
    }

    fn push_data(self, out: &mut Vec<u8>, bytes: &[u8]) {
        match self {
            // An empty chunk would end the body.
            HeldFraming::Chunked if !bytes.is_empty() => {
                out.extend_from_slice(format!("{:x}\r\n", bytes.len()).as_bytes());
                out.extend_from_slice(bytes);
                out.extend_from_slice(b"\r\n");
            }
            HeldFraming::Chunked => {}
            HeldFraming::UntilClose => out.extend_from_slice(bytes),
        }
    }

    fn push_end(self, out: &mut Vec<u8>) {
        if self == HeldFraming::Chunked {
            out.extend_from_slice(LAST_CHUNK);
        }
    }
}

fn push_fields(out: &mut Vec<u8>, fields: &HeaderMap) {
    for (name, value) in fields {
        out.extend([name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"].concat());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::paced_socket::PacedSocket;
    use crate::memory::ConnectionMemory;
    use std::task::Waker;
    use tokio::io::{AsyncReadExt as _, AsyncWrite as _, duplex};

    struct Never;

    impl app::Stream for Never {
        fn poll_frame(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame, BodyError>>> {
            Poll::Pending
        }
    }

    /// Returns true if an answer that is to be held is stored.
    fn keeps(state: &ConnectionState) -> bool {
        let answer = HttpAnswer::new(AnswerBody::Held(Box::pin(Never), HeldKind::Live));
        let offer = pin!(offer(state, HeldFraming::Chunked, answer));
        let is_pending = offer
            .poll(&mut Context::from_waker(Waker::noop()))
            .is_pending();
        assert_eq!(take(state).is_some(), is_pending);
        is_pending
    }

    #[tokio::test]
    async fn an_answer_is_kept_only_when_all_before_it_has_gone_out() {
        let state = Arc::<ConnectionState>::default();
        let (io, mut client) = duplex(4);
        let mut io = PacedSocket::new(
            io,
            Bytes::new(),
            state.clone(),
            ConnectionMemory::new(&Arc::new(tidegate_hub::Budget::new(0))),
            0,
        );
        assert!(keeps(&state));
        let mut write =
            |bytes| Pin::new(&mut io).poll_write(&mut Context::from_waker(Waker::noop()), bytes);
        assert!(matches!(write(b"123456"), Poll::Ready(Ok(4))) && write(b"56").is_pending());
        assert!(!keeps(&state), "the rest would be lost");
        client.read_exact(&mut [0; 4]).await.unwrap();
        assert!(matches!(write(b"56"), Poll::Ready(Ok(2))) && keeps(&state));
    }
}
