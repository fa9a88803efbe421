//! The instances of an app: idle ones wait on a stack, so that the one that was used last, and is still warm, goes first.

use crate::bindings::{
    exports::tidegate::app::{
        events_handler::Feed,
        guard_handler::Verdict,
        pages::{Problem, Shell, Step, Update},
        websocket_handler::Decision,
    },
    tidegate::app::types::Response,
};
use crate::{
    Options,
    connection::Connection,
    contract::{Act, Alarm, Answer, Answered, Check, Close, Handle, Load, Messages, Next, Open, Render, Subscribe, Upgrade, Wake},
    fault::told,
    machine::Machine,
    meter::Meter,
    state::State,
};
use std::{
    marker::PhantomData,
    sync::{Arc, Mutex},
    time::Duration,
};
use tidegate_hub::{Fault, Hub, Manifest};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, SemaphorePermit},
    time::timeout,
};
use wasmtime::{
    Store,
    component::{ComponentNamedList, Func, Instance as Raw, InstancePre, Lift, Lower, Resource, ResourceAny},
};

/// How long a call waits for an instance when all are busy.
const WAIT: Duration = Duration::from_secs(5);
/// Idle instances that are kept; each holds some tens of KiB.
const IDLE_MAX: usize = 64;

pub(crate) struct Pool {
    machine: Machine,
    pre: InstancePre<State>,
    interfaces: Interfaces,
    options: Options,
    hub: Option<Arc<Hub>>,
    manifest: Option<Arc<Manifest>>,
    idle: Mutex<Vec<Instance>>,
    /// A permit is the right to have an instance in use.
    permits: Arc<Semaphore>,
    /// The right to keep one between events, beside that: half of all, so that some are left for everybody else.
    kept: Arc<Semaphore>,
}

/// Full names of the interfaces that the component exports, with their versions.
#[derive(Clone, Debug, Default)]
pub(crate) struct Interfaces {
    pub(crate) manifest: Option<String>,
    pub(crate) guard: Option<String>,
    pub(crate) http: Option<String>,
    pub(crate) websocket: Option<String>,
    pub(crate) events: Option<String>,
    pub(crate) room: Option<String>,
    pub(crate) pages: Option<String>,
    pub(crate) incoming: Option<String>,
    pub(crate) handler: Option<String>,
}

/// An instantiation of the component, with its exports looked up.
pub(crate) struct Instance {
    pub(crate) store: Store<State>,
    pub(crate) exports: Exports,
    pub(crate) raw: Raw,
}

impl Instance {
    /// The connection of the event that runs.
    pub(crate) fn connection(&self) -> Resource<Connection> {
        self.store.data().connection()
    }
}

/// What the component does not export is none.
pub(crate) struct Exports {
    pub(crate) check: Option<Export<Check<'static>, (Verdict,)>>,
    pub(crate) handle: Option<Export<Handle<'static>, (Response,)>>,
    pub(crate) upgrade: Option<Export<Upgrade<'static>, (Decision,)>>,
    pub(crate) open: Option<Export<Open<'static>, ()>>,
    pub(crate) messages: Option<Export<Messages<'static>, ()>>,
    pub(crate) close: Option<Export<Close<'static>, ()>>,
    pub(crate) subscribe: Option<Export<Subscribe<'static>, (Result<Feed, Response>,)>>,
    pub(crate) wake: Option<Export<Wake<'static>, (Result<(), String>,)>>,
    pub(crate) alarm: Option<Export<Alarm, ()>>,
    pub(crate) answer: Option<Export<Answer<'static>, Answered>>,
    pub(crate) load: Option<Export<Load<'static>, (ResourceAny,)>>,
    pub(crate) next_step: Option<Export<Next, (Result<Step, Problem>,)>>,
    pub(crate) render: Option<Export<Render<'static>, (Shell,)>>,
    pub(crate) act: Option<Export<Act<'static>, (ResourceAny,)>>,
    pub(crate) next_update: Option<Export<Next, (Update,)>>,
}

/// A function whose type was checked once, for parameters that live as long as one call.
pub(crate) struct Export<Params, Return> {
    func: Func,
    of: PhantomData<fn(Params) -> Return>,
}

impl<Params, Return> Clone for Export<Params, Return> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<Params, Return> Copy for Export<Params, Return> {}

impl<Params: ComponentNamedList + Lower, Return: ComponentNamedList + Lift> Export<Params, Return> {
    fn find(raw: &Raw, store: &mut Store<State>, interface: Option<&String>, name: &str) -> wasmtime::Result<Option<Self>> {
        let Some(interface) = interface else { return Ok(None) };
        let index = raw.get_export_index(&mut *store, None, interface);
        let index = index.and_then(|interface| raw.get_export_index(&mut *store, Some(&interface), name));
        let func = index.and_then(|index| raw.get_func(&mut *store, index));
        let func = func.ok_or_else(|| wasmtime::format_err!("the component exports {interface} without {name}"))?;
        func.typed::<Params, Return>(&*store)?;
        Ok(Some(Export { func, of: PhantomData }))
    }
}

/// Gives a checked function the lifetime of one call's parameters.
macro_rules! shortened {
    ($export:expr, $params:ty, $return:ty) => {{
        // SAFETY: `find` checked the function's type for the same parameters; a lifetime makes no other type of them.
        #[allow(unsafe_code)]
        unsafe {
            wasmtime::component::TypedFunc::<$params, $return>::new_unchecked($export.func())
        }
    }};
}
pub(crate) use shortened;

impl<Params, Return> Export<Params, Return> {
    pub(crate) fn func(&self) -> Func {
        self.func
    }
}

/// An instance in use. Dropped with it, unless it is given back: after a fault, and when the call is given up.
pub(crate) struct Taken<'a> {
    pub(crate) instance: Instance,
    pool: &'a Pool,
    _permit: SemaphorePermit<'a>,
}

impl Taken<'_> {
    pub(crate) fn give_back(self) {
        self.pool.put_back(self.instance);
    }
}

/// As [`Taken`], for whoever keeps it between events.
pub(crate) struct Owned {
    pub(crate) instance: Instance,
    pool: Arc<Pool>,
    _permits: [OwnedSemaphorePermit; 2],
}

impl Owned {
    pub(crate) fn give_back(self) {
        self.pool.put_back(self.instance);
    }
}

impl Pool {
    pub(crate) fn new(machine: Machine, pre: InstancePre<State>, interfaces: Interfaces, options: Options) -> Pool {
        let instances_max = options.instances_max.clamp(1, Semaphore::MAX_PERMITS);
        let [permits, kept] = [instances_max, instances_max.div_ceil(2)].map(|count| Arc::new(Semaphore::new(count)));
        Pool { machine, pre, interfaces, options, hub: None, manifest: None, idle: Mutex::default(), permits, kept }
    }

    /// Whom the instances that are made from now on talk to, and which routes are theirs.
    pub(crate) fn connect(&mut self, hub: Arc<Hub>, manifest: Option<Arc<Manifest>>) {
        self.hub = Some(hub);
        self.manifest = manifest;
        self.idle.get_mut().expect("nothing panics while it holds the pool").clear();
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

    /// The instance that was used last, or a new one; waits a while if as many as may be are in use.
    pub(crate) async fn take(&self) -> Result<Taken<'_>, Fault> {
        let permit = self.permit().await?;
        Ok(Taken { instance: self.idle_or_new().await?, pool: self, _permit: permit })
    }

    /// As [`take`](Pool::take), for as long as its owner likes.
    pub(crate) async fn take_owned(self: &Arc<Pool>) -> Result<Owned, Fault> {
        let permits = [owned_permit(&self.kept).await?, owned_permit(&self.permits).await?];
        Ok(Owned { instance: self.idle_or_new().await?, pool: self.clone(), _permits: permits })
    }

    async fn idle_or_new(&self) -> Result<Instance, Fault> {
        let idle = self.idle.lock().expect("nothing panics while it holds the pool").pop();
        match idle {
            Some(instance) => Ok(instance),
            None => self.make().await,
        }
    }

    fn put_back(&self, instance: Instance) {
        let mut idle = self.idle.lock().expect("nothing panics while it holds the pool");
        if idle.len() < IDLE_MAX {
            idle.push(instance);
        }
    }

    /// An instance that nobody used before.
    pub(crate) async fn take_fresh(&self) -> Result<Taken<'_>, Fault> {
        let permit = self.permit().await?;
        Ok(Taken { instance: self.make().await?, pool: self, _permit: permit })
    }

    async fn permit(&self) -> Result<SemaphorePermit<'_>, Fault> {
        if let Ok(permit) = self.permits.try_acquire() {
            return Ok(permit);
        }
        match timeout(WAIT, self.permits.acquire()).await {
            Ok(Ok(permit)) => Ok(permit),
            _ => Err(Fault::Busy),
        }
    }

    /// The right to have an instance that does not come from this pool's stack.
    pub(crate) async fn owned_permit(&self) -> Result<OwnedSemaphorePermit, Fault> {
        owned_permit(&self.permits).await
    }

    pub(crate) async fn make(&self) -> Result<Instance, Fault> {
        let made = self.instantiate().await;
        made.map_err(|error| Fault::Host(told(&error.context("an instance could not be made"))))
    }

    async fn instantiate(&self) -> wasmtime::Result<Instance> {
        let mut store = self.store()?;
        let raw = self.pre.instantiate_async(&mut store).await?;
        let exports = Exports::find(&raw, &mut store, &self.interfaces)?;
        Ok(Instance { store, exports, raw })
    }

    /// A store with every limit set.
    pub(crate) fn store(&self) -> wasmtime::Result<Store<State>> {
        let meter = Meter::new(self.machine.now.clone(), self.options.cpu_max);
        let state = State::new(&self.options, self.hub.clone(), self.manifest.clone(), meter)?;
        let mut store = Store::new(&self.machine.engine, state);
        store.limiter(|state| &mut state.memory);
        store.set_hostcall_fuel(64 << 20);
        store.set_max_component_handles(10_000);
        store.set_epoch_deadline(1);
        store.epoch_deadline_callback(|context| context.data().meter.charge());
        Ok(store)
    }
}

async fn owned_permit(permits: &Arc<Semaphore>) -> Result<OwnedSemaphorePermit, Fault> {
    if let Ok(permit) = permits.clone().try_acquire_owned() {
        return Ok(permit);
    }
    match timeout(WAIT, permits.clone().acquire_owned()).await {
        Ok(Ok(permit)) => Ok(permit),
        _ => Err(Fault::Busy),
    }
}

impl Exports {
    fn find(raw: &Raw, store: &mut Store<State>, interfaces: &Interfaces) -> wasmtime::Result<Exports> {
        let Interfaces { guard, http, websocket, events, room, pages, .. } = interfaces;
        Ok(Exports {
            check: Export::find(raw, store, guard.as_ref(), "check")?,
            handle: Export::find(raw, store, http.as_ref(), "handle")?,
            upgrade: Export::find(raw, store, websocket.as_ref(), "on-upgrade")?,
            open: Export::find(raw, store, websocket.as_ref(), "on-open")?,
            messages: Export::find(raw, store, websocket.as_ref(), "on-messages")?,
            close: Export::find(raw, store, websocket.as_ref(), "on-close")?,
            subscribe: Export::find(raw, store, events.as_ref(), "on-subscribe")?,
            wake: Export::find(raw, store, room.as_ref(), "wake")?,
            alarm: Export::find(raw, store, room.as_ref(), "on-alarm")?,
            answer: Export::find(raw, store, room.as_ref(), "on-call")?,
            load: Export::find(raw, store, pages.as_ref(), "load")?,
            next_step: Export::find(raw, store, pages.as_ref(), "[method]loader.next")?,
            render: Export::find(raw, store, pages.as_ref(), "render")?,
            act: Export::find(raw, store, pages.as_ref(), "act")?,
            next_update: Export::find(raw, store, pages.as_ref(), "[method]attempt.next")?,
        })
    }
}
