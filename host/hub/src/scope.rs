//! The scope of an event: the app, whose effects are immediate, or a room, whose effects wait for
//! its commit.

use crate::{
    effect::{Effect, EffectError, EffectOutcome},
    hub::Hub,
    name::ConnId,
    realtime::connections::Conn,
    rooms::{calls::RoomCall, transaction::Transaction},
};
use bytes::Bytes;
use std::sync::Arc;

/// The operations of an event: it reads the state with its own changes, and performs effects. The
/// scope decides when they happen.
///
/// ```
/// use tidegate_hub::{Effect, EffectOutcome, Hub, Limits, Message, Publication, Scope};
/// let scope = Scope::App(Hub::new(Limits::default(), Default::default(), 1));
/// let effect = Effect::Publish("tea".into(), Publication::new(Message::text("hot")));
/// assert_eq!(scope.perform(effect), Ok(EffectOutcome::Published(1)));
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

    /// Performs an effect: an event of the app applies it at once, an event of a room stages it
    /// until its commit is durable.
    pub fn perform(&self, effect: Effect) -> Result<EffectOutcome, EffectError> {
        match self {
            Scope::App(hub) => effect.apply(hub),
            Scope::Room(transaction) => transaction.stage(effect),
        }
    }

    /// Returns the bytes queued for the connection.
    pub fn queued(&self, conn: &Conn) -> usize {
        match self {
            Scope::App(_) => conn.outbox().queued(),
            Scope::Room(transaction) => transaction.queued(conn),
        }
    }

    /// Returns the app's own state for the connection.
    pub fn attachment(&self, conn: &Conn) -> Bytes {
        match self {
            Scope::App(_) => conn.attachment(),
            Scope::Room(transaction) => transaction.attachment(conn),
        }
    }

    /// Returns the connection's tags.
    pub fn tags(&self, conn: &Conn) -> Vec<String> {
        match self {
            Scope::App(_) => conn.tags(),
            Scope::Room(transaction) => transaction.tags(conn),
        }
    }
}
