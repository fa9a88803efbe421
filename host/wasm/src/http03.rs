//! `wasi:http/handler` 0.3: one streamed request to one instance, as with 0.2.
//!
//! An instance never serves two requests side by side: a request that waits in a blocking import has the whole instance, and would
//! hold up every other. The call ends when no task of the guest is left, so the work that a guest does after its answer is part of
//! it, and is bounded where the answer's body is read (`body.rs`).

use crate::{
    body::{AnswerContext, CallEnd, IncomingBody},
    fault::fault,
    instances::Use,
    meter,
    pool::Pool,
    state::State,
    stdio::EventContext,
    streamed::{self, GuestResponse},
};
use http::{HeaderMap, HeaderValue, header::CONTENT_LENGTH};
use std::{
    future::{Future, poll_fn},
    sync::Arc,
};
use tidegate_hub::{Body, Fault, Hub, Request, StreamingResponse};
use tokio::sync::oneshot;
use wasmtime::{AsContextMut, component::Accessor};
use wasmtime_wasi_http::{
    Error, FieldMap, WasiBody, WasiHttpView,
    p3::{
        self,
        bindings::{ServiceIndices, http::types::ErrorCode},
    },
};

/// See [`streamed::begin`].
pub(crate) async fn stream(
    (pool, hub): (&Arc<Pool>, &Arc<Hub>),
    head: &Request,
    body: Body,
    of: Use,
    reuse: bool,
) -> Result<StreamingResponse, Fault> {
    let (answer, answered) = oneshot::channel();
    let (route, request) = (
        head.route,
        streamed::head(head)?.map(|()| IncomingBody::new(body)),
    );
    let origin = AnswerContext::new(pool, hub, head, request.body().cut_off());
    streamed::begin(
        pool,
        Box::pin(run(pool.clone(), (of, reuse), route, request, answer)),
        answered,
        origin,
    )
    .await
}

async fn run(
    pool: Arc<Pool>,
    (of, reuse): (Use, bool),
    route: u32,
    request: http::Request<IncomingBody>,
    answer: oneshot::Sender<GuestResponse<ErrorCode>>,
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
    let about = EventContext {
        route: Some(route),
        ..EventContext::default()
    };
    let call = async {
        instance.store.data_mut().set_about(about);
        let service = ServiceIndices::new(pool.pre())?.load(&mut instance.store, &instance.raw)?;
        let (request, sent) =
            p3::Request::from_http(instance.store.data_mut().http().hooks, request);
        let handle = async move |accessor: &Accessor<_>| {
            let answered = match service.handle(accessor, request).await? {
                Ok(response) => Ok(accessor.with(|store| into_http(response, store, sent))?),
                Err(code) => Err(code),
            };
            _ = answer.send(answered);
            poll_fn(|cx| accessor.poll_no_interesting_tasks(cx)).await;
            wasmtime::error::Ok(())
        };
        instance.store.run_concurrent(handle).await.flatten()
    };
    let outcome = meter::stream(&clock, call)
        .await
        .map_err(|error| fault(&error, &taken.instance.store));
    CallEnd {
        outcome,
        instance: Some((taken, reuse)),
    }
}

/// Takes the length out of the guest's headers meanwhile: wasmtime would hold the body to it, but an error about it may get lost when the
/// body is too long. `body.rs` does the same and reports it.
fn into_http(
    mut response: p3::Response,
    mut store: impl AsContextMut<Data = State>,
    sent: impl Future<Output = Result<(), Error>> + Send + 'static,
) -> wasmtime::Result<http::Response<WasiBody>> {
    let lengths: Vec<HeaderValue> = response
        .headers
        .get_all(CONTENT_LENGTH)
        .iter()
        .cloned()
        .collect();
    if !lengths.is_empty() {
        let mut headers = HeaderMap::from(response.headers);
        headers.remove(CONTENT_LENGTH);
        response.headers =
            FieldMap::new_immutable(store.as_context_mut().data_mut().http().hooks, headers);
    }
    let mut response = response.into_http(store, sent)?;
    lengths
        .into_iter()
        .for_each(|length| _ = response.headers_mut().append(CONTENT_LENGTH, length));
    Ok(response)
}
