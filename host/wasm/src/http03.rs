//! `wasi:http/handler` 0.3: each request in an instance of its own, or many side by side in a few; kept by wasmtime's own handler.

use crate::{
    body::{Incoming, outgoing},
    fault::told,
    http02::head,
    meter::{Meter, OverBudget},
    pool::Pool,
    state::State,
};
use http_body_util::BodyExt;
use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, Instant as StdInstant},
};
use tidegate_hub::{Body, Fault, Hub, Request, Streamed};
use tokio::{
    sync::OwnedSemaphorePermit,
    time::{Instant, Sleep, sleep, sleep_until},
};
use wasmtime::{Store, StoreContextMut, component::GuestTaskId};
use wasmtime_wasi_http::{
    WasiHttpView,
    handler::{
        ExpirationError, HandlerState, Instance, InstantiationError, ProxyHandler, ProxyPre, ShouldAccept, WorkerExpiration, WorkerState,
        WorkerStatus,
    },
    p3::bindings::{ServicePre, http::types::ErrorCode},
};

/// Requests that one instance serves side by side, and in all, where instances may be shared: a trap in one ends all of them.
const CONCURRENT_MAX: usize = 16;
const TOTAL_MAX: usize = 128;
/// An instance without requests is dropped after this time.
const IDLE_MAX: Duration = Duration::from_secs(5);

/// The app's streamed requests.
pub(crate) struct Proxy {
    handler: ProxyHandler<Instances>,
    hub: Arc<Hub>,
}

impl Proxy {
    /// `share`: whether an instance may serve more than one request.
    pub(crate) fn new(pool: Arc<Pool>, hub: Arc<Hub>, share: bool) -> Proxy {
        let (concurrent_max, total_max) = if share { (CONCURRENT_MAX, TOTAL_MAX) } else { (1, 1) };
        Proxy { handler: ProxyHandler::new(Instances { pool, concurrent_max, total_max }), hub }
    }

    /// Ready when the guest has given the head of its answer.
    pub(crate) async fn stream(&self, request: &Request, body: Body) -> Result<Streamed, Fault> {
        let request = head(request)?.map(|()| Incoming(body).boxed_unsync());
        let response = self.handler.handle((), request).await.map_err(|error| fault(&error))?;
        let (parts, body) = response.into_parts();
        Ok(Streamed { status: parts.status.as_u16(), headers: parts.headers, body: outgoing(body, self.hub.clone(), None) })
    }
}

fn fault(error: &wasmtime::Error) -> Fault {
    if error.is::<ExpirationError>() {
        Fault::Wall
    } else if error.is::<OverBudget>() {
        Fault::Cpu
    } else if error.is::<InstantiationError<()>>() {
        Fault::Busy
    } else if let Some(code) = error.downcast_ref::<ErrorCode>() {
        Fault::Answer(format!("the guest answered with the error {code:?}"))
    } else {
        Fault::Trap(told(error))
    }
}

struct Instances {
    pool: Arc<Pool>,
    concurrent_max: usize,
    total_max: usize,
}

impl HandlerState for Instances {
    type StoreData = State;
    type WorkerExpiration = Expiration;
    type WorkerState = Worker;

    async fn instantiate(&self) -> wasmtime::Result<Instance<State, Expiration, Worker>> {
        let permit = self.pool.owned_permit().await.map_err(|_| wasmtime::format_err!("all instances are in use"))?;
        let mut store = self.pool.store()?;
        let proxy = ProxyPre::P3(ServicePre::new(self.pool.pre().clone())?).instantiate_async(&mut store).await?;
        let wall_max = self.pool.options().wall_max;
        let meter = store.data().meter.clone();
        meter.begin_stream();
        let expiration = Expiration { wall_max, meter, sleep: Box::pin(sleep(IDLE_MAX)) };
        let state = Worker { wall_max, concurrent_max: self.concurrent_max, total_max: self.total_max, _permit: permit };
        Ok(Instance { store, proxy, view: <State as WasiHttpView>::http, expiration, state })
    }
}

struct Worker {
    wall_max: Duration,
    concurrent_max: usize,
    total_max: usize,
    /// Given back when the instance is gone.
    _permit: OwnedSemaphorePermit,
}

impl WorkerState for Worker {
    type StoreData = State;
    type RequestData = ();

    fn should_accept_request(&self, concurrent: usize, total: usize) -> ShouldAccept {
        match () {
            () if total >= self.total_max => ShouldAccept::Never,
            () if concurrent >= self.concurrent_max => ShouldAccept::No,
            () => ShouldAccept::Yes,
        }
    }

    fn on_request_start(
        &self,
        _: StoreContextMut<'_, State>,
        (): (),
        _: GuestTaskId,
    ) -> Pin<Box<dyn Future<Output = ()> + 'static + Send + Sync>> {
        Box::pin(sleep(self.wall_max))
    }

    fn drop(&self, _: Store<State>, result: Result<(), wasmtime::Error>) {
        if let Err(error) = result {
            tracing::error!("an instance was thrown away: {}", told(&error));
        }
    }
}

/// When an instance goes; looked at before each turn of the instance, so that its meter knows when that began.
struct Expiration {
    wall_max: Duration,
    meter: Arc<Meter>,
    sleep: Pin<Box<Sleep>>,
}

impl WorkerExpiration for Expiration {
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>, status: WorkerStatus, since: StdInstant) -> Poll<()> {
        self.meter.begin_poll();
        let max = match status {
            WorkerStatus::Idle => IDLE_MAX,
            WorkerStatus::Requests => self.wall_max,
            // An answer is streamed for as long as its client reads.
            WorkerStatus::PostReturn => return Poll::Pending,
        };
        let until = Instant::from_std(since + max);
        if self.sleep.deadline() != until {
            self.sleep = Box::pin(sleep_until(until));
        }
        self.sleep.as_mut().poll(cx)
    }
}
