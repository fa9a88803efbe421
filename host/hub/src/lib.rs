//! The middle of Tidegate: requests, connections, topics and rooms, and the rules for each of them.
//!
//! The hub does no I/O, reads no clock, and does not know wasmtime, hyper or a command line: time
//! is an argument, a socket is an [`Outbox`] that its owner drains, and guest code is an [`App`].
//!
//! - [`app`] is the interface to guest code: the events that an app receives.
//! - [`fault`] has the faults of its calls, and counts and logs them.
//! - [`dispatch`] is the order in which a request is handled.
//! - [`contract`] checks the answers of an app.
//! - [`scope`] performs the [`effect`]s of an event: at once, or when a room's event is durable.
//! - [`realtime`] has connections, feeds and topics; [`rooms`] has rooms and their storage.
//! - [`hub`] is the handle that all layers share; [`limits`], [`budget`] and [`counters`] are its
//!   bounds and figures.
//!
//! ```
//! use std::sync::Arc;
//! use tidegate_hub::{Accept, Hub, Limits, Message, Outgoing, Publication};
//!
//! let hub = Hub::new(Limits::default(), Default::default(), 1);
//! let ann = hub.open(Accept::default()).unwrap();
//! ann.follow("tea", None).unwrap();
//! hub.publish("tea", Publication::new(Message::text("hello"))).unwrap();
//! let mut batch = std::collections::VecDeque::new();
//! ann.outbox().take(&mut batch);
//! assert!(matches!(&batch[0], Outgoing::Publication(p) if p.message == Message::text("hello")));
//! ```

pub mod app;
pub mod budget;
pub mod contract;
pub mod counters;
pub mod dispatch;
pub mod effect;
pub mod envelope;
pub mod event;
pub mod fault;
pub mod form;
pub mod hub;
pub mod json;
pub mod limits;
pub mod message;
pub mod name;
pub mod now;
pub mod page;
pub mod realtime;
pub mod request;
pub mod retry;
pub mod rooms;
pub mod scope;
pub mod testing;

pub use app::{
    ActionRun, App, BodyError, BodyStream, Call, Frame, LoaderRun, Pages, StreamingResponse,
};
pub use budget::Budget;
pub use counters::Counters;
pub use effect::{Effect, EffectError, EffectOutcome};
pub use event::{Accept, CloseEvent, Decision, Pass, Verdict};
pub use fault::{Fault, FaultContext};
pub use hub::Hub;
pub use limits::{LimitError, Limits};
pub use message::Message;
pub use name::{ConnId, RoomId};
pub use now::Now;
pub use realtime::auto_response::AutoResponse;
pub use realtime::connections::{Conn, ConnectionGuard};
pub use realtime::feed::{Feed, FeedEvent};
pub use realtime::history::{Position, Positions, StartPoint};
pub use realtime::outbox::{Close, Outbox, Outgoing, SendError};
pub use realtime::publication::{Overflow, Publication, TopicPolicy};
pub use realtime::session::Session;
pub use request::{Header, Request, RequestId, Response};
pub use rooms::calls::CallError;
pub use rooms::router::RoomRouter;
pub use rooms::scheduler::Rooms;
pub use rooms::storage::{Alarm, Batch, Engine, EngineError, EngineStatus, RoomRecord};
pub use rooms::transaction::{StorageError, Transaction};
pub use scope::Scope;
