//! What an app is told, and what it answers: plain values on both sides of a call.

use crate::{
    name::RoomId,
    request::{Header, Response},
};
use bytes::Bytes;
use std::sync::Arc;
use tidegate_routing::Route;

/// What a guard says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Go on.
    Pass(Pass),
    /// Stop here with this answer.
    Answer(Response),
}

/// What a guard that passes adds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pass {
    /// To the answer.
    pub headers: Vec<Header>,
    /// To the request's context.
    pub context: Vec<(String, String)>,
}

/// What an app decides about an upgrade.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Complete the handshake.
    Accept(Accept),
    /// Refuse it with this answer.
    Reject(Response),
    /// Complete it and close at once with this code and reason.
    AcceptThenClose(u16, String),
}

/// How a connection begins.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Accept {
    /// One of those offered, or none.
    pub protocol: Option<String>,
    /// Added to the 101.
    pub headers: Vec<Header>,
    /// The app's own state for the connection.
    pub attachment: Bytes,
    /// The connection's tags.
    pub tags: Vec<String>,
    /// The room that it is connected to; never the app's choice.
    pub room: Option<RoomId>,
    /// The route that it came by; never the app's choice either.
    pub route: Option<Arc<Route>>,
}

/// How a connection ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CloseEvent {
    /// As in the close frame; 1005 when it had none, 1006 when there was no close frame.
    pub code: u16,
    /// As in the close frame.
    pub reason: String,
    /// Whether the close handshake was completed.
    pub was_clean: bool,
    /// Whether the peer began it.
    pub is_peer_initiated: bool,
}
