//! Answers to HTTP requests: from the host itself, from an app, and what a fault looks like to a client.

use crate::{files::file_body::FileBody, http::trailers, sockets::Seat};
use bytes::Bytes;
use http::{HeaderName, HeaderValue, Response, StatusCode, header, response::Parts};
use http_body::SizeHint;
use std::{
    hash::{BuildHasher, RandomState},
    io,
    pin::Pin,
    sync::{
        LazyLock,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
};
use tidegate_hub::{self as hub, Conn, Fault, Frame, RequestId, contract};
use tracing::field::display;

/// The body of an answer.
pub(crate) enum Body {
    /// In one piece, or none.
    Whole(Option<Bytes>),
    /// As the app makes it.
    Stream(hub::Body),
    /// As a feed or a page makes it, for long: see `held`.
    Held(hub::Body, Lasts),
    /// The file of an asset, with the seat of its descriptor.
    File { file: Box<FileBody>, _seat: Seat },
}

/// How long an answer that is held goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lasts {
    /// As long as its client wants it: the end of what the client sends counts as its leaving.
    Live,
    /// Until it is whole.
    ToItsEnd,
}

/// An answer that is written without hyper.
pub(crate) struct HeldAnswer {
    pub(crate) parts: Parts,
    pub(crate) body: hub::Body,
    pub(crate) lasts: Lasts,
    /// Whether its connection may serve another request after it.
    pub(crate) goes_on: bool,
}

pub(crate) type Answer = Response<Body>;

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, io::Error>>> {
        match &mut *self {
            Body::Whole(bytes) => {
                Poll::Ready(bytes.take().map(|bytes| Ok(http_body::Frame::data(bytes))))
            }
            Body::File { file, .. } => file
                .poll_bytes(cx)
                .map(|next| next.map(|bytes| bytes.map(http_body::Frame::data))),
            Body::Stream(stream) | Body::Held(stream, _) => {
                stream.as_mut().poll_frame(cx).map(|next| {
                    next.map(|frame| match frame {
                        Ok(Frame::Data(bytes)) => Ok(http_body::Frame::data(bytes)),
                        Ok(Frame::Trailers(trailers)) => {
                            Ok(http_body::Frame::trailers(trailers::permitted(trailers)))
                        }
                        Err(error) => Err(io::Error::other(error)),
                    })
                })
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Body::Whole(bytes) => bytes.is_none(),
            Body::File { file, .. } => file.length() == 0,
            Body::Stream(_) | Body::Held(..) => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Body::Whole(bytes) => {
                SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64))
            }
            Body::File { file, .. } => SizeHint::with_exact(file.length()),
            Body::Stream(stream) | Body::Held(stream, _) => stream
                .length()
                .map_or_else(SizeHint::new, SizeHint::with_exact),
        }
    }
}

/// An answer of the host's own: one line of text.
pub(crate) fn text(status: StatusCode, text: &str) -> Answer {
    let mut answer = Response::new(Body::Whole(Some(Bytes::from(format!("{text}\n")))));
    *answer.status_mut() = status;
    answer.headers_mut().insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("text/plain; charset=utf-8"),
    );
    answer
}

/// Seconds after which a client that was refused may come again.
const RETRY_AFTER: &str = "5";

/// The host has no room for it now: 503.
pub(crate) fn retry_later(text: &str) -> Answer {
    let mut answer = self::text(StatusCode::SERVICE_UNAVAILABLE, text);
    answer
        .headers_mut()
        .insert(header::RETRY_AFTER, HeaderValue::from_static(RETRY_AFTER));
    answer
}

/// Answer to a connection that gets no seat. The connection is closed after it, without being read.
pub(crate) const NO_SEAT: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\ncontent-type: text/plain; charset=utf-8\r\ncontent-length: 38\r\n\
    retry-after: 5\r\nconnection: close\r\n\r\ntoo many connections, try again later\n";

/// What an app answered whole.
pub(crate) fn from_app(response: hub::Response) -> Result<Answer, Fault> {
    let status = contract::check_status(response.status)?;
    let body = (!response.body.is_empty()).then_some(response.body);
    let mut answer = Response::new(Body::Whole(body));
    *answer.status_mut() = status;
    contract::append_headers(answer.headers_mut(), response.headers)?;
    Ok(answer)
}

/// The id under which the log has what happens to a streamed answer after its head.
pub(crate) const ID: HeaderName = HeaderName::from_static("tidegate-id");

/// The answer that an app gives in pieces, to a client that accepts trailers or not.
pub(crate) fn from_stream(
    streamed: hub::StreamingResponse,
    id: RequestId,
    accepts_trailers: bool,
) -> Result<Answer, Fault> {
    let mut answer = Response::new(Body::Stream(streamed.body));
    *answer.status_mut() = contract::check_status(streamed.status)?;
    *answer.headers_mut() = streamed.headers;
    let headers = answer.headers_mut();
    // A length that the app promised stays: the body is held to it.
    let length = headers.remove(header::CONTENT_LENGTH);
    let trailers = if accepts_trailers {
        trailers::announced(headers)
    } else {
        None
    };
    let connection: Vec<HeaderName> = headers
        .keys()
        .filter(|name| contract::is_hosts_header(name))
        .cloned()
        .collect();
    connection.iter().for_each(|name| _ = headers.remove(name));
    length.map(|length| headers.insert(header::CONTENT_LENGTH, length));
    trailers.map(|trailers| headers.insert(header::TRAILER, trailers));
    headers.insert(
        ID,
        HeaderValue::from_str(&id.to_string()).expect("hexadecimal digits"),
    );
    Ok(answer)
}

/// Answer to a request for which there is not enough memory.
pub(crate) fn out_of_memory() -> Answer {
    later("the server is short of memory, try again shortly", 1)
}

/// What the log calls requests and connections that come and go; it has them from the level `debug` on.
pub(crate) const ACCESS: &str = "access";

/// Where something happened, for who reads the log.
#[derive(Clone, Copy, Default)]
pub(crate) struct Place<'a> {
    /// Path and query.
    pub(crate) request: Option<&'a str>,
    /// Its pattern.
    pub(crate) route: Option<&'a str>,
    pub(crate) conn: Option<&'a Conn>,
}

/// What a client gets for a fault: nothing of its text, but an id that leads to it in the log.
pub(crate) fn from_fault(fault: &Fault, place: Place<'_>) -> Answer {
    let id = log_fault(fault, place);
    match fault {
        Fault::Busy => {
            let mut answer = later(&format!("busy, try again shortly (id {id})"), 1);
            // A full host does not keep the connections of clients that it turned away.
            answer
                .headers_mut()
                .insert(header::CONNECTION, HeaderValue::from_static("close"));
            answer
        }
        Fault::Shortage => later(
            &format!("the server is short of memory, try again shortly (id {id})"),
            1,
        ),
        Fault::Closed(wait) => later(
            &format!("the room is closed for now (id {id})"),
            wait.as_secs() + 1,
        ),
        Fault::Unavailable(_) => later(
            &format!("the room's storage is not available, nothing happened (id {id})"),
            1,
        ),
        Fault::Wall => text(
            StatusCode::GATEWAY_TIMEOUT,
            &format!("the app took too long (id {id})"),
        ),
        _ => text(
            StatusCode::INTERNAL_SERVER_ERROR,
            &format!("internal error (id {id})"),
        ),
    }
}

/// Says when to try again (RFC 9110 section 10.2.3).
pub(crate) fn later(told: &str, seconds: u64) -> Answer {
    let mut answer = text(StatusCode::SERVICE_UNAVAILABLE, told);
    answer
        .headers_mut()
        .insert(header::RETRY_AFTER, seconds.into());
    answer
}

/// Writes the whole fault to the log; the id that it has there.
pub(crate) fn log_fault(
    fault: &Fault,
    Place {
        request,
        route,
        conn,
    }: Place<'_>,
) -> String {
    let id = next_id().to_string();
    let route = route.or_else(|| Some(conn?.route()?.pattern.as_str()));
    let (connection, room) = (
        conn.map(|conn| display(conn.id())),
        conn.and_then(Conn::room).map(display),
    );
    tracing::error!(id, request, route, connection, room, "{fault}");
    id
}

/// An id that no other request of this server has.
pub(crate) fn next_id() -> RequestId {
    static NEXT: LazyLock<AtomicU64> =
        LazyLock::new(|| AtomicU64::new(RandomState::new().hash_one(0)));
    RequestId(NEXT.fetch_add(1, Ordering::Relaxed))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_learns_nothing_of_a_fault_but_its_id() {
        for fault in [
            Fault::Trap("secret".into()),
            Fault::Cpu,
            Fault::Memory,
            Fault::Shortage,
            Fault::Wall,
            Fault::Busy,
            Fault::Host("secret".into()),
            Fault::Storage("secret".into()),
            Fault::Unavailable("secret".into()),
        ] {
            let answer = from_fault(&fault, Place::default());
            let Body::Whole(Some(body)) = answer.body() else {
                panic!("no body")
            };
            let body = String::from_utf8_lossy(body);
            assert!(body.contains("(id ") && !body.contains("secret"), "{body}");
            assert!(answer.status().is_server_error());
        }
    }
}
