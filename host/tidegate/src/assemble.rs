//! Builds the parts of a server: the app with its routes, the hub, worker threads, and signal
//! handlers.

use crate::{
    command_error::CommandError, config::Config, logging, memory_limit, problem::Rejection,
};
use anyhow::Context as _;
use rustix::{
    process::{Resource, Rlimit, getrlimit, setrlimit},
    time::{ClockId, clock_gettime},
};
use std::{
    future::{Future, pending},
    hash::{BuildHasher as _, RandomState},
    io::{self, IsTerminal as _},
    path::Path,
    process,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, SystemTime},
};
use tidegate_hub::{Hub, Limits, Now};
use tidegate_routing::Router;
use tidegate_wasm::{LoadedApp, Options};
use tokio::{
    runtime::{Builder, Handle, Runtime},
    signal::unix::{Signal, SignalKind, signal},
    sync::{mpsc, oneshot},
};

/// Number of tasks that a worker polls before it polls its sockets again, while a task is always
/// ready.
const TASKS_BETWEEN_SOCKETS: u32 = 16;

/// Builds a single-threaded runtime, driven by the thread that calls `block_on`.
pub(crate) fn runtime() -> io::Result<Runtime> {
    Builder::new_current_thread()
        .enable_all()
        .event_interval(TASKS_BETWEEN_SOCKETS)
        .build()
}

/// Loads the component and checks its routes. The error lists every violated rule.
pub(crate) async fn load(
    path: &Path,
    options: Options,
) -> Result<(LoadedApp, Router), CommandError> {
    let loaded = tidegate_wasm::load(path, options)
        .await
        .map_err(|error| CommandError::Rejected(Rejection::load(path, &error)))?;
    let router = match loaded.manifest() {
        Some(manifest) => Router::new(manifest, loaded.exports())
            .map_err(|violations| CommandError::Rejected(Rejection::rules(path, &violations)))?,
        None => Router::for_wasi_http(),
    };
    Ok((loaded, router))
}

/// Builds a hub whose ids and topic epochs differ from those of every other run.
pub(crate) fn hub(config: &Config) -> Arc<Hub> {
    let now = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    let seed = RandomState::new().hash_one((now, process::id()));
    // A quarter of the instances is reserved for rooms. So a room that wakes always finds an
    // instance, or an idle room to evict. Rooms that run at the same time may use more than the
    // quarter.
    let rooms_awake_max = config
        .limits
        .rooms_awake_max
        .min((config.app.instances_max / 4).max(1));
    let memory_max = memory_limit::bytes_max(config.limits.memory_max);
    Hub::new(
        Limits {
            rooms_awake_max,
            memory_max,
            ..config.limits.clone()
        },
        config.topics.clone(),
        seed,
    )
}

/// Time between two ticks of hub and rooms. An alarm is late by at most this, plus the time that
/// its room needs.
const TICK: Duration = Duration::from_millis(100);

/// Calls `tick` with `ticked` every [`TICK`], on this worker, until `ticked` is dropped elsewhere.
pub(crate) fn tick<T: Send + Sync + 'static>(
    worker: &Handle,
    ticked: &Arc<T>,
    tick: impl Fn(&T) + Send + 'static,
) {
    let ticked = Arc::downgrade(ticked);
    worker.spawn(async move {
        while let Some(ticked) = ticked.upgrade() {
            tick(&ticked);
            drop(ticked);
            tokio::time::sleep(TICK).await;
        }
    });
}

/// Returns the current time for the hub, which reads no clock. Its durations include the time for
/// which the machine was suspended.
pub(crate) fn now() -> Now {
    #[cfg(target_os = "linux")]
    const MONOTONIC: ClockId = ClockId::Boottime;
    #[cfg(not(target_os = "linux"))]
    const MONOTONIC: ClockId = ClockId::Monotonic;
    let monotonic = clock_gettime(MONOTONIC);
    Now {
        monotonic: monotonic.tv_sec as u64 * 1000 + monotonic.tv_nsec as u64 / 1_000_000,
        wall: unix_ms(),
    }
}

/// Returns the Unix time, in milliseconds.
pub(crate) fn unix_ms() -> u64 {
    SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default()
        .as_millis() as u64
}

/// Starts `count` threads, each with a runtime that it drives until the process ends.
pub(crate) fn workers(count: usize) -> Result<Vec<Handle>, CommandError> {
    let start = |number: usize| -> io::Result<Handle> {
        let runtime = runtime()?;
        let handle = runtime.handle().clone();
        thread::Builder::new()
            .name(format!("worker {number}"))
            .spawn(move || runtime.block_on(pending::<()>()))?;
        Ok(handle)
    };
    let workers: io::Result<Vec<Handle>> = (0..count).map(start).collect();
    Ok(workers
        .with_context(|| format!("can't start {count} workers: use fewer, with --workers"))?)
}

/// Number of descriptors reserved for storage, log, control socket and outgoing requests. If the
/// process may open fewer than twice as many, half of them are reserved.
const FILES_RESERVED: u64 = 512;

/// Raises the limit of open files (RLIMIT_NOFILE) to its maximum, since each connection uses one.
/// Returns the limit; none if the number is not limited.
pub(crate) fn raise_open_files() -> Option<u64> {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    // If the hard limit can't be reached (the kernel of macOS has a lower one), the old limit
    // stays.
    _ = setrlimit(
        Resource::Nofile,
        Rlimit {
            current: maximum,
            maximum,
        },
    );
    getrlimit(Resource::Nofile).current
}

/// Returns the number of sockets for clients if the process may open `files`, and a warning for the
/// operator if the number is below the setting `set`, or low.
pub(crate) fn sockets_max(
    files: Option<u64>,
    set: Option<usize>,
) -> (Option<usize>, Option<String>) {
    let Some(files) = files else {
        return (set, None);
    };
    let reserved = FILES_RESERVED.min(files.div_ceil(2));
    let room = usize::try_from(files - reserved).unwrap_or(usize::MAX);
    let advice = "raise RLIMIT_NOFILE (ulimit -n, LimitNOFILE of systemd)";
    let warning = match set {
        Some(set) if set > room => Some(format!(
            "sockets_max is {room} instead of {set}: the process may open {files} files; {advice}"
        )),
        None if reserved < FILES_RESERVED => Some(format!(
            "sockets_max is {room}: the process may open only {files} files; {advice}"
        )),
        _ => None,
    };
    (Some(set.map_or(room, |set| set.min(room))), warning)
}

/// The signal handlers of the process. A separate thread runs them from the construction of this
/// value on. So signals work while other threads compile, and in process 1 of a container, to which
/// the kernel delivers only handled signals.
pub(crate) struct Signals {
    is_serving: Arc<AtomicBool>,
    stop: oneshot::Receiver<()>,
    reloads: mpsc::Receiver<()>,
}

impl Signals {
    /// Starts the thread. Until [`serve`](Signals::serve), SIGINT and SIGTERM end the process with
    /// exit code 0, since there is nothing to drain.
    pub(crate) fn handle() -> io::Result<Signals> {
        let runtime = runtime()?;
        let handlers = {
            let _inside = runtime.enter();
            Handlers::register()?
        };
        let is_serving = Arc::<AtomicBool>::default();
        let (stop_sender, stop) = oneshot::channel();
        let (reload_sender, reloads) = mpsc::channel(1);
        let signals = Signals {
            is_serving: is_serving.clone(),
            stop,
            reloads,
        };
        thread::Builder::new()
            .name("signals".into())
            .spawn(move || {
                runtime.block_on(handlers.handle(&is_serving, stop_sender, reload_sender))
            })?;
        Ok(signals)
    }

    /// Makes the first signal start a drain. The returned future resolves at the first SIGINT or
    /// SIGTERM, or when the terminal of the process closes; a second signal ends the process at
    /// once. Any other SIGHUP sends a request to reload to the returned channel.
    pub(crate) fn serve(self) -> (impl Future<Output = ()>, mpsc::Receiver<()>) {
        self.is_serving.store(true, Ordering::SeqCst);
        let stop = self.stop;
        (async { _ = stop.await }, self.reloads)
    }
}

struct Handlers {
    stops: [Signal; 2],
    hangup: Signal,
    had_terminal: bool,
}

impl Handlers {
    fn register() -> io::Result<Handlers> {
        let stops = [
            signal(SignalKind::interrupt())?,
            signal(SignalKind::terminate())?,
        ];
        Ok(Handlers {
            stops,
            hangup: signal(SignalKind::hangup())?,
            had_terminal: io::stdin().is_terminal(),
        })
    }

    async fn handle(
        mut self,
        is_serving: &AtomicBool,
        stop: oneshot::Sender<()>,
        reload: mpsc::Sender<()>,
    ) {
        loop {
            tokio::select! {
                            _ = either(&mut self.stops) => break,
                            _ = self.hangup.recv() => {
                                if self.had_terminal && !io::stdin().is_terminal() {
                                    break;
                                }
                                // A pending reload will read the newest file, so a second one is
                                // not needed.
            _ = reload.try_send(());
                            }
                        }
        }
        if !is_serving.load(Ordering::SeqCst) {
            tracing::info!("stopped before anything was served");
            logging::finish();
            process::exit(0);
        }
        tracing::info!("draining; a second signal stops at once");
        _ = stop.send(());
        let code = 128 + either(&mut self.stops).await;
        process::exit(code);
    }
}

/// Waits for one of the two signals, and returns its number.
async fn either([interrupt, terminate]: &mut [Signal; 2]) -> i32 {
    tokio::select! {
        _ = interrupt.recv() => SignalKind::interrupt().as_raw_value(),
        _ = terminate.recv() => SignalKind::terminate().as_raw_value(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_leave_files_to_the_rest_of_the_process() {
        let cases = [
            (Some(1_048_576), None, Some(1_048_064), false),
            (Some(20_000), None, Some(19_488), false),
            (Some(1024), None, Some(512), false),
            (Some(1023), None, Some(511), false),
            (Some(1022), None, Some(511), true),
            (Some(300), None, Some(150), true),
            (Some(1), None, Some(0), true),
            (Some(20_000), Some(7), Some(7), false),
            (Some(20_000), Some(19_488), Some(19_488), false),
            (Some(20_000), Some(19_489), Some(19_488), true),
            (Some(300), Some(100), Some(100), false),
            (None, None, None, false),
            (None, Some(7), Some(7), false),
        ];
        for (files, set, expected, warns) in cases {
            let (sockets, warning) = sockets_max(files, set);
            assert_eq!(
                (sockets, warning.is_some()),
                (expected, warns),
                "{files:?} {set:?}"
            );
        }
    }
}
