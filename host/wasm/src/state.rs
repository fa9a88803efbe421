//! The state of one instance: its WASI context, its resources, its memory limit and its meter.

use crate::{
    Options,
    clock::monotonic,
    connection::Connection,
    instances::InstanceAccount,
    meter::CpuMeter,
    outbound::Outbound,
    stdio::{AppOutput, EventContext, GuestOutput, Output, OutputChannel},
};
use std::{
    any::Any,
    future::{Future, ready},
    pin::Pin,
    sync::Arc,
    time::Duration,
};
use tidegate_hub::{
    Conn, Fault, Hub, Scope,
    budget::{INSTANCE_FREE_BYTES, MemoryAccount, MemoryKind, OutOfMemory, Share},
};
use tidegate_routing::Manifest;
use tokio::time::{Instant, sleep};
use wasmtime::{
    ResourceLimiterAsync,
    component::{Resource, ResourceTable},
};
use wasmtime_wasi::{FsPerms, WasiCtx, WasiCtxView, WasiView};
use wasmtime_wasi_http::{FieldMap, WasiHttpCtx, WasiHttpCtxView, WasiHttpView, p2, p3};

/// Resources that a guest may hold at a time: connections that it found, bodies, headers.
const RESOURCES_MAX: usize = 10_000;
/// Entries of all tables of functions, as large guests of interpreters need.
const TABLE_ENTRIES_MAX: usize = 100_000;

/// Time for which an instance with little memory waits for more, and a call for an instance that there is no memory to make. Then the
/// call is refused (503).
pub(crate) const MEMORY_WAIT: Duration = Duration::from_secs(5);
/// Time between two tries.
pub(crate) const MEMORY_RETRY: Duration = Duration::from_millis(10);

pub(crate) struct State {
    pub(crate) table: ResourceTable,
    /// When the instance was made, by [`monotonic`].
    pub(crate) began: Duration,
    wasi: WasiCtx,
    http: WasiHttpCtx,
    outbound: Outbound,
    /// Scope of the running event; none while the app describes its manifest, which has no
    /// connection.
    pub(crate) scope: Option<Scope>,
    /// Why an import had to end the event, if that is not the guest's fault.
    pub(crate) failure: Option<Fault>,
    pub(crate) memory: MemoryLimit,
    pub(crate) meter: Arc<CpuMeter>,
    /// Connection of the event that runs, if it is of one, and the handle that stands for it.
    pub(crate) event_conn: Option<Arc<Conn>>,
    event_handle: u32,
    output: Arc<Output>,
    /// Manifest of the app, after it was described.
    pub(crate) manifest: Option<Arc<Manifest>>,
}

impl State {
    pub(crate) fn new(
        options: &Options,
        outbound: Outbound,
        output: &Arc<AppOutput>,
        hub: Option<Arc<Hub>>,
        manifest: Option<Arc<Manifest>>,
        (account, reserved): (Arc<InstanceAccount>, Option<(Arc<MemoryAccount>, usize)>),
        meter: Arc<CpuMeter>,
    ) -> wasmtime::Result<State> {
        let mut table = ResourceTable::new();
        table.set_max_capacity(RESOURCES_MAX);
        let event_handle = table.push(Connection::OfEvent)?.rep();
        let shares =
            reserved.map(|(account, handed_over_max)| Reservations::new(&account, handed_over_max));
        let output = Output::new(output, hub.clone(), manifest.clone());
        Ok(State {
            table,
            began: monotonic(),
            wasi: wasi(options, &output)?,
            http: WasiHttpCtx::new(),
            outbound,
            scope: hub.map(Scope::App),
            failure: None,
            memory: MemoryLimit {
                bytes_max: options.memory_bytes_max,
                denied: false,
                is_short: false,
                may_wait: false,
                bytes: 0,
                growing: 0,
                table_entries: 0,
                account,
                shares,
            },
            meter,
            event_conn: None,
            event_handle,
            output,
            manifest,
        })
    }

    /// Sets the connection, route and room that the next call is for.
    pub(crate) fn set_about(&mut self, about: EventContext) {
        self.event_conn = about.conn.clone();
        self.output.begin(about);
    }

    /// Returns true if the guest still has a part of a request or an answer of `wasi:http`.
    pub(crate) fn keeps_exchange(&mut self) -> bool {
        self.table.iter_mut().any(|resource| {
            let resource: &dyn Any = resource;
            resource.is::<p2::types::HostIncomingRequest>()
                || resource.is::<p2::types::HostResponseOutparam>()
                || resource.is::<p2::types::HostOutgoingResponse>()
                || resource.is::<p2::types::HostOutgoingRequest>()
                || resource.is::<p2::types::HostFutureIncomingResponse>()
                || resource.is::<p2::types::HostIncomingResponse>()
                || resource.is::<p2::body::HostIncomingBody>()
                || resource.is::<p2::body::HostOutgoingBody>()
                || resource.is::<p2::body::HostFutureTrailers>()
                || resource.is::<p3::Request>()
                || resource.is::<p3::Response>()
                || resource.is::<FieldMap>()
        })
    }

    /// Returns the output of the instance.
    pub(crate) fn output(&self) -> &Arc<Output> {
        &self.output
    }

    /// The handle that stands for the connection of the event that runs.
    pub(crate) fn connection(&self) -> Resource<Connection> {
        Resource::new_borrow(self.event_handle)
    }
}

/// Nothing but what was granted.
fn wasi(options: &Options, output: &Arc<Output>) -> wasmtime::Result<WasiCtx> {
    let mut wasi = WasiCtx::builder();
    wasi.stdout(GuestOutput::new(OutputChannel::Out, output))
        .stderr(GuestOutput::new(OutputChannel::Err, output));
    wasi.allow_tcp(false)
        .allow_udp(false)
        .allow_ip_name_lookup(false);
    if let Some(clock) = &options.clock {
        wasi.wall_clock(clock.clone());
    }
    for (name, value) in &options.env {
        wasi.env(name, value);
    }
    for dir in &options.dirs {
        let permissions = if dir.writable {
            FsPerms::ReadWrite
        } else {
            FsPerms::ReadOnly
        };
        wasi.preopened_dir(&dir.host, &dir.guest, permissions)?;
    }
    Ok(wasi.build())
}

impl WasiView for State {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView {
            ctx: &mut self.wasi,
            table: &mut self.table,
        }
    }
}

impl WasiHttpView for State {
    fn http(&mut self) -> WasiHttpCtxView<'_> {
        WasiHttpCtxView {
            ctx: &mut self.http,
            table: &mut self.table,
            hooks: &mut self.outbound,
        }
    }
}

/// Refuses memory beyond the limit, or when the server is short of memory, and remembers the refusal: the guest then traps, and the
/// refusal is the cause to report. An instance with little memory waits first, so that calls that need little are served while large
/// instances come and go. Counts the memory for the instance, in the account of all instances and in the budget of the process.
pub(crate) struct MemoryLimit {
    bytes_max: usize,
    pub(crate) denied: bool,
    /// Memory was denied because the server is short of it.
    pub(crate) is_short: bool,
    /// A call runs. While an instance is being made its maker waits, and has idle ones make way.
    may_wait: bool,
    /// Linear memory of the instance: all of its memories.
    bytes: usize,
    /// By how much it was last allowed to grow.
    growing: usize,
    /// Entries of all of its tables.
    table_entries: usize,
    account: Arc<InstanceAccount>,
    /// None while an app is loaded.
    shares: Option<Reservations>,
}

/// Reservations of an instance.
pub(crate) struct Reservations {
    memory: Share,
    /// For the copies that the host makes of what a call returns. The engine makes them before the host learns their sizes, and the guest
    /// may run on for a while to free the originals, so they are reserved when the guest gets the memory to make the originals in.
    handed_over: Share,
    handed_over_max: usize,
}

impl Reservations {
    /// `handed_over_max`: bytes that one call may hand over.
    fn new(account: &Arc<MemoryAccount>, handed_over_max: usize) -> Reservations {
        Reservations {
            memory: Share::new(account, MemoryKind::Instance),
            handed_over: Share::new(account, MemoryKind::HandOver),
            handed_over_max,
        }
    }

    /// The instance has so many bytes from now on, `growing` of them new.
    fn fit(&mut self, bytes: usize, growing: usize) -> Result<(), OutOfMemory> {
        match bytes <= INSTANCE_FREE_BYTES {
            true => self.memory.account().budget().admit_small(growing)?,
            false => self.begin_call(bytes)?,
        }
        self.memory.fit(bytes)
    }

    fn begin_call(&mut self, bytes: usize) -> Result<(), OutOfMemory> {
        self.handed_over.fit(
            bytes
                .saturating_sub(INSTANCE_FREE_BYTES)
                .min(self.handed_over_max),
        )
    }
}

impl MemoryLimit {
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Forgets what was denied to an earlier event.
    pub(crate) fn begin_event(&mut self) {
        (self.denied, self.is_short, self.may_wait) = (false, false, true);
    }

    /// The reservations, for an instance that is about to be dropped: its memory is gone only after the store that this belongs to. If
    /// they were given back before, the memory would count as uncounted meanwhile, and others would be refused for it.
    pub(crate) fn take_shares(&mut self) -> Option<Reservations> {
        self.shares.take()
    }

    fn grow(&mut self, growing: usize) -> Growth {
        let bytes = self.bytes.saturating_add(growing);
        if bytes > self.bytes_max {
            return Growth::Denied;
        }
        if let Some(shares) = &mut self.shares
            && shares.fit(bytes, growing).is_err()
        {
            return Growth::Short;
        }
        (self.bytes, self.growing) = (bytes, growing);
        self.account.count_bytes(growing as isize);
        Growth::Allowed
    }

    fn deny(&mut self, is_short: bool) -> wasmtime::Result<bool> {
        self.denied = true;
        self.is_short |= is_short;
        Ok(false)
    }

    async fn wait_to_grow(&mut self, growing: usize) -> wasmtime::Result<bool> {
        let until = Instant::now() + MEMORY_WAIT;
        while Instant::now() < until {
            sleep(MEMORY_RETRY).await;
            if let Growth::Allowed = self.grow(growing) {
                return Ok(true);
            }
        }
        self.deny(true)
    }

    /// A call begins: reserves what it may hand over to the host. Changes nothing if that is reserved already.
    pub(crate) fn begin_call(&mut self) -> Result<(), OutOfMemory> {
        self.shares
            .as_mut()
            .map_or(Ok(()), |shares| shares.begin_call(self.bytes))
    }

    /// A call has ended: gives its reservation back, since the values that it handed over are part of the measured memory from now on.
    /// Otherwise an instance that waits between two calls (of a loader or a room) would count those bytes twice, and small calls would
    /// wait for memory that is free.
    pub(crate) fn end_call(&mut self) {
        if let Some(shares) = &mut self.shares {
            // Less than before is never refused.
            _ = shares.handed_over.fit(0);
        }
    }
}

impl Drop for MemoryLimit {
    fn drop(&mut self) {
        self.account.count_bytes(-(self.bytes as isize));
    }
}

/// Answer to a guest that asks for memory.
enum Growth {
    Allowed,
    /// It is more than an instance may have.
    Denied,
    /// The server is short of memory.
    Short,
}

type GrowthResult<'a> = Pin<Box<dyn Future<Output = wasmtime::Result<bool>> + Send + 'a>>;

impl ResourceLimiterAsync for MemoryLimit {
    fn memory_growing<'a, 'b>(
        &'a mut self,
        current: usize,
        desired: usize,
        _maximum: Option<usize>,
    ) -> GrowthResult<'b>
    where
        'a: 'b,
    {
        let growing = desired.saturating_sub(current);
        match self.grow(growing) {
            Growth::Allowed => Box::pin(ready(Ok(true))),
            Growth::Denied => Box::pin(ready(self.deny(false))),
            Growth::Short if self.may_wait && self.bytes + growing <= INSTANCE_FREE_BYTES => {
                Box::pin(self.wait_to_grow(growing))
            }
            Growth::Short => Box::pin(ready(self.deny(true))),
        }
    }

    /// It was allowed, but the system had no memory.
    fn memory_grow_failed(&mut self, _error: wasmtime::Error) -> wasmtime::Result<()> {
        let growing = std::mem::take(&mut self.growing);
        self.bytes -= growing;
        self.account.count_bytes(-(growing as isize));
        Ok(())
    }

    fn table_growing<'a, 'b>(
        &'a mut self,
        current: usize,
        desired: usize,
        _maximum: Option<usize>,
    ) -> GrowthResult<'b>
    where
        'a: 'b,
    {
        let entries = self
            .table_entries
            .saturating_add(desired.saturating_sub(current));
        let allowed = entries <= TABLE_ENTRIES_MAX;
        if allowed {
            self.table_entries = entries;
        }
        Box::pin(ready(Ok(allowed)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::task::{Context, Poll, Waker};
    use tidegate_hub::Budget;

    const MIB: usize = 1 << 20;

    #[tokio::test]
    async fn an_instance_with_little_memory_waits_for_more_and_others_are_refused_at_once() {
        let budget = Arc::new(Budget::new(100 * MIB));
        // Nothing is left, neither for small instances nor for reservations.
        budget.look(96 * MIB);
        let limit = |bytes, may_wait| MemoryLimit {
            bytes_max: 64 * MIB,
            denied: false,
            is_short: false,
            may_wait,
            bytes,
            growing: 0,
            table_entries: 0,
            account: InstanceAccount::new(1),
            shares: Some(Reservations::new(&MemoryAccount::new(&budget), MIB)),
        };
        // Bytes before and after, whether a call runs, and whether it waits.
        let cases = [
            (MIB, MIB + 1, true, true),
            (MIB, INSTANCE_FREE_BYTES, true, true),
            (MIB, INSTANCE_FREE_BYTES + 1, true, false),
            (0, MIB, false, false),
        ];
        let mut cx = Context::from_waker(Waker::noop());
        for (before, after, may_wait, waits) in cases {
            let mut limit = limit(before, may_wait);
            let first = limit
                .memory_growing(before, after, None)
                .as_mut()
                .poll(&mut cx)
                .map(Result::unwrap);
            let expected = if waits {
                Poll::Pending
            } else {
                Poll::Ready(false)
            };
            assert_eq!(first, expected, "{before} to {after}");
            assert_eq!(
                (limit.is_short, limit.bytes),
                (!waits, before),
                "{before} to {after}"
            );
        }

        let mut limit = limit(MIB, true);
        let mut growing = limit.memory_growing(MIB, MIB + 1, None);
        assert!(growing.as_mut().poll(&mut cx).is_pending());
        // Earlier measurements expire.
        (0..10_000).for_each(|_| _ = budget.look(0));
        assert!(growing.await.unwrap() && !limit.denied && limit.bytes == MIB + 1);
    }
}
