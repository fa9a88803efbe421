//! Clients in this process: their connections are pipes instead of sockets, and are served in the
//! same way.

use crate::{
    drain::DrainGuard,
    http::http1::{self, Peer},
    server::Server,
};
use std::{net::SocketAddr, sync::Arc};
use tidegate_hub::budget::{Charge, MemoryKind};
use tokio::{
    io::{DuplexStream, duplex},
    sync::watch,
};

/// Size of a pipe's buffer in each direction, in bytes.
const PIPE_BYTES: usize = 64 << 10;

/// A server without a network. Dropping it ends its connections like a drain.
///
/// ```
/// use std::sync::Arc;
/// use tidegate_edge::{Config, InProcess, Server, Version};
/// use tidegate_hub::{Hub, Limits, testing::FakeApp};
/// use tidegate_routing::{Exports, Manifest, Route, Router, Target};
/// use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
///
/// let manifest = Manifest { routes: vec![Route::new("GET", "/hello", Target::Http)], guards: vec![], pages: vec![] };
/// let router = Router::new(&manifest, Exports::ALL).unwrap();
/// let version = Arc::new(Version { app: Arc::new(FakeApp::default()), router });
/// let server = InProcess::new(Server::new(Hub::new(Limits::default(), Default::default(), 1), version, Config::default()));
///
/// let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
/// runtime.block_on(async {
///     let mut pipe = server.connect();
///     pipe.write_all(b"GET /hello HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.unwrap();
///     let mut answer = String::new();
///     pipe.read_to_string(&mut answer).await.unwrap();
///     assert!(answer.starts_with("HTTP/1.1 200 OK") && answer.ends_with("/hello"));
/// });
/// ```
pub struct InProcess {
    server: Arc<Server>,
    drain: DrainGuard,
    _stop: watch::Sender<bool>,
}

impl InProcess {
    /// Creates a server without connections.
    pub fn new(server: Arc<Server>) -> InProcess {
        let (drain, stop, _) = DrainGuard::new();
        InProcess {
            server,
            drain,
            _stop: stop,
        }
    }

    /// Opens a connection, served on the current runtime, and returns the client's end.
    pub fn connect(&self) -> DuplexStream {
        let (client, server) = duplex(PIPE_BYTES);
        let peer = Peer {
            address: SocketAddr::from(([127, 0, 0, 1], 1)),
            proxy: None,
            buffers: Charge::new(MemoryKind::Socket),
        };
        tokio::spawn(http1::serve(
            server,
            peer,
            self.server.clone(),
            self.drain.clone(),
        ));
        client
    }
}
