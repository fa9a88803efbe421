//! The settings of a run: defaults, overridden by `tidegate.toml`, overridden by flags.

use crate::listen::Listen;
use std::path::PathBuf;
use tidegate_hub::{Limits, TopicPolicy};

/// All settings. The structs of hub, edge and wasm are filled here and passed on unchanged.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    /// Address to listen on.
    pub(crate) listen: Listen,
    /// Number of threads that serve connections.
    pub(crate) workers: usize,
    /// Limits of the hub.
    pub(crate) limits: Limits,
    /// Policies for slow subscribers of topics.
    pub(crate) topics: TopicPolicy,
    /// Data directory of rooms.
    pub(crate) data: PathBuf,
    /// Settings of HTTP, WebSockets and static files.
    pub(crate) edge: tidegate_edge::Config,
    /// Grants and limits of the app.
    pub(crate) app: tidegate_wasm::Options,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            listen: Listen::default(),
            workers: std::thread::available_parallelism().map_or(1, usize::from),
            limits: Limits::default(),
            topics: TopicPolicy::default(),
            data: PathBuf::from("tidegate-data"),
            edge: tidegate_edge::Config::default(),
            app: tidegate_wasm::Options::default(),
        }
    }
}

impl Config {
    /// Grants the app an environment variable. A later value replaces an earlier one of the same
    /// name.
    pub(crate) fn grant_env(&mut self, (name, value): (String, String)) {
        self.app.env.retain(|(earlier, _)| *earlier != name);
        self.app.env.push((name, value));
    }
}
