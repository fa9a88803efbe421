//! `wasi:http/handler` 0.3: requests side by side in a few instances, kept by wasmtime's own handler.

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
    sync::Semaphore,
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

/// Requests that one instance serves side by side, and in all.
const CONCURRENT_MAX: usize = 16;
const TOTAL_MAX: usize = 128;
/// An instance without requests is dropped after this time.
const IDLE_MAX: Duration = Duration::from_secs(5);

/// The app's streamed requests.
pub(crate) struct Proxy {
    handler: ProxyHandler<Instances>,
    hub: Arc<Hub>,
    /// Requests that wait for the head of their answer.
    permits: Semaphore,
}

impl Proxy {
    pub(crate) fn new(pool: Arc<Pool>, hub: Arc<Hub>) -> Proxy {
        let permits = Semaphore::new(pool.options().instances_max.saturating_mul(CONCURRENT_MAX).clamp(1, Semaphore::MAX_PERMITS));
        Proxy { handler: ProxyHandler::new(Instances(pool)), hub, permits }
    }

    /// Ready when the guest has given the head of its answer.
    pub(crate) async fn stream(&self, request: &Request, body: Body) -> Result<Streamed, Fault> {
        let _permit = self.permits.try_acquire().map_err(|_| Fault::Busy)?;
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

struct Instances(Arc<Pool>);

impl HandlerState for Instances {
    type StoreData = State;
    type WorkerExpiration = Expiration;
    type WorkerState = Worker;

    async fn instantiate(&self) -> wasmtime::Result<Instance<State, Expiration, Worker>> {
        let mut store = self.0.store()?;
        let proxy = ProxyPre::P3(ServicePre::new(self.0.pre().clone())?).instantiate_async(&mut store).await?;
        let wall_max = self.0.options().wall_max;
        let meter = store.data().meter.clone();
        meter.begin_stream();
        let expiration = Expiration { wall_max, meter, sleep: Box::pin(sleep(IDLE_MAX)) };
        Ok(Instance { store, proxy, view: <State as WasiHttpView>::http, expiration, state: Worker { wall_max } })
    }
}

struct Worker {
    wall_max: Duration,
}

impl WorkerState for Worker {
    type StoreData = State;
    type RequestData = ();

    fn should_accept_request(&self, concurrent: usize, total: usize) -> ShouldAccept {
        match () {
            () if total >= TOTAL_MAX => ShouldAccept::Never,
            () if concurrent >= CONCURRENT_MAX => ShouldAccept::No,
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
