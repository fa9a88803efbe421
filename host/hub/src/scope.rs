//! The scope of an event: the app, whose effects are immediate, or a room, whose effects wait for
//! its commit.

use crate::{
    hub::Hub,
    limits::LimitError,
    message::Message,
    name::ConnId,
    realtime::{
        auto_response::AutoResponse,
        connections::Conn,
        history::{Position, StartPoint},
        outbox::SendError,
        publication::Publication,
    },
    rooms::{calls::RoomCall, transaction::Transaction},
};
use bytes::Bytes;
use std::sync::Arc;

/// The operations of an event. The scope decides when they take effect.
///
/// ```
/// use tidegate_hub::{Hub, Limits, Message, Publication, Scope};
/// let scope = Scope::App(Hub::new(Limits::default(), Default::default(), 1));
/// assert_eq!(scope.publish("tea", Publication::new(Message::text("hot"))), Ok(1));
/// ```
#[derive(Clone)]
pub enum Scope {
    /// The app: any connection, with immediate effects.
    App(Arc<Hub>),
    /// A room: its own connections, with effects at its commit.
    Room(Transaction),
}

impl Scope {
    /// Returns the room's transaction, if this is a room.
    pub fn room(&self) -> Option<&Transaction> {
        match self {
            Scope::App(_) => None,
            Scope::Room(transaction) => Some(transaction),
        }
    }

    /// Calls a room (WIT `rooms.call`), once.
    pub fn call(&self, class: &str, name: &str, payload: Bytes) -> RoomCall {
        match self {
            Scope::App(hub) => hub.call(None, class, name, payload),
            Scope::Room(transaction) => transaction.call(class, name, payload),
        }
    }

    /// Returns a live connection by its id.
    pub fn find(&self, id: ConnId) -> Option<Arc<Conn>> {
        match self {
            Scope::App(hub) => hub.connections().find(id),
            Scope::Room(transaction) => transaction.find(id),
        }
    }

    /// Returns a page of ids (WIT `websockets.ids`).
    pub fn ids(&self, tag: Option<&str>, after: Option<ConnId>, limit: usize) -> Vec<ConnId> {
        match self {
            Scope::App(hub) => hub.connections().ids(tag, after, limit),
            Scope::Room(transaction) => transaction.ids(tag, after, limit),
        }
    }

    /// Queues a message.
    pub fn send(&self, conn: &Arc<Conn>, message: Message) -> Result<(), SendError> {
        match self {
            Scope::App(_) => conn.send(message),
            Scope::Room(transaction) => transaction.send(conn, message),
        }
    }

    /// Returns the bytes queued for the connection.
    pub fn queued(&self, conn: &Conn) -> usize {
        match self {
            Scope::App(_) => conn.outbox().queued(),
            Scope::Room(transaction) => transaction.queued(conn),
        }
    }

    /// Closes the connection after the messages in its queue.
    pub fn close(&self, conn: &Arc<Conn>, code: u16, reason: &str) -> Result<(), LimitError> {
        match self {
            Scope::App(_) => conn.close(code, reason),
            Scope::Room(transaction) => transaction.close(conn, code, reason),
        }
    }

    /// Returns the app's own state for the connection.
    pub fn attachment(&self, conn: &Conn) -> Bytes {
        match self {
            Scope::App(_) => conn.attachment(),
            Scope::Room(transaction) => transaction.attachment(conn),
        }
    }

    /// Replaces the attachment.
    pub fn set_attachment(&self, conn: &Arc<Conn>, value: Bytes) -> Result<(), LimitError> {
        match self {
            Scope::App(_) => conn.set_attachment(value),
            Scope::Room(transaction) => transaction.set_attachment(conn, value),
        }
    }

    /// Returns the connection's tags.
    pub fn tags(&self, conn: &Conn) -> Vec<String> {
        match self {
            Scope::App(_) => conn.tags(),
            Scope::Room(transaction) => transaction.tags(conn),
        }
    }

    /// Replaces the tags.
    pub fn set_tags(&self, conn: &Arc<Conn>, tags: Vec<String>) -> Result<(), LimitError> {
        match self {
            Scope::App(_) => conn.set_tags(tags),
            Scope::Room(transaction) => transaction.set_tags(conn, tags),
        }
    }

    /// Subscribes the connection to a topic, from `since` on.
    pub fn follow(
        &self,
        conn: &Arc<Conn>,
        topic: &str,
        since: Option<Position>,
    ) -> Result<StartPoint, LimitError> {
        match self {
            Scope::App(_) => conn.follow(topic, since),
            Scope::Room(transaction) => transaction.follow(conn, topic, since),
        }
    }

    /// Undoes [`follow`](Scope::follow). Fails if a room's event exceeds its bound.
    pub fn unfollow(&self, conn: &Arc<Conn>, topic: &str) -> Result<(), LimitError> {
        match self {
            Scope::App(_) => {
                conn.unfollow(topic);
                Ok(())
            }
            Scope::Room(transaction) => transaction.unfollow(conn, topic),
        }
    }

    /// Sets the auto-response of the connections that are in no room, or of the room's.
    pub fn set_auto_response(&self, response: Option<AutoResponse>) -> Result<(), LimitError> {
        match self {
            Scope::App(hub) => {
                hub.connections().set_auto_response(response);
                Ok(())
            }
            Scope::Room(transaction) => transaction.set_auto_response(response),
        }
    }

    /// Publishes to a topic. Returns the publication's number, or 0 if it waits for a commit.
    pub fn publish(&self, topic: &str, publication: Publication) -> Result<u64, LimitError> {
        match self {
            Scope::App(hub) => hub.publish(topic, publication),
            Scope::Room(transaction) => transaction.publish(topic, publication).map(|()| 0),
        }
    }
}
