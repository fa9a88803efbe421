//! A served app: its versions, and the state and settings that all its connections share.

use crate::{
    CacheRule, DevChannel, Hosts, Network, Origins, files::Files, sockets::Sockets,
    websocket::pending_closes::PendingCloses,
};
use std::{
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, OnceLock, RwLock},
    time::Duration,
};
use tidegate_hub::{App, Close, Hub, limits::HALF_CLOSE_PATIENCE};
use tidegate_routing::Router;
use tokio::time::{sleep, timeout};

/// Settings of the edge for its clients. It is a plain struct: take the default and change the
/// fields that you need.
#[derive(Clone, Debug)]
pub struct Config {
    /// Hosts that requests may name; any other gets 421 before any guest code.
    pub hosts: Hosts,
    /// Proxies whose `X-Forwarded-For`, `-Proto`, `-Host` and `Forwarded` are trusted. These
    /// headers are removed from all other requests.
    pub trusted: Vec<Network>,
    /// Pages that may open a WebSocket.
    pub origins: Origins,
    /// True if a request for a WebSocket without `Origin` (not from a browser) is refused.
    pub require_origin: bool,
    /// Directory of files that are served by their exact path, before the app's routes.
    pub assets: Option<PathBuf>,
    /// Time that caches may keep files; the first matching rule counts.
    pub assets_cache: Vec<CacheRule>,
    /// True if symbolic links may lead out of the directory of files.
    pub assets_links: bool,
    /// Maximum time for a whole request head, from its first byte. Then the answer is 408, and the
    /// connection ends.
    pub header_within: Duration,
    /// Maximum time that an HTTP connection is kept while no request has begun.
    pub idle_within: Duration,
    /// Maximum size of a request's head, in bytes. A larger one gets 431 or 414.
    pub header_bytes_max: usize,
    /// Maximum time for a whole bounded body. Then the answer is 408.
    pub body_within: Duration,
    /// Maximum time for the next byte of a body, form or WebSocket message that the host reads.
    /// Then the answer is 408, or the connection ends.
    pub read_within: Duration,
    /// Maximum time for the client to take one more byte of the waiting output. Then the connection
    /// ends.
    pub write_within: Duration,
    /// Minimum number of bytes a second that a client moves while the host waits for it, averaged
    /// over `read_within` or `write_within`. Zero turns this limit off.
    pub bytes_per_second_min: usize,
    /// Maximum time for a client that has ended its sending direction to take one more byte of its
    /// answer, while its request is handled. Then it counts as gone. TCP has the same sign for a
    /// client that left and for one that sends nothing more. If a call waits for an instance, the
    /// time is at most
    /// [`HALF_CLOSE_PATIENCE`](tidegate_hub::limits::HALF_CLOSE_PATIENCE).
    pub half_close_within: Duration,
    /// Maximum time in which the host reads and drops a client's bytes after the last answer of its
    /// connection, so that the answer arrives.
    pub linger_within: Duration,
    /// Maximum number of bytes that are dropped in this way. Then the connection is closed.
    pub linger_bytes_max: usize,
    /// Maximum number of client sockets and of files that are being sent; `None` for no limit.
    /// Another connection is answered with 503 and closed.
    pub sockets_max: Option<usize>,
    /// Maximum number of sockets of one client: an IPv4 address, or a /64 network of IPv6. `None`
    /// means [`SOCKETS_PER_ADDRESS_MAX`](crate::SOCKETS_PER_ADDRESS_MAX) for public addresses, and
    /// no limit for loopback and private ones. A number applies to every address; zero means no
    /// limit. Another connection is answered with 503 and closed.
    pub sockets_per_address_max: Option<usize>,
    /// Maximum time for connections and requests to end after the shutdown began.
    pub drain_within: Duration,
    /// Open pages that receive changes. If set, the app is in development, and clients see faults
    /// in full.
    pub dev: Option<Arc<DevChannel>>,
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
            half_close_within: Duration::from_secs(60),
            linger_within: Duration::from_secs(30),
            linger_bytes_max: 256 << 20,
            sockets_max: None,
            sockets_per_address_max: None,
            drain_within: Duration::from_secs(10),
            dev: None,
        }
    }
}

/// One version of an app: its code and the router for it. They are always replaced together.
pub struct Version {
    /// Code of the app.
    pub app: Arc<dyn App>,
    /// Routes and guards of the app.
    pub router: Router,
}

/// Connections at the change to another version.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Swapped {
    /// Number of WebSockets that continue.
    pub kept: usize,
    /// Number of WebSockets that were closed with 1012, since the version has no such route.
    pub closed: usize,
    /// Number of feeds, which all continue.
    pub feeds: usize,
}

/// One served app, shared by all its connections.
pub struct Server {
    pub(crate) hub: Arc<Hub>,
    current: RwLock<Arc<Version>>,
    pub(crate) config: Config,
    pub(crate) files: Option<Files>,
    /// Connections outside of rooms with a delayed on-close.
    pub(crate) pending_closes: PendingCloses,
    /// Address of the listener, once there is one.
    pub(crate) address: OnceLock<SocketAddr>,
    pub(crate) sockets: Arc<Sockets>,
}

impl Server {
    /// Creates a server; opens nothing.
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
            pending_closes: PendingCloses::default(),
            address: OnceLock::new(),
            sockets,
        })
    }

    /// Returns the authority for a request that names none (HTTP/1.0): the listener's address, or
    /// `localhost` without a network.
    pub(crate) fn own_authority(&self) -> String {
        self.address
            .get()
            .map_or_else(|| "localhost".to_owned(), SocketAddr::to_string)
    }

    /// Returns the version that is served now. A request or event keeps its version until it ends.
    pub fn version(&self) -> Arc<Version> {
        self.current
            .read()
            .expect("nothing panics while it holds the version")
            .clone()
    }

    /// Completes when a client that has ended its sending direction counts as gone: it takes no more
    /// byte of its answer for `within`, or for a shorter time while a call waits for an instance.
    /// The caller starts again after each byte.
    pub(crate) async fn give_up_half_closed(&self, within: Duration) {
        let patience = within.min(HALF_CLOSE_PATIENCE);
        sleep(patience).await;
        let shortage = self.version().app.wait_for_shortage();
        _ = timeout(within - patience, shortage).await;
    }

    /// Sends new requests and events of connections to this version. Work in flight ends with the
    /// version that it began with.
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
        // The first sweep comes before the change, so that the version receives no connection
        // without a route; the second one covers connections opened in between.
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

/// RFC 6455 section 7.4.1 and the registry of close codes: 1012 is "service restart", after which
/// clients reconnect.
pub(crate) fn route_is_gone() -> Close {
    Close::new(1012, "a new version of the app has no such route")
}
