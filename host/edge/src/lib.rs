//! The network wall: sockets, HTTP/1.1, WebSocket frames, event streams and files, brokered to a hub's app.
//!
//! What a request may do and what an app is live in [`tidegate_hub`]; nothing here knows wasmtime.
//!
//! ```
//! use std::{net::TcpListener, sync::Arc};
//! use tidegate_edge::{Config, Server, Version, serve};
//! use tidegate_hub::{Hub, Limits, testing::FakeApp};
//! use tidegate_routing::{Exports, Manifest, Route, Router, Target};
//!
//! let manifest = Manifest { routes: vec![Route::new("GET", "/hello", Target::Http)], guards: vec![], pages: vec![] };
//! let router = Router::new(&manifest, Exports::ALL).unwrap();
//! let hub = Hub::new(Limits::default(), Default::default(), 1);
//! let version = Arc::new(Version { app: Arc::new(FakeApp::default()), router });
//! let server = Server::new(hub, version, Config::default());
//!
//! let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
//! let listener = TcpListener::bind("127.0.0.1:0").unwrap();
//! let workers = [runtime.handle().clone()];
//! let shutdown = async {}; // at once: a server would wait for a signal
//! let drained = runtime.block_on(serve(vec![listener], server, &workers, shutdown)).unwrap();
//! assert!(drained.in_time);
//! ```

mod accept;
mod answer;
mod authority;
pub mod client;
mod closing;
mod closings;
mod connection;
mod dev;
mod event_stream;
mod feed;
mod file_body;
mod files;
mod forwarded;
mod fragments;
mod handshake;
mod heartbeats;
mod held;
mod http1;
mod lifeline;
mod linger;
mod local;
mod media;
mod memory;
mod origin;
mod pace;
mod paced;
mod pages;
mod ping;
mod server;
mod sockets;
mod target;
mod trailers;
mod turn;
mod upgrade;
mod wire;

pub use accept::{Drained, serve};
pub use authority::{HostPattern, Hosts};
pub use dev::Pages;
pub use files::CacheRule;
pub use forwarded::Network;
pub use local::Local;
pub use origin::{Origins, is_web_origin};
pub use server::{Config, Server, Swapped, Version};
pub use sockets::SOCKETS_PER_ADDRESS_MAX;
