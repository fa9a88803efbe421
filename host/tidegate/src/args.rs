//! Command-line arguments. Flags override the settings of `tidegate.toml`.

mod data;
mod help;
mod parsers;

pub(crate) use self::data::{DataArgs, DataCommand};
use self::{help::*, parsers::*};
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

/// Command-line arguments.
#[derive(Parser)]
#[command(name = "tidegate", version, about = ABOUT, after_help = EXAMPLES, disable_help_subcommand = true)]
pub(crate) struct Args {
    #[command(subcommand)]
    pub(crate) command: Command,
    #[command(flatten)]
    pub(crate) log: LogArgs,
}

/// Subcommand with its arguments.
#[derive(Subcommand)]
pub(crate) enum Command {
    /// Create a project: an app, its test, its page, and the SDK of this version
    #[command(after_help = NEW_EXAMPLES)]
    New(NewArgs),
    /// Build and serve a project, and reload it on each change while its connections stay open
    #[command(after_help = DEV_HELP)]
    Dev(DevArgs),
    /// Serve an app until Ctrl-C or SIGTERM
    #[command(after_help = SERVE_EXAMPLES)]
    Serve(Box<ServeArgs>),
    /// Check an app's routes and imports as `serve` does, and list all problems
    #[command(after_help = CHECK_HELP)]
    Check(CheckArgs),
    /// Explain a code of a report, as in TG003, and how to fix the problem
    Explain {
        /// Codes to explain; without one, all codes are listed
        #[arg(value_name = "CODE")]
        codes: Vec<String>,
    },
    /// List an app's routes and guards
    Routes(RoutesArgs),
    /// Reload the app of a running server while its connections stay open
    #[command(after_help = RELOAD_HELP)]
    Reload(ReloadArgs),
    /// Compile an app ahead of time, so that a start needs no compiler
    #[command(after_help = COMPILE_HELP)]
    Compile(CompileArgs),
    /// Run scripted conversations with an app, without a network
    #[command(after_help = TEST_HELP)]
    Test(TestArgs),
    /// Talk to a WebSocket from the terminal: each line is a message
    #[command(after_help = CONNECT_EXAMPLES)]
    Connect(ConnectArgs),
    /// Follow the log of a running server: requests, connections, output of the app, faults
    #[command(after_help = TAIL_HELP)]
    Tail(TailArgs),
    /// Write shell completions to stdout
    #[command(after_help = COMPLETIONS_HELP)]
    Completions {
        #[arg(value_name = "SHELL")]
        shell: Shell,
    },
    /// Write the manual pages to a directory
    Man {
        #[arg(value_name = "DIR")]
        to: PathBuf,
    },
    /// Inspect, export, repair or back up the data of rooms
    Data(DataArgs),
}

/// Arguments of the log.
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
    /// Text for people, or one JSON object per line
    #[arg(long, global = true, value_name = "FORMAT", default_value = "text")]
    pub(crate) log_format: LogFormat,
    /// Colours on stderr; auto means on a terminal, unless NO_COLOR is set
    #[arg(long, global = true, value_name = "WHEN", default_value = "auto")]
    pub(crate) color: ColorChoice,
}

/// Arguments of `tidegate new`.
#[derive(Group)]
pub(crate) struct NewArgs {
    /// Directory to create; its last part is the name of the crate
    #[arg(value_name = "NAME")]
    pub(crate) path: PathBuf,
    /// App that the project begins with
    #[arg(long, value_name = "TEMPLATE", default_value = "hello")]
    pub(crate) template: Template,
    /// The language of the app
    #[arg(long, value_name = "LANGUAGE", default_value = "rust")]
    pub(crate) lang: Lang,
}

/// Language of an app.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Lang {
    Rust,
}

/// Arguments of `tidegate dev`.
#[derive(Clone, Group)]
pub(crate) struct DevArgs {
    /// Directory of the project, with its Cargo.toml
    #[arg(value_name = "DIR", default_value = ".")]
    pub(crate) dir: PathBuf,
    /// Address to listen on; port 0 for any free one [default: 127.0.0.1:8080]
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<Listen>,
    /// Settings file [default: tidegate.toml of the project, if it exists]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Data directory of rooms [default: tidegate-data in the project]
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
}

impl DevArgs {
    /// Returns the path of the settings file, which may not exist.
    pub(crate) fn settings(&self, project: &Path) -> PathBuf {
        self.config
            .clone()
            .unwrap_or_else(|| project.join("tidegate.toml"))
    }

    /// Returns the project's settings, overridden by these flags. Compiled code is not cached: each
    /// version is compiled once.
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

/// Arguments that load an app: its file, its grants and the cache.
#[derive(Group)]
pub(crate) struct LoadArgs {
    /// The app: a WebAssembly component
    #[arg(value_name = "APP.WASM")]
    pub(crate) app: PathBuf,
    /// Settings file (without this flag none is read); flags override it
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,

    /// Environment variable for the app; without a value, the value in this environment
    #[arg(long, value_name = "NAME[=VALUE]", value_parser = grant::env, help_heading = "Grants (an app has nothing else)")]
    env: Vec<(String, String)>,
    /// Directory that the app may read; with ::rw it may write too
    #[arg(long, value_name = "HOST::GUEST[::rw]", value_parser = dir, help_heading = "Grants (an app has nothing else)")]
    dir: Vec<Dir>,
    /// Host that the app may send requests to: https unless it begins with http://; with ::private,
    /// private addresses too
    #[arg(long, value_name = "[SCHEME://]HOST[:PORT][::private]", value_parser = Grant::parse, help_heading = "Grants (an app has nothing else)")]
    allow_outbound: Vec<Grant>,

    /// Cache directory [default: $XDG_CACHE_HOME/tidegate or ~/.cache/tidegate]
    #[arg(
        long,
        value_name = "DIR",
        env = "TIDEGATE_CACHE_DIR",
        hide_env_values = true,
        help_heading = "Compiled code"
    )]
    cache: Option<PathBuf>,
    /// Compile at every start, and write no cache
    #[arg(long, help_heading = "Compiled code")]
    no_cache: bool,
}

/// Arguments of `tidegate serve`.
#[derive(Group)]
pub(crate) struct ServeArgs {
    /// Address to listen on; port 0 for any free one [default: 127.0.0.1:8080]
    #[arg(long, value_name = "ADDRESS", help_heading = "Server")]
    listen: Option<Listen>,
    /// Directory of static files, which precede the app's routes; its index.html answers other page
    /// requests
    #[arg(long, value_name = "DIR", value_parser = assets, help_heading = "Server")]
    assets: Option<PathBuf>,
    /// Data directory of rooms [default: tidegate-data]
    #[arg(long, value_name = "DIR", help_heading = "Server")]
    data: Option<PathBuf>,
    /// Origins that may open WebSockets: same-origin, any, or an origin (repeatable) [default:
    /// same-origin]
    #[arg(long, value_name = "ORIGIN", help_heading = "Server")]
    origin: Vec<String>,
    /// Refuse WebSockets without an Origin header, which only browsers send
    #[arg(long, help_heading = "Server")]
    require_origin: bool,
    /// Number of threads that serve connections [default: one per core]
    #[arg(long, value_name = "N", value_parser = workers, help_heading = "Server")]
    workers: Option<usize>,
    /// Time for requests and connections to end when the server stops [default: 10s]
    #[arg(long, value_name = "TIME", value_parser = quantity::time, help_heading = "Server")]
    drain: Option<Duration>,

    /// Memory of each instance of the app [default: 64 MiB]
    #[arg(long, value_name = "SIZE", value_parser = quantity::size, help_heading = "Limits")]
    memory: Option<usize>,
    /// Number of instances of the app [default: 2000]
    #[arg(long, value_name = "N", value_parser = instances, help_heading = "Limits")]
    instances: Option<usize>,
    /// CPU time of one event of the app [default: 1s]
    #[arg(long, value_name = "TIME", value_parser = quantity::time_above_zero, help_heading = "Limits")]
    cpu: Option<Duration>,
    /// Duration of one event of the app, including waits [default: 30s]
    #[arg(long, value_name = "TIME", value_parser = quantity::time_above_zero, help_heading = "Limits")]
    wall: Option<Duration>,
    /// Reuse instances of a component without a manifest for further requests
    #[arg(long, help_heading = "Limits")]
    reuse_foreign: bool,
    /// A limit of tidegate.toml by its key, as in message_bytes_max=4MiB (repeatable)
    #[arg(long, value_name = "KEY=VALUE", help_heading = "Limits")]
    limit: Vec<String>,

    #[command(flatten)]
    pub(crate) load: LoadArgs,
}

/// Arguments of `tidegate check`.
#[derive(Group)]
pub(crate) struct CheckArgs {
    #[command(flatten)]
    pub(crate) load: LoadArgs,
    /// Print the report as JSON on stdout, for editors and CI
    #[arg(long)]
    pub(crate) json: bool,
}

/// Arguments of `tidegate compile`.
#[derive(Group)]
pub(crate) struct CompileArgs {
    #[command(flatten)]
    pub(crate) load: LoadArgs,
    /// File to write [default: APP.tide]
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
}

/// Arguments of `tidegate test`.
#[derive(Group)]
pub(crate) struct TestArgs {
    #[command(flatten)]
    pub(crate) load: LoadArgs,
    /// Script files
    #[arg(value_name = "SCRIPT.TOML", required = true)]
    pub(crate) scripts: Vec<PathBuf>,
}

/// Arguments of `tidegate connect`.
#[derive(Group)]
pub(crate) struct ConnectArgs {
    /// URL of the WebSocket, as in ws://127.0.0.1:8080/echo
    pub(crate) url: String,
    /// Header of the handshake (repeatable)
    #[arg(long, value_name = "NAME: VALUE", value_parser = header)]
    pub(crate) header: Vec<(String, String)>,
    /// Subprotocol to offer (repeatable)
    #[arg(long, value_name = "NAME")]
    pub(crate) protocol: Vec<String>,
    /// Read each line as hex, and send it as a binary message; received binary messages are always
    /// shown in hex
    #[arg(long)]
    pub(crate) binary: bool,
    /// Send this number of messages, each after the answer to the previous one, and report the
    /// latency
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=10_000_000), conflicts_with = "binary")]
    pub(crate) bench: Option<u32>,
}

/// Arguments of `tidegate routes`.
#[derive(Group)]
pub(crate) struct RoutesArgs {
    #[command(flatten)]
    pub(crate) load: LoadArgs,
    /// Print JSON, with index, methods, pattern and target of each route
    #[arg(long)]
    pub(crate) json: bool,
}

/// Arguments of `tidegate tail`.
#[derive(Group)]
pub(crate) struct TailArgs {
    /// Data directory of the server (its --data); the control socket is next to it
    #[arg(long, value_name = "DIR", default_value = "tidegate-data")]
    pub(crate) data: PathBuf,
    /// error, warn, info, or debug, which includes each request and each connection
    #[arg(long, value_name = "LEVEL", default_value = "debug", value_parser = tail_level)]
    level: LevelFilter,
    /// Only lines about this route, as in "/chat/{room}"
    #[arg(long, value_name = "PATTERN")]
    route: Option<String>,
    /// Only lines about this connection, by its id in the log
    #[arg(long, value_name = "ID")]
    connection: Option<ConnId>,
    /// Only lines about this room
    #[arg(long, value_name = "CLASS/NAME", value_parser = room)]
    room: Option<RoomId>,
    /// Print one JSON object per line
    #[arg(long)]
    pub(crate) json: bool,
}

impl TailArgs {
    /// Returns the filter of these arguments.
    pub(crate) fn line_filter(&self) -> LineFilter {
        LineFilter {
            level: self.level,
            route: self.route.clone(),
            connection: self.connection.map(|id| id.to_string()),
            room: self.room.as_ref().map(RoomId::to_string),
        }
    }
}

/// Arguments of `tidegate reload`.
#[derive(Group)]
pub(crate) struct ReloadArgs {
    /// Data directory of the server (its --data); the control socket is next to it
    #[arg(long, value_name = "DIR", default_value = "tidegate-data")]
    pub(crate) data: PathBuf,
    /// Return to the version that was served before; a second rollback undoes the first
    #[arg(long)]
    pub(crate) rollback: bool,
}

impl LoadArgs {
    /// Returns the settings of the file, overridden by these flags.
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
        // A relative path would name another directory after each change of the working directory.
        let home = |name: &str| set(name).filter(|path| path.is_absolute());
        let homes =
            || home("XDG_CACHE_HOME").or_else(|| home("HOME").map(|home| home.join(".cache")));
        if self.no_cache {
            return None;
        }
        let cache = named.or_else(|| homes().map(|home| home.join("tidegate")));
        if cache.is_none() {
            tracing::warn!(
                "compiled components are not cached: neither HOME nor XDG_CACHE_HOME is set; name a directory with --cache"
            );
        }
        cache
    }
}

impl ServeArgs {
    /// Returns the settings of the file, overridden by these flags.
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

/// Parses "CLASS/NAME", as in "chat/tea".
pub(crate) fn room(text: &str) -> Result<RoomId, String> {
    let (class, name) = text
        .split_once('/')
        .ok_or_else(|| format!("{text:?} is not a room: write CLASS/NAME"))?;
    RoomId::new(class, name).map_err(|error| format!("{text:?} is not a room: {error}"))
}

fn put<T: Clone>(field: &mut T, given: &Option<T>) {
    if let Some(given) = given {
        field.clone_from(given);
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

#[cfg(test)]
mod tests;
