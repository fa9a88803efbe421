//! `wasi:http/incoming-handler` 0.2.

use crate::{
    body::IncomingBody,
    pool::{GuestInstance, Pool},
    streamed::{GuestResponse, HttpVersion},
};
use tokio::sync::oneshot;
use wasmtime_wasi_http::{
    WasiHttpView,
    p2::bindings::{
        ProxyIndices,
        http::types::{ErrorCode, Scheme},
    },
};

pub(crate) struct Http02;

impl HttpVersion for Http02 {
    type Error = ErrorCode;

    async fn handle(
        pool: &Pool,
        instance: &mut GuestInstance,
        request: http::Request<IncomingBody>,
        answer: oneshot::Sender<GuestResponse<ErrorCode>>,
    ) -> wasmtime::Result<()> {
        let mut http = instance.store.data_mut().http();
        let request = http.new_incoming_request(Scheme::Http, request)?;
        let answer = http.new_response_outparam(answer)?;
        let proxy = ProxyIndices::new(pool.pre())?.load(&mut instance.store, &instance.raw)?;
        proxy
            .wasi_http_incoming_handler()
            .call_handle(&mut instance.store, request, answer)
            .await
    }
}
