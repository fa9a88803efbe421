//! SDK for Tidegate apps: HTTP routes, WebSockets, event streams and rooms in a WebAssembly
//! component.
//!
//! The host owns every connection; it calls an app with events, and the app answers with effects.
//! Build an app with `cargo build --target wasm32-wasip2` or `cargo component build`.
//!
//! # Examples
//!
//! An echo and a room without state:
//!
//! ```
//! use tidegate::prelude::*;
//!
//! tidegate::serve!(|| App::new().room::<Chat>("/rooms/{name}").socket("/echo", echo));
//!
//! async fn echo(conn: Conn, msg: Message) -> Result {
//!     conn.send(msg)
//! }
//! #[derive(Default)]
//! struct Chat;
//! impl Room for Chat {
//!     async fn message(&mut self, cx: &Cx, _: &Conn, msg: Message) -> Result {
//!         cx.broadcast(msg)
//!     }
//! }
//! ```
//!
//! Routes, errors and a test:
//!
//! ```
//! use tidegate::prelude::*;
//!
//! tidegate::serve!(app);
//!
//! fn app() -> App {
//!     App::new()
//!         .get("/", async |_| "hello")
//!         .get("/users/{id}", show_user)
//!         .socket("/echo", async |conn: Conn, msg| conn.send(msg))
//! }
//!
//! async fn show_user(req: Request) -> Result<String> {
//!     let id: u64 = req.param("id")?; // an invalid id is answered with 400
//!     Ok(format!("user {id}"))
//! }
//!
//! // in a test: no network, no wasm
//! let mut server = tidegate::testing::serve(app());
//! assert_eq!(server.get("/users/7").text(), "user 7");
//! let ann = server.connect("/echo");
//! server.send(ann, "hi");
//! assert_eq!(server.received(ann), ["hi"]);
//! ```

pub mod app;
pub mod conn;
pub mod cx;
pub mod error;
pub mod feed;
pub mod form;
pub mod guard;
pub mod loader;
pub mod message;
pub mod page;
pub mod position;
pub mod presence;
pub mod request;
pub mod response;
pub mod room;
pub mod room_ref;
pub mod socket;
pub mod sse;
pub mod stream;
pub mod task;
#[cfg(not(target_family = "wasm"))]
pub mod testing;
pub mod topic;
mod value_slot;
mod world;

#[cfg(target_family = "wasm")]
#[doc(hidden)]
pub mod bindings;

pub use app::App;
pub use conn::{Conn, LimitError, SendError, clear_auto_response, find, ids, set_auto_response};
pub use cx::{Cx, Range, StorageError};
pub use error::{Error, Result};
pub use feed::Feed;
pub use form::{Done, Field, Form};
pub use guard::Pass;
pub use loader::{Loader, Sink};
pub use message::Message;
pub use page::{Page, View};
pub use position::{Position, StartPoint};
pub use presence::{Member, Presence};
pub use request::Request;
pub use response::{IntoResponse, Json, Response};
pub use room::Room;
pub use room_ref::{CallError, RoomRef, room};
pub use socket::{Accept, CloseEvent, Outcome, Socket, Upgrade};
pub use sse::Event;
pub use stream::{Body, Reply};
pub use task::sleep;
pub use topic::{Publication, publish, publish_except};

/// Names that most apps need: `use tidegate::prelude::*;`.
pub mod prelude {
    pub use crate::{
        Accept, App, CloseEvent, Conn, Cx, Done, Error, Event, Feed, Form, IntoResponse, Json,
        Loader, Message, Page, Pass, Position, Publication, Reply, Request, Response, Result, Room,
        Sink, Socket, Upgrade, View, find, ids, publish, publish_except, set_auto_response, sleep,
    };
}

/// Makes the crate a component that serves the app. Its argument is a function without arguments
/// that builds an [`App`]. Use it once in a crate. Natively it only checks the function's type.
///
/// # Examples
///
/// ```
/// use tidegate::prelude::*;
///
/// tidegate::serve!(app);
///
/// fn app() -> App {
///     App::new().get("/", async |_| "hello")
/// }
/// ```
#[macro_export]
macro_rules! serve {
    ($app:expr) => {
        #[cfg(target_family = "wasm")]
        const _: () = {
            struct Component;

            impl $crate::Serve for Component {
                fn app() -> $crate::App {
                    $app()
                }
            }

            type Exported = $crate::AppExports<Component>;

            $crate::__export!(Exported);
        };

        #[cfg(not(target_family = "wasm"))]
        const _: fn() -> $crate::App = $app;
    };
}

/// Implemented by [`serve!`].
#[doc(hidden)]
pub trait Serve {
    /// Builds the app.
    fn app() -> App;
}

#[cfg(target_family = "wasm")]
#[doc(hidden)]
pub use {wasip2, world::AppExports};

/// Exports everything of the component.
#[cfg(target_family = "wasm")]
#[doc(hidden)]
#[macro_export]
macro_rules! __export {
    ($component:ident) => {
        $crate::bindings::export_app!($component with_types_in $crate::bindings);
        $crate::wasip2::http::proxy::export!($component with_types_in $crate::wasip2);
    };
}
