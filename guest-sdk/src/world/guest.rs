//! The boundary in wasm: handlers call the host through imports, and the host calls handlers
//! through exports.

mod exports;
mod form;
mod io;
mod pages;
mod room;

use crate::{
    LimitError, Message, Position, Publication, SendError, StartPoint,
    bindings::tidegate::app::{
        topics, types,
        websockets::{self, Connection},
    },
};
use std::{mem::ManuallyDrop, ops};

pub use exports::AppExports;
pub(crate) use form::Form;
pub(crate) use io::{Incoming, Outgoing, Wait, idle, wait};
pub(crate) use room::{
    call, now, rollback, room_alarm, room_broadcast, room_clear, room_delete, room_entries,
    room_flush, room_get, room_position, room_put, room_set_alarm,
};

/// A connection of the host. Functions that need no conversion are those of the import.
pub(crate) enum Handle {
    /// Lent for one event, which owns the handle and drops it.
    Lent(ManuallyDrop<Connection>),
    /// Found by its id.
    Found(Connection),
}

impl ops::Deref for Handle {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        match self {
            Handle::Lent(connection) => connection,
            Handle::Found(connection) => connection,
        }
    }
}

impl Handle {
    /// Returns a second handle to a connection that an event lends. `Conn` ensures that it is not
    /// used after the event.
    #[allow(unsafe_code)]
    fn lent(connection: &Connection) -> Handle {
        // SAFETY: the handle belongs to this instance, and `ManuallyDrop` leaves the drop to its
        // owner. A handle is a number that the host checks: a wrong one traps and touches no
        // memory.
        Handle::Lent(ManuallyDrop::new(unsafe {
            Connection::from_handle(connection.handle())
        }))
    }

    /// Returns the same connection for another owner within the event.
    pub(crate) fn again(&self) -> Handle {
        Handle::lent(self)
    }

    pub(crate) fn send(&self, message: Message) -> Result<(), websockets::SendError> {
        Connection::send(self, &outward(message))
    }

    pub(crate) fn follow(
        &self,
        topic: &str,
        since: Option<Position>,
    ) -> Result<StartPoint, types::LimitError> {
        Connection::follow(self, topic, since.map(position)).map(start_point)
    }

    pub(crate) fn resume(&self, since: Position) -> Result<StartPoint, LimitError> {
        room::resume(self, since)
    }
}

pub(crate) fn find(id: &str) -> Option<Handle> {
    websockets::find(id).map(Handle::Found)
}

pub(crate) fn ids(tag: Option<&str>, after: Option<&str>, limit: u32) -> Vec<String> {
    websockets::ids(tag, after, limit)
}

pub(crate) fn set_auto_response(pair: Option<(&str, &str)>) -> Result<(), LimitError> {
    let pair = pair.map(|(request, response)| websockets::AutoResponse {
        request: request.to_owned(),
        response: response.to_owned(),
    });
    Ok(websockets::set_auto_response(pair.as_ref())?)
}

pub(crate) fn publish(topic: &str, publication: Publication) -> Result<u64, LimitError> {
    Ok(topics::publish(topic, &published(publication))?)
}

// These are functions, because `From` would show generated types in the documentation and error
// messages.

fn published(publication: Publication) -> topics::Publication {
    let Publication {
        message,
        event,
        except,
        transient: is_transient,
    } = publication;
    topics::Publication {
        message: outward(message),
        event,
        except,
        is_transient,
    }
}

fn outward(message: Message) -> types::Message {
    match message {
        Message::Text(text) => types::Message::Text(text),
        Message::Binary(bytes) => types::Message::Binary(bytes),
    }
}

fn inward(message: types::Message) -> Message {
    match message {
        types::Message::Text(text) => Message::Text(text),
        types::Message::Binary(bytes) => Message::Binary(bytes),
    }
}

fn position(position: Position) -> types::Position {
    types::Position {
        epoch: position.epoch,
        sequence: position.sequence,
    }
}

fn start_point(start: types::StartPoint) -> StartPoint {
    let types::Position { epoch, sequence } = start.position;
    StartPoint {
        position: Position { epoch, sequence },
        has_gap: start.has_gap,
    }
}

// Hidden, because the documentation of the SDK does not show generated types.

#[doc(hidden)]
impl From<websockets::SendError> for SendError {
    fn from(error: websockets::SendError) -> SendError {
        match error {
            websockets::SendError::Closed => SendError::Closed,
            websockets::SendError::Full => SendError::Full,
            websockets::SendError::TooLarge => SendError::TooLarge,
        }
    }
}

#[doc(hidden)]
impl From<types::LimitError> for LimitError {
    fn from(error: types::LimitError) -> LimitError {
        match error {
            types::LimitError::TooLarge => LimitError::TooLarge,
            types::LimitError::TooMany => LimitError::TooMany,
            types::LimitError::Invalid => LimitError::Invalid,
        }
    }
}
