//! `tidegate dev`: builds a project, serves it, and reloads it after each change.
//!
//! Owner: [`DevSession`] is one task beside the server. It takes events (changed files and keys) in
//! batches: editors save in several steps, so a batch ends when nothing happened for [`REST`].
//!
//! States: until the first successful build nothing is served (`begin`). From then on each batch
//! builds, reloads, or only notifies pages, by the kinds of the changed files.
//!
//! Invariant: a failed build or load leaves the served version in place, and its report is shown in
//! the terminal and on open pages until a later build succeeds.
//!
//! `FileWatcher` finds the changed files, `Project` runs Cargo, `Deployment` replaces the version,
//! and `DevUpdates` notifies pages.

use crate::{
    args::DevArgs,
    assemble::{self, Signals},
    command::{plural, serve},
    command_error::CommandError,
    config::Config,
    control,
    deployment::Deployment,
    dev::{Build, DevUpdates, FileKind, FileWatcher, Keys, Project, ProjectPaths},
    logging::{self, LogFormat},
    report,
};
use anyhow::Context as _;
use rustix::process::{Signal, getpid, kill_process};
use std::{
    collections::BTreeSet,
    fs::File,
    io::{stderr, stdout},
    net::SocketAddr,
    os::{fd::AsFd as _, unix::fs::MetadataExt as _},
    path::PathBuf,
    process::{Command, Stdio},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};
use tidegate_edge::{DevChannel, Hosts};
use tidegate_routing::Router;
use tidegate_wasm::LoadedApp;
use tokio::{
    sync::{
        mpsc::{UnboundedReceiver, unbounded_channel},
        watch,
    },
    task::spawn_blocking,
    time::{Instant as Deadline, timeout_at},
};

/// Time without another event after which a batch ends: an editor saves a file in several steps.
const REST: Duration = Duration::from_millis(40);

/// Time after which a batch ends even if events still arrive.
const REST_WITHIN: Duration = Duration::from_secs(1);

/// An event of the session.
enum SessionEvent {
    /// Files may have changed.
    Changed,
    Key(u8),
}

/// A project, and the watcher of its files. Clones share the watcher.
#[derive(Clone)]
struct ProjectWatch {
    cargo: Project,
    watch: Arc<Mutex<FileWatcher>>,
}

/// Sources of session events. Pending changes count as one, so the queue is bounded by the keys.
struct SessionEvents {
    changes: watch::Receiver<()>,
    keys: UnboundedReceiver<u8>,
}

impl SessionEvents {
    async fn next(&mut self) -> Option<SessionEvent> {
        tokio::select! {
            Ok(()) = self.changes.changed() => Some(SessionEvent::Changed),
            Some(key) = self.keys.recv() => Some(SessionEvent::Key(key)),
            else => None,
        }
    }

    /// Waits for a batch. Returns whether files may have changed, and the pressed keys.
    async fn gather(&mut self) -> Option<(bool, Vec<u8>)> {
        let (mut has_changes, mut keys) = (false, Vec::new());
        let mut next = Some(self.next().await?);
        let end = Deadline::now() + REST_WITHIN;
        while let Some(input) = next {
            match input {
                SessionEvent::Changed => has_changes = true,
                SessionEvent::Key(key) => keys.push(key),
            }
            next = timeout_at(end.min(Deadline::now() + REST), self.next())
                .await
                .unwrap_or_default();
        }
        Some((has_changes, keys))
    }
}

impl ProjectWatch {
    fn open(
        project: Project,
        args: &DevArgs,
        config: &Config,
        changed: watch::Sender<()>,
    ) -> Result<ProjectWatch, CommandError> {
        let paths = ProjectPaths {
            sources: project.declared().clone(),
            settings: args.settings(project.dir()),
            assets: config.edge.assets.clone(),
            written: written(&project, config),
            logs: logs(),
        };
        let watch = FileWatcher::new(paths, move || changed.send_replace(()))?;
        Ok(ProjectWatch {
            cargo: project,
            watch: Arc::new(Mutex::new(watch)),
        })
    }

    /// Returns the kinds of the files that changed since the last call.
    async fn changes(&self) -> BTreeSet<FileKind> {
        self.with(|project| project.watch().changes())
            .await
            .unwrap_or_else(|failure| {
                report(&failure);
                BTreeSet::new()
            })
    }

    /// Builds the project, then watches the files that the build read.
    async fn build(&self) -> Result<Build, String> {
        self.with(|project| {
            let built = project.cargo.build();
            let sources = project.cargo.sources();
            let mut watch = project.watch();
            let mut paths = watch.paths().clone();
            paths.sources = sources.unwrap_or(paths.sources);
            if let Err(failure) = watch.follow(paths, &project.cargo.made_sources()) {
                report(&failure);
            }
            built
        })
        .await
    }

    /// Adds directories that the app may write, so that changes there are ignored.
    async fn add_written(&self, written: BTreeSet<PathBuf>) {
        let add = |project: &ProjectWatch| {
            let mut watch = project.watch();
            let mut paths = watch.paths().clone();
            paths.written.extend(written);
            watch.follow(paths, &[])
        };
        if let Err(failure) = self.with(add).await {
            report(&failure);
        }
    }

    fn watch(&self) -> std::sync::MutexGuard<'_, FileWatcher> {
        self.watch.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs `work` on a blocking thread, outside of the event loop.
    async fn with<T: Send + 'static>(
        &self,
        work: impl FnOnce(&ProjectWatch) -> T + Send + 'static,
    ) -> T {
        let project = self.clone();
        spawn_blocking(move || work(&project))
            .await
            .expect("the work does not panic")
    }
}

/// Returns the directories that Cargo, the host and the app write.
fn written(project: &Project, config: &Config) -> BTreeSet<PathBuf> {
    let granted = config
        .app
        .dirs
        .iter()
        .filter(|dir| dir.writable)
        .map(|dir| dir.host.clone());
    granted
        .chain([project.target().to_owned(), config.data.clone()])
        .collect()
}

/// Returns device and inode of the files that stdout and stderr are redirected to.
fn logs() -> Vec<(u64, u64)> {
    let (out, err) = (stdout(), stderr());
    let files = [out.as_fd(), err.as_fd()]
        .map(|fd| File::from(fd.try_clone_to_owned().ok()?).metadata().ok());
    files
        .into_iter()
        .flatten()
        .filter(|file| file.is_file())
        .map(|file| (file.dev(), file.ino()))
        .collect()
}

/// Builds and serves until SIGINT, SIGTERM or `q`.
pub(crate) fn run(args: &DevArgs, format: LogFormat) -> Result<(), CommandError> {
    let signals = Signals::handle()?;
    let project = Project::find(&args.dir)?;
    let mut config = args.config(project.dir())?;
    control::check_path(&config.data)?;
    let channel = Arc::<DevChannel>::default();
    config.edge.dev = Some(channel.clone());
    // The setting `hosts` is ignored: by DNS rebinding, a page of a listed host could read the app
    // and its error reports.
    config.edge.hosts = Hosts::Local;
    assemble::runtime()?.block_on(dev(args, project, config, channel, format, signals))
}

async fn dev(
    args: &DevArgs,
    project: Project,
    config: Config,
    channel: Arc<DevChannel>,
    format: LogFormat,
    signals: Signals,
) -> Result<(), CommandError> {
    let (changed, changes) = watch::channel(());
    let (pressed, keys) = unbounded_channel();
    let mut events = SessionEvents { changes, keys };
    let project = ProjectWatch::open(project, args, &config, changed)?;
    let artifact = project.cargo.artifact().to_owned();
    let keys = Keys::listen(pressed, |key| key);

    let (loaded, router) = build_first(&project, &config, &mut events).await?;
    let serving = serve::Serving::open(&artifact, &config, loaded, router, signals).await?;
    serving.announce(format)?;
    let banner = if keys.is_some() {
        "r rebuild   o open in the browser   c list connections   q quit"
    } else {
        "Watching."
    };
    print(&format!("{banner}\n"));
    let session = DevSession {
        address: serving.addresses()?[0],
        updates: DevUpdates::new(channel),
        deployment: serving.deployment().clone(),
        args: args.clone(),
        project,
    };
    session.updates.send();
    tokio::spawn(session.run(events));
    serving.run(format).await
}

/// Builds after each change until a build succeeds and its app can be served.
async fn build_first(
    project: &ProjectWatch,
    config: &Config,
    events: &mut SessionEvents,
) -> Result<(LoadedApp, Router), CommandError> {
    loop {
        if project.build().await.is_ok() {
            match assemble::load(project.cargo.artifact(), config.app.clone()).await {
                Ok(loaded) => return Ok(loaded),
                Err(failure) => _ = report(&failure),
            }
        }
        print("Nothing is served yet: fix the error, and save to build again.");
        loop {
            let (has_changes, keys) = events.gather().await.unwrap_or((false, vec![b'q']));
            if keys.contains(&b'q') {
                return Err(anyhow::anyhow!("stopped before the first successful build").into());
            }
            if !keys.is_empty() || has_changes && !project.changes().await.is_empty() {
                break;
            }
        }
    }
}

/// A development session: reacts to changed files and keys.
struct DevSession {
    address: SocketAddr,
    updates: DevUpdates,
    deployment: Arc<Deployment>,
    args: DevArgs,
    project: ProjectWatch,
}

impl DevSession {
    async fn run(mut self, mut events: SessionEvents) {
        while let Some((has_changes, keys)) = events.gather().await {
            let mut kinds = if has_changes {
                self.project.changes().await
            } else {
                BTreeSet::new()
            };
            for key in keys {
                match key {
                    b'r' => _ = kinds.insert(FileKind::Source),
                    b'o' => self.open_browser(),
                    b'c' => self.list_connections(),
                    b'q' => _ = kill_process(getpid(), Signal::INT),
                    _ => {}
                }
            }
            self.handle(&kinds).await;
        }
    }

    async fn handle(&mut self, kinds: &BTreeSet<FileKind>) {
        let outcome = match (
            kinds.contains(&FileKind::Source),
            kinds.contains(&FileKind::Config),
        ) {
            (_, true) => self.reconfigure().await,
            (true, false) => self.rebuild(false).await,
            (false, false) => Ok(()),
        };
        if let Err(why) = outcome {
            print("The previous version is still served.");
            self.updates.error = Some(why);
        }
        self.updates.styles += u32::from(kinds.contains(&FileKind::Style));
        self.updates.assets += u32::from(kinds.contains(&FileKind::Asset));
        if !kinds.is_empty() {
            self.updates.send();
        }
    }

    /// Builds, and reloads if the component changed, the last reload failed, or `is_forced` is
    /// true.
    async fn rebuild(&mut self, is_forced: bool) -> Result<(), String> {
        let built = self.project.build().await?;
        if !built.is_new && !is_forced && self.updates.error.is_none() {
            print(&format!(
                "built in {:.1} s: the component did not change",
                built.took.as_secs_f64()
            ));
            return Ok(());
        }
        let began = Instant::now();
        let change = self
            .deployment
            .reload()
            .await
            .map_err(|failure| report(&failure))?;
        let load_time = began.elapsed();
        self.updates.version = change.number;
        self.updates.error = None;
        let kept = change.swapped;
        print(&format!(
            "version {}: built in {:.1} s, loaded in {} ms, {} and {} kept",
            change.number,
            built.took.as_secs_f64(),
            load_time.as_millis(),
            plural(kept.kept, "WebSocket"),
            plural(kept.feeds, "feed")
        ));
        if kept.closed > 0 {
            print(&format!(
                "{} closed (1012): the new version lacks the route",
                plural(kept.closed, "WebSocket")
            ));
        }
        Ok(())
    }

    /// Reads the settings again, and reloads. `[app]` and `[grants]` apply to the new version, other
    /// settings only after a restart.
    async fn reconfigure(&mut self) -> Result<(), String> {
        let config = self
            .args
            .config(self.project.cargo.dir())
            .map_err(|failure| report(&failure))?;
        self.project
            .add_written(written(&self.project.cargo, &config))
            .await;
        print(
            "Settings were read again: [app] and [grants] apply now, other sections after a restart.",
        );
        self.deployment.set_options(config.app);
        self.rebuild(true).await
    }

    fn open_browser(&self) {
        let opener = if cfg!(target_os = "macos") {
            "open"
        } else {
            "xdg-open"
        };
        let url = report::url(self.address);
        let opened = Command::new(opener)
            .arg(&url)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        if let Err(error) = opened.with_context(|| format!("can't run {opener}; open {url}")) {
            print(&format!("{error:#}"));
        }
    }

    fn list_connections(&self) {
        let conns = self.deployment.hub().connections().all();
        print(&plural(conns.len(), "WebSocket"));
        for conn in conns {
            let route = conn.route().map_or("", |route| route.pattern.as_str());
            let room = conn
                .room()
                .map_or_else(String::new, |room| format!(" in room {room}"));
            print(&format!(
                "  {}  {route}{room}, {} bytes queued",
                conn.id(),
                conn.outbox().queued()
            ));
        }
    }
}

/// Prints the report of an error to the terminal, and returns it for open pages.
fn report(failure: &CommandError) -> String {
    let report = failure.report();
    print(&report);
    report
}

fn print(line: &str) {
    logging::print(&format!("{line}\n"));
}
