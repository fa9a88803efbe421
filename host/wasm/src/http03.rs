//! `wasi:http/handler` 0.3.
//!
//! The call ends when no task of the guest is left, so the work that a guest does after its answer is part of it, and is bounded
//! where the answer's body is read (`body.rs`).

use crate::{
    body::IncomingBody,
    pool::{GuestInstance, Pool},
    state::State,
    streamed::{GuestResponse, HttpVersion},
};
use http::{HeaderMap, HeaderValue, header::CONTENT_LENGTH};
use std::future::{Future, poll_fn};
use tokio::sync::oneshot;
use wasmtime::{AsContextMut, component::Accessor};
use wasmtime_wasi_http::{
    Error, FieldMap, WasiBody, WasiHttpView,
    p3::{
        self,
        bindings::{ServiceIndices, http::types::ErrorCode},
    },
};

pub(crate) struct Http03;

impl HttpVersion for Http03 {
    type Error = ErrorCode;

    async fn handle(
        pool: &Pool,
        instance: &mut GuestInstance,
        request: http::Request<IncomingBody>,
        answer: oneshot::Sender<GuestResponse<ErrorCode>>,
    ) -> wasmtime::Result<()> {
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
