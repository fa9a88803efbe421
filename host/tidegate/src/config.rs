//! What was chosen for a run: plain settings, filled from the defaults, then `tidegate.toml`, then flags.

use crate::listen::Listen;
use std::path::PathBuf;
use tidegate_hub::{Limits, TopicPolicy};

/// All settings. The walls' own structs are filled here and handed in as they are.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    /// Where to listen.
    pub(crate) listen: Listen,
    /// Threads that serve connections.
    pub(crate) workers: usize,
    /// The bounds of the hub.
    pub(crate) limits: Limits,
    /// What happens to slow followers.
    pub(crate) topics: TopicPolicy,
    /// Where rooms keep what has to last.
    pub(crate) data: PathBuf,
    /// How clients are treated.
    pub(crate) edge: tidegate_edge::Config,
    /// What the app may use.
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
    /// Gives the app a variable; a later one of the same name goes before an earlier one.
    pub(crate) fn grant_env(&mut self, (name, value): (String, String)) {
        self.app.env.retain(|(earlier, _)| *earlier != name);
        self.app.env.push((name, value));
    }
}
