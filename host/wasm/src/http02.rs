//! `wasi:http/incoming-handler` 0.2: one streamed request to one instance, which goes on while its answer streams.

use crate::{
    body::{AnswerContext, CallEnd, IncomingBody},
    fault::fault,
    instances::Use,
    meter,
    pool::Pool,
    stdio::EventContext,
    streamed::{self, GuestResponse},
};
use std::sync::Arc;
use tidegate_hub::{Body, Fault, Hub, Request, StreamingResponse};
use tokio::sync::oneshot;
use wasmtime_wasi_http::{
    WasiHttpView,
    p2::bindings::{
        ProxyIndices,
        http::types::{ErrorCode, Scheme},
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
        let mut http = instance.store.data_mut().http();
        let request = http.new_incoming_request(Scheme::Http, request)?;
        let answer = http.new_response_outparam(answer)?;
        let proxy = ProxyIndices::new(pool.pre())?.load(&mut instance.store, &instance.raw)?;
        proxy
            .wasi_http_incoming_handler()
            .call_handle(&mut instance.store, request, answer)
            .await
    };
    let outcome = meter::stream(&clock, call)
        .await
        .map_err(|error| fault(&error, &taken.instance.store));
    CallEnd {
        outcome,
        instance: Some((taken, reuse)),
    }
}
