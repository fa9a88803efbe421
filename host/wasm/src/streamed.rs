//! One streamed request to one instance, whichever `wasi:http` it is of: its head, and what goes on after it.

use crate::{
    body::{AnswerContext, CallEnd, OutgoingBody, Reader, RemainingWork},
    pool::Pool,
};
use http::{HeaderMap, header::CONTENT_LENGTH};
use std::{
    fmt::Debug,
    future::{Future as _, poll_fn},
    pin::Pin,
    task::Poll,
};
use tidegate_hub::{Fault, Request, StreamingResponse};
use tokio::{sync::oneshot, time::timeout};
use wasmtime_wasi_http::WasiBody;

/// Response of the guest, or the error of its `wasi:http`.
pub(crate) type GuestResponse<E> = Result<http::Response<WasiBody>, E>;

/// Ready when the guest has given the head of its answer; until then the guest runs in the caller's own task, and is
/// given up with it. Dropping the answer's body makes the guest's next write fail.
pub(crate) async fn begin<E: Debug>(
    pool: &Pool,
    mut call: RemainingWork,
    answered: oneshot::Receiver<GuestResponse<E>>,
    origin: AnswerContext,
) -> Result<StreamingResponse, Fault> {
    let (mut awaited, mut ended) = (Some(answered), None);
    let head = poll_fn(|cx| {
        if ended.is_none()
            && let Poll::Ready(end) = call.as_mut().poll(cx)
        {
            ended = Some(end);
        }
        match awaited.as_mut().map(|answered| Pin::new(answered).poll(cx)) {
            Some(Poll::Ready(Ok(answer))) => return Poll::Ready(Some(answer)),
            // Thrown away by the guest: its end is awaited, and says why.
            Some(Poll::Ready(Err(_))) => awaited = None,
            Some(Poll::Pending) | None => {}
        }
        if ended.is_some() {
            Poll::Ready(None)
        } else {
            Poll::Pending
        }
    });
    match timeout(pool.options().wall_max, head).await {
        Err(_) => Err(Fault::Wall),
        Ok(Some(Ok(response))) => {
            let (parts, body) = response.into_parts();
            let outgoing = OutgoingBody::new(body, parts.status, promised(&parts.headers)?, origin);
            let outgoing = match ended {
                None => outgoing.with_rest(call),
                Some(ended) => outgoing.settle(ended),
            };
            Ok(StreamingResponse {
                status: parts.status.as_u16(),
                headers: parts.headers,
                body: Box::pin(Reader::new(outgoing)),
            })
        }
        Ok(Some(Err(code))) => Err(Fault::Answer(format!(
            "the guest answered with the error {code:?}"
        ))),
        Ok(None) => match ended {
            Some(CallEnd {
                outcome: Err(fault),
                ..
            }) => Err(fault),
            _ => Err(Fault::Answer(
                "the guest returned without setting its response".into(),
            )),
        },
    }
}

/// The length that the head of an answer has for its body.
fn promised(headers: &HeaderMap) -> Result<Option<u64>, Fault> {
    let Some(value) = headers.get(CONTENT_LENGTH) else {
        return Ok(None);
    };
    // RFC 9110 section 8.6: digits and nothing else.
    let length = value
        .to_str()
        .ok()
        .filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()))
        .and_then(|text| text.parse().ok());
    match length {
        Some(length) if headers.get_all(CONTENT_LENGTH).iter().count() == 1 => Ok(Some(length)),
        _ => {
            let values: Vec<_> = headers.get_all(CONTENT_LENGTH).iter().collect();
            Err(Fault::Answer(format!(
                "the guest's Content-Length is not a number of bytes: {values:?}"
            )))
        }
    }
}

/// The request's head in the words of the `http` crate.
pub(crate) fn head(request: &Request) -> Result<http::Request<()>, Fault> {
    let authority = if request.authority.is_empty() {
        "localhost"
    } else {
        &request.authority
    };
    let uri = http::Uri::builder()
        .scheme(request.scheme)
        .authority(authority)
        .path_and_query(request.path.as_str())
        .build();
    let uri = uri.map_err(|error| Fault::Host(format!("the request's target: {error}")))?;
    let mut head = http::Request::new(());
    *head.method_mut() = request.method.clone();
    *head.uri_mut() = uri;
    *head.headers_mut() = request.headers.clone();
    Ok(head)
}
