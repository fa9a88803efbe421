//! The network boundary: it connects sockets, HTTP/1.1, WebSocket frames, event streams and files
//! with the app of a hub.
//!
//! [`tidegate_hub`] has the app interface and the calls of an app. This crate does not depend on
//! wasmtime.
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
pub mod client;
mod dev;
mod drain;
mod files;
mod http;
mod in_process;
mod memory;
mod pages;
mod server;
mod sockets;
mod sse;
mod websocket;

pub use accept::{Drained, serve};
pub use dev::DevChannel;
pub use files::CacheRule;
pub use http::authority::{HostPattern, Hosts};
pub use http::network::Network;
pub use http::origin::{Origins, is_web_origin};
pub use in_process::InProcess;
pub use server::{Config, Server, Swapped, Version};
pub use sockets::SOCKETS_PER_ADDRESS_MAX;
