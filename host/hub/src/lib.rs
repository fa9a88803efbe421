//! The middle of Tidegate: what a request, a connection, a topic and an app are, and every rule about them.
//!
//! Nothing here does I/O, reads a clock or knows wasmtime, hyper or a command line: time is an
//! argument, a socket is an [`Outbox`] that somebody drains, guest code is an [`App`].
//!
//! ```
//! use std::sync::Arc;
//! use tidegate_hub::{Hub, Limits, Message, Outgoing, Accept, Publication};
//!
//! let hub = Hub::new(Limits::default(), Default::default(), 1);
//! let ann = hub.open(Accept::default()).unwrap();
//! ann.follow("tea", None).unwrap();
//! hub.publish("tea", Publication::new(Message::text("hello"))).unwrap();
//! let mut batch = std::collections::VecDeque::new();
//! ann.outbox().take(&mut batch);
//! assert!(matches!(&batch[0], Outgoing::Publication(p) if p.message == Message::text("hello")));
//! ```

mod alarms;
pub mod app;
pub mod auto_response;
pub mod budget;
pub mod calls;
pub mod connections;
pub mod contract;
pub mod counters;
pub mod dispatch;
mod effects;
pub mod event;
pub mod feed;
pub mod front;
pub mod history;
pub mod hub;
pub mod json;
pub mod limits;
pub mod message;
pub mod name;
pub mod now;
pub mod outbox;
mod overlay;
pub mod page;
pub mod publication;
pub mod request;
pub mod retry;
mod room;
pub mod rooms;
pub mod scope;
pub mod session;
pub mod storage;
pub mod testing;
pub mod topics;
pub mod transaction;

pub use app::{
    ActionRun, App, Body, BodyError, Call, Fault, Frame, LoaderRun, Pages, StreamingResponse,
};
pub use auto_response::AutoResponse;
pub use budget::Budget;
pub use calls::CallError;
pub use connections::{Conn, ConnectionGuard};
pub use counters::Counters;
pub use event::{Accept, CloseEvent, Decision, Pass, Verdict};
pub use feed::{Feed, FeedEvent};
pub use front::RoomRouter;
pub use history::{Position, Positions, StartPoint};
pub use hub::Hub;
pub use limits::{LimitError, Limits};
pub use message::Message;
pub use name::{ConnId, RoomId};
pub use now::Now;
pub use outbox::{Close, Outbox, Outgoing, SendError};
pub use publication::{Overflow, Publication, TopicPolicy};
pub use request::{Header, Request, RequestId, Response};
pub use rooms::Rooms;
pub use scope::Scope;
pub use session::Session;
pub use storage::{Alarm, Batch, Engine, EngineError, EngineStatus, RoomRecord};
pub use transaction::{StorageError, Transaction};
