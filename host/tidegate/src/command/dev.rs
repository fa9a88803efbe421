//! `tidegate dev`: builds a project, serves it, and swaps each change in while its connections stay.

use crate::{
    args::DevArgs,
    assemble::{self, Signals},
    command::{plural, serve},
    config::Config,
    control,
    dev::{Built, Keys, Kind, News, Project, Watch},
    failure::Failure,
    logging::{self, LogFormat},
    report,
    site::Site,
};
use anyhow::Context as _;
use rustix::process::{Signal, getpid, kill_process};
use std::{
    collections::BTreeSet,
    net::SocketAddr,
    process::{Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};
use tidegate_edge::{Hosts, Pages};
use tidegate_hub::Table;
use tidegate_wasm::Loaded;
use tokio::{
    sync::mpsc::{UnboundedReceiver, unbounded_channel},
    task::spawn_blocking,
    time::timeout,
};

/// Without another change: what an editor saves in several steps is one change.
const REST: Duration = Duration::from_millis(40);

/// What the author does.
enum Input {
    Changed(Kind),
    Key(u8),
}

/// Builds and serves until SIGINT, SIGTERM or `q`.
pub(crate) fn run(args: &DevArgs, format: LogFormat) -> Result<(), Failure> {
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
) -> Result<(), Failure> {
    let (tell, mut inputs) = unbounded_channel();
    let (changed, mut changes) = unbounded_channel();
    let settings = args.settings(project.dir());
    let _watch = Watch::new(project.dir(), settings, config.edge.assets.as_deref(), &config.data, changed)?;
    let tell_changes = tell.clone();
    tokio::spawn(async move { while changes.recv().await.is_some_and(|kind| tell_changes.send(Input::Changed(kind)).is_ok()) {} });
    let keys = Keys::listen(tell, Input::Key);

    let (loaded, table) = begin(&project, &config, &mut inputs).await?;
    let serving = serve::Serving::open(project.artifact(), &config, loaded, table, signals).await?;
    serving.tell(format)?;
    let told = if keys.is_some() { "r rebuild   o open in the browser   c list connections   q quit" } else { "Watching." };
    say(&format!("{told}\n"));
    let author =
        Author { address: serving.addresses()?[0], news: News::new(pages), site: serving.site().clone(), args: args.clone(), project };
    author.news.tell();
    tokio::spawn(author.attend(inputs));
    serving.run(format).await
}

/// Builds until there is something to serve.
async fn begin(project: &Project, config: &Config, inputs: &mut UnboundedReceiver<Input>) -> Result<(Loaded, Table), Failure> {
    loop {
        if build(project).await.is_ok() {
            match assemble::load(project.artifact(), config.app.clone()).await {
                Ok(loaded) => return Ok(loaded),
                Err(failure) => _ = told(&failure),
            }
        }
        say("Nothing is served yet: it begins when a change has made this right.");
        match inputs.recv().await {
            Some(Input::Key(b'q')) | None => return Err(anyhow::anyhow!("nothing was served").into()),
            Some(_) => while timeout(REST, inputs.recv()).await.is_ok_and(|input| input.is_some()) {},
        }
    }
}

async fn build(project: &Project) -> Result<Built, String> {
    let project = project.clone();
    spawn_blocking(move || project.build()).await.unwrap_or_else(|error| Err(format!("the build was lost: {error}")))
}

/// Whoever changes files and presses keys, and what follows from it.
struct Author {
    address: SocketAddr,
    news: News,
    site: Arc<Site>,
    args: DevArgs,
    project: Project,
}

impl Author {
    async fn attend(mut self, mut inputs: UnboundedReceiver<Input>) {
        while let Some(input) = inputs.recv().await {
            let mut kinds = BTreeSet::new();
            let mut keys = Vec::new();
            let mut next = Some(input);
            while let Some(input) = next {
                match input {
                    Input::Changed(kind) => _ = kinds.insert(kind),
                    Input::Key(key) => keys.push(key),
                }
                next = timeout(REST, inputs.recv()).await.unwrap_or_default();
            }
            for key in keys {
                match key {
                    b'r' => _ = kinds.insert(Kind::Source),
                    b'o' => self.open_browser(),
                    b'c' => self.list_connections(),
                    b'q' => _ = kill_process(getpid(), Signal::INT),
                    _ => {}
                }
            }
            self.handle(&kinds).await;
        }
    }

    async fn handle(&mut self, kinds: &BTreeSet<Kind>) {
        let outcome = match (kinds.contains(&Kind::Source), kinds.contains(&Kind::Config)) {
            (_, true) => self.reconfigure().await,
            (true, false) => self.rebuild(false).await,
            (false, false) => Ok(()),
        };
        if let Err(why) = outcome {
            say("The version before it is still served.");
            self.news.error = Some(why);
        }
        self.news.styles += u32::from(kinds.contains(&Kind::Style));
        self.news.assets += u32::from(kinds.contains(&Kind::Asset));
        if !kinds.is_empty() {
            self.news.tell();
        }
    }

    /// `anyway`: also when the component is the one that is served already.
    async fn rebuild(&mut self, anyway: bool) -> Result<(), String> {
        let built = build(&self.project).await?;
        if !built.is_new && !anyway && self.news.error.is_none() {
            say(&format!("built in {:.1} s: the component is as it was", built.took.as_secs_f64()));
            return Ok(());
        }
        let began = Instant::now();
        let change = self.site.reload().await.map_err(|failure| told(&failure))?;
        let swap = began.elapsed();
        self.news.version = change.number;
        self.news.error = None;
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
            say(&format!("{} closed (1012), as the new version has no route for that", plural(kept.closed, "WebSocket")));
        }
        Ok(())
    }

    /// Grants and bounds of instances are those of the next version; what else changed begins with the next start.
    async fn reconfigure(&mut self) -> Result<(), String> {
        let config = self.args.config(self.project.dir()).map_err(|failure| told(&failure))?;
        say("Settings were read again: [app] and [grants] hold from this version on, the others from the next start.");
        self.site.set_options(config.app);
        self.rebuild(true).await
    }

    fn open_browser(&self) {
        let opener = if cfg!(target_os = "macos") { "open" } else { "xdg-open" };
        let url = report::url(self.address);
        let opened = Command::new(opener).arg(&url).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        if let Err(error) = opened.with_context(|| format!("can't run {opener}; open {url}")) {
            say(&format!("{error:#}"));
        }
    }

    fn list_connections(&self) {
        let conns = self.site.hub().connections().all();
        say(&plural(conns.len(), "WebSocket"));
        for conn in conns {
            let route = conn.route().map_or("", |route| route.pattern.as_str());
            let room = conn.room().map_or_else(String::new, |room| format!(" in room {room}"));
            say(&format!("  {}  {route}{room}, {} bytes queued", conn.id(), conn.outbox().queued()));
        }
    }
}

/// Shows what is wrong in the terminal; the same for the page.
fn told(failure: &Failure) -> String {
    let report = failure.report();
    say(&report);
    report
}

fn say(line: &str) {
    logging::say(&format!("{line}\n"));
}
