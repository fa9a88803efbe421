//! Answers to HTTP requests: from the host, from an app, and the public form of a fault.

use crate::{files::file_body::FileBody, http::trailers, sockets::Seat};
use bytes::Bytes;
use http::{HeaderName, HeaderValue, Response, StatusCode, header, response::Parts};
use http_body::SizeHint;
use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};
use tidegate_hub::{self as hub, Fault, Frame, RequestId, contract};

/// The body of an answer.
pub(crate) enum AnswerBody {
    /// One piece of bytes, or no content.
    Whole(Option<Bytes>),
    /// A stream at the app's pace.
    Stream(hub::BodyStream),
    /// A feed or a page, which lasts long: see `held`.
    Held(hub::BodyStream, HeldKind),
    /// A file from the asset directory, with the seat of its descriptor.
    File { file: Box<FileBody>, _seat: Seat },
}

/// Kind of a held answer, by its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HeldKind {
    /// The client ends it: the end of the bytes from the client counts as its departure.
    Live,
    /// The app ends it.
    Finite,
}

/// Framing of an answer that is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HeldFraming {
    /// Chunks.
    Chunked,
    /// The bytes alone, until the connection ends.
    UntilClose,
}

/// An answer that is written without hyper.
pub(crate) struct HeldAnswer {
    pub(crate) parts: Parts,
    pub(crate) body: hub::BodyStream,
    pub(crate) kind: HeldKind,
    pub(crate) framing: HeldFraming,
    /// True if the connection may serve another request after it.
    pub(crate) goes_on: bool,
}

pub(crate) type HttpAnswer = Response<AnswerBody>;

/// Next frame of an answer's body, for hyper.
pub(crate) type FramePoll = Poll<Option<io::Result<http_body::Frame<Bytes>>>>;

impl http_body::Body for AnswerBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> FramePoll {
        match &mut *self {
            AnswerBody::Whole(bytes) => {
                Poll::Ready(bytes.take().map(|bytes| Ok(http_body::Frame::data(bytes))))
            }
            AnswerBody::File { file, .. } => file
                .poll_bytes(cx)
                .map(|next| next.map(|bytes| bytes.map(http_body::Frame::data))),
            AnswerBody::Stream(stream) | AnswerBody::Held(stream, _) => {
                stream.as_mut().poll_frame(cx).map(|next| {
                    next.map(|frame| match frame {
                        Ok(Frame::Data(bytes)) => Ok(http_body::Frame::data(bytes)),
                        Ok(Frame::Trailers(trailers)) => Ok(http_body::Frame::trailers(trailers)),
                        Err(error) => Err(io::Error::other(error)),
                    })
                })
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            AnswerBody::Whole(bytes) => bytes.is_none(),
            AnswerBody::File { file, .. } => file.length() == 0,
            AnswerBody::Stream(_) | AnswerBody::Held(..) => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            AnswerBody::Whole(bytes) => {
                SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64))
            }
            AnswerBody::File { file, .. } => SizeHint::with_exact(file.length()),
            AnswerBody::Stream(stream) | AnswerBody::Held(stream, _) => stream
                .length()
                .map_or_else(SizeHint::new, SizeHint::with_exact),
        }
    }
}

/// Returns content of this type that no cache keeps.
pub(crate) fn uncached(status: StatusCode, kind: &'static str, body: AnswerBody) -> HttpAnswer {
    let mut answer = Response::new(body);
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer
}

/// Returns an answer of the host: one line of text.
pub(crate) fn text(status: StatusCode, text: &str) -> HttpAnswer {
    let mut answer = Response::new(AnswerBody::Whole(Some(Bytes::from(format!("{text}\n")))));
    *answer.status_mut() = status;
    answer.headers_mut().insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("text/plain; charset=utf-8"),
    );
    answer
}

/// Marks an answer after which the connection can't be used again: its request's body is not read,
/// or the host is full.
pub(crate) fn with_close(mut answer: HttpAnswer) -> HttpAnswer {
    answer
        .headers_mut()
        .insert(header::CONNECTION, HeaderValue::from_static("close"));
    answer
}

/// Time after which a refused client may try again, in seconds.
const RETRY_AFTER: &str = "5";

/// Returns a 503: the host has no room now.
pub(crate) fn retry_later(text: &str) -> HttpAnswer {
    let mut answer = self::text(StatusCode::SERVICE_UNAVAILABLE, text);
    answer
        .headers_mut()
        .insert(header::RETRY_AFTER, HeaderValue::from_static(RETRY_AFTER));
    answer
}

/// Answer to a connection without a seat. The connection is then closed, without a read.
pub(crate) const NO_SEAT: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\ncontent-type: text/plain; charset=utf-8\r\ncontent-length: 38\r\n\
    retry-after: 5\r\nconnection: close\r\n\r\ntoo many connections, try again later\n";

/// Converts a whole response from the app.
pub(crate) fn from_app(response: hub::Response) -> Result<HttpAnswer, Fault> {
    let body = (!response.body.is_empty()).then_some(response.body);
    let mut answer = Response::new(AnswerBody::Whole(body));
    *answer.status_mut() = response.status;
    contract::append_headers(answer.headers_mut(), response.headers)?;
    Ok(answer)
}

/// Header with the id of a streamed answer, under which the log reports events after its head.
pub(crate) const ID: HeaderName = HeaderName::from_static("tidegate-id");

/// Converts a streamed response from the app; the client accepts trailers or not.
pub(crate) fn from_stream(
    streamed: hub::StreamingResponse,
    id: RequestId,
    accepts_trailers: bool,
) -> Result<HttpAnswer, Fault> {
    let mut answer = Response::new(AnswerBody::Stream(streamed.body));
    *answer.status_mut() = streamed.status;
    *answer.headers_mut() = streamed.headers;
    let headers = answer.headers_mut();
    // The length that the app promised stays: the host enforces it on the body.
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

/// Returns the answer to a request for which there is not enough memory.
pub(crate) fn out_of_memory() -> HttpAnswer {
    later("the server is short of memory, try again shortly", 1)
}

/// Log target of requests and connections; events have the level `debug`.
pub(crate) const ACCESS: &str = "access";

/// Returns the client's answer for a fault: no text of the fault, but the id under which the log
/// has it.
pub(crate) fn from_fault(fault: &Fault, id: RequestId) -> HttpAnswer {
    match fault {
        // A full host closes the connections of refused clients.
        Fault::Busy => with_close(later(&format!("busy, try again shortly (id {id})"), 1)),
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

/// Returns an answer that says when to try again (RFC 9110 section 10.2.3).
pub(crate) fn later(told: &str, seconds: u64) -> HttpAnswer {
    let mut answer = text(StatusCode::SERVICE_UNAVAILABLE, told);
    answer
        .headers_mut()
        .insert(header::RETRY_AFTER, seconds.into());
    answer
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
            let answer = from_fault(&fault, RequestId::next());
            let AnswerBody::Whole(Some(body)) = answer.body() else {
                panic!("no body")
            };
            let body = String::from_utf8_lossy(body);
            assert!(body.contains("(id ") && !body.contains("secret"), "{body}");
            assert!(answer.status().is_server_error());
        }
    }
}
