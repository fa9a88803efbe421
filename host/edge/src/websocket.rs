//! WebSockets (RFC 6455): the handshake, the connection, and its last event.
//!
//! `handshake` and `upgrade` make a connection of a request. `connection` is its task, `wire` its
//! frames, `fragments` its messages of many frames. `closing` and `closings` deliver the on-close.

pub(crate) mod closing;
pub(crate) mod closings;
pub(crate) mod connection;
pub(crate) mod fragments;
pub(crate) mod handshake;
pub(crate) mod ping;
pub(crate) mod upgrade;
pub(crate) mod wire;
