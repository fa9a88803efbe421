//! The registry of live connections: it lists them by id, tag and room, and owns the changes that
//! apps make to them.
//!
//! A `Conn` is a connection as apps see it: id, attachment, tags and topics. The socket belongs to
//! its owner in the edge, which holds a `ConnectionGuard`. Dropping the guard takes the connection
//! out of the registry and of its topics. Feeds are listed too, so that one call closes everything.
//!
//! A connection is either live or gone. Each has its own lock for the attachment, tags and topics
//! that an app may change from any instance; the registry has one lock for all indexes.
//!
//! Invariant: a connection that is gone is in no index, and no later call puts it into one.
//! This is why changes of tags and topics check `gone` under the connection's lock.
//!
//! A room's connections are a list of their own, because clients choose tags: a search in a room
//! visits at most as many connections as the room has, under the lock that all connections need.
//!
//! The module leaves messages to `outbox`, delivery to `topics`, and the order of events to
//! `session`. Whether a change waits for a commit is decided by `scope`.

mod conn;
mod registry;

pub use conn::{Conn, ConnectionGuard, LastVersion};

use crate::{
    budget::{Budget, Charge, MemoryKind},
    counters::Counters,
    event::Accept,
    limits::{CLOSE_REASON_BYTES_MAX, IDS_PAGE_MAX, LimitError, Limits},
    name::{ConnId, RoomId},
    realtime::{
        auto_response::{AutoResponder, AutoResponse, RoomAutoResponders},
        outbox::{Close, Outbox},
        topics::Topics,
    },
};
use conn::ConnState;
use registry::Registry;
use std::{
    collections::BTreeSet,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};
use tidegate_routing::Route;

/// The live connections by id and by tag. Feeds are included, so that one close reaches all.
pub struct Connections {
    limits: Limits,
    topics: Arc<Topics<str>>,
    room_topics: Arc<Topics<RoomId>>,
    next: AtomicU64,
    /// The auto-response of connections that are in no room.
    auto_responder: Arc<AutoResponder>,
    room_auto_responders: RoomAutoResponders,
    counters: Arc<Counters>,
    budget: Arc<Budget>,
    registry: Mutex<Registry<Conn>>,
}

impl Connections {
    /// `seed` makes the ids of this run differ from those of other runs; its low 24 bits count.
    pub(crate) fn new(
        limits: Limits,
        topics: Arc<Topics<str>>,
        room_topics: Arc<Topics<RoomId>>,
        counters: Arc<Counters>,
        budget: Arc<Budget>,
        seed: u64,
    ) -> Arc<Connections> {
        let next = AtomicU64::new((seed << 40) | 1);
        let (auto_responder, room_auto_responders, registry) = Default::default();
        Arc::new(Connections {
            limits,
            topics,
            room_topics,
            next,
            auto_responder,
            room_auto_responders,
            counters,
            budget,
            registry,
        })
    }

    pub(crate) fn next_id(&self) -> ConnId {
        ConnId(self.next.fetch_add(1, Ordering::Relaxed))
    }

    pub(crate) fn open(
        self: &Arc<Connections>,
        accept: Accept,
    ) -> Result<ConnectionGuard, LimitError> {
        if accept.attachment.len() > self.limits.attachment_bytes_max {
            return Err(LimitError::TooLarge);
        }
        check_tags(&accept.tags, &self.limits)?;
        let mut registry = self.registry();
        if registry.conns.len() >= self.limits.connections_max {
            return Err(LimitError::TooMany);
        }
        let id = self.next_id();
        registry.tag(id, &accept.tags);
        let Accept {
            protocol,
            attachment,
            tags,
            room,
            route,
            ..
        } = accept;
        let outbox = Outbox::in_budget(&self.limits, &self.budget);
        let (follows, charge) = (BTreeSet::new(), Charge::new(MemoryKind::Connection));
        let mut state = ConnState {
            attachment,
            tags,
            follows,
            follows_bytes: 0,
            charge,
            gone: false,
        };
        let weight = state.weight(&state.attachment, &state.tags, 0);
        if outbox.charge_beside(&mut state.charge, weight).is_err() {
            outbox.close(Close::new(1013, "the server is short of memory"));
        }
        if let Some(close) = &registry.closing {
            outbox.close(close.clone());
        }
        let auto_responder = OnceLock::new();
        if room.is_none() {
            _ = auto_responder.set(self.auto_responder.clone());
        }
        let (opened, last_version, others, state) = (
            AtomicBool::new(false),
            OnceLock::new(),
            self.clone(),
            Mutex::new(state),
        );
        let conn = Arc::new(Conn {
            id,
            protocol,
            room,
            route,
            outbox,
            auto_responder,
            opened,
            last_version,
            others,
            state,
        });
        registry.conns.insert(id, conn.clone());
        Ok(ConnectionGuard {
            conn,
            is_owner: true,
        })
    }

    pub(crate) fn add_feed(&self, outbox: &Arc<Outbox>) -> Result<ConnId, LimitError> {
        let mut registry = self.registry();
        if registry.feeds.len() >= self.limits.feeds_max {
            return Err(LimitError::TooMany);
        }
        let id = self.next_id();
        if let Some(close) = &registry.closing {
            outbox.close(close.clone());
        }
        registry.feeds.insert(id, outbox.clone());
        Ok(id)
    }

    pub(crate) fn remove_feed(&self, id: ConnId) {
        self.registry().feeds.remove(&id);
    }

    /// Returns a live connection by its id.
    pub fn find(&self, id: ConnId) -> Option<Arc<Conn>> {
        self.registry().conns.get(&id).cloned()
    }

    /// Returns a page of ids in the order of their opening (WIT `websockets.ids`).
    pub fn ids(&self, tag: Option<&str>, after: Option<ConnId>, limit: usize) -> Vec<ConnId> {
        self.registry().ids(tag, after, limit.min(IDS_PAGE_MAX))
    }

    /// Returns a connection of this room by its id.
    pub(crate) fn member(&self, room: &RoomId, id: ConnId) -> Option<Arc<Conn>> {
        self.registry().member(room, id).cloned()
    }

    /// Returns a page of the room's connections in the order of their opening; with a tag, only
    /// those that have it.
    pub(crate) fn members(
        &self,
        room: &RoomId,
        tag: Option<&str>,
        after: Option<ConnId>,
        limit: usize,
    ) -> BTreeSet<ConnId> {
        self.registry().members(room, tag, after, limit)
    }

    /// Sets the auto-response of the connections that are in no room (WIT
    /// `websockets.set-auto-response`).
    pub fn set_auto_response(&self, response: Option<AutoResponse>) {
        self.auto_responder.set(response);
    }

    /// Returns the auto-response of the room's connections. An awake room keeps it, even without
    /// connections.
    pub fn auto_responder_of(&self, room: &RoomId) -> Arc<AutoResponder> {
        self.room_auto_responders.of(room)
    }

    /// Returns all live connections in the order of their opening.
    pub fn all(&self) -> Vec<Arc<Conn>> {
        self.registry().conns.values().cloned().collect()
    }

    /// Returns the number of open connections and the number of open feeds.
    pub fn count(&self) -> (usize, usize) {
        let registry = self.registry();
        (registry.conns.len(), registry.feeds.len())
    }

    /// Returns the number of connections whose on-close is still to be delivered, because their
    /// on-open has happened. A connection is listed until its on-close was delivered, even if its
    /// socket has closed.
    pub fn owed_closes(&self) -> usize {
        self.registry()
            .conns
            .values()
            .filter(|conn| conn.has_opened())
            .count()
    }

    /// Closes every connection and feed, and each one that is opened later.
    pub fn close_all(&self, close: &Close) {
        let mut registry = self.registry();
        registry.closing = Some(close.clone());
        let conns = registry.conns.values().map(|conn| conn.outbox());
        for outbox in conns.chain(registry.feeds.values()) {
            outbox.close(close.clone());
        }
    }

    /// Closes the connections whose route does not stay. Returns the number of the connections that
    /// are left, and the number of those that were closed.
    pub fn close_unless(&self, stays: impl Fn(&Route) -> bool, close: &Close) -> (usize, usize) {
        let conns: Vec<_> = self
            .registry()
            .conns
            .values()
            .filter(|conn| !conn.outbox.is_closed())
            .cloned()
            .collect();
        let (stay, gone): (Vec<_>, Vec<_>) = conns
            .into_iter()
            .partition(|conn| conn.route.as_ref().is_none_or(|route| stays(route)));
        gone.iter()
            .for_each(|conn| conn.outbox.close(close.clone()));
        (stay.len(), gone.len())
    }

    /// Sets the last version of each connection whose route the next version removes. Closing
    /// connections are included.
    pub fn set_last_version(&self, is_gone: impl Fn(&Route) -> bool, version: LastVersion) {
        let conns = self.all();
        let gone = conns
            .iter()
            .filter(|conn| conn.route.as_ref().is_some_and(|route| is_gone(route)));
        gone.for_each(|conn| conn.set_last_version(version.clone()));
    }

    fn follow_room(&self, room: &RoomId, id: ConnId, outbox: &Arc<Outbox>) {
        // This fails only if there are too many topics; the topic of a room with connections is
        // kept.
        if self.room_topics.follow(room, id, outbox, None).is_err() {
            outbox.close(Close::new(1013, "too many rooms"));
        }
    }

    fn part(&self, room: &RoomId, id: ConnId) {
        self.room_topics.unfollow(room, id);
        self.registry().part(room, id);
    }

    fn retag(&self, id: ConnId, old: &[String], new: &[String]) {
        let mut registry = self.registry();
        registry.untag(id, old);
        registry.tag(id, new);
    }

    fn remove(&self, id: ConnId, tags: &[String]) {
        let mut registry = self.registry();
        registry.conns.remove(&id);
        registry.untag(id, tags);
    }

    fn registry(&self) -> MutexGuard<'_, Registry<Conn>> {
        self.registry
            .lock()
            .expect("nothing panics while it holds the registry")
    }
}

/// Checks that an app may close with this code and reason.
pub fn check_close(code: u16, reason: &str) -> Result<(), LimitError> {
    if reason.len() > CLOSE_REASON_BYTES_MAX {
        return Err(LimitError::TooLarge);
    }
    match code {
        1000..=1003 | 1007..=1014 | 3000..=4999 => Ok(()),
        _ => Err(LimitError::NotValid),
    }
}

pub(crate) fn check_tags(tags: &[String], limits: &Limits) -> Result<(), LimitError> {
    if tags.len() > limits.tags_max {
        return Err(LimitError::TooMany);
    }
    if tags.iter().any(|tag| tag.len() > limits.tag_bytes_max) {
        return Err(LimitError::TooLarge);
    }
    if tags.iter().any(String::is_empty) {
        Err(LimitError::NotValid)
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests;
