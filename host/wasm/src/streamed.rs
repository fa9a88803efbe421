//! One streamed request of `wasi:http` to one instance: its head, and the guest's call, which goes on while the answer streams.
//!
//! An instance never serves two requests side by side: a request that waits in a blocking import has the whole instance, and would
//! hold up every other one.

use crate::{
    body::{AnswerContext, CallEnd, IncomingBody, OutgoingBody, Reader, RemainingWork},
    fault::fault,
    meter,
    permits::Use,
    pool::{GuestInstance, Pool},
    stdio::EventContext,
};
use http::{HeaderMap, header::CONTENT_LENGTH};
use std::{
    fmt::Debug,
    future::{Future, poll_fn},
    pin::Pin,
    sync::Arc,
    task::Poll,
};
use tidegate_hub::{BodyStream, Fault, Hub, Request, StreamingResponse, contract};
use tokio::{sync::oneshot, time::timeout};
use wasmtime_wasi_http::WasiBody;

/// Response of the guest, or the error of its `wasi:http`.
pub(crate) type GuestResponse<E> = Result<http::Response<WasiBody>, E>;

/// A version of `wasi:http`: how a guest's handler is called.
pub(crate) trait HttpVersion: 'static {
    /// Error that the guest may return instead of a response.
    type Error: Debug + Send + 'static;

    /// Calls the handler. Sends the head of its response to `answer`, and ends with the call.
    fn handle(
        pool: &Pool,
        instance: &mut GuestInstance,
        request: http::Request<IncomingBody>,
        answer: oneshot::Sender<GuestResponse<Self::Error>>,
    ) -> impl Future<Output = wasmtime::Result<()>> + Send;
}

/// Runs a request. Returns the head of the response; its body is still to come. If `reuse` is false, the request gets an instance
/// that was not used before, and no later request gets it.
pub(crate) async fn stream<V: HttpVersion>(
    (pool, hub): (&Arc<Pool>, &Arc<Hub>),
    head: &Request,
    body: BodyStream,
    of: Use,
    reuse: bool,
) -> Result<StreamingResponse, Fault> {
    let (answer, answered) = oneshot::channel();
    let request = self::head(head)?.map(|()| IncomingBody::new(body));
    let context = AnswerContext::new(pool, hub, head, request.body().cut_off());
    let call = run::<V>(pool.clone(), (of, reuse), head.route, request, answer);
    begin(pool, Box::pin(call), answered, context).await
}

async fn run<V: HttpVersion>(
    pool: Arc<Pool>,
    (of, reuse): (Use, bool),
    route: u32,
    request: http::Request<IncomingBody>,
    answer: oneshot::Sender<GuestResponse<V::Error>>,
) -> CallEnd {
    let taken = if reuse {
        pool.take(of).await
    } else {
        pool.take_fresh(of).await
    };
    let mut taken = match taken {
        Ok(taken) => taken,
        Err(fault) => return CallEnd::without_instance(fault),
    };
    let instance = &mut taken.instance;
    let clock = instance.begin_stream();
    instance.store.data_mut().set_about(EventContext {
        route: Some(route),
        ..EventContext::default()
    });
    let call = V::handle(&pool, instance, request, answer);
    let outcome = meter::stream(&clock, call)
        .await
        .map_err(|error| fault(&error, &taken.instance.store));
    CallEnd {
        outcome,
        instance: Some((taken, reuse)),
    }
}

/// Ends when the guest has returned the head of its answer. Until then the guest runs in the caller's own task, and is dropped with
/// it. Dropping the answer's body makes the guest's next write fail.
async fn begin<E: Debug>(
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
            // The guest dropped it: the end of its call says why.
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
            let status = contract::status(parts.status.as_u16())?;
            let outgoing = OutgoingBody::new(body, parts.status, promised(&parts.headers)?, origin);
            let outgoing = match ended {
                None => outgoing.with_rest(call),
                Some(ended) => outgoing.settle(ended),
            };
            Ok(StreamingResponse {
                status,
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

/// Returns the length of the body by the head of an answer.
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

/// Converts the head of a request into a value of the crate `http`.
fn head(request: &Request) -> Result<http::Request<()>, Fault> {
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
