//! One streamed request to one instance, whichever `wasi:http` it is of: its head, and what goes on after it.

use crate::{
    body::{CutOff, Rest, outgoing},
    pool::Pool,
};
use std::{
    fmt::Debug,
    future::{Future, poll_fn, ready},
    pin::Pin,
    sync::Arc,
    task::Poll,
};
use tidegate_hub::{Fault, Hub, Request, Streamed};
use tokio::{sync::oneshot, time::timeout};
use wasmtime_wasi_http::WasiBody;

/// Answer of the guest, or the error of its `wasi:http`.
pub(crate) type Answer<E> = Result<http::Response<WasiBody>, E>;

/// Ready when the guest has given the head of its answer; until then the guest runs in the caller's own task, and is
/// given up with it. Dropping the answer's body makes the guest's next write fail.
pub(crate) async fn begin<E: Debug>(
    pool: &Pool,
    hub: &Arc<Hub>,
    mut call: Rest,
    answered: oneshot::Receiver<Answer<E>>,
    cut_off: CutOff,
) -> Result<Streamed, Fault> {
    let (mut awaited, mut ended) = (Some(answered), None);
    let head = poll_fn(|cx| {
        if ended.is_none()
            && let Poll::Ready(outcome) = call.as_mut().poll(cx)
        {
            ended = Some(outcome);
        }
        match awaited.as_mut().map(|answered| Pin::new(answered).poll(cx)) {
            Some(Poll::Ready(Ok(answer))) => return Poll::Ready(Some(answer)),
            // Thrown away by the guest: its end is awaited, and says why.
            Some(Poll::Ready(Err(_))) => awaited = None,
            Some(Poll::Pending) | None => {}
        }
        if ended.is_some() { Poll::Ready(None) } else { Poll::Pending }
    });
    match timeout(pool.options().wall_max, head).await {
        Err(_) => Err(Fault::Wall),
        Ok(Some(Ok(response))) => {
            let (parts, body) = response.into_parts();
            let rest: Option<Rest> = match ended {
                Some(Ok(())) => None,
                Some(outcome) => Some(Box::pin(ready(outcome))),
                None => Some(call),
            };
            let body = outgoing(body, hub.clone(), pool.account().clone(), rest, cut_off);
            Ok(Streamed { status: parts.status.as_u16(), headers: parts.headers, body })
        }
        Ok(Some(Err(code))) => Err(Fault::Answer(format!("the guest answered with the error {code:?}"))),
        Ok(None) => match ended {
            Some(Err(fault)) => Err(fault),
            _ => Err(Fault::Answer("the guest returned without setting its response".into())),
        },
    }
}

/// The request's head in the words of the `http` crate.
pub(crate) fn head(request: &Request) -> Result<http::Request<()>, Fault> {
    let authority = if request.authority.is_empty() { "localhost" } else { &request.authority };
    let uri = http::Uri::builder().scheme(request.scheme).authority(authority).path_and_query(request.path.as_str()).build();
    let uri = uri.map_err(|error| Fault::Host(format!("the request's target: {error}")))?;
    let mut head = http::Request::new(());
    *head.method_mut() = request.method.clone();
    *head.uri_mut() = uri;
    *head.headers_mut() = request.headers.clone();
    Ok(head)
}
