//! WebSockets (RFC 6455): the handshake, the connection, and its last event.
//!
//! `handshake` and `upgrade` turn a request into a connection. `connection` is its task, `wire` its
//! frames, `fragments` the frame count of its messages. `close_delivery` and `pending_closes`
//! deliver the on-close.

pub(crate) mod close_delivery;
pub(crate) mod connection;
pub(crate) mod fragments;
pub(crate) mod handshake;
pub(crate) mod pending_closes;
pub(crate) mod ping;
pub(crate) mod upgrade;
pub(crate) mod wire;
