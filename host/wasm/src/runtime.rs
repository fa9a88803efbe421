//! The engine that compiles and runs an app, and its clock.

use crate::{Options, meter::TICK, stdio::AppOutput};
use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Instant,
};
use wasmtime::{
    Config, Enabled, Engine, InstanceAllocationStrategy, PoolingAllocationConfig, Strategy,
    WasmBacktraceDetails,
};

/// Slots of the pool of instances that keep their dirty pages while no instance is in them.
const WARM_SLOTS_MAX: u32 = 32;

/// One engine: an app's own, since an app with `async` exports wants another configuration than one without.
pub(crate) struct Runtime {
    pub(crate) engine: Engine,
    /// Ticks since the engine was made.
    pub(crate) now: Arc<AtomicU64>,
    pub(crate) concurrent: bool,
    each_second: Arc<OnceLock<Housekeeping>>,
    /// Output of its instances.
    pub(crate) output: Arc<AppOutput>,
}

/// Work that does not wait for a worker.
type Housekeeping = Box<dyn Fn() + Send + Sync>;

/// Ticks between two turns of it.
const SECOND: u64 = 100;

impl Runtime {
    /// `concurrent`: for `wasi:http` 0.3; without it a call costs half.
    pub(crate) fn new(
        options: &Options,
        concurrent: bool,
        compiler: Strategy,
    ) -> wasmtime::Result<Runtime> {
        let pooled = Engine::new(&config(options, concurrent, compiler, true));
        let engine = match pooled {
            Ok(engine) => engine,
            Err(error) => {
                tracing::warn!(
                    "no address space for a pool of instances, so they are made one by one: {error:#}"
                );
                Engine::new(&config(options, concurrent, compiler, false))?
            }
        };
        let now = Arc::new(AtomicU64::new(0));
        let each_second = Arc::new(OnceLock::new());
        let output = AppOutput::new(options);
        start_clock(&engine, now.clone(), each_second.clone(), output.clone());
        Ok(Runtime {
            engine,
            now,
            concurrent,
            each_second,
            output,
        })
    }

    /// Runs `work` about once a second from now on, on the clock's thread, so it has to be short.
    pub(crate) fn each_second(&self, work: Housekeeping) {
        _ = self.each_second.set(work);
    }
}

fn config(options: &Options, concurrent: bool, compiler: Strategy, pooled: bool) -> Config {
    let mut config = Config::new();
    config.strategy(compiler);
    config.concurrency_support(concurrent);
    config.wasm_component_model_async(concurrent);
    config.epoch_interruption(true);
    config.wasm_backtrace_details(WasmBacktraceDetails::Enable);
    config.memory_init_cow(true);
    if pooled {
        config.allocation_strategy(InstanceAllocationStrategy::Pooling(pool(
            options, concurrent,
        )));
    }
    config
}

/// Core instances of one component; a component made by `cargo component` has four, one of an interpreter some more.
const CORE_INSTANCES_MAX: u32 = 64;

/// As many slots of each kind as instances need, so that only the account of instances says no. Core instances are only counted.
/// Memories, tables and stacks take address space: components that need more of them than this have fewer instances.
/// While a version is loaded it has an instance beside those of the account.
fn pool(options: &Options, concurrent: bool) -> PoolingAllocationConfig {
    let instances = u32::try_from(options.instances_max)
        .unwrap_or(u32::MAX)
        .min(100_000)
        + 1;
    // A guest of 0.3 may wait in several tasks at a time.
    let stacks = if concurrent { instances * 2 } else { instances };
    let mut pool = PoolingAllocationConfig::new();
    pool.total_component_instances(instances)
        .total_core_instances(instances * CORE_INSTANCES_MAX)
        .total_memories(instances * 2)
        .total_tables(instances * 4)
        .total_stacks(stacks)
        .max_component_instance_size(10 << 20)
        .max_core_instance_size(10 << 20)
        .max_core_instances_per_component(CORE_INSTANCES_MAX)
        .max_memories_per_component(8)
        .max_tables_per_component(32)
        .max_memory_size(options.memory_bytes_max)
        .table_elements(100_000)
        // Pages that an instance wrote are reset in place for the next one. Without the scan (before
        // Linux 6.7) all pages would be reset, and stay in memory.
        .pagemap_scan(Enabled::Auto)
        // Memory that a slot keeps without an instance is in no budget, so its bound is small: 18 MiB in all.
        .max_unused_warm_slots(WARM_SLOTS_MAX)
        .linear_memory_keep_resident(512 << 10)
        .table_keep_resident(64 << 10);
    pool
}

/// Ends with the engine. Not a task: it has to tick while every worker is busy with guests.
fn start_clock(
    engine: &Engine,
    now: Arc<AtomicU64>,
    each_second: Arc<OnceLock<Housekeeping>>,
    output: Arc<AppOutput>,
) {
    let engine = engine.weak();
    thread::spawn(move || {
        loop {
            thread::sleep(TICK);
            let Some(engine) = engine.upgrade() else {
                return;
            };
            let tick = now.fetch_add(1, Ordering::Relaxed);
            engine.increment_epoch();
            if !tick.is_multiple_of(SECOND) {
                continue;
            }
            output.say_dropped(Instant::now());
            if let Some(work) = each_second.get() {
                work();
            }
        }
    });
}
