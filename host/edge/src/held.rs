//! Answers that are held open for long, without hyper: it keeps two buffers for each of its connections, and what waits needs none.

use crate::answer::{Answer, Body};
use http::{StatusCode, header, response::Parts};
use std::{
    future::poll_fn,
    io::{self, IoSlice},
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    task::{Context, Poll},
    time::SystemTime,
};
use tidegate_hub::{BodyError, Frame, app};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, ReadBuf};

/// What is gathered before it is written.
const WRITE_BYTES: usize = 16 << 10;

/// Takes an answer from the service that made it to the task of its connection, past hyper.
#[derive(Clone, Default)]
pub(crate) struct Handover(Arc<Shared>);

#[derive(Default)]
struct Shared {
    answer: Mutex<Option<Box<(Parts, app::Body)>>>,
    /// The socket took not all of what was written to it: an earlier answer is still on its way.
    is_behind: AtomicBool,
}

impl Handover {
    /// Keeps an answer that is to be held, and never comes back then; any other is hyper's.
    pub(crate) async fn offer(&self, version: http::Version, answer: Answer) -> Answer {
        // HTTP/1.0 knows no chunks, and these have no content (RFC 9110 sections 15.3.5 and 15.4.5).
        let has_no_chunks =
            version != http::Version::HTTP_11 || [StatusCode::NO_CONTENT, StatusCode::NOT_MODIFIED].contains(&answer.status());
        if has_no_chunks || self.0.is_behind.load(Relaxed) {
            return answer;
        }
        match answer.into_parts() {
            (parts, Body::Held(body)) => {
                *self.0.answer.lock().expect("nothing panics while it holds it") = Some(Box::new((parts, body)));
                std::future::pending().await
            }
            (parts, body) => Answer::from_parts(parts, body),
        }
    }

    /// The answer that was kept.
    pub(crate) fn take(&self) -> Option<Box<(Parts, app::Body)>> {
        self.0.answer.lock().expect("nothing panics while it holds it").take()
    }

    /// The socket, watched by this.
    pub(crate) fn watch<Io>(&self, io: Io) -> Watched<Io> {
        Watched { io, handover: self.clone() }
    }
}

/// A socket of which is known whether all that was written to it went out.
pub(crate) struct Watched<Io> {
    io: Io,
    handover: Handover,
}

impl<Io> Watched<Io> {
    pub(crate) fn into_inner(self) -> Io {
        self.io
    }

    fn note(&self, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        self.handover.0.is_behind.store(written.is_pending(), Relaxed);
        written
    }
}

impl<Io: AsyncRead + Unpin> AsyncRead for Watched<Io> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buffer)
    }
}

impl<Io: AsyncWrite + Unpin> AsyncWrite for Watched<Io> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.io).poll_write(cx, bytes);
        self.note(written)
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, cx: &mut Context<'_>, parts: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.io).poll_write_vectored(cx, parts);
        self.note(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

/// Writes the answer in chunks (RFC 9112 section 7.1) until it ends or the client goes away; the connection ends with it. An answer
/// that breaks off has no last chunk.
pub(crate) async fn write(mut io: impl AsyncRead + AsyncWrite + Unpin, parts: Parts, mut body: app::Body) -> io::Result<()> {
    let mut out = head(&parts);
    drop(parts);
    let mut listens = true;
    loop {
        match next(&mut io, &mut body, !out.is_empty(), &mut listens).await {
            Next::Frame(Ok(Frame::Data(bytes))) => push_chunk(&mut out, &bytes),
            Next::Frame(Ok(Frame::Trailers(_))) => {}
            Next::Frame(Err(_)) => return io.write_all(&out).await,
            Next::Nothing => {}
            Next::End => {
                out.extend_from_slice(b"0\r\n\r\n");
                io.write_all(&out).await?;
                return io.shutdown().await;
            }
            Next::Gone => return Ok(()),
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
    /// The client has left.
    Gone,
    /// The client said something that nobody will read.
    Nothing,
}

async fn next(io: &mut (impl AsyncRead + Unpin), body: &mut app::Body, has_more: bool, listens: &mut bool) -> Next {
    poll_fn(|cx| {
        match body.as_mut().poll_frame(cx) {
            Poll::Ready(Some(frame)) => return Poll::Ready(Next::Frame(frame)),
            Poll::Ready(None) => return Poll::Ready(Next::End),
            Poll::Pending if has_more => return Poll::Ready(Next::Waiting),
            Poll::Pending if !*listens => return Poll::Pending,
            Poll::Pending => {}
        }
        let mut bytes = [0; 64];
        let mut buffer = ReadBuf::new(&mut bytes);
        match std::task::ready!(Pin::new(&mut *io).poll_read(cx, &mut buffer)) {
            Ok(()) if !buffer.filled().is_empty() => {
                // From now on a client that leaves is noticed by the next write: whoever says much would be listened to for ever.
                *listens = false;
                Poll::Ready(Next::Nothing)
            }
            _ => Poll::Ready(Next::Gone),
        }
    })
    .await
}

fn head(parts: &Parts) -> Vec<u8> {
    let mut head = format!("HTTP/1.1 {} {}\r\n", parts.status.as_str(), reason(parts.status)).into_bytes();
    for (name, value) in &parts.headers {
        head.extend([name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"].concat());
    }
    if !parts.headers.contains_key(header::DATE) {
        head.extend_from_slice(format!("date: {}\r\n", httpdate::fmt_http_date(SystemTime::now())).as_bytes());
    }
    head.extend_from_slice(b"connection: close\r\ntransfer-encoding: chunked\r\n\r\n");
    head
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
    use http::Version;
    use std::future::Future as _;
    use std::task::Waker;
    use tokio::io::{AsyncReadExt as _, duplex};

    struct Never;

    impl app::Stream for Never {
        fn poll_frame(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame, BodyError>>> {
            Poll::Pending
        }
    }

    /// Whether the handover keeps an answer that is to be held.
    fn keeps(handover: &Handover, version: Version) -> bool {
        let offer = std::pin::pin!(handover.offer(version, Answer::new(Body::Held(Box::pin(Never)))));
        let is_pending = offer.poll(&mut Context::from_waker(Waker::noop())).is_pending();
        assert_eq!(handover.take().is_some(), is_pending);
        is_pending
    }

    #[tokio::test]
    async fn an_answer_is_kept_only_when_all_before_it_has_gone_out() {
        let handover = Handover::default();
        let (io, mut client) = duplex(4);
        let mut io = handover.watch(io);
        assert!(keeps(&handover, Version::HTTP_11) && !keeps(&handover, Version::HTTP_10));
        let mut write = |bytes| Pin::new(&mut io).poll_write(&mut Context::from_waker(Waker::noop()), bytes);
        assert!(matches!(write(b"123456"), Poll::Ready(Ok(4))) && write(b"56").is_pending());
        assert!(!keeps(&handover, Version::HTTP_11), "the rest would be lost");
        client.read_exact(&mut [0; 4]).await.unwrap();
        assert!(matches!(write(b"56"), Poll::Ready(Ok(2))) && keeps(&handover, Version::HTTP_11));
    }
}
