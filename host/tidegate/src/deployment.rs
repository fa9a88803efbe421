//! A served app: its current version, its rooms, and the replacement of one version by another.
//!
//! A version is a compiled component with its routes. A reload compiles the next version on a
//! blocking thread while the current one serves, then replaces it in one step; a rollback serves
//! the previous version again. Hub, rooms, storage and connections belong to the deployment and
//! survive both.
//!
//! Owner: the commands `serve` and `dev`, the control socket and the scripts of `tidegate test`
//! share one [`Deployment`] per server.
//!
//! States: the current version, and the previous one as the target of a rollback. `changes` is held
//! for a whole reload or rollback, so versions change one at a time, in the order of the requests.
//!
//! Invariant: a version serves only if all of it was loaded. An error leaves the current one
//! unchanged.
//!
//! The edge's [`Server`] moves requests and WebSockets to the new version; rooms move by their
//! router (`Front`). This module does neither.

use crate::{assemble, command_error::CommandError, config::Config, report};
use anyhow::{Context as _, anyhow};
use std::{
    fmt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, OnceLock},
    time::{Duration, Instant},
};
use tidegate_disk::Storage;
use tidegate_edge::{Server, Swapped, Version};
use tidegate_hub::{App, Engine, Hub, Now, RoomId, RoomRouter, Rooms, testing::MemoryEngine};
use tidegate_routing::{Manifest, Router};
use tidegate_wasm::{Clock, Compilation, Instances, LoadedApp, Options};
use tokio::{runtime::Handle, sync::Mutex as AsyncMutex, task::spawn_blocking};

/// A served app. Versions replace each other; hub, rooms and connections stay.
pub(crate) struct Deployment {
    /// File of later versions.
    app: Mutex<PathBuf>,
    config: Config,
    /// Options of later versions.
    options: Mutex<Options>,
    environment: Environment,
    hub: Arc<Hub>,
    /// Account of the instances of all versions.
    instances: Instances,
    server: Arc<Server>,
    room_store: Arc<RoomStore>,
    /// Held during a reload or rollback, so that one runs at a time.
    changes: AsyncMutex<()>,
    history: Mutex<VersionHistory>,
}

/// The storage of rooms, and the source of time.
pub(crate) enum Environment {
    /// The disk, and the system's clock, which this worker reads.
    Real(Handle),
    /// Memory, and a clock that the caller advances.
    Test(MemoryEngine, Clock),
}

/// Storage and scheduler of rooms: opened with the first version that has rooms.
#[derive(Default)]
struct RoomStore(OnceLock<(Option<Arc<Storage>>, Arc<Rooms>)>);

struct VersionHistory {
    current: NumberedVersion,
    /// Target of a rollback.
    previous: Option<NumberedVersion>,
    /// Number of the newest version.
    number: u32,
}

/// A version, its number, and its router of room events.
#[derive(Clone)]
struct NumberedVersion {
    number: u32,
    version: Arc<Version>,
    front: Option<Arc<RoomRouter>>,
    manifest: Option<Arc<Manifest>>,
}

/// Result of a reload or rollback. Its `Display` is one line for operators.
pub(crate) struct DeployReport {
    /// Counted from 1, since the start of the server.
    pub(crate) number: u32,
    /// None after a rollback.
    pub(crate) compiled: Option<Compilation>,
    /// Time from the end of loading until the version was served.
    pub(crate) took: Duration,
    pub(crate) swapped: Swapped,
}

impl Deployment {
    /// Creates a deployment with its first version. Requests arrive once the edge serves
    /// [`server`](Deployment::server).
    pub(crate) fn new(
        app: &Path,
        config: &Config,
        environment: Environment,
        loaded: LoadedApp,
        router: Router,
    ) -> Result<Arc<Deployment>, CommandError> {
        let hub = assemble::hub(config);
        let room_store = Arc::<RoomStore>::default();
        let instances = Instances::new(config.app.instances_max);
        match &environment {
            Environment::Real(worker) => {
                assemble::tick(worker, &hub, |hub| hub.tick(assemble::now()))
            }
            Environment::Test(_, clock) => hub.tick(Now::at(clock.now())),
        }
        let current = numbered_version(
            1,
            loaded,
            router,
            (&hub, &instances),
            &room_store,
            config,
            &environment,
        )?;
        if let Some(front) = &current.front {
            front.serve();
        }
        let server = Server::new(hub.clone(), current.version.clone(), config.edge.clone());
        let history = Mutex::new(VersionHistory {
            current,
            previous: None,
            number: 1,
        });
        Ok(Arc::new(Deployment {
            app: Mutex::new(app.to_owned()),
            config: config.clone(),
            options: Mutex::new(config.app.clone()),
            environment,
            hub,
            instances,
            server,
            room_store,
            changes: AsyncMutex::default(),
            history,
        }))
    }

    pub(crate) fn hub(&self) -> &Arc<Hub> {
        &self.hub
    }

    pub(crate) fn server(&self) -> &Arc<Server> {
        &self.server
    }

    /// Returns the manifest of the current version.
    pub(crate) fn manifest(&self) -> Option<Arc<Manifest>> {
        self.history().current.manifest.clone()
    }

    /// Returns the storage of rooms; none without rooms, or in memory.
    pub(crate) fn storage(&self) -> Option<Arc<Storage>> {
        self.room_store.0.get()?.0.clone()
    }

    /// Returns the rooms; none if no version had any.
    pub(crate) fn rooms(&self) -> Option<Arc<Rooms>> {
        self.room_store.0.get().map(|(_, rooms)| rooms.clone())
    }

    /// Frees memory that only saves time later: idle instances, rooms that were idle for
    /// `room_idle`, and histories of topics.
    pub(crate) fn shed(&self, room_idle: Duration) {
        self.instances.shed_idle();
        if let Some(rooms) = self.rooms() {
            rooms.shed(room_idle);
        }
        self.hub.shed();
    }

    /// Sets the file of later versions.
    pub(crate) fn set_app(&self, path: &Path) {
        *self.app() = path.to_owned();
    }

    /// Loads the file again while the current version serves, and then serves the new version. An
    /// error changes nothing.
    pub(crate) async fn reload(self: &Arc<Deployment>) -> Result<DeployReport, CommandError> {
        let _turn = self.changes.lock().await;
        self.load().await
    }

    /// Serves the previous version again; a second rollback undoes the first.
    pub(crate) async fn roll_back(&self) -> Result<DeployReport, CommandError> {
        let _turn = self.changes.lock().await;
        self.serve_previous()
    }

    async fn load(self: &Arc<Deployment>) -> Result<DeployReport, CommandError> {
        let deployment = self.clone();
        // Compiling takes seconds: on a blocking thread it delays no request.
        let load = move || {
            assemble::runtime()?.block_on(assemble::load(
                &deployment.app().clone(),
                deployment.options().clone(),
            ))
        };
        let (loaded, router) = spawn_blocking(load)
            .await
            .map_err(|error| anyhow!("the load of the app panicked: {error}"))??;
        let compiled = loaded.compiled();
        let number = self.history().number + 1;
        let began = Instant::now();
        let numbered_version = numbered_version(
            number,
            loaded,
            router,
            (&self.hub, &self.instances),
            &self.room_store,
            &self.config,
            &self.environment,
        )?;
        let swapped = self.put(numbered_version);
        Ok(DeployReport {
            number,
            compiled: Some(compiled),
            took: began.elapsed(),
            swapped,
        })
    }

    fn serve_previous(&self) -> Result<DeployReport, CommandError> {
        let previous = self
            .history()
            .previous
            .clone()
            .context("there is no earlier version")?;
        let (began, number) = (Instant::now(), previous.number);
        let swapped = self.put(previous);
        Ok(DeployReport {
            number,
            compiled: None,
            took: began.elapsed(),
            swapped,
        })
    }

    /// Serves this version from now on.
    fn put(&self, numbered_version: NumberedVersion) -> Swapped {
        if let Some(front) = &numbered_version.front {
            front.serve();
        }
        let swapped = self.server.swap(numbered_version.version.clone());
        let mut history = self.history();
        history.number = history.number.max(numbered_version.number);
        history.previous = Some(std::mem::replace(&mut history.current, numbered_version));
        swapped
    }

    /// Sets the options of later versions. The addresses at which the server listens do not change.
    pub(crate) fn set_options(&self, options: Options) {
        let mut current = self.options();
        let own = current.outbound.own.clone();
        *current = options;
        current.outbound.own = own;
    }

    fn options(&self) -> MutexGuard<'_, Options> {
        self.options
            .lock()
            .expect("nothing panics while it holds the options")
    }

    fn app(&self) -> MutexGuard<'_, PathBuf> {
        self.app
            .lock()
            .expect("nothing panics while it holds a path")
    }

    fn history(&self) -> MutexGuard<'_, VersionHistory> {
        self.history
            .lock()
            .expect("nothing panics while it holds the versions")
    }
}

/// Logs the outcome of a reload or rollback, and returns it.
pub(crate) fn log_outcome(
    outcome: Result<DeployReport, CommandError>,
) -> Result<DeployReport, CommandError> {
    match &outcome {
        Ok(change) => tracing::info!("{change}"),
        Err(failure) => tracing::error!("the current version stays: {failure}"),
    }
    outcome
}

/// Connects a version to hub and rooms. No events reach it yet.
fn numbered_version(
    number: u32,
    loaded: LoadedApp,
    router: Router,
    (hub, instances): (&Arc<Hub>, &Instances),
    room_store: &RoomStore,
    config: &Config,
    environment: &Environment,
) -> Result<NumberedVersion, CommandError> {
    let manifest = loaded.manifest().cloned();
    let app: Arc<dyn App> = loaded.start(hub.clone(), instances);
    let front = match &manifest {
        Some(manifest) if manifest.has_rooms() || room_store.0.get().is_some() => {
            Some(RoomRouter::new(
                room_store.rooms(hub, config, environment)?,
                app.clone(),
                Manifest::clone(manifest),
            ))
        }
        _ => None,
    };
    let app = front.clone().map_or(app, |front| front as Arc<dyn App>);
    Ok(NumberedVersion {
        number,
        version: Arc::new(Version { app, router }),
        front,
        manifest,
    })
}

impl RoomStore {
    /// Opens the storage at the first call, and starts the ticks that deliver alarms.
    fn rooms(
        &self,
        hub: &Arc<Hub>,
        config: &Config,
        environment: &Environment,
    ) -> Result<Arc<Rooms>, CommandError> {
        if let Some((_, rooms)) = self.0.get() {
            return Ok(rooms.clone());
        }
        let (storage, engine, now): (_, Arc<dyn Engine>, _) = match environment {
            Environment::Real(_) => {
                let storage = Arc::new(Storage::start(&config.data)?);
                (Some(storage.clone()), storage, assemble::now())
            }
            Environment::Test(memory, clock) => {
                (None, Arc::new(memory.clone()), Now::at(clock.now()))
            }
        };
        let spawn = Box::new(|_: &RoomId, task| _ = tokio::spawn(task));
        let rooms = Rooms::new(hub.clone(), engine, spawn, now)
            .with_context(|| format!("can't read the alarms of {}", config.data.display()))?;
        if let Environment::Real(worker) = environment {
            assemble::tick(worker, &rooms, |rooms| rooms.tick(assemble::now()));
        }
        _ = self.0.set((storage, rooms.clone()));
        Ok(rooms)
    }
}

impl fmt::Display for DeployReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Swapped {
            kept,
            closed,
            feeds,
        } = self.swapped;
        write!(f, "version {} is served", self.number)?;
        match self.compiled {
            Some(Compilation { origin, took }) => {
                write!(
                    f,
                    ": {} in {} ms, in place {:.1} ms later",
                    report::origin(origin),
                    took.as_millis(),
                    self.took.as_secs_f64() * 1000.0
                )?;
            }
            None => write!(f, " again")?,
        }
        write!(f, "; {kept} WebSockets and {feeds} feeds go on")?;
        if closed > 0 {
            write!(
                f,
                ", {closed} WebSockets were closed (1012): their routes are gone"
            )?;
        }
        Ok(())
    }
}
