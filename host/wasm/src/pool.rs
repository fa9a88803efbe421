//! The instances of one version of an app. Idle ones wait on a stack: the one that was used last, and is still warm, goes first.
//! An idle instance keeps its slot in the account (`instances.rs`) until it is taken again, yields it to another caller, grew too
//! large, or has been idle for too long.

use crate::{
    Options,
    connection::Connection,
    exports::{HandlerExports, Interfaces},
    fault::{is_full, told},
    instances::{Idle, InstanceAccount, Instances, Slot},
    meter::{CpuMeter, Evicted, TICK},
    outbound::Outbound,
    permits::{Permit, Use},
    runtime::Runtime,
    state::{MEMORY_RETRY, MEMORY_WAIT, Reservations, State},
};
use std::{
    mem,
    sync::{
        Arc, Mutex, MutexGuard, Weak,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};
use tidegate_hub::{
    Fault, Hub,
    budget::{MemoryAccount, OutOfMemory},
};
use tidegate_routing::Manifest;
use tokio::time::{Instant, sleep};
use wasmtime::{
    Store,
    component::{Instance as Raw, InstancePre, Resource},
};

/// Maximum number of bytes that one call passes to the host, unless a limit allows a longer message or value. An app needs a `stream`
/// route for a larger answer.
const HANDED_OVER_BYTES_MAX: usize = 16 << 20;
/// Beside a message or value of the largest size.
const HANDED_OVER_EXTRA: usize = 1 << 20;
/// It is at most this part of `memory_max`.
const HANDED_OVER_PART: usize = 32;

/// Number of idle instances that a version keeps.
const IDLE_MAX: usize = 64;
/// An instance that is idle for longer is dropped.
const IDLE_WITHIN: Duration = Duration::from_secs(10);
/// An instance whose linear memory grew by more bytes since it was made is dropped when it is given back: memory never shrinks.
const IDLE_GROWTH_MAX: usize = 4 << 20;

pub(crate) struct Pool {
    runtime: Runtime,
    pre: InstancePre<State>,
    interfaces: Interfaces,
    options: Options,
    outbound: Outbound,
    hub: Option<Arc<Hub>>,
    manifest: Option<Arc<Manifest>>,
    idle: Arc<IdleStack>,
    account: Arc<InstanceAccount>,
}

/// The idle instances of a version, each with the tick at which it became idle: the oldest first.
struct IdleStack {
    stack: Mutex<Vec<(u64, Box<GuestInstance>)>>,
    now: Arc<AtomicU64>,
}

impl IdleStack {
    fn lock(&self) -> MutexGuard<'_, Vec<(u64, Box<GuestInstance>)>> {
        self.stack
            .lock()
            .expect("nothing panics while it holds the idle instances")
    }

    fn pop(&self) -> Option<Box<GuestInstance>> {
        self.lock().pop().map(|(_, instance)| instance)
    }

    fn push(&self, instance: Box<GuestInstance>) {
        let mut stack = self.lock();
        if stack.len() < IDLE_MAX {
            stack.push((self.now.load(Relaxed), instance));
        }
    }

    /// Drops those that have been idle for too long.
    fn drop_old(&self) {
        let newest = self.now.load(Relaxed).saturating_sub(ticks(IDLE_WITHIN));
        let old: Vec<_> = {
            let mut stack = self.lock();
            let count = stack.partition_point(|(since, _)| *since < newest);
            stack.drain(..count).collect()
        };
        drop(old); // outside of the lock: it gives memory back to the system
    }
}

impl Idle for IdleStack {
    fn yield_slot(&self) -> Option<Slot> {
        let oldest = {
            let mut stack = self.lock();
            if stack.is_empty() {
                None
            } else {
                Some(stack.remove(0))
            }
        };
        let (_, mut instance) = oldest?;
        let slot = instance.slot.take();
        drop(instance);
        slot
    }
}

/// An instantiation of the component, with its exports looked up. It stays in its box from the first event to the last: it is large, and
/// every event takes it from the stack and puts it back.
pub(crate) struct GuestInstance {
    pub(crate) store: Store<State>,
    pub(crate) exports: HandlerExports,
    pub(crate) raw: Raw,
    /// After the store, which is dropped first. None if it was yielded.
    slot: Option<Slot>,
    /// Its reservations while it is dropped.
    shares: Option<Reservations>,
    /// Linear memory that it began with, in bytes.
    bytes_at_first: usize,
}

/// The fields are dropped after this, in their order: the memory first, then what is reserved for it.
impl Drop for GuestInstance {
    fn drop(&mut self) {
        self.shares = self.store.data_mut().memory.take_shares();
    }
}

impl GuestInstance {
    /// The connection of the event that runs.
    pub(crate) fn connection(&self) -> Resource<Connection> {
        self.store.data().connection()
    }

    /// Prepares it for a call that streams; the meter of that call.
    pub(crate) fn begin_stream(&mut self) -> Arc<CpuMeter> {
        self.store.data_mut().memory.begin_event();
        self.store.set_epoch_deadline(1);
        self.store.data().meter.clone()
    }

    /// Prepares an idle instance for a call; none if the server is too short of memory for it.
    fn begin_call(mut self: Box<GuestInstance>) -> Option<Box<GuestInstance>> {
        let state = self.store.data_mut();
        (!state.meter.is_evicted() && state.memory.begin_call().is_ok()).then_some(self)
    }

    /// Whether its memory grew so much that it is not worth keeping, or the server is short of it.
    fn is_large(&self) -> bool {
        self.store.data().meter.is_evicted()
            || self.store.data().memory.bytes() > self.bytes_at_first + IDLE_GROWTH_MAX
    }
}

/// An instance in use. Dropped with it, unless it is given back: after a fault, and when the call is given up.
pub(crate) struct PooledInstance {
    pub(crate) instance: Box<GuestInstance>,
    pool: Arc<Pool>,
    /// After the instance, which is dropped first.
    permit: Permit,
}

impl PooledInstance {
    pub(crate) fn give_back(self) {
        let PooledInstance {
            mut instance,
            pool,
            permit,
        } = self;
        // Log printed text without a line's end now, not when the next request comes.
        instance.store.data().output().end_lines();
        if !instance.is_large() {
            instance.store.data_mut().memory.end_call();
            pool.idle.push(instance);
        } else {
            drop(instance);
        }
        drop(permit);
    }
}

impl Pool {
    pub(crate) fn new(
        runtime: Runtime,
        pre: InstancePre<State>,
        interfaces: Interfaces,
        options: Options,
    ) -> Pool {
        let idle = Arc::new(IdleStack {
            stack: Mutex::default(),
            now: runtime.now.clone(),
        });
        let old = Arc::downgrade(&idle);
        runtime.each_second(Box::new(move || {
            if let Some(idle) = old.upgrade() {
                idle.drop_old();
            }
        }));
        // Until it is connected, one instance is asked for the manifest.
        let account = InstanceAccount::new(1);
        let outbound = Outbound::new(&options.outbound);
        Pool {
            runtime,
            pre,
            interfaces,
            options,
            outbound,
            hub: None,
            manifest: None,
            idle,
            account,
        }
    }

    /// Sets the hub, the routes and the account for the instances that are made from now on.
    pub(crate) fn connect(
        &mut self,
        hub: Arc<Hub>,
        manifest: Option<Arc<Manifest>>,
        instances: &Instances,
    ) {
        self.hub = Some(hub);
        self.manifest = manifest;
        self.idle.lock().clear();
        self.account = instances.0.clone();
        let idle: Weak<IdleStack> = Arc::downgrade(&self.idle);
        self.account.register(idle);
    }

    /// The pattern of a route or page; none for a component without a manifest.
    pub(crate) fn pattern(&self, index: u32) -> Option<&str> {
        self.manifest.as_ref()?.pattern(index)
    }

    pub(crate) fn account(&self) -> &Arc<InstanceAccount> {
        &self.account
    }

    pub(crate) fn hub(&self) -> Option<&Arc<Hub>> {
        self.hub.as_ref()
    }

    pub(crate) fn pre(&self) -> &InstancePre<State> {
        &self.pre
    }

    pub(crate) fn options(&self) -> &Options {
        &self.options
    }

    pub(crate) fn interfaces(&self) -> &Interfaces {
        &self.interfaces
    }

    /// The instance that was used last, or a new one; waits a while if all that this use may have are in use.
    pub(crate) async fn take(self: &Arc<Pool>, of: Use) -> Result<PooledInstance, Fault> {
        let permit = self.account.permit(of).await?;
        // One that is to be closed, or has no memory for what it may hand over, makes way for a new one.
        let idle = self.idle.pop().and_then(GuestInstance::begin_call);
        let instance = match idle {
            Some(instance) => instance,
            // Rare: in a box, so that it does not make the future of each event larger.
            None => Box::pin(self.make()).await?,
        };
        Ok(PooledInstance {
            instance,
            pool: self.clone(),
            permit,
        })
    }

    /// As [`take`](Pool::take), but always an instance that was not used before.
    pub(crate) async fn take_fresh(self: &Arc<Pool>, of: Use) -> Result<PooledInstance, Fault> {
        let permit = self.account.permit(of).await?;
        Ok(PooledInstance {
            instance: Box::pin(self.make()).await?,
            pool: self.clone(),
            permit,
        })
    }

    /// A new instance, for the owner of a permit.
    pub(crate) async fn make(&self) -> Result<Box<GuestInstance>, Fault> {
        let mut slot = self.account.reserve().await?;
        let until = Instant::now() + MEMORY_WAIT;
        loop {
            match self.instantiate().await {
                Ok((store, raw, exports)) => {
                    let bytes_at_first = store.data().memory.bytes();
                    return Ok(Box::new(GuestInstance {
                        store,
                        exports,
                        raw,
                        slot: Some(slot),
                        shares: None,
                        bytes_at_first,
                    }));
                }
                // The engine has fewer memories, tables or stacks than this component's instances need: idle ones make way.
                Err(error) if is_full(&error) => match self.idle.yield_slot() {
                    Some(yielded) => drop(mem::replace(&mut slot, yielded)),
                    None => {
                        tracing::warn!("an instance could not be made: {}", told(&error));
                        return Err(Fault::Busy);
                    }
                },
                // Memory is short: idle instances make way, and the server closes consumers if that is not enough.
                Err(error) if error.is::<OutOfMemory>() => match self.idle.yield_slot() {
                    Some(yielded) => drop(mem::replace(&mut slot, yielded)),
                    None if Instant::now() >= until => return Err(Fault::Busy),
                    None => sleep(MEMORY_RETRY).await,
                },
                Err(error) => {
                    return Err(Fault::Host(told(
                        &error.context("an instance could not be made"),
                    )));
                }
            }
        }
    }

    async fn instantiate(&self) -> wasmtime::Result<(Store<State>, Raw, HandlerExports)> {
        let mut store = self.store()?;
        let raw = match self.pre.instantiate_async(&mut store).await {
            Ok(raw) => raw,
            // An instance that is being made is a consumer already, and may be closed as one.
            Err(error) if store.data().memory.is_short || error.is::<Evicted>() => {
                return Err(OutOfMemory.into());
            }
            Err(error) => return Err(error),
        };
        let exports = HandlerExports::find(&raw, &mut store, &self.interfaces)?;
        Ok((store, raw, exports))
    }

    /// Bytes that one call may hand over to the host. An import's are copied before any of them can be counted, on each worker at a time,
    /// so a small budget has a smaller bound.
    fn handed_over_max(&self) -> usize {
        let Some(hub) = &self.hub else {
            return HANDED_OVER_BYTES_MAX;
        };
        let (limits, budget) = (hub.limits(), hub.budget().bytes_max());
        let largest = limits
            .message_bytes_max
            .max(limits.room_value_bytes_max)
            .max(limits.call_bytes_max);
        let max = if budget == 0 {
            HANDED_OVER_BYTES_MAX
        } else {
            HANDED_OVER_BYTES_MAX.min(budget / HANDED_OVER_PART)
        };
        max.max(largest.saturating_add(HANDED_OVER_EXTRA))
    }

    /// A store with every limit set.
    fn store(&self) -> wasmtime::Result<Store<State>> {
        let reserved = self
            .hub
            .as_ref()
            .map(|hub| MemoryAccount::new(hub.budget()));
        let meter = CpuMeter::new(
            self.runtime.now.clone(),
            self.options.cpu_max,
            reserved.clone(),
        );
        let handed_over_max = self.handed_over_max();
        let reserved = reserved.map(|account| (account, handed_over_max));
        let (hub, manifest, accounts) = (
            self.hub.clone(),
            self.manifest.clone(),
            (self.account.clone(), reserved),
        );
        let state = State::new(
            &self.options,
            self.outbound.clone(),
            &self.runtime.output,
            hub,
            manifest,
            accounts,
            meter,
        )?;
        let mut store = Store::new(&self.runtime.engine, state);
        store.limiter_async(|state| &mut state.memory);
        store.set_hostcall_fuel(handed_over_max);
        store.set_max_component_handles(10_000);
        store.set_epoch_deadline(1);
        store.epoch_deadline_callback(|context| context.data().meter.charge());
        Ok(store)
    }
}

/// Ticks of the engine's clock in this time.
fn ticks(time: Duration) -> u64 {
    (time.as_millis() / TICK.as_millis()) as u64
}
