//! `wasi:http/incoming-handler` 0.2: one streamed request to one instance, which goes on while its answer streams.

use crate::{
    body::{Incoming, Rest, outgoing},
    fault::fault,
    meter,
    pool::Pool,
    stdio::About,
};
use std::{
    future::{Future, poll_fn, ready},
    pin::Pin,
    sync::Arc,
    task::Poll,
};
use tidegate_hub::{Body, Fault, Hub, Request, Streamed};
use tokio::{sync::oneshot, time::timeout};
use wasmtime_wasi_http::{
    WasiHttpView,
    p2::bindings::{ProxyIndices, http::types::Scheme},
};

/// Ready when the guest has given the head of its answer; until then the guest runs in the caller's own task, and is
/// given up with it. Dropping the answer's body tells the guest that nobody reads on.
pub(crate) async fn stream(pool: &Arc<Pool>, hub: &Arc<Hub>, request: &Request, body: Body, reuse: bool) -> Result<Streamed, Fault> {
    let (answer, answered) = oneshot::channel();
    let (route, request) = (request.route, head(request)?.map(|()| Incoming(body)));
    let mut call = Box::pin(run(pool.clone(), route, request, answer, reuse));
    let (mut awaited, mut ended) = (Some(answered), None);
    let head = poll_fn(|cx| {
        if let Poll::Ready(outcome) = call.as_mut().poll(cx) {
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
            let body = outgoing(body, hub.clone(), rest);
            Ok(Streamed { status: parts.status.as_u16(), headers: parts.headers, body })
        }
        Ok(Some(Err(code))) => Err(Fault::Answer(format!("the guest answered with the error {code:?}"))),
        Ok(None) => match ended {
            Some(Err(fault)) => Err(fault),
            _ => Err(Fault::Answer("the guest returned without setting its response".into())),
        },
    }
}

type Response = http::Response<wasmtime_wasi_http::WasiBody>;
type Answer = oneshot::Sender<Result<Response, wasmtime_wasi_http::p2::bindings::http::types::ErrorCode>>;

async fn run(pool: Arc<Pool>, route: u32, request: http::Request<Incoming>, answer: Answer, reuse: bool) -> Result<(), Fault> {
    let mut taken = if reuse { pool.take().await? } else { pool.take_fresh().await? };
    let instance = &mut taken.instance;
    instance.store.data_mut().memory.denied = false;
    instance.store.set_epoch_deadline(1);
    let clock = instance.store.data().meter.clone();
    let about = About { route: Some(route), ..About::default() };
    let call = async {
        instance.store.data_mut().set_about(about)?;
        let mut http = instance.store.data_mut().http();
        let request = http.new_incoming_request(Scheme::Http, request)?;
        let answer = http.new_response_outparam(answer)?;
        let proxy = ProxyIndices::new(pool.pre())?.load(&mut instance.store, &instance.raw)?;
        proxy.wasi_http_incoming_handler().call_handle(&mut instance.store, request, answer).await
    };
    match meter::stream(&clock, call).await {
        Ok(()) => {
            if reuse {
                taken.give_back();
            }
            Ok(())
        }
        Err(error) => Err(fault(&error, &taken.instance.store)),
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
