//! A scenario: which load, for how long, on which cores; it starts the server, runs, and stops it.

use std::time::Duration;

use anyhow::{Context as _, Result};
use tokio::runtime::Builder;
use tokio::task::LocalSet;

use crate::board::Window;
use crate::echo::{self, Echo};
use crate::fanout::{self, Fanout};
use crate::machine::{self, Cores};
use crate::outcome::Outcome;
use crate::server::{Command, Server};
use crate::{first_byte, idle, pages, request, start, wake};

/// After the window, conversations finish what is in flight; a server that loses something makes
/// them wait.
const FINISH_MAX: Duration = Duration::from_secs(60);

/// The kinds of load.
#[derive(Clone, Copy, Debug)]
pub enum Load {
    /// Messages come back.
    Echo(Echo),
    /// Requests on this many kept connections.
    Request {
        /// How many connections.
        connections: usize,
    },
    /// Connections that do nothing.
    Idle {
        /// How many connections.
        connections: usize,
        /// How many came and went before the server was weighed.
        earlier: usize,
    },
    /// Event streams that bring nothing.
    Feeds {
        /// How many.
        feeds: usize,
    },
    /// One message to many.
    Fanout(Fanout),
    /// Messages to rooms that sleep.
    Wake {
        /// How many connections, each to a room of its own.
        connections: usize,
        /// How often each of them is woken.
        rounds: usize,
    },
    /// The time to the first byte of an answer.
    FirstByte {
        /// How many answers.
        times: usize,
    },
    /// Pages that stream.
    Pages {
        /// How many at once.
        pages: usize,
    },
    /// Starts of the server.
    Start {
        /// How many.
        times: usize,
    },
}

/// Where and how long; the same for every server of a comparison.
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    /// Which core each side has.
    pub cores: Cores,
    /// How long a load runs. Idle and start know by themselves when they are done.
    pub window: Window,
}

/// A server and the path to load.
#[derive(Clone, Debug)]
pub struct Target {
    /// How to start it.
    pub command: Command,
    /// Path of the request.
    pub path: String,
}

/// Runs `load` against a fresh server, from this thread.
pub fn run(load: Load, target: &Target, setting: Setting) -> Result<Outcome> {
    machine::raise_open_files()?;
    machine::pin(setting.cores.client)?;
    let (path, window) = (target.path.as_str(), setting.window);
    match load {
        Load::Echo(echo) => against(target, setting, async |server| {
            echo::run(echo, server, path, window).await
        }),
        Load::Request { connections } => against(target, setting, async |server| {
            request::run(connections, server, path, window).await
        }),
        Load::Idle {
            connections,
            earlier,
        } => against(target, setting, async |server| {
            idle::run(connections, earlier, server, path).await
        }),
        Load::Feeds { feeds } => against(target, setting, async |server| {
            idle::feeds(feeds, server, path).await
        }),
        Load::Fanout(fanout) => against(target, setting, async |server| {
            fanout::run(fanout, server, path, window).await
        }),
        Load::Wake {
            connections,
            rounds,
        } => against(target, setting, async |server| {
            wake::run(connections, rounds, server, path).await
        }),
        Load::FirstByte { times } => against(target, setting, async |server| {
            first_byte::run(times, server, path).await
        }),
        Load::Pages { pages } => against(target, setting, async |server| {
            pages::run(pages, server, path, window).await
        }),
        Load::Start { times } => start::run(times, &target.command, path, setting.cores.server),
    }
}

fn against(
    target: &Target,
    setting: Setting,
    load: impl AsyncFnOnce(&Server) -> Result<Outcome>,
) -> Result<Outcome> {
    let server = Server::start(&target.command, setting.cores.server)?;
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let limit = setting.window.warm_up + setting.window.measured + FINISH_MAX;
    LocalSet::new().block_on(&runtime, async {
        let outcome = tokio::time::timeout(limit, load(&server)).await;
        outcome.with_context(|| format!("not done after {limit:?}"))?
    })
}
