//! `tidegate dev`: builds a project, serves it, and swaps each change in while its connections stay.

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
use tidegate_edge::{Hosts, Pages};
use tidegate_routing::Router;
use tidegate_wasm::Loaded;
use tokio::{
    sync::{
        mpsc::{UnboundedReceiver, unbounded_channel},
        watch,
    },
    task::spawn_blocking,
    time::{Instant as Deadline, timeout_at},
};

/// Without another change: what an editor saves in several steps is one change.
const REST: Duration = Duration::from_millis(40);

/// Time after which files are looked at even if events still arrive.
const REST_WITHIN: Duration = Duration::from_secs(1);

/// What the session does.
enum SessionEvent {
    /// Files may have changed.
    Changed,
    Key(u8),
}

/// The project, and the watch over its files.
#[derive(Clone)]
struct ProjectWatch {
    project: Project,
    watch: Arc<Mutex<FileWatcher>>,
}

/// Changes and keys. Changes that were not looked at yet count as one, so the queue is bounded.
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

    /// The keys that were pressed, and whether files may have changed, after there was a rest.
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
        let places = ProjectPaths {
            sources: project.declared().clone(),
            settings: args.settings(project.dir()),
            assets: config.edge.assets.clone(),
            written: written(&project, config),
            logs: logs(),
        };
        let watch = FileWatcher::new(places, move || changed.send_replace(()))?;
        Ok(ProjectWatch {
            project,
            watch: Arc::new(Mutex::new(watch)),
        })
    }

    /// The kinds of the files that changed since the last call.
    async fn changes(&self) -> BTreeSet<FileKind> {
        self.with(|workshop| workshop.watch().changes())
            .await
            .unwrap_or_else(|failure| {
                report(&failure);
                BTreeSet::new()
            })
    }

    /// Builds, and watches the files that this was built from.
    async fn build(&self) -> Result<Build, String> {
        self.with(|workshop| {
            let built = workshop.project.build();
            let sources = workshop.project.sources();
            let mut watch = workshop.watch();
            let mut places = watch.places().clone();
            places.sources = sources.unwrap_or(places.sources);
            if let Err(failure) = watch.follow(places, &workshop.project.made_sources()) {
                report(&failure);
            }
            built
        })
        .await
    }

    /// The app may write here too from now on.
    async fn add_written(&self, written: BTreeSet<PathBuf>) {
        let add = |workshop: &ProjectWatch| {
            let mut watch = workshop.watch();
            let mut places = watch.places().clone();
            places.written.extend(written);
            watch.follow(places, &[])
        };
        if let Err(failure) = self.with(add).await {
            report(&failure);
        }
    }

    fn watch(&self) -> std::sync::MutexGuard<'_, FileWatcher> {
        self.watch.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Works outside of the loop that serves.
    async fn with<T: Send + 'static>(
        &self,
        work: impl FnOnce(&ProjectWatch) -> T + Send + 'static,
    ) -> T {
        let workshop = self.clone();
        spawn_blocking(move || work(&workshop))
            .await
            .expect("the work does not panic")
    }
}

/// Folders that Cargo, the host and the app write.
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

/// The files that stdout and stderr lead to.
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
    let pages = Arc::<Pages>::default();
    config.edge.pages = Some(pages.clone());
    // The setting `hosts` does not apply: a page of a listed name could read the app and its faults by DNS rebinding.
    config.edge.hosts = Hosts::Local;
    assemble::runtime()?.block_on(dev(args, project, config, pages, format, signals))
}

async fn dev(
    args: &DevArgs,
    project: Project,
    config: Config,
    pages: Arc<Pages>,
    format: LogFormat,
    signals: Signals,
) -> Result<(), CommandError> {
    let (changed, changes) = watch::channel(());
    let (pressed, keys) = unbounded_channel();
    let mut inputs = SessionEvents { changes, keys };
    let workshop = ProjectWatch::open(project, args, &config, changed)?;
    let project = workshop.project.clone();
    let keys = Keys::listen(pressed, |key| key);

    let (loaded, router) = begin(&workshop, &config, &mut inputs).await?;
    let serving =
        serve::Serving::open(project.artifact(), &config, loaded, router, signals).await?;
    serving.announce(format)?;
    let banner = if keys.is_some() {
        "r rebuild   o open in the browser   c list connections   q quit"
    } else {
        "Watching."
    };
    say(&format!("{banner}\n"));
    let session = DevSession {
        address: serving.addresses()?[0],
        updates: DevUpdates::new(pages),
        deployment: serving.deployment().clone(),
        args: args.clone(),
        workshop,
    };
    session.updates.send();
    tokio::spawn(session.attend(inputs));
    serving.run(format).await
}

/// Builds until there is something to serve.
async fn begin(
    workshop: &ProjectWatch,
    config: &Config,
    inputs: &mut SessionEvents,
) -> Result<(Loaded, Router), CommandError> {
    loop {
        if workshop.build().await.is_ok() {
            match assemble::load(workshop.project.artifact(), config.app.clone()).await {
                Ok(loaded) => return Ok(loaded),
                Err(failure) => _ = report(&failure),
            }
        }
        say("Nothing is served yet: it begins when a change has made this right.");
        loop {
            let (has_changes, keys) = inputs.gather().await.unwrap_or((false, vec![b'q']));
            if keys.contains(&b'q') {
                return Err(anyhow::anyhow!("nothing was served").into());
            }
            if !keys.is_empty() || has_changes && !workshop.changes().await.is_empty() {
                break;
            }
        }
    }
}

/// Whoever changes files and presses keys, and what follows from it.
struct DevSession {
    address: SocketAddr,
    updates: DevUpdates,
    deployment: Arc<Deployment>,
    args: DevArgs,
    workshop: ProjectWatch,
}

impl DevSession {
    async fn attend(mut self, mut inputs: SessionEvents) {
        while let Some((has_changes, keys)) = inputs.gather().await {
            let mut kinds = if has_changes {
                self.workshop.changes().await
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
            say("The version before it is still served.");
            self.updates.error = Some(why);
        }
        self.updates.styles += u32::from(kinds.contains(&FileKind::Style));
        self.updates.assets += u32::from(kinds.contains(&FileKind::Asset));
        if !kinds.is_empty() {
            self.updates.send();
        }
    }

    /// `anyway`: also when the component is the one that is served already.
    async fn rebuild(&mut self, anyway: bool) -> Result<(), String> {
        let built = self.workshop.build().await?;
        if !built.is_new && !anyway && self.updates.error.is_none() {
            say(&format!(
                "built in {:.1} s: the component is as it was",
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
        let swap = began.elapsed();
        self.updates.version = change.number;
        self.updates.error = None;
        let kept = change.swapped;
        say(&format!(
            "version {}: built in {:.1} s, swapped in {} ms, {} and {} kept",
            change.number,
            built.took.as_secs_f64(),
            swap.as_millis(),
            plural(kept.kept, "WebSocket"),
            plural(kept.feeds, "feed")
        ));
        if kept.closed > 0 {
            say(&format!(
                "{} closed (1012), as the new version has no route for that",
                plural(kept.closed, "WebSocket")
            ));
        }
        Ok(())
    }

    /// Grants and bounds of instances are those of the next version; what else changed begins with the next start.
    async fn reconfigure(&mut self) -> Result<(), String> {
        let config = self
            .args
            .config(self.workshop.project.dir())
            .map_err(|failure| report(&failure))?;
        self.workshop
            .add_written(written(&self.workshop.project, &config))
            .await;
        say(
            "Settings were read again: [app] and [grants] hold from this version on, the others from the next start.",
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
            say(&format!("{error:#}"));
        }
    }

    fn list_connections(&self) {
        let conns = self.deployment.hub().connections().all();
        say(&plural(conns.len(), "WebSocket"));
        for conn in conns {
            let route = conn.route().map_or("", |route| route.pattern.as_str());
            let room = conn
                .room()
                .map_or_else(String::new, |room| format!(" in room {room}"));
            say(&format!(
                "  {}  {route}{room}, {} bytes queued",
                conn.id(),
                conn.outbox().queued()
            ));
        }
    }
}

/// Shows what is wrong in the terminal; the same for the page.
fn report(failure: &CommandError) -> String {
    let report = failure.report();
    say(&report);
    report
}

fn say(line: &str) {
    logging::say(&format!("{line}\n"));
}
