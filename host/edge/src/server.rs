//! What every connection of a served app needs.

use crate::{
    CacheRule, Hosts, Network, Origins, Pages, files::Files, sockets::Sockets,
    websocket::closings::Closings,
};
use std::{
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, OnceLock, RwLock},
    time::Duration,
};
use tidegate_hub::{App, Close, Hub};
use tidegate_routing::Router;

/// How the edge treats clients. A plain struct: take the default and change what you must.
#[derive(Clone, Debug)]
pub struct Config {
    /// Hosts that requests may name; any other gets 421 before any guest code.
    pub hosts: Hosts,
    /// Proxies whose `X-Forwarded-For`, `-Proto`, `-Host` and `Forwarded` are believed. These headers are removed from the requests of all
    /// others.
    pub trusted: Vec<Network>,
    /// Which pages may open a WebSocket.
    pub origins: Origins,
    /// Whether a request for a WebSocket without `Origin` (not from a browser) is refused.
    pub require_origin: bool,
    /// Files that are served by their exact path, before the app's routes.
    pub assets: Option<PathBuf>,
    /// How long caches may keep files; the first rule of a path counts.
    pub assets_cache: Vec<CacheRule>,
    /// Whether symbolic links may lead out of the directory of files.
    pub assets_links: bool,
    /// For a request's head to come whole, from its first byte; then 408 and the end of the connection.
    pub header_within: Duration,
    /// How long an HTTP connection is kept while no request has begun.
    pub idle_within: Duration,
    /// Bytes of a request's head; beyond it 431 (or 414).
    pub header_bytes_max: usize,
    /// For a bounded body to come whole, then 408.
    pub body_within: Duration,
    /// For the next byte of a body, a form or a WebSocket message that the host reads; then 408, or the end of the connection.
    pub read_within: Duration,
    /// For the client to take one more byte of what waits for it, then the end of the connection.
    pub write_within: Duration,
    /// Bytes a second that a client moves at least while the host waits for it, averaged over `read_within` or `write_within`; zero for
    /// no such bound.
    pub bytes_per_second_min: usize,
    /// For a client that has ended its sending direction to get one more byte of its answer, while its request is handled; then it
    /// counts as gone. TCP has one sign for a client that left and one that sends nothing more.
    pub half_close_within: Duration,
    /// How long the host reads and drops bytes of a client after the last answer of its connection, so that the answer arrives.
    pub linger_within: Duration,
    /// Bytes that are dropped so; then the connection is closed.
    pub linger_bytes_max: usize,
    /// Sockets of clients in all, and files that are being sent to them; none for no limit. One more is answered with 503 and closed.
    pub sockets_max: Option<usize>,
    /// Sockets of one client: an IPv4 address, or a /64 network of IPv6. None: [`SOCKETS_PER_ADDRESS_MAX`](crate::SOCKETS_PER_ADDRESS_MAX)
    /// for public addresses, no limit for loopback and private ones. A number holds for every address; zero for no limit. One
    /// more is answered with 503 and closed.
    pub sockets_per_address_max: Option<usize>,
    /// For connections and requests to end after the shutdown began.
    pub drain_within: Duration,
    /// Pages that are told of changes. Then the app is in development: faults are shown whole.
    pub pages: Option<Arc<Pages>>,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            hosts: Hosts::Any,
            trusted: Vec::new(),
            origins: Origins::SameOrigin,
            require_origin: false,
            assets: None,
            assets_cache: Vec::new(),
            assets_links: false,
            header_within: Duration::from_secs(10),
            idle_within: Duration::from_secs(75),
            header_bytes_max: 64 << 10,
            body_within: Duration::from_secs(30),
            read_within: Duration::from_secs(30),
            write_within: Duration::from_secs(30),
            bytes_per_second_min: 256,
            half_close_within: Duration::from_secs(3),
            linger_within: Duration::from_secs(30),
            linger_bytes_max: 256 << 20,
            sockets_max: None,
            sockets_per_address_max: None,
            drain_within: Duration::from_secs(10),
            pages: None,
        }
    }
}

/// One version of an app: its code, and the router that leads to it. They are changed together or not at all.
pub struct Version {
    /// Its code.
    pub app: Arc<dyn App>,
    /// Its routes and guards.
    pub router: Router,
}

/// What became of the connections when another version was put in place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Swapped {
    /// WebSockets that go on.
    pub kept: usize,
    /// WebSockets that were closed with 1012, since the version has no route like theirs.
    pub closed: usize,
    /// Feeds, which all go on.
    pub feeds: usize,
}

/// One served app: what every connection of it needs.
pub struct Server {
    pub(crate) hub: Arc<Hub>,
    current: RwLock<Arc<Version>>,
    pub(crate) config: Config,
    pub(crate) files: Option<Files>,
    /// Connections outside of rooms whose on-close has to wait.
    pub(crate) closings: Closings,
    /// Where it listens, once it does.
    pub(crate) address: OnceLock<SocketAddr>,
    pub(crate) sockets: Arc<Sockets>,
}

impl Server {
    /// Puts the parts together; opens nothing.
    pub fn new(hub: Arc<Hub>, first: Arc<Version>, config: Config) -> Arc<Server> {
        let sockets = Sockets::new(config.sockets_max, config.sockets_per_address_max);
        let files = config.assets.as_deref().map(|root| {
            let rules = config.assets_cache.clone();
            Files::new(
                root,
                config.assets_links,
                rules,
                sockets.clone(),
                hub.clone(),
            )
        });
        let current = RwLock::new(first);
        Arc::new(Server {
            hub,
            current,
            config,
            files,
            closings: Closings::default(),
            address: OnceLock::new(),
            sockets,
        })
    }

    /// The authority of a request that names none (HTTP/1.0): the listener's address, or `localhost` where there is no network.
    pub(crate) fn own_authority(&self) -> String {
        self.address
            .get()
            .map_or_else(|| "localhost".to_owned(), SocketAddr::to_string)
    }

    /// The version that is served now. What begins with one ends with it: whoever asks keeps the answer for as long as that takes.
    pub fn version(&self) -> Arc<Version> {
        self.current
            .read()
            .expect("nothing panics while it holds the version")
            .clone()
    }

    /// From now on requests, and the events of connections, go to this version; what is in flight ends where it began.
    pub fn swap(&self, version: Arc<Version>) -> Swapped {
        let connections = self.hub.connections();
        let before = self.version();
        let sweep = || {
            // Their last events go to the version that had their route.
            connections
                .set_last_version(|route| !version.router.has_successor(route), before.clone());
            connections.close_unless(
                |route| version.router.has_successor(route),
                &route_is_gone(),
            )
        };
        // Before, so that the version hears of none that it doesn't know; after, for those that came in between.
        let (_, before) = sweep();
        *self
            .current
            .write()
            .expect("nothing panics while it holds the version") = version.clone();
        let (kept, after) = sweep();
        Swapped {
            kept,
            closed: before + after,
            feeds: connections.count().1,
        }
    }
}

/// RFC 6455 section 7.4.1, and the registry of close codes: 1012 is "service restart", after which clients come back.
pub(crate) fn route_is_gone() -> Close {
    Close::new(1012, "a new version of the app has no such route")
}
