//! Live connections: WebSockets, feeds and the topics that both follow.
//!
//! - `session` decides what happens next on one WebSocket. It does no I/O, and receives the time.
//! - `outbox` is the bounded queue to one client; its entries are in `outgoing`.
//! - `connections` lists the live connections by id, tag and room.
//! - `topics` delivers a `publication` to the outbox of each follower; `history` keeps the latest
//!   ones for clients that come back.
//! - `feed` is the app's response to a client that asks for an event stream.
//! - `auto_response` answers a fixed text without a call into the app.

pub mod auto_response;
pub mod connections;
pub mod feed;
pub mod history;
pub mod outbox;
pub mod outgoing;
pub mod publication;
pub mod session;
pub mod topics;
