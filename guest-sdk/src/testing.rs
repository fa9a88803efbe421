//! Native tests of an app with the host's own routes, rules, guards, connections, topics and
//! limits, without network, wasm and waiting.
//!
//! A client receives the same as from the host: requests take the host's own order of handling, and
//! the host's own scheduler runs the rooms. An answer that violates the contract fails the test
//! with the text that the host writes for its operator. A panic ends its event as a trap does, with
//! a 500 or, for a connection, 1011; all other events continue. The host's configuration does not
//! apply: origins, files, timeouts.
//!
//! # Examples
//!
//! ```
//! use tidegate::{prelude::*, testing::{self, Connect}};
//!
//! fn app() -> App {
//!     App::new().get("/", async |_| "hello").socket("/echo", async |conn: Conn, msg| conn.send(msg))
//! }
//!
//! let mut server = testing::serve(app());
//! assert_eq!(server.get("/").text(), "hello");
//! let ann = server.connect(Connect::to("/echo").header("cookie", "name=ann"));
//! server.send(ann, "hi");
//! server.send(ann, b"\x01\x02");
//! let received = server.received(ann);
//! assert!(received[0] == "hi" && received[1] == b"\x01\x02");
//! server.close(ann);
//! assert_eq!(server.closed(ann), Some((1000, String::new())));
//! ```

mod call;
mod client;
mod client_response;
mod connect;
mod feed_event;
mod host;
mod listener;
mod native_app;
mod pages;
mod rooms;
mod server;
mod tasks;
mod thread_bound;

use crate::App;
pub use client::ConnRef;
pub use client_response::ClientResponse;
pub use connect::Connect;
pub use feed_event::FeedEvent;
pub use listener::FeedRef;
pub use pages::{LoaderOutput, Upload};
pub use server::{Server, StreamRequest};
use tidegate_routing::{Exports, Manifest, Router};

/// Serves the app to this test.
///
/// Panics with every violation, as the host's `check` lists them, if the host would refuse the app.
///
/// # Examples
///
/// ```should_panic
/// use tidegate::{prelude::*, testing};
///
/// testing::serve(App::new().get("/__mine", async |_| "no: such paths are the host's"));
/// ```
pub fn serve(app: App) -> Server {
    Server::new(app)
}

/// Returns the router and the manifest of an app that breaks no rule.
fn checked(app: &App) -> (Router, Manifest) {
    let manifest = app.manifest();
    let router = Router::new(&manifest, Exports::ALL).unwrap_or_else(|violations| {
        let lines: Vec<String> = violations.iter().map(ToString::to_string).collect();
        panic!("the host refuses this app:\n{}", lines.join("\n"))
    });
    (router, manifest)
}
