//! Puts the parts together: an app and its table, a hub, worker threads, the signals to stop.

use crate::{
    config::Config,
    control::{self, Door},
    failure::Failure,
};
use anyhow::{Context as _, anyhow};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::{
    future::{Future, pending},
    hash::{BuildHasher as _, RandomState},
    io,
    path::Path,
    process,
    sync::Arc,
    thread,
    time::{Duration, SystemTime},
};
use tidegate_disk::Storage;
use tidegate_hub::{App, Hub, Limits, Manifest, Rooms, Table, Violation};
use tidegate_wasm::{LoadError, Loaded};
use tokio::{
    runtime::{Builder, Handle, Runtime},
    signal::unix::{Signal, SignalKind, signal},
    sync::oneshot,
};

/// A runtime for the thread that it is driven on.
pub(crate) fn runtime() -> io::Result<Runtime> {
    Builder::new_current_thread().enable_all().build()
}

/// Loads the component and checks its routes: every rule that it breaks is listed.
pub(crate) async fn load(path: &Path, config: &Config) -> Result<(Loaded, Table), Failure> {
    let loaded = tidegate_wasm::load(path, config.app.clone()).await.map_err(|error| unfit(path, &error))?;
    let table = match loaded.manifest() {
        Some(manifest) => Table::new(manifest, loaded.exports()).map_err(|violations| refused(path, &violations))?,
        None => Table::whole(),
    };
    Ok((loaded, table))
}

/// The file's name and what is wrong with it, which a compiler may tell in many lines: here in one.
fn unfit(path: &Path, error: &LoadError) -> Failure {
    let told = error.to_string();
    let words: Vec<&str> = told.split_whitespace().collect();
    anyhow!("{} {}", path.display(), words.join(" ")).into()
}

fn refused(path: &Path, violations: &[Violation]) -> Failure {
    let count = match violations.len() {
        1 => "a rule".to_owned(),
        count => format!("{count} rules"),
    };
    let lines: String = violations.iter().map(|violation| format!("\n  {violation}")).collect();
    anyhow!("{} breaks {count} for routes and guards, so nothing of it is served:{lines}", path.display()).into()
}

/// A hub whose ids and topics are told from those of every other run.
pub(crate) fn hub(config: &Config) -> Arc<Hub> {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let seed = RandomState::new().hash_one((now, process::id()));
    // Rooms leave some instances to everything else.
    let rooms_awake_max = config.limits.rooms_awake_max.min(config.app.instances_max.div_ceil(2));
    Hub::new(Limits { rooms_awake_max, ..config.limits.clone() }, config.topics.clone(), seed)
}

/// How often hub and rooms learn what time it is: an alarm is late by no more than this and the time that its room needs.
const TICK: Duration = Duration::from_millis(100);

/// The app with its rooms: their storage is opened, they are called when their alarms are due, and the server's owner may command it.
pub(crate) fn with_rooms(
    app: Arc<dyn App>,
    hub: &Arc<Hub>,
    manifest: &Manifest,
    config: &Config,
    worker: &Handle,
) -> Result<(Arc<dyn App>, Option<Door>), Failure> {
    let storage = Arc::new(Storage::open(&config.data)?);
    let door = control::open(worker, &config.data, &storage);
    let door = door.inspect_err(|error| tracing::warn!("there is no control socket: {error}")).ok();
    let spawn = Box::new(|task| _ = tokio::spawn(task));
    let rooms = Rooms::new(hub.clone(), app, storage, manifest, spawn, unix_ms())
        .with_context(|| format!("can't read the alarms of {}", config.data.display()))?;
    tick(worker, &rooms, |rooms| rooms.tick(unix_ms()));
    Ok((rooms, door))
}

/// Calls `ticked` with the time every now and then, as long as somebody has it.
pub(crate) fn tick<T: Send + Sync + 'static>(worker: &Handle, ticked: &Arc<T>, tick: impl Fn(&T) + Send + 'static) {
    let ticked = Arc::downgrade(ticked);
    worker.spawn(async move {
        while let Some(ticked) = ticked.upgrade() {
            tick(&ticked);
            drop(ticked);
            tokio::time::sleep(TICK).await;
        }
    });
}

/// The time of day, which the hub doesn't know by itself.
pub(crate) fn unix_ms() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_millis() as u64
}

/// Threads with a runtime each, driven until the process ends.
pub(crate) fn workers(count: usize) -> Result<Vec<Handle>, Failure> {
    let start = |number: usize| -> io::Result<Handle> {
        let runtime = runtime()?;
        let handle = runtime.handle().clone();
        thread::Builder::new().name(format!("worker {number}")).spawn(move || runtime.block_on(pending::<()>()))?;
        Ok(handle)
    };
    let workers: io::Result<Vec<Handle>> = (0..count).map(start).collect();
    Ok(workers.with_context(|| format!("can't start {count} workers: pass fewer with --workers"))?)
}

/// Lets the process open as many files as it is allowed to: each connection is one.
pub(crate) fn raise_open_files() {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    _ = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
}

/// Ready at the first SIGINT or SIGTERM; a second one ends the process at once.
pub(crate) fn stop_signal() -> io::Result<impl Future<Output = ()>> {
    let mut signals = [signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?];
    let (tell, told) = oneshot::channel();
    tokio::spawn(async move {
        either(&mut signals).await;
        tracing::info!("draining; a second signal stops at once");
        _ = tell.send(());
        let code = 128 + either(&mut signals).await;
        process::exit(code);
    });
    Ok(async { _ = told.await })
}

/// Waits for one of the two; its number.
async fn either([interrupt, terminate]: &mut [Signal; 2]) -> i32 {
    tokio::select! {
        _ = interrupt.recv() => SignalKind::interrupt().as_raw_value(),
        _ = terminate.recv() => SignalKind::terminate().as_raw_value(),
    }
}
