//! The command line: what may be typed, and how it goes before `tidegate.toml`.

use crate::{
    command_error::CommandError, config::Config, file, grant, key, listen::Listen,
    logging::LogFormat, quantity, tail::LineFilter, template::Template,
};
use clap::{Args as Group, ColorChoice, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use std::{
    env,
    path::{Path, PathBuf},
    time::Duration,
};
use tidegate_hub::{ConnId, RoomId};
use tidegate_wasm::{Dir, Grant};
use tracing_subscriber::{EnvFilter, filter::LevelFilter};

const ABOUT: &str = "Tidegate serves WebAssembly components: HTTP, WebSockets and event streams.\n\n\
    The host owns every socket; the app is called with events and answers with effects. So connections\n\
    outlive a trap of the app, cost it no memory while they are idle, and broadcasts never enter it.";

const EXAMPLES: &str = "\
Examples:
  tidegate new talk --template chat
  tidegate serve app.wasm
  tidegate serve app.wasm --assets web --listen 0.0.0.0:80
  tidegate check app.wasm
  tidegate routes app.wasm --json
  tidegate data rooms

Exit codes: 0 all went well; 1 the app, the port, the data or the disk; 2 what was typed, or written
in tidegate.toml; 130 or 143 a second SIGINT or SIGTERM.";

const SERVE_EXAMPLES: &str = "\
Examples:
  tidegate serve app.wasm                            on http://127.0.0.1:8080
  tidegate serve app.wasm --listen 127.0.0.1:0       on a free port; the first lines say which
  tidegate serve app.wasm --assets web               with files, and web/index.html for other pages
  tidegate serve app.wasm --env TOKEN --dir data::/data::rw --allow-outbound api.example.com
  tidegate serve app.wasm --origin https://example.org --limit message_bytes_max=4MiB
  tidegate serve app.wasm --config tidegate.toml     settings from a file; flags go before it

Ctrl-C or SIGTERM drains: no new connections, WebSockets closed with 1001, requests ended.
A second one stops at once.";

const NEW_EXAMPLES: &str = "\
Examples:
  tidegate new hello
  tidegate new apps/talk --template chat

It needs no network, and changes nothing that is there.";

const DEV_HELP: &str = "\
Examples:
  tidegate dev
  tidegate dev apps/talk --listen 127.0.0.1:3000

Open WebSockets, feeds and rooms stay when the app changes. A page that has
  <script src=\"/__tidegate/dev.js\"></script>
shows what doesn't build, and takes changed styles in place. With data-reload=\"assets\" it is
loaded again when another of its files changes, with data-reload after each version of the app too.
In `tidegate serve` that script is empty.";

const CHECK_HELP: &str = "\
Each problem has a code; `tidegate explain TG003` says what it means. The exit code is 0 if the app
can be served, 1 if not.";

const COMPLETIONS_HELP: &str = "\
Examples:
  tidegate completions bash > ~/.local/share/bash-completion/completions/tidegate
  tidegate completions zsh > ~/.zfunc/_tidegate
  tidegate completions fish > ~/.config/fish/completions/tidegate.fish";

const COMPILE_HELP: &str = "\
Examples:
  tidegate compile app.wasm -o app.tide
  tidegate serve app.tide

The file holds machine code, which runs outside of the sandbox: it is trusted as the tidegate binary
is. It is taken only if it belongs to root or to the user who serves it, if nobody else may write to
it, if it is whole, and if it was made by the same version for the same kind of processor. Never
serve one that comes from elsewhere: compile the .wasm yourself.";

const TEST_HELP: &str = "\
A script is a list of tests, each with steps:
  [[test]]
  name = \"what one says, all hear\"
  steps = [
    { connect = \"ann\", to = \"/rooms/tea?name=Ann\" },
    { expect = \"ann\", json = { kind = \"history\" } },
    { send = \"ann\", text = \"hi\" },
    { expect = \"ann\", contains = \"hi\" },
    { sleep = \"/rooms/tea\" },
    { advance = \"1h\" },
    { reload = true },
    { request = \"GET /health\", status = 200, text = \"ok\" },
  ]

Each test begins with an app that nobody used. There are also subscribe, close, disconnect, publish,
restart and fail_next_commit.
The exit code is 0 if all passed, 1 if not, 2 if a script can't be read.";

const CONNECT_EXAMPLES: &str = "\
Examples:
  tidegate connect ws://127.0.0.1:8080/echo
  echo hi | tidegate connect ws://127.0.0.1:8080/echo --protocol v1.echo --header 'authorization: Bearer x'
  tidegate connect ws://127.0.0.1:8080/echo --bench 10000

Messages go to stdout, everything else to stderr. The exit code is 1 if the server closes with
another code than 1000, 1001 or none.";

const TAIL_HELP: &str = "\
Examples:
  tidegate tail                                   all, requests and connections included
  tidegate tail --level warn                      only what the app prints on stderr, and what fails
  tidegate tail --route '/chat/{room}' --json
  tidegate tail --room chat/tea

Nothing of it is kept: it begins when you ask, and a server whose log nobody watches spends nothing
on it.";

const RELOAD_HELP: &str = "\
New events go to the new version; what is in flight ends on the old one. WebSockets, feeds and rooms
stay; only WebSockets whose route the new version doesn't have are closed (1012). A file that can't
be served changes nothing. SIGHUP does the same.";

/// What was typed.
#[derive(Parser)]
#[command(name = "tidegate", version, about = ABOUT, after_help = EXAMPLES, disable_help_subcommand = true)]
pub(crate) struct Args {
    #[command(subcommand)]
    pub(crate) command: Command,
    #[command(flatten)]
    pub(crate) log: LogArgs,
}

/// What to do.
#[derive(Subcommand)]
pub(crate) enum Command {
    /// Write a project to begin with: an app, its test, its page, and the SDK of this version
    #[command(after_help = NEW_EXAMPLES)]
    New(NewArgs),
    /// Build a project, serve it, and swap each change in while its connections stay
    #[command(after_help = DEV_HELP)]
    Dev(DevArgs),
    /// Serve an app until Ctrl-C or SIGTERM
    #[command(after_help = SERVE_EXAMPLES)]
    Serve(Box<ServeArgs>),
    /// Check an app's routes and imports as `serve` does, and list every rule that it breaks
    #[command(after_help = CHECK_HELP)]
    Check(CheckArgs),
    /// Say what a code of a report means, as in TG003, and what to do about it
    Explain {
        /// All of them if none is given
        #[arg(value_name = "CODE")]
        codes: Vec<String>,
    },
    /// List an app's routes and guards
    Routes(RoutesArgs),
    /// Let a running server load its app's file again, without losing a connection
    #[command(after_help = RELOAD_HELP)]
    Reload(ReloadArgs),
    /// Compile an app ahead of time, for starts without a compiler
    #[command(after_help = COMPILE_HELP)]
    Compile(CompileArgs),
    /// Play scripted conversations with an app, without a network
    #[command(after_help = TEST_HELP)]
    Test(TestArgs),
    /// Talk to a WebSocket from the terminal, a line a message
    #[command(after_help = CONNECT_EXAMPLES)]
    Connect(ConnectArgs),
    /// Show the log of a running server as it grows: requests, connections, what the app prints, faults
    #[command(after_help = TAIL_HELP)]
    Tail(TailArgs),
    /// Write the completions of a shell to stdout
    #[command(after_help = COMPLETIONS_HELP)]
    Completions {
        #[arg(value_name = "SHELL")]
        shell: Shell,
    },
    /// Write the manual's pages into a directory
    Man {
        #[arg(value_name = "DIR")]
        to: PathBuf,
    },
    /// Look after the data of rooms while no server has it open, or back it up at any time
    Data(DataArgs),
}

/// How to log.
#[derive(Group)]
#[command(next_help_heading = "Log (on stderr)")]
pub(crate) struct LogArgs {
    /// error, warn, info, debug, trace, or a filter as in "tidegate_edge=debug,info"
    #[arg(
        long,
        global = true,
        value_name = "LEVEL",
        env = "TIDEGATE_LOG",
        hide_env_values = true,
        default_value = "info"
    )]
    #[arg(value_parser = filter)]
    pub(crate) log: EnvFilter,
    /// Text to read, or a JSON object a line
    #[arg(long, global = true, value_name = "FORMAT", default_value = "text")]
    pub(crate) log_format: LogFormat,
    /// Colours on stderr; auto: on a terminal, unless NO_COLOR is set
    #[arg(long, global = true, value_name = "WHEN", default_value = "auto")]
    pub(crate) color: ColorChoice,
}

/// What to begin with.
#[derive(Group)]
pub(crate) struct NewArgs {
    /// Where to write it; its last part is the name of the crate
    #[arg(value_name = "NAME")]
    pub(crate) path: PathBuf,
    /// What to begin with
    #[arg(long, value_name = "TEMPLATE", default_value = "hello")]
    pub(crate) template: Template,
    /// The language of the app
    #[arg(long, value_name = "LANGUAGE", default_value = "rust")]
    pub(crate) lang: Lang,
}

/// What an app may be written in. Others are to come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Lang {
    Rust,
}

/// Which project, and where to serve it.
#[derive(Clone, Group)]
pub(crate) struct DevArgs {
    /// The project: a folder with a Cargo.toml
    #[arg(value_name = "DIR", default_value = ".")]
    pub(crate) dir: PathBuf,
    /// Where to listen; port 0 for any free one [default: 127.0.0.1:8080]
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<Listen>,
    /// Settings [default: tidegate.toml of the project, if there is one]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Where rooms keep what has to last [default: tidegate-data in the project]
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
}

impl DevArgs {
    /// The file with the settings, which may not be there.
    pub(crate) fn settings(&self, project: &Path) -> PathBuf {
        self.config
            .clone()
            .unwrap_or_else(|| project.join("tidegate.toml"))
    }

    /// The project's settings with these flags before them. Nothing is cached: each version is compiled once.
    pub(crate) fn config(&self, project: &Path) -> Result<Config, CommandError> {
        let settings = self.settings(project);
        let is_asked_for = self.config.is_some() || settings.is_file();
        let mut config = if is_asked_for {
            read(&settings)?
        } else {
            Config::default()
        };
        if config.data == Config::default().data {
            config.data = project.join("tidegate-data");
        }
        put(&mut config.listen, &self.listen);
        put(&mut config.data, &self.data);
        config.app.quick = true;
        Ok(config)
    }
}

/// Which app, and what it may use.
#[derive(Group)]
pub(crate) struct LoadArgs {
    /// The app: a WebAssembly component
    #[arg(value_name = "APP.WASM")]
    pub(crate) app: PathBuf,
    /// Read settings from this file (none is read otherwise); flags go before it
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,

    /// A variable of the environment; without a value, the one that it has here
    #[arg(long, value_name = "NAME[=VALUE]", value_parser = grant::env, help_heading = "Grants (an app has nothing else)")]
    env: Vec<(String, String)>,
    /// A directory to read; with ::rw to write as well
    #[arg(long, value_name = "HOST::GUEST[::rw]", value_parser = dir, help_heading = "Grants (an app has nothing else)")]
    dir: Vec<Dir>,
    /// A host to send requests to: https unless it begins with http://; with ::private it may lead to private addresses
    #[arg(long, value_name = "[SCHEME://]HOST[:PORT][::private]", value_parser = Grant::parse, help_heading = "Grants (an app has nothing else)")]
    allow_outbound: Vec<Grant>,

    /// Where to keep it [default: $XDG_CACHE_HOME/tidegate or ~/.cache/tidegate]
    #[arg(
        long,
        value_name = "DIR",
        env = "TIDEGATE_CACHE_DIR",
        hide_env_values = true,
        help_heading = "Compiled code"
    )]
    cache: Option<PathBuf>,
    /// Compile at every start and keep nothing
    #[arg(long, help_heading = "Compiled code")]
    no_cache: bool,
}

/// How to serve it.
#[derive(Group)]
pub(crate) struct ServeArgs {
    /// Where to listen; port 0 for any free one [default: 127.0.0.1:8080]
    #[arg(long, value_name = "ADDRESS", help_heading = "Server")]
    listen: Option<Listen>,
    /// Files to serve before the app's routes, index.html for pages that nothing else answers
    #[arg(long, value_name = "DIR", value_parser = assets, help_heading = "Server")]
    assets: Option<PathBuf>,
    /// Where rooms keep what has to last [default: tidegate-data]
    #[arg(long, value_name = "DIR", help_heading = "Server")]
    data: Option<PathBuf>,
    /// Pages that may open WebSockets: same-origin, any, or an origin (repeatable) [default: same-origin]
    #[arg(long, value_name = "ORIGIN", help_heading = "Server")]
    origin: Vec<String>,
    /// Refuse WebSockets of clients that send no Origin (they are not browsers)
    #[arg(long, help_heading = "Server")]
    require_origin: bool,
    /// Threads that serve connections [default: one a core]
    #[arg(long, value_name = "N", value_parser = workers, help_heading = "Server")]
    workers: Option<usize>,
    /// Time to end what is open when the server stops [default: 10s]
    #[arg(long, value_name = "TIME", value_parser = quantity::time, help_heading = "Server")]
    drain: Option<Duration>,

    /// Memory of one instance of the app [default: 64 MiB]
    #[arg(long, value_name = "SIZE", value_parser = quantity::size, help_heading = "Limits")]
    memory: Option<usize>,
    /// Instances of the app in all [default: 2000]
    #[arg(long, value_name = "N", value_parser = instances, help_heading = "Limits")]
    instances: Option<usize>,
    /// Time that the app may compute for one event [default: 1s]
    #[arg(long, value_name = "TIME", value_parser = quantity::time_above_zero, help_heading = "Limits")]
    cpu: Option<Duration>,
    /// Time that one event may take, waiting included [default: 30s]
    #[arg(long, value_name = "TIME", value_parser = quantity::time_above_zero, help_heading = "Limits")]
    wall: Option<Duration>,
    /// Let an instance of a component without a manifest serve one request after the other
    #[arg(long, help_heading = "Limits")]
    reuse_foreign: bool,
    /// Any limit of tidegate.toml by its key, as in message_bytes_max=4MiB (repeatable)
    #[arg(long, value_name = "KEY=VALUE", help_heading = "Limits")]
    limit: Vec<String>,

    #[command(flatten)]
    pub(crate) load: LoadArgs,
}

/// What to check, and for whom.
#[derive(Group)]
pub(crate) struct CheckArgs {
    #[command(flatten)]
    pub(crate) load: LoadArgs,
    /// The report as JSON on stdout, for editors and CI
    #[arg(long)]
    pub(crate) json: bool,
}

/// What to compile, and where to.
#[derive(Group)]
pub(crate) struct CompileArgs {
    #[command(flatten)]
    pub(crate) load: LoadArgs,
    /// Where to write it [default: APP.tide]
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
}

/// Which app, and what to say to it.
#[derive(Group)]
pub(crate) struct TestArgs {
    #[command(flatten)]
    pub(crate) load: LoadArgs,
    /// Files with conversations
    #[arg(value_name = "SCRIPT.TOML", required = true)]
    pub(crate) scripts: Vec<PathBuf>,
}

/// Whom to talk to, and how.
#[derive(Group)]
pub(crate) struct ConnectArgs {
    /// As in ws://127.0.0.1:8080/echo
    pub(crate) url: String,
    /// A header of the handshake (repeatable)
    #[arg(long, value_name = "NAME: VALUE", value_parser = header)]
    pub(crate) header: Vec<(String, String)>,
    /// A subprotocol to offer (repeatable)
    #[arg(long, value_name = "NAME")]
    pub(crate) protocol: Vec<String>,
    /// Send each line as bytes, which it has in hex; bytes that come are shown so in any case
    #[arg(long)]
    pub(crate) binary: bool,
    /// Send so many messages, each behind the answer to the one before, and say how long the answers took
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=10_000_000), conflicts_with = "binary")]
    pub(crate) bench: Option<u32>,
}

/// What to list.
#[derive(Group)]
pub(crate) struct RoutesArgs {
    #[command(flatten)]
    pub(crate) load: LoadArgs,
    /// As JSON, with index, methods, pattern and target of each route
    #[arg(long)]
    pub(crate) json: bool,
}

/// Which server, and what of its log.
#[derive(Group)]
pub(crate) struct TailArgs {
    /// The --data that the server was given: its control socket is beside it
    #[arg(long, value_name = "DIR", default_value = "tidegate-data")]
    pub(crate) data: PathBuf,
    /// error, warn, info, or debug: with each request, and each connection that comes or goes
    #[arg(long, value_name = "LEVEL", default_value = "debug", value_parser = tail_level)]
    level: LevelFilter,
    /// Only what is about this route, as in "/chat/{room}"
    #[arg(long, value_name = "PATTERN")]
    route: Option<String>,
    /// Only what is about this connection; its id is in each line about it
    #[arg(long, value_name = "ID")]
    connection: Option<ConnId>,
    /// Only what is about this room
    #[arg(long, value_name = "CLASS/NAME", value_parser = room)]
    room: Option<RoomId>,
    /// A JSON object a line
    #[arg(long)]
    pub(crate) json: bool,
}

impl TailArgs {
    /// What of the log.
    pub(crate) fn wanted(&self) -> LineFilter {
        let (connection, room) = (
            self.connection.map(|id| id.to_string()),
            self.room.as_ref().map(RoomId::to_string),
        );
        LineFilter {
            level: self.level,
            route: self.route.clone(),
            connection,
            room,
        }
    }
}

/// Which server, and which version.
#[derive(Group)]
pub(crate) struct ReloadArgs {
    /// The --data that the server was given: its control socket is beside it
    #[arg(long, value_name = "DIR", default_value = "tidegate-data")]
    pub(crate) data: PathBuf,
    /// Go back to the version that was served before; a second time undoes that
    #[arg(long)]
    pub(crate) rollback: bool,
}

/// Which data, and what to do with it.
#[derive(Group)]
pub(crate) struct DataArgs {
    /// The directory that `serve` was given
    #[arg(
        long,
        global = true,
        value_name = "DIR",
        default_value = "tidegate-data"
    )]
    pub(crate) data: PathBuf,
    #[command(subcommand)]
    pub(crate) command: DataCommand,
}

/// What to do with the data of rooms.
#[derive(Subcommand)]
pub(crate) enum DataCommand {
    /// List rooms, their sizes and alarms
    Rooms {
        /// Only those of this class
        #[arg(long)]
        class: Option<String>,
        /// As JSON, a line for each room
        #[arg(long)]
        json: bool,
    },
    /// Write one room as JSON lines to stdout
    Export {
        #[arg(value_name = "CLASS/NAME", value_parser = room)]
        room: RoomId,
    },
    /// Read rooms as JSON lines from stdin; each replaces the room of its name
    Import,
    /// Delete one room with all that it keeps
    Delete {
        #[arg(value_name = "CLASS/NAME", value_parser = room)]
        room: RoomId,
    },
    /// Read everything and compare it with its checksums and sizes; exit code 1 if something is wrong
    Verify,
    /// Give back the space of what was overwritten and deleted
    Compact,
    /// Copy everything, as it is at one moment, to a directory that is not there yet; also while a server has it open
    Backup {
        #[arg(value_name = "DIR")]
        to: PathBuf,
    },
}

impl LoadArgs {
    /// The file's settings with these flags before them.
    pub(crate) fn config(&self) -> Result<Config, CommandError> {
        let mut config = self
            .config
            .as_deref()
            .map_or_else(|| Ok(Config::default()), read)?;
        for variable in &self.env {
            config.grant_env(variable.clone());
        }
        config.app.dirs.extend(self.dir.iter().cloned());
        config
            .app
            .outbound
            .grants
            .extend(self.allow_outbound.iter().cloned());
        config.app.cache = self.cache();
        Ok(config)
    }

    fn cache(&self) -> Option<PathBuf> {
        let set = |name: &str| {
            env::var_os(name)
                .filter(|value| !value.is_empty())
                .map(PathBuf::from)
        };
        let named = self
            .cache
            .clone()
            .filter(|path| !path.as_os_str().is_empty());
        // A relative one would be another place after each change of the working directory.
        let home = |name: &str| set(name).filter(|path| path.is_absolute());
        let homes =
            || home("XDG_CACHE_HOME").or_else(|| home("HOME").map(|home| home.join(".cache")));
        if self.no_cache {
            return None;
        }
        let cache = named.or_else(|| homes().map(|home| home.join("tidegate")));
        if cache.is_none() {
            tracing::warn!(
                "compiled components are not kept: neither HOME nor XDG_CACHE_HOME is set; name a directory with --cache"
            );
        }
        cache
    }
}

impl ServeArgs {
    /// The file's settings with these flags before them.
    pub(crate) fn config(&self) -> Result<Config, CommandError> {
        let mut config = self.load.config()?;
        put(&mut config.listen, &self.listen);
        put(&mut config.workers, &self.workers);
        put(&mut config.data, &self.data);
        put(&mut config.edge.drain_within, &self.drain);
        put(&mut config.app.memory_bytes_max, &self.memory);
        put(&mut config.app.instances_max, &self.instances);
        put(&mut config.app.cpu_max, &self.cpu);
        put(&mut config.app.wall_max, &self.wall);
        config.edge.require_origin |= self.require_origin;
        config.app.reuse_foreign |= self.reuse_foreign;
        if self.assets.is_some() {
            config.edge.assets = self.assets.clone();
        }
        if !self.origin.is_empty() {
            config.edge.origins = key::origins(&self.origin)
                .map_err(|what| CommandError::usage(format!("--origin: {what}")))?;
        }
        for limit in &self.limit {
            file::set_limit(&mut config, limit)
                .map_err(|what| CommandError::usage(format!("--limit: {what}")))?;
        }
        Ok(config)
    }
}

/// "chat/tea"
pub(crate) fn room(text: &str) -> Result<RoomId, String> {
    let (class, name) = text
        .split_once('/')
        .ok_or_else(|| format!("{text:?} is no room: write CLASS/NAME"))?;
    RoomId::new(class, name).map_err(|error| format!("{text:?} is no room: {error}"))
}

fn put<T: Clone>(place: &mut T, given: &Option<T>) {
    if let Some(given) = given {
        place.clone_from(given);
    }
}

fn read(path: &Path) -> Result<Config, CommandError> {
    let text = std::fs::read_to_string(path);
    let text = text.map_err(|error| {
        CommandError::usage(format!(
            "can't read the settings in {}: {error}",
            path.display()
        ))
    })?;
    let base = path.parent().unwrap_or(Path::new(""));
    file::parse(&text, base)
        .map_err(|wrong| CommandError::usage(format!("{}:{wrong}", path.display())))
}

/// A level alone, or a filter; a word that is no level would silence everything.
fn filter(text: &str) -> Result<EnvFilter, String> {
    let is_known = text.contains('=')
        || text
            .split(',')
            .any(|part| part.trim().parse::<LevelFilter>().is_ok());
    let filter = EnvFilter::try_new(text).ok().filter(|_| is_known);
    filter.ok_or_else(|| "write error, warn, info, debug, trace or off, or a filter as in \"tidegate_edge=debug,info\"".into())
}

fn tail_level(text: &str) -> Result<LevelFilter, String> {
    let level = text
        .parse()
        .ok()
        .filter(|level| (LevelFilter::ERROR..=LevelFilter::DEBUG).contains(level));
    level.ok_or_else(|| "write error, warn, info or debug".into())
}

/// "name: value"
fn header(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once(':').ok_or_else(|| {
        format!("{text:?} is no header: write it as in \"authorization: Bearer x\"")
    })?;
    Ok((name.trim().to_owned(), value.trim().to_owned()))
}

fn workers(text: &str) -> Result<usize, String> {
    quantity::count_to(key::WORKERS_MAX, text)
}

fn instances(text: &str) -> Result<usize, String> {
    quantity::count_to(key::INSTANCES_MAX, text)
}

fn dir(text: &str) -> Result<Dir, String> {
    grant::dir(text, Path::new(""))
}

fn assets(text: &str) -> Result<PathBuf, String> {
    grant::assets(text, Path::new(""))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_well_formed() {
        Args::command().debug_assert();
    }

    #[test]
    fn flags_go_before_the_defaults() {
        let args = Args::try_parse_from([
            "tidegate",
            "serve",
            "a.wasm",
            "--listen",
            "localhost:0",
            "--memory",
            "1 MiB",
            "--drain",
            "0",
            "--origin",
            "any",
            "--limit",
            "tags_max=3",
            "--env",
            "A=1",
            "--no-cache",
            "--workers",
            "7",
        ]);
        let Ok(Args {
            command: Command::Serve(serve),
            ..
        }) = args
        else {
            panic!("not taken")
        };
        let Ok(config) = serve.config() else {
            panic!("refused")
        };
        assert_eq!(
            (
                config.listen.to_string(),
                config.workers,
                config.app.memory_bytes_max
            ),
            ("localhost:0".into(), 7, 1 << 20)
        );
        assert_eq!(
            (config.edge.origins, config.limits.tags_max),
            (tidegate_edge::Origins::Any, 3)
        );
        assert_eq!(
            (config.edge.drain_within, config.app.cache),
            (Duration::ZERO, None)
        );
        assert_eq!(config.app.env, [("A".to_owned(), "1".to_owned())]);
    }

    #[test]
    fn help_names_the_defaults_as_they_are() {
        let mut command = Args::command();
        let help = command
            .find_subcommand_mut("serve")
            .expect("there is one")
            .render_help()
            .to_string();
        let words = help.split_whitespace().collect::<Vec<_>>().join(" ");
        let config = Config::default();
        let quantity = |section, name| {
            key::SettingKey::find(section, name)
                .and_then(|key| key.quantity(&config))
                .expect("it is one")
        };
        let flags = [
            ("--listen", config.listen.to_string()),
            ("--drain", quantity("server", "drain")),
            ("--memory", quantity("app", "memory")),
            ("--instances", quantity("app", "instances")),
            ("--cpu", quantity("app", "cpu")),
            ("--wall", quantity("app", "wall")),
        ];
        for (flag, default) in flags {
            let told = words
                .split(&format!(" {flag} <"))
                .nth(1)
                .and_then(|rest| rest.split(" --").next());
            assert!(
                told.is_some_and(|told| told.contains(&format!("[default: {default}]"))),
                "{flag}: {told:?}"
            );
        }
    }
}
