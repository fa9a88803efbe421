//! Faults of calls into an app, and the only function that counts and logs them.
//!
//! A fault is a value until it has a consequence: an answer, a close, the end of a body, an error
//! for the room or route that called a room, or the end of an event for which no caller waits. The
//! code that decides the consequence calls [`Fault::report`], once. So a fault is counted once and
//! is one line of the log, whichever way it takes, and that line has the id that the client
//! receives.
//!
//! Three outcomes are no faults and are not reported: an event that the host could not deliver and
//! tries again (an on-close, an alarm), a call of a room that was refused as busy, whose caller
//! decides, and a call that its caller has given up.

use crate::{
    counters::Counters, name::RoomId, realtime::connections::Conn, request::RequestId,
    rooms::storage::EngineError,
};
use http::StatusCode;
use std::{fmt, time::Duration};
use tracing::field::display;

/// Reason why a call into an app gave no result. The instance is dropped; other instances are not
/// affected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The guest trapped (a panic, an unreachable, an out-of-bounds access). The text is for the
    /// operator.
    Trap(String),
    /// The guest computed for longer than one event may. Look for a busy loop.
    Cpu,
    /// The event took longer than one event may, including the time in which it waited.
    Wall,
    /// The guest asked for more memory than an instance may have, and trapped.
    Memory,
    /// The server was short of memory while the event ran: the guest's memory could not grow, or
    /// its instance was closed.
    Shortage,
    /// All instances are in use. Try again shortly, or raise the limit.
    Busy,
    /// The contract does not allow the guest's answer. The text is the reason.
    Answer(String),
    /// The instance could not be created, or the component does not export the handler.
    Host(String),
    /// The storage of rooms failed during this event, which did not happen. If that is not certain,
    /// the text says so.
    Storage(String),
    /// The storage of rooms was closed or full before this event, which did not happen and may be
    /// tried again. The text is the reason.
    Unavailable(String),
    /// The room fails to wake, and is closed for this long.
    Closed(Duration),
}

impl Fault {
    /// Returns true if the host could not call the app, or could not keep its changes. Then the app
    /// has not failed: it is no try of an alarm and no failed wake, and an event that must happen
    /// is tried again. Otherwise the app was called and has failed.
    pub fn is_of_host(&self) -> bool {
        match self {
            Fault::Shortage
            | Fault::Busy
            | Fault::Closed(_)
            | Fault::Host(_)
            | Fault::Storage(_)
            | Fault::Unavailable(_) => true,
            Fault::Trap(_) | Fault::Cpu | Fault::Wall | Fault::Memory | Fault::Answer(_) => false,
        }
    }

    /// Returns the HTTP status of the response that the fault becomes.
    pub fn status(&self) -> StatusCode {
        match self {
            Fault::Busy | Fault::Shortage | Fault::Closed(_) | Fault::Unavailable(_) => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            Fault::Wall => StatusCode::GATEWAY_TIMEOUT,
            Fault::Trap(_)
            | Fault::Cpu
            | Fault::Memory
            | Fault::Answer(_)
            | Fault::Host(_)
            | Fault::Storage(_) => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// Returns true if the app may have run a part of the event. A room discards that part; outside
    /// of rooms it has happened.
    pub fn has_begun(&self) -> bool {
        !self.is_of_host() || matches!(self, Fault::Shortage)
    }

    /// Counts the fault, writes it to the log, and returns its id there. Nothing else does either.
    pub fn report(&self, counters: &Counters, context: FaultContext<'_>) -> RequestId {
        let FaultContext {
            id,
            request,
            route,
            conn,
            room,
            event,
        } = context;
        counters.faults.add(1);
        let id = id.unwrap_or_else(RequestId::next);
        let route = route.or_else(|| Some(conn?.route()?.pattern.as_str()));
        let connection = conn.map(|conn| display(conn.id()));
        let room = room.or_else(|| conn.and_then(Conn::room)).map(display);
        let separator = if event.is_empty() { "" } else { ": " };
        tracing::error!(%id, request, route, connection, room, "{event}{separator}{self}");
        id
    }
}

/// The place of a fault, for its line of the log.
#[derive(Clone, Copy, Default)]
pub struct FaultContext<'a> {
    /// Id that the client has already received in the head of its answer. If `None`, the fault gets
    /// a new one.
    pub id: Option<RequestId>,
    /// Path and query.
    pub request: Option<&'a str>,
    /// Pattern of the route. If `None`, that of the connection.
    pub route: Option<&'a str>,
    /// The connection of the event.
    pub conn: Option<&'a Conn>,
    /// The room of the event. If `None`, that of the connection.
    pub room: Option<&'a RoomId>,
    /// The consequence, if it is not an answer or a close: the first words of the line.
    pub event: &'a str,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::Trap(chain) => write!(f, "the app trapped: {chain}"),
            Fault::Cpu => write!(f, "the app computed for longer than one event may"),
            Fault::Wall => write!(f, "the app took longer than one event may"),
            Fault::Memory => write!(f, "the app asked for more memory than an instance may have"),
            Fault::Shortage => write!(f, "the server is short of memory: see memory_max"),
            Fault::Busy => write!(f, "every instance of the app is busy"),
            Fault::Answer(what) => write!(f, "the app broke the contract: {what}"),
            Fault::Storage(what) => write!(f, "the room's event failed: {what}"),
            Fault::Unavailable(what) => write!(f, "the room's event did not happen: {what}"),
            Fault::Closed(wait) => write!(
                f,
                "the room failed to wake, and is closed for another {} s",
                wait.as_secs() + 1
            ),
            Fault::Host(what) => write!(f, "the app could not be called: {what}"),
        }
    }
}

impl std::error::Error for Fault {}

impl From<EngineError> for Fault {
    fn from(error: EngineError) -> Fault {
        let text = error.to_string();
        match error {
            EngineError::Full(_) | EngineError::Closed(_) => Fault::Unavailable(text),
            EngineError::Io(_) | EngineError::Corrupt(_) | EngineError::Unknown(_) => {
                Fault::Storage(text)
            }
        }
    }
}
