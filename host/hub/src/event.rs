//! Events of an app and its answers: plain values on both sides of a call.

use crate::{
    name::RoomId,
    request::{Header, Response},
};
use bytes::Bytes;
use std::sync::Arc;
use tidegate_routing::Route;

/// Result of a guard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The request goes on.
    Pass(Pass),
    /// The request ends with this response.
    Answer(Response),
}

/// Additions by a guard that passes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pass {
    /// Headers of the response.
    pub headers: Vec<Header>,
    /// Names and values in the request's context.
    pub context: Vec<(String, String)>,
}

/// The app's decision about an upgrade.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Complete the handshake.
    Accept(Accept),
    /// Refuse it with this answer.
    Reject(Response),
    /// Complete the handshake, and close at once with this code and reason.
    AcceptThenClose(u16, String),
}

/// Properties of an accepted connection.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Accept {
    /// One of the offered subprotocols, or none.
    pub protocol: Option<String>,
    /// Headers that are added to the 101.
    pub headers: Vec<Header>,
    /// The app's own state for the connection.
    pub attachment: Bytes,
    /// Tags of the connection.
    pub tags: Vec<String>,
    /// The room that it is connected to. The host sets it, not the app.
    pub room: Option<RoomId>,
    /// The route by which it came. The host sets it, not the app.
    pub route: Option<Arc<Route>>,
}

/// The end of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CloseEvent {
    /// Code of the close frame; 1005 if it had none, 1006 if there was no close frame.
    pub code: u16,
    /// Reason of the close frame.
    pub reason: String,
    /// True if the close handshake was completed.
    pub was_clean: bool,
    /// True if the peer began the close.
    pub is_peer_initiated: bool,
}
