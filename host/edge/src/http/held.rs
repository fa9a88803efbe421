//! Answers that are held open for long, without hyper: it keeps two buffers for each of its connections, and what waits needs none.
//!
//! If such an answer ends whole, its connection goes back to hyper with the few bytes that the client has sent meanwhile.

use crate::{
    http::answer::{Answer, Body, HeldAnswer, Lasts},
    http::pace::{Meter, Rule, Socket, stopped},
    http::paced::Shared,
    http::trailers,
    lifeline::Lifeline,
    server::Server,
};
use bytes::Bytes;
use http::{HeaderMap, StatusCode, response::Parts};
use std::{
    future::{Future as _, poll_fn},
    io,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll},
    time::SystemTime,
};
use tidegate_hub::{BodyError, Frame, app};
use tokio::{
    io::{AsyncRead, ReadBuf},
    time::{Instant, sleep, timeout},
};

/// What is gathered before it is written.
const WRITE_BYTES: usize = 16 << 10;

/// Bytes of later requests that are kept while an answer is held; with more, the connection ends with the answer.
const AHEAD_BYTES_MAX: usize = 4 << 10;

/// Bytes that are read while an answer is held, to see whether the client leaves.
const LISTEN_BYTES: usize = 64;

/// Keeps an answer that is to be held for the connection's task, past hyper, and never comes back then; any other is hyper's.
pub(crate) async fn offer(shared: &Shared, version: http::Version, answer: Answer) -> Answer {
    // HTTP/1.0 knows no chunks, and these have no content (RFC 9110 sections 15.3.5, 15.3.6 and 15.4.5).
    let has_no_chunks = version != http::Version::HTTP_11
        || [
            StatusCode::NO_CONTENT,
            StatusCode::RESET_CONTENT,
            StatusCode::NOT_MODIFIED,
        ]
        .contains(&answer.status());
    // The rest of an earlier answer would be lost.
    if has_no_chunks || !shared.is_flushed() {
        return answer;
    }
    match answer.into_parts() {
        (parts, Body::Held(body, lasts)) => {
            let held = HeldAnswer {
                parts,
                body,
                lasts,
                goes_on: shared.may_go_on(),
            };
            *shared
                .held
                .lock()
                .expect("nothing panics while it holds it") = Some(Box::new(held));
            std::future::pending().await
        }
        (parts, body) => Answer::from_parts(parts, body),
    }
}

/// The answer that was kept.
pub(crate) fn take(shared: &Shared) -> Option<Box<HeldAnswer>> {
    shared
        .held
        .lock()
        .expect("nothing panics while it holds it")
        .take()
}

/// A connection whose held answer was written whole.
pub(crate) struct Written<Io> {
    pub(crate) io: Io,
    /// Bytes of the next requests.
    pub(crate) ahead: Bytes,
    /// Whether there may be any: the answer's head has not said otherwise.
    pub(crate) goes_on: bool,
}

/// Writes the answer in chunks (RFC 9112 section 7.1) until it ends or the client goes away: then there is no connection left. An
/// answer that breaks off has no last chunk. `ahead`: bytes that the client has sent after its request.
///
/// # Errors
/// `TimedOut` if the client takes what waits for it too slowly.
pub(crate) async fn write<Io: Socket>(
    io: Io,
    held: HeldAnswer,
    ahead: Bytes,
    server: Arc<Server>,
    lifeline: Lifeline,
) -> io::Result<Option<Written<Io>>> {
    let mut io = Writer {
        io,
        sent: 0,
        meter: None,
        server,
        lifeline,
    };
    let HeldAnswer {
        parts,
        mut body,
        lasts,
        goes_on,
    } = held;
    let goes_on = goes_on && ahead.len() <= AHEAD_BYTES_MAX && !*io.lifeline.stopping.borrow();
    let mut out = head(&parts, goes_on);
    drop(parts);
    let mut hearing = Hearing::new(ahead);
    // Boxed: most answers have none, and wait long.
    let mut trailers = None::<Box<HeaderMap>>;
    loop {
        let next = if hearing.has_ended {
            let within = io.server.config.half_close_within;
            // Its timer takes room, which few answers need.
            let next = Box::pin(timeout(
                within,
                next(&mut io.io, &mut body, !out.is_empty(), &mut hearing),
            ));
            next.await.unwrap_or(Next::Gone(Ok(())))
        } else {
            next(&mut io.io, &mut body, !out.is_empty(), &mut hearing).await
        };
        match next {
            Next::Frame(Ok(Frame::Data(bytes))) => push_chunk(&mut out, &bytes),
            Next::Frame(Ok(Frame::Trailers(fields))) => {
                trailers = Some(Box::new(trailers::permitted(fields)))
            }
            Next::Frame(Err(_)) => return io.write_all(&out).await.map(|()| None),
            Next::Heard => {}
            Next::End => {
                out.extend_from_slice(b"0\r\n");
                trailers
                    .iter()
                    .for_each(|fields| push_fields(&mut out, fields));
                out.extend_from_slice(b"\r\n");
                io.write_all(&out).await?;
                return Ok(Some(Written {
                    io: io.io,
                    ahead: hearing.ahead,
                    goes_on,
                }));
            }
            Next::Ended if lasts == Lasts::ToItsEnd => hearing.has_ended = true,
            Next::Ended => return Ok(None),
            Next::Gone(outcome) => return outcome.map(|()| None),
            Next::Waiting => {
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

enum Next {
    Frame(Result<Frame, BodyError>),
    End,
    /// There is none yet, and something to write meanwhile.
    Waiting,
    /// The client sends nothing more.
    Ended,
    /// The client has left, or was given up by the kernel.
    Gone(io::Result<()>),
    /// The client has sent something, which is kept.
    Heard,
}

/// Bytes that the client sends while its answer is held.
struct Hearing {
    ahead: Bytes,
    has_ended: bool,
}

impl Hearing {
    fn new(ahead: Bytes) -> Hearing {
        // A part of hyper's buffer would hold all of it.
        Hearing {
            ahead: if ahead.is_empty() {
                Bytes::new()
            } else {
                Bytes::copy_from_slice(&ahead)
            },
            has_ended: false,
        }
    }

    /// After the first byte a client that leaves is noticed by the next write: one that sends much would be listened to forever.
    fn is_wanted(&self) -> bool {
        self.ahead.is_empty() && !self.has_ended
    }
}

async fn next(
    io: &mut (impl AsyncRead + Unpin),
    body: &mut app::Body,
    has_more: bool,
    hearing: &mut Hearing,
) -> Next {
    poll_fn(|cx| {
        match body.as_mut().poll_frame(cx) {
            Poll::Ready(Some(frame)) => return Poll::Ready(Next::Frame(frame)),
            Poll::Ready(None) => return Poll::Ready(Next::End),
            Poll::Pending if has_more => return Poll::Ready(Next::Waiting),
            Poll::Pending if !hearing.is_wanted() => return Poll::Pending,
            Poll::Pending => {}
        }
        let mut bytes = [0; LISTEN_BYTES];
        let mut buffer = ReadBuf::new(&mut bytes);
        match std::task::ready!(Pin::new(&mut *io).poll_read(cx, &mut buffer)) {
            Ok(()) if buffer.filled().is_empty() => Poll::Ready(Next::Ended),
            Ok(()) => {
                hearing.ahead = Bytes::copy_from_slice(buffer.filled());
                Poll::Ready(Next::Heard)
            }
            Err(error) => Poll::Ready(Next::Gone(Err(error))),
        }
    })
    .await
}

/// A socket whose client has to take what is written to it.
struct Writer<Io> {
    io: Io,
    sent: u64,
    /// None as long as the socket took everything at once.
    meter: Option<Box<Meter>>,
    server: Arc<Server>,
    lifeline: Lifeline,
}

impl<Io: Socket> Writer<Io> {
    async fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut rest = bytes;
        let is_done = poll_fn(|cx| {
            Poll::Ready(match self.poll_write_all(cx, &mut rest) {
                Poll::Ready(outcome) => outcome.map(|()| true),
                Poll::Pending => Ok(false),
            })
        });
        // Its timer takes room, which a feed that is read never needs.
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

    /// While the server goes away it is less patient, so that a slow client does not hold the drain.
    async fn write_slowly(&mut self, mut rest: &[u8]) -> io::Result<()> {
        let config = &self.server.config;
        let (mut rule, drain) = (
            Rule::new(config.write_within, config.bytes_per_second_min),
            config.drain_within / 2,
        );
        let (mut stopped, mut is_stopped) = (pin!(stopped(self.lifeline.stopping.clone())), false);
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

fn head(parts: &Parts, goes_on: bool) -> Vec<u8> {
    let mut head = format!(
        "HTTP/1.1 {} {}\r\n",
        parts.status.as_str(),
        reason(parts.status)
    )
    .into_bytes();
    push_fields(&mut head, &parts.headers);
    head.extend_from_slice(
        format!("date: {}\r\n", httpdate::fmt_http_date(SystemTime::now())).as_bytes(),
    );
    if !goes_on {
        head.extend_from_slice(b"connection: close\r\n");
    }
    head.extend_from_slice(b"transfer-encoding: chunked\r\n\r\n");
    head
}

fn push_fields(out: &mut Vec<u8>, fields: &HeaderMap) {
    for (name, value) in fields {
        out.extend([name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"].concat());
    }
}

fn reason(status: StatusCode) -> &'static str {
    status.canonical_reason().unwrap_or_default()
}

/// An empty one would be the end.
fn push_chunk(out: &mut Vec<u8>, bytes: &[u8]) {
    if !bytes.is_empty() {
        out.extend_from_slice(format!("{:x}\r\n", bytes.len()).as_bytes());
        out.extend_from_slice(bytes);
        out.extend_from_slice(b"\r\n");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::paced::Paced;
    use crate::memory::Memory;
    use http::Version;
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

    /// Whether an answer that is to be held is kept.
    fn keeps(shared: &Shared, version: Version) -> bool {
        let offer = pin!(offer(
            shared,
            version,
            Answer::new(Body::Held(Box::pin(Never), Lasts::Live))
        ));
        let is_pending = offer
            .poll(&mut Context::from_waker(Waker::noop()))
            .is_pending();
        assert_eq!(take(shared).is_some(), is_pending);
        is_pending
    }

    #[tokio::test]
    async fn an_answer_is_kept_only_when_all_before_it_has_gone_out() {
        let shared = Arc::<Shared>::default();
        let (io, mut client) = duplex(4);
        let mut io = Paced::new(
            io,
            Bytes::new(),
            shared.clone(),
            Memory::new(&Arc::new(tidegate_hub::Budget::new(0))),
            0,
        );
        assert!(keeps(&shared, Version::HTTP_11) && !keeps(&shared, Version::HTTP_10));
        let mut write =
            |bytes| Pin::new(&mut io).poll_write(&mut Context::from_waker(Waker::noop()), bytes);
        assert!(matches!(write(b"123456"), Poll::Ready(Ok(4))) && write(b"56").is_pending());
        assert!(!keeps(&shared, Version::HTTP_11), "the rest would be lost");
        client.read_exact(&mut [0; 4]).await.unwrap();
        assert!(matches!(write(b"56"), Poll::Ready(Ok(2))) && keeps(&shared, Version::HTTP_11));
    }
}
