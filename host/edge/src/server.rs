//! What every connection of a served app needs.

use crate::{Origins, assets::Assets};
use std::{path::PathBuf, sync::Arc, time::Duration};
use tidegate_hub::{App, Hub, Table};

/// How the edge treats clients. A plain struct: take the default and change what you must.
#[derive(Clone, Debug)]
pub struct Config {
    /// Which pages may open a WebSocket.
    pub origins: Origins,
    /// Whether a request for a WebSocket without `Origin` (not from a browser) is refused.
    pub require_origin: bool,
    /// Files that are served by their exact path, before the app's routes.
    pub assets: Option<PathBuf>,
    /// For a request's head to come whole; also how long an idle connection is kept.
    pub header_within: Duration,
    /// Bytes of a request's head; beyond it 431 (or 414).
    pub header_bytes_max: usize,
    /// For a bounded body to come whole, then 408.
    pub body_within: Duration,
    /// For connections and requests to end after the shutdown began.
    pub drain_within: Duration,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            origins: Origins::SameOrigin,
            require_origin: false,
            assets: None,
            header_within: Duration::from_secs(30),
            header_bytes_max: 64 << 10,
            body_within: Duration::from_secs(30),
            drain_within: Duration::from_secs(10),
        }
    }
}

/// One served app: what every connection of it needs.
pub struct Server {
    pub(crate) hub: Arc<Hub>,
    pub(crate) app: Arc<dyn App>,
    pub(crate) table: Table,
    pub(crate) config: Config,
    pub(crate) assets: Option<Assets>,
}

impl Server {
    /// Puts the parts together; opens nothing.
    pub fn new(hub: Arc<Hub>, app: Arc<dyn App>, table: Table, config: Config) -> Arc<Server> {
        let assets = config.assets.as_deref().map(Assets::new);
        Arc::new(Server { hub, app, table, config, assets })
    }
}
