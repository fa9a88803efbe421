//! Calls into rooms, from routes and from other rooms: the receiver of calls, and the errors of a
//! call.

use crate::{name::RoomId, rooms::storage::EngineStatus};
use bytes::Bytes;
use std::{fmt, future::Future, pin::Pin};

/// Receiver of calls: all rooms of an app.
pub trait Callee: Send + Sync {
    /// Calls a room once. `caller` is the room whose event calls and waits for the answer. Dropping
    /// the future cancels the call if it still waits for its turn; otherwise only its answer is
    /// lost.
    fn call_room(&self, caller: Option<&RoomId>, room: RoomId, payload: Bytes) -> RoomCall;
    /// Returns whether rooms can be read and written now.
    fn storage_status(&self) -> EngineStatus;
}

/// A call whose answer is still to come.
pub type RoomCall = Pin<Box<dyn Future<Output = Result<Bytes, CallError>> + Send>>;

/// Why a call gave no answer (WIT `rooms.call-error`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CallError {
    /// The app has no such class, or no room can have this name.
    NotValid,
    /// The payload is longer than the limit.
    TooLarge,
    /// The room that is called waits for the room that calls.
    Cycle,
    /// The call was not made: the room's queue is full, every instance is in use, or the room is
    /// closed for a while.
    Busy,
    /// The room's event failed, and was undone unless it flushed.
    Failed,
    /// There was no answer in time; the event may have happened, or may still.
    Deadline,
    /// Refusal by the room: a status as in HTTP, and a text.
    Refused(u16, String),
}

impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CallError::NotValid => write!(f, "there is no such room"),
            CallError::TooLarge => write!(
                f,
                "the call's payload is longer than the host's limit for it"
            ),
            CallError::Cycle => write!(f, "the room waits for the one that calls it"),
            CallError::Busy => write!(f, "the room is busy"),
            CallError::Failed => write!(f, "the room's event failed"),
            CallError::Deadline => write!(f, "the room did not answer in time"),
            CallError::Refused(status, text) => write!(f, "the room refused: {status} {text}"),
        }
    }
}

impl std::error::Error for CallError {}
