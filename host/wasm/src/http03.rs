//! `wasi:http/handler` 0.3: one streamed request to one instance, as with 0.2.
//!
//! An instance never serves two requests side by side: a request that waits in a blocking import has the whole instance, and would
//! hold up every other. The call ends when no task of the guest is left, so the work that a guest does after its answer is part of
//! it, and is bounded where the answer's body is read (`body.rs`).

use crate::{
    body::Incoming,
    fault::fault,
    instances::Use,
    meter,
    pool::Pool,
    stdio::About,
    streamed::{self, Answer},
};
use std::{future::poll_fn, sync::Arc};
use tidegate_hub::{Body, Fault, Hub, Request, Streamed};
use tokio::sync::oneshot;
use wasmtime::component::Accessor;
use wasmtime_wasi_http::{
    WasiHttpView,
    p3::{
        self,
        bindings::{ServiceIndices, http::types::ErrorCode},
    },
};

/// See [`streamed::begin`].
pub(crate) async fn stream(
    (pool, hub): (&Arc<Pool>, &Arc<Hub>),
    request: &Request,
    body: Body,
    of: Use,
    reuse: bool,
) -> Result<Streamed, Fault> {
    let (answer, answered) = oneshot::channel();
    let (route, request) = (request.route, streamed::head(request)?.map(|()| Incoming::new(body)));
    let cut_off = request.body().cut_off();
    streamed::begin(pool, hub, Box::pin(run(pool.clone(), (of, reuse), route, request, answer)), answered, cut_off).await
}

async fn run(
    pool: Arc<Pool>,
    (of, reuse): (Use, bool),
    route: u32,
    request: http::Request<Incoming>,
    answer: oneshot::Sender<Answer<ErrorCode>>,
) -> Result<(), Fault> {
    let mut taken = if reuse { pool.take(of).await? } else { pool.take_fresh(of).await? };
    let instance = &mut taken.instance;
    let clock = instance.begin_stream();
    let about = About { route: Some(route), ..About::default() };
    let call = async {
        instance.store.data_mut().set_about(about);
        let service = ServiceIndices::new(pool.pre())?.load(&mut instance.store, &instance.raw)?;
        let (request, sent) = p3::Request::from_http(instance.store.data_mut().http().hooks, request);
        let handle = async move |accessor: &Accessor<_>| {
            let answered = match service.handle(accessor, request).await? {
                Ok(response) => Ok(accessor.with(|store| response.into_http(store, sent))?),
                Err(code) => Err(code),
            };
            _ = answer.send(answered);
            poll_fn(|cx| accessor.poll_no_interesting_tasks(cx)).await;
            wasmtime::error::Ok(())
        };
        instance.store.run_concurrent(handle).await.flatten()
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
