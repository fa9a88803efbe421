//! What is served: an app in its present version, its rooms, and how another version takes its place.

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
use tidegate_hub::{App, Engine, Hub, Now, RoomId, RoomRouter, Rooms, testing::Memory};
use tidegate_routing::{Manifest, Router};
use tidegate_wasm::{Clock, Compiled, Instances, Loaded, Options};
use tokio::{runtime::Handle, sync::Mutex as AsyncMutex, task::spawn_blocking};

/// A served app. Its versions follow each other; hub, rooms and connections stay.
pub(crate) struct Deployment {
    app: Mutex<PathBuf>,
    config: Config,
    /// Of the versions to come.
    options: Mutex<Options>,
    environment: Environment,
    hub: Arc<Hub>,
    /// Account of the instances of all versions.
    instances: Instances,
    server: Arc<Server>,
    room_store: Arc<RoomStore>,
    /// One change at a time.
    changes: AsyncMutex<()>,
    history: Mutex<VersionHistory>,
}

/// What a deployment stands on: where rooms keep what they keep, and where time comes from.
pub(crate) enum Environment {
    /// The disk, and the time of day, told by this worker.
    Real(Handle),
    /// Memory, and a clock that somebody else moves.
    Test(Memory, Clock),
}

/// What rooms keep: opened with the first version that has rooms.
#[derive(Default)]
struct RoomStore(OnceLock<(Option<Arc<Storage>>, Arc<Rooms>)>);

struct VersionHistory {
    present: NumberedVersion,
    /// Where a rollback goes.
    before: Option<NumberedVersion>,
    /// Of the newest.
    number: u32,
}

/// A version with what is to be done to serve it.
#[derive(Clone)]
struct NumberedVersion {
    number: u32,
    version: Arc<Version>,
    front: Option<Arc<RoomRouter>>,
    manifest: Option<Arc<Manifest>>,
}

/// Another version is served. Its `Display` is one line for operators.
pub(crate) struct DeployReport {
    /// Counted from 1, since the start of the server.
    pub(crate) number: u32,
    /// None for a version that was there before.
    pub(crate) compiled: Option<Compiled>,
    /// From its being ready until it was served.
    pub(crate) took: Duration,
    pub(crate) swapped: Swapped,
}

impl Deployment {
    /// The first version. Nothing is served before somebody serves [`server`](Deployment::server).
    pub(crate) fn new(
        app: &Path,
        config: &Config,
        environment: Environment,
        loaded: Loaded,
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
        let present = numbered_version(
            1,
            loaded,
            router,
            (&hub, &instances),
            &room_store,
            config,
            &environment,
        )?;
        if let Some(front) = &present.front {
            front.serve();
        }
        let server = Server::new(hub.clone(), present.version.clone(), config.edge.clone());
        let history = Mutex::new(VersionHistory {
            present,
            before: None,
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

    /// What the present version mounts.
    pub(crate) fn manifest(&self) -> Option<Arc<Manifest>> {
        self.history().present.manifest.clone()
    }

    /// Where rooms are kept, if the app has any.
    pub(crate) fn storage(&self) -> Option<Arc<Storage>> {
        self.room_store.0.get()?.0.clone()
    }

    /// Its rooms, if it ever had any.
    pub(crate) fn rooms(&self) -> Option<Arc<Rooms>> {
        self.room_store.0.get().map(|(_, rooms)| rooms.clone())
    }

    /// Drops what is kept in case it is wanted: idle instances, rooms that were idle for so long, and what topics keep.
    pub(crate) fn shed(&self, room_idle: Duration) {
        self.instances.shed_idle();
        if let Some(rooms) = self.rooms() {
            rooms.shed(room_idle);
        }
        self.hub.shed();
    }

    /// Versions to come are loaded from this file.
    pub(crate) fn set_app(&self, path: &Path) {
        *self.app() = path.to_owned();
    }

    /// Loads the file again, beside the version that is served, and puts it in its place. If anything is wrong with it, nothing changes.
    pub(crate) async fn reload(self: &Arc<Deployment>) -> Result<DeployReport, CommandError> {
        let _turn = self.changes.lock().await;
        self.load().await
    }

    /// Puts the version that was served before in its place again; a second rollback undoes that.
    pub(crate) async fn roll_back(&self) -> Result<DeployReport, CommandError> {
        let _turn = self.changes.lock().await;
        self.go_back()
    }

    async fn load(self: &Arc<Deployment>) -> Result<DeployReport, CommandError> {
        let deployment = self.clone();
        // Compiling takes seconds, and nobody may have to wait for it.
        let load = move || {
            assemble::runtime()?.block_on(assemble::load(
                &deployment.app().clone(),
                deployment.options().clone(),
            ))
        };
        let (loaded, router) = spawn_blocking(load)
            .await
            .map_err(|error| anyhow!("loading it ended in a panic: {error}"))??;
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

    fn go_back(&self) -> Result<DeployReport, CommandError> {
        let before = self
            .history()
            .before
            .clone()
            .context("there is no version before this one")?;
        let (began, number) = (Instant::now(), before.number);
        let swapped = self.put(before);
        Ok(DeployReport {
            number,
            compiled: None,
            took: began.elapsed(),
            swapped,
        })
    }

    fn put(&self, numbered_version: NumberedVersion) -> Swapped {
        if let Some(front) = &numbered_version.front {
            front.serve();
        }
        let swapped = self.server.swap(numbered_version.version.clone());
        let mut history = self.history();
        history.number = history.number.max(numbered_version.number);
        history.before = Some(std::mem::replace(&mut history.present, numbered_version));
        swapped
    }

    /// Sets the options of later versions. The addresses at which the server listens do not change.
    pub(crate) fn set_options(&self, options: Options) {
        let mut present = self.options();
        let own = present.outbound.own.clone();
        *present = options;
        present.outbound.own = own;
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

/// Tells the log what became of a change.
pub(crate) fn log_outcome(
    outcome: Result<DeployReport, CommandError>,
) -> Result<DeployReport, CommandError> {
    match &outcome {
        Ok(change) => tracing::info!("{change}"),
        Err(failure) => tracing::error!("nothing changes: {failure}"),
    }
    outcome
}

/// Connects a version to hub and rooms; nobody calls it yet.
fn numbered_version(
    number: u32,
    loaded: Loaded,
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
    /// Opens the storage, and has rooms called when their alarms are due.
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
            Some(Compiled { origin, took }) => {
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
