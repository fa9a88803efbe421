//! A connection as apps see it, and the guard of its owner.

use super::{Connections, check_close, check_tags};
use crate::{
    budget::Charge,
    limits::LimitError,
    message::Message,
    name::{ConnId, RoomId},
    realtime::{
        auto_response::AutoResponder,
        history::{Position, Positions, StartPoint},
        outbox::{Close, Outbox, SendError},
    },
};
use bytes::Bytes;
use std::{
    any::Any,
    collections::BTreeSet,
    ops,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
};
use tidegate_routing::Route;

/// A WebSocket connection as apps see it. Its owner has the socket.
pub struct Conn {
    pub(super) id: ConnId,
    pub(super) protocol: Option<String>,
    pub(super) room: Option<RoomId>,
    pub(super) route: Option<Arc<Route>>,
    pub(super) outbox: Arc<Outbox>,
    /// The auto-response of a room is set when the connection joins the room.
    pub(super) auto_responder: OnceLock<Arc<AutoResponder>>,
    /// True if its on-open has happened: then the app must get an on-close.
    pub(super) opened: AtomicBool,
    pub(super) last_version: OnceLock<LastVersion>,
    pub(super) others: Arc<Connections>,
    pub(super) state: Mutex<ConnState>,
}

/// A version of the app. Its type is chosen by the owner of the connections.
pub type LastVersion = Arc<dyn Any + Send + Sync>;

/// The parts of a connection that an app may change, from any instance.
pub(super) struct ConnState {
    pub(super) attachment: Bytes,
    pub(super) tags: Vec<String>,
    pub(super) follows: BTreeSet<String>,
    /// Number of bytes of the names in `follows`.
    pub(super) follows_bytes: usize,
    pub(super) charge: Charge,
    /// True if the registry has removed it: it can no longer follow topics or get tags.
    pub(super) gone: bool,
}

/// Bytes that a tag or a topic takes beside its name: an entry of the connection and one of the
/// index.
const NAME_BYTES: usize = 128;

impl ConnState {
    /// Returns the bytes that the connection takes here and in the registry with this attachment,
    /// these tags, and `start` more bytes of names of topics.
    pub(super) fn weight(&self, attachment: &[u8], tags: &[String], start: usize) -> usize {
        let tags: usize = tags.iter().map(|tag| NAME_BYTES + tag.len()).sum();
        attachment.len() + tags + self.follows.len() * NAME_BYTES + self.follows_bytes + start
    }
}

impl Conn {
    /// Returns the id.
    pub fn id(&self) -> ConnId {
        self.id
    }

    /// Returns the subprotocol that was chosen.
    pub fn protocol(&self) -> Option<&str> {
        self.protocol.as_deref()
    }

    /// Returns the room that it is connected to.
    pub fn room(&self) -> Option<&RoomId> {
        self.room.as_ref()
    }

    /// Returns the route by which it came, in the version of the app that accepted it.
    pub fn route(&self) -> Option<&Arc<Route>> {
        self.route.as_ref()
    }

    /// Notes that the on-open has happened, or that the app has failed in it.
    pub fn handle_opening(&self) {
        self.opened.store(true, Ordering::Relaxed);
    }

    /// Returns true if its on-open has happened: then the app must get its on-close.
    pub fn has_opened(&self) -> bool {
        self.opened.load(Ordering::Relaxed)
    }

    /// Sets the last version of the app that has its route. Only the first call has an effect.
    pub fn set_last_version(&self, version: LastVersion) {
        _ = self.last_version.set(version);
    }

    /// Returns the last version of the app that has its route, if later ones don't have it.
    pub fn last_version(&self) -> Option<&LastVersion> {
        self.last_version.get()
    }

    /// Returns the queue of messages to the client.
    pub fn outbox(&self) -> &Arc<Outbox> {
        &self.outbox
    }

    /// Queues a message. Never blocks.
    pub fn send(&self, message: Message) -> Result<(), SendError> {
        self.outbox.send(message)
    }

    /// Answers the message if it has an auto-response. Returns true if it does. A client that sends
    /// such messages and does not read the answers is closed with 1013.
    #[inline]
    pub fn answer_automatically(&self, message: &Message) -> bool {
        self.has_auto_response() && self.send_auto_response(message)
    }

    /// Returns true if there is an auto-response. Most connections have none.
    #[inline]
    pub fn has_auto_response(&self) -> bool {
        self.auto_responder
            .get()
            .is_some_and(|auto_responder| auto_responder.is_set())
    }

    fn send_auto_response(&self, message: &Message) -> bool {
        let Some(answer) = self
            .auto_responder
            .get()
            .and_then(|auto_responder| auto_responder.answer(message))
        else {
            return false;
        };
        self.others.counters.auto_responses.add(1);
        if self.send(answer) == Err(SendError::Full) {
            self.outbox
                .close(Close::new(1013, "too slow for what it is sent"));
        }
        true
    }

    /// Queues a close after the messages in the queue. Code and reason are checked (RFC 6455
    /// section 7.4).
    pub fn close(&self, code: u16, reason: &str) -> Result<(), LimitError> {
        check_close(code, reason)?;
        self.outbox.close(Close::new(code, reason));
        Ok(())
    }

    /// Returns the app's own state for this connection.
    pub fn attachment(&self) -> Bytes {
        self.state().attachment.clone()
    }

    /// Replaces the attachment.
    pub fn set_attachment(&self, value: Bytes) -> Result<(), LimitError> {
        if value.len() > self.others.limits.attachment_bytes_max {
            return Err(LimitError::TooLarge);
        }
        let mut state = self.state();
        self.charge(&mut state, |state| state.weight(&value, &state.tags, 0))?;
        state.attachment = value;
        Ok(())
    }

    /// Returns the tags.
    pub fn tags(&self) -> Vec<String> {
        self.state().tags.clone()
    }

    /// Replaces the tags.
    pub fn set_tags(&self, tags: Vec<String>) -> Result<(), LimitError> {
        check_tags(&tags, &self.others.limits)?;
        let mut state = self.state();
        self.charge(&mut state, |state| {
            state.weight(&state.attachment, &tags, 0)
        })?;
        if !state.gone {
            self.others.retag(self.id, &state.tags, &tags);
        }
        state.tags = tags;
        Ok(())
    }

    /// Subscribes the connection to `topic`. The publications after `since` are sent first.
    pub fn follow(&self, topic: &str, since: Option<Position>) -> Result<StartPoint, LimitError> {
        let mut state = self.state();
        if state.gone || state.follows.contains(topic) {
            return self.others.topics.check(topic, None);
        }
        if state.follows.len() >= self.others.limits.follows_max {
            return Err(LimitError::TooMany);
        }
        self.charge(&mut state, |state| {
            state.weight(&state.attachment, &state.tags, NAME_BYTES + topic.len())
        })?;
        let since = since.map(|since| Positions(vec![since]));
        let (start, missed) =
            self.others
                .topics
                .follow(topic, self.id, &self.outbox, since.as_ref())?;
        self.others.counters.deliveries.add(missed);
        state.follows.insert(topic.to_owned());
        state.follows_bytes += topic.len();
        Ok(start)
    }

    /// Undoes [`follow`](Conn::follow).
    pub fn unfollow(&self, topic: &str) {
        let mut state = self.state();
        if state.follows.remove(topic) {
            state.follows_bytes -= topic.len();
            drop(state);
            self.others.topics.unfollow(topic, self.id);
        }
    }

    /// Reserves the memory of the connection after a change. Fails if there is not enough.
    fn charge(
        &self,
        state: &mut ConnState,
        weight: impl FnOnce(&ConnState) -> usize,
    ) -> Result<(), LimitError> {
        let bytes = weight(state);
        Ok(self.outbox.charge_beside(&mut state.charge, bytes)?)
    }

    /// Adds it to the connections of its room: from now on it receives the broadcasts of the room.
    pub(crate) fn join(self: &Arc<Conn>) {
        let state = self.state();
        if let Some(room) = self.room.as_ref().filter(|_| !state.gone) {
            _ = self.auto_responder.set(self.others.auto_responder_of(room));
            self.others.registry().join(room, self.id, self.clone());
            self.others.follow_room(room, self.id, &self.outbox);
        }
    }

    /// Undoes [`join`](Conn::join).
    pub(crate) fn part(&self) {
        if let Some(room) = &self.room {
            self.others.part(room, self.id);
        }
    }

    fn state(&self) -> MutexGuard<'_, ConnState> {
        self.state
            .lock()
            .expect("nothing panics while it holds a connection")
    }

    fn leave(&self) {
        self.outbox.abandon();
        let mut state = self.state();
        state.gone = true;
        _ = self.outbox.charge_beside(&mut state.charge, 0);
        state.follows_bytes = 0;
        for topic in std::mem::take(&mut state.follows) {
            self.others.topics.unfollow(&topic, self.id);
        }
        self.others.remove(self.id, &state.tags);
        drop(state);
        self.part();
    }
}

/// Owner of an open connection. Dropping it takes the connection out of topics and registry.
pub struct ConnectionGuard {
    pub(super) conn: Arc<Conn>,
    pub(super) is_owner: bool,
}

impl ConnectionGuard {
    /// Returns a new owner. Dropping this value has no effect afterwards.
    pub fn hand_over(&mut self) -> ConnectionGuard {
        ConnectionGuard {
            conn: self.conn.clone(),
            is_owner: std::mem::take(&mut self.is_owner),
        }
    }
}

impl ops::Deref for ConnectionGuard {
    type Target = Arc<Conn>;

    fn deref(&self) -> &Arc<Conn> {
        &self.conn
    }
}

impl Drop for ConnectionGuard {
    fn drop(&mut self) {
        if self.is_owner {
            self.conn.leave();
        }
    }
}
