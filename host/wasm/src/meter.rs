//! How long a call may compute and how long it may take.

use crate::turns;
use std::{
    future::{Future, poll_fn},
    pin::{Pin, pin},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    task::{Context, Poll},
    time::Duration,
};
use tidegate_hub::{Fault, budget::MemoryAccount};
use tokio::{
    task::yield_now,
    time::{Sleep, sleep},
};
use wasmtime::UpdateDeadline;

/// Length of a tick of the engine's clock: how long a guest computes before others have their turn.
pub(crate) const TICK: Duration = Duration::from_millis(10);

/// Counts the ticks in which an instance computed. Shared with the engine's clock by its ticks.
pub(crate) struct CpuMeter {
    /// Of the engine's clock.
    now: Arc<AtomicU64>,
    /// When the current poll of the call began: a tick that passed while the guest waited is not charged.
    poll_began: AtomicU64,
    used: AtomicU64,
    budget: u64,
    /// Whether the budget begins anew after each wait, for a stream, or holds for the whole call.
    renewed: AtomicBool,
    /// The guest was made to wait for its next turn, and so did not wait by itself.
    resting: AtomicBool,
    /// Account of the instance's memory; `None` while an app is loaded.
    account: Option<Arc<MemoryAccount>>,
}

impl CpuMeter {
    pub(crate) fn new(
        now: Arc<AtomicU64>,
        cpu_max: Duration,
        account: Option<Arc<MemoryAccount>>,
    ) -> Arc<CpuMeter> {
        let budget = cpu_max.as_millis().div_ceil(TICK.as_millis()).max(1) as u64;
        let zero = || AtomicU64::new(0);
        Arc::new(CpuMeter {
            now,
            poll_began: zero(),
            used: zero(),
            budget,
            renewed: false.into(),
            resting: false.into(),
            account,
        })
    }

    fn begin(&self, renewed: bool) {
        self.used.store(0, Relaxed);
        self.renewed.store(renewed, Relaxed);
        self.resting.store(false, Relaxed);
    }

    fn begin_poll(&self) {
        self.poll_began.store(self.now.load(Relaxed), Relaxed);
        if self.resting.load(Relaxed) {
            return;
        }
        turns::count_call();
        if self.renewed.load(Relaxed) {
            self.used.store(0, Relaxed);
        }
    }

    /// Whether the instance is to end because the server is short of memory.
    pub(crate) fn is_evicted(&self) -> bool {
        self.account
            .as_ref()
            .is_some_and(|account| account.is_evicted())
    }

    /// As [`is_evicted`](CpuMeter::is_evicted), for an instance that is about to wait: the task is woken when that changes.
    pub(crate) fn watch_eviction(&self, cx: &Context<'_>) -> bool {
        let Some(account) = self.account.as_ref().filter(|account| account.is_large()) else {
            return false;
        };
        account.watch(cx.waker());
        account.is_evicted()
    }

    /// Called by the guest's code when a tick has passed. After its first tick the guest waits for what else is ready, since it may
    /// have begun in the middle of that tick; after any later one it is a spinner.
    pub(crate) fn charge(self: &Arc<CpuMeter>) -> wasmtime::Result<UpdateDeadline> {
        turns::end();
        if self.is_evicted() {
            return Err(Evicted.into());
        }
        if self.now.load(Relaxed) != self.poll_began.load(Relaxed) {
            self.used.fetch_add(1, Relaxed);
        }
        let used = self.used.load(Relaxed);
        if used > self.budget {
            return Err(OverBudget.into());
        }
        self.resting.store(true, Relaxed);
        let meter = self.clone();
        let rest = async move {
            if used > 1 {
                turns::next().await
            } else {
                yield_now().await
            }
            meter.resting.store(false, Relaxed);
        };
        Ok(UpdateDeadline::YieldCustom(1, Box::pin(rest)))
    }
}

/// The guest computed for too long.
#[derive(Debug)]
pub(crate) struct OverBudget;

impl std::fmt::Display for OverBudget {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("over its CPU budget")
    }
}

impl std::error::Error for OverBudget {}

/// The instance had much memory when the server was short of it.
#[derive(Debug)]
pub(crate) struct Evicted;

impl std::fmt::Display for Evicted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the server is short of memory")
    }
}

impl std::error::Error for Evicted {}

/// Runs a call that is an event: bounded as a whole. Its timer is only made when the call has to wait,
/// which most never do. The call is pinned by the caller: moving it in here would copy it once more for each event.
pub(crate) async fn event<T>(
    meter: &CpuMeter,
    wall_max: Duration,
    mut call: Pin<&mut impl Future<Output = T>>,
) -> Result<T, Fault> {
    meter.begin(false);
    let mut wall: Option<Pin<Box<Sleep>>> = None;
    poll_fn(|cx| {
        meter.begin_poll();
        let poll = call.as_mut().poll(cx);
        turns::end();
        if let Poll::Ready(outcome) = poll {
            return Poll::Ready(Ok(outcome));
        }
        if meter.watch_eviction(cx) {
            return Poll::Ready(Err(Fault::Shortage));
        }
        let wall = wall.get_or_insert_with(|| Box::pin(sleep(wall_max)));
        wall.as_mut().poll(cx).map(|()| Err(Fault::Wall))
    })
    .await
}

/// Runs a call that goes on for as long as it streams: bounded between two waits.
pub(crate) async fn stream<T>(
    meter: &CpuMeter,
    call: impl Future<Output = wasmtime::Result<T>>,
) -> wasmtime::Result<T> {
    meter.begin(true);
    let mut call = pin!(call);
    poll_fn(|cx| {
        meter.begin_poll();
        let poll = call.as_mut().poll(cx);
        turns::end();
        match poll {
            Poll::Pending if meter.watch_eviction(cx) => Poll::Ready(Err(Evicted.into())),
            poll => poll,
        }
    })
    .await
}
