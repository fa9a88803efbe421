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

use crate::{
    budget::{Budget, Charge, Kind},
    counters::Counters,
    event::Accept,
    limits::{CLOSE_REASON_BYTES_MAX, IDS_PAGE_MAX, LimitError, Limits},
    message::Message,
    name::{ConnId, RoomId},
    realtime::{
        auto_response::{AutoResponder, AutoResponse},
        history::{Position, Positions, StartPoint},
        outbox::{Close, Outbox, SendError},
        topics::Topics,
    },
};
use bytes::Bytes;
use std::{
    any::Any,
    collections::{BTreeMap, BTreeSet, HashMap},
    ops,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, Weak,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};
use tidegate_routing::Route;

/// A WebSocket connection as apps see it. Its owner has the socket.
pub struct Conn {
    id: ConnId,
    protocol: Option<String>,
    room: Option<RoomId>,
    route: Option<Arc<Route>>,
    outbox: Arc<Outbox>,
    /// The auto-response of a room is set when the connection joins the room.
    auto_responder: OnceLock<Arc<AutoResponder>>,
    /// True if its on-open has happened: then the app must get an on-close.
    opened: AtomicBool,
    last_version: OnceLock<LastVersion>,
    others: Arc<Connections>,
    state: Mutex<State>,
}

/// A version of the app. Its type is chosen by the owner of the connections.
pub type LastVersion = Arc<dyn Any + Send + Sync>;

/// The parts of a connection that an app may change, from any instance.
struct State {
    attachment: Bytes,
    tags: Vec<String>,
    follows: BTreeSet<String>,
    /// Number of bytes of the names in `follows`.
    follows_bytes: usize,
    charge: Charge,
    /// True if the registry has removed it: it can no longer follow topics or get tags.
    gone: bool,
}

/// Bytes that a tag or a topic takes beside its name: an entry of the connection and one of the
/// index.
const NAME_BYTES: usize = 128;

impl State {
    /// Returns the bytes that the connection takes here and in the registry with this attachment,
    /// these tags, and `start` more bytes of names of topics.
    fn weight(&self, attachment: &[u8], tags: &[String], start: usize) -> usize {
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
        state: &mut State,
        weight: impl FnOnce(&State) -> usize,
    ) -> Result<(), LimitError> {
        let bytes = weight(state);
        Ok(self.outbox.charge_beside(&mut state.charge, bytes)?)
    }

    /// Adds it to the connections of its room: from now on it receives the broadcasts of the room.
    pub(crate) fn join(self: &Arc<Conn>) {
        let state = self.state();
        if let Some(room) = self.room.as_ref().filter(|_| !state.gone) {
            _ = self.auto_responder.set(self.others.auto_responder_of(room));
            self.others
                .registry()
                .members
                .entry(room.clone())
                .or_default()
                .insert(self.id, self.clone());
            self.others.follow_room(room, self.id, &self.outbox);
        }
    }

    /// Undoes [`join`](Conn::join).
    pub(crate) fn part(&self) {
        if let Some(room) = &self.room {
            self.others.part(room, self.id);
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
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
    conn: Arc<Conn>,
    is_owner: bool,
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

/// The live connections by id and by tag. Feeds are included, so that one close reaches all.
pub struct Connections {
    limits: Limits,
    topics: Arc<Topics<str>>,
    room_topics: Arc<Topics<RoomId>>,
    next: AtomicU64,
    /// The auto-response of connections that are in no room.
    auto_responder: Arc<AutoResponder>,
    /// The auto-responses of rooms. Each lives as long as a connection of the room, or the awake
    /// room.
    room_auto_responders: Mutex<HashMap<RoomId, Weak<AutoResponder>>>,
    counters: Arc<Counters>,
    budget: Arc<Budget>,
    registry: Mutex<Registry>,
}

#[derive(Default)]
struct Registry {
    conns: BTreeMap<ConnId, Arc<Conn>>,
    feeds: HashMap<ConnId, Arc<Outbox>>,
    tagged: HashMap<String, BTreeSet<ConnId>>,
    /// The connections of each room that has any.
    members: HashMap<RoomId, BTreeMap<ConnId, Arc<Conn>>>,
    closing: Option<Close>,
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
        for tag in &accept.tags {
            registry.tagged.entry(tag.clone()).or_default().insert(id);
        }
        let Accept {
            protocol,
            attachment,
            tags,
            room,
            route,
            ..
        } = accept;
        let outbox = Outbox::in_budget(&self.limits, &self.budget);
        let (follows, charge) = (BTreeSet::new(), Charge::new(Kind::Connection));
        let mut state = State {
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
        let behind = (
            after.map_or(ops::Bound::Unbounded, ops::Bound::Excluded),
            ops::Bound::Unbounded,
        );
        let limit = limit.min(IDS_PAGE_MAX);
        let registry = self.registry();
        match tag {
            None => registry
                .conns
                .range(behind)
                .map(|(id, _)| *id)
                .take(limit)
                .collect(),
            Some(tag) => match registry.tagged.get(tag) {
                None => Vec::new(),
                Some(tagged) => tagged.range(behind).copied().take(limit).collect(),
            },
        }
    }

    /// Returns a connection of this room by its id.
    pub(crate) fn member(&self, room: &RoomId, id: ConnId) -> Option<Arc<Conn>> {
        self.registry().members.get(room)?.get(&id).cloned()
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
        let behind = (
            after.map_or(ops::Bound::Unbounded, ops::Bound::Excluded),
            ops::Bound::Unbounded,
        );
        let registry = self.registry();
        let Some(members) = registry.members.get(room) else {
            return BTreeSet::new();
        };
        match tag {
            None => members
                .range(behind)
                .map(|(id, _)| *id)
                .take(limit)
                .collect(),
            Some(tag) => match registry.tagged.get(tag) {
                None => BTreeSet::new(),
                // Walk through the smaller set: never through all connections that have the tag in
                // other rooms, under the lock that all need.
                Some(tagged) if tagged.len() < members.len() => tagged
                    .range(behind)
                    .filter(|id| members.contains_key(id))
                    .take(limit)
                    .copied()
                    .collect(),
                Some(tagged) => members
                    .range(behind)
                    .map(|(id, _)| *id)
                    .filter(|id| tagged.contains(id))
                    .take(limit)
                    .collect(),
            },
        }
    }

    /// Sets the auto-response of the connections that are in no room (WIT
    /// `websockets.set-auto-response`).
    pub fn set_auto_response(&self, response: Option<AutoResponse>) {
        self.auto_responder.set(response);
    }

    /// Returns the auto-response of the room's connections. An awake room keeps it, even without
    /// connections.
    pub fn auto_responder_of(&self, room: &RoomId) -> Arc<AutoResponder> {
        let mut all = self
            .room_auto_responders
            .lock()
            .expect("nothing panics while it holds the auto-responses");
        if let Some(auto_responder) = all.get(room).and_then(Weak::upgrade) {
            return auto_responder;
        }
        if all.len() == all.capacity() {
            all.retain(|_, auto_responder| auto_responder.strong_count() > 0);
        }
        let auto_responder = Arc::<AutoResponder>::default();
        all.insert(room.clone(), Arc::downgrade(&auto_responder));
        auto_responder
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
        let mut registry = self.registry();
        if let Some(members) = registry.members.get_mut(room) {
            members.remove(&id);
            if members.is_empty() {
                registry.members.remove(room);
            }
        }
    }

    fn retag(&self, id: ConnId, old: &[String], new: &[String]) {
        let mut registry = self.registry();
        registry.untag(id, old);
        for tag in new {
            registry.tagged.entry(tag.clone()).or_default().insert(id);
        }
    }

    fn remove(&self, id: ConnId, tags: &[String]) {
        let mut registry = self.registry();
        registry.conns.remove(&id);
        registry.untag(id, tags);
    }

    fn registry(&self) -> MutexGuard<'_, Registry> {
        self.registry
            .lock()
            .expect("nothing panics while it holds the registry")
    }
}

impl Registry {
    fn untag(&mut self, id: ConnId, tags: &[String]) {
        for tag in tags {
            if let Some(tagged) = self.tagged.get_mut(tag) {
                tagged.remove(&id);
                if tagged.is_empty() {
                    self.tagged.remove(tag);
                }
            }
        }
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
mod tests {
    use super::*;
    use crate::hub::Hub;

    fn hub() -> Arc<Hub> {
        Hub::new(
            Limits {
                connections_max: 3,
                ..Limits::default()
            },
            Default::default(),
            7,
        )
    }

    fn tagged(tags: &[&str]) -> Accept {
        Accept {
            tags: tags.iter().map(|tag| tag.to_string()).collect(),
            ..Accept::default()
        }
    }

    #[test]
    fn an_id_is_found_until_its_connection_is_dropped() {
        let hub = hub();
        let conn = hub.open(Accept::default()).unwrap();
        let id = conn.id().to_string().parse().unwrap();
        assert!(hub.connections().find(id).is_some());
        drop(conn);
        assert!(hub.connections().find(id).is_none());
    }

    #[test]
    fn ids_come_by_tag_in_order_and_in_pages() {
        let hub = hub();
        let conns =
            [&["red"][..], &["blue", "red"], &[]].map(|tags| hub.open(tagged(tags)).unwrap());
        let ids: Vec<ConnId> = conns.iter().map(|conn| conn.id()).collect();
        let connections = hub.connections();
        assert_eq!(connections.ids(None, None, 9), ids);
        assert_eq!(connections.ids(None, Some(ids[0]), 1), ids[1..2]);
        assert_eq!(connections.ids(Some("red"), None, 9), ids[..2]);
        conns[0].set_tags(vec!["blue".into()]).unwrap();
        assert_eq!(connections.ids(Some("red"), None, 9), ids[1..2]);
        assert_eq!(connections.ids(Some("none"), None, 9), []);
    }

    #[test]
    fn every_bound_of_a_connection_is_told_by_its_name() {
        let hub = hub();
        let conn = hub.open(Accept::default()).unwrap();
        let long = "x".repeat(257);
        let many: Vec<String> = (0..11).map(|n| n.to_string()).collect();
        let checks = [
            (
                conn.set_attachment(Bytes::from(vec![0; 16385])),
                LimitError::TooLarge,
            ),
            (conn.set_tags(many), LimitError::TooMany),
            (conn.set_tags(vec![long.clone()]), LimitError::TooLarge),
            (conn.set_tags(vec![String::new()]), LimitError::NotValid),
            (conn.follow(&long, None).map(drop), LimitError::TooLarge),
            (conn.follow("", None).map(drop), LimitError::NotValid),
            (conn.close(1000, &"x".repeat(124)), LimitError::TooLarge),
            (conn.close(1005, ""), LimitError::NotValid),
            (conn.close(1006, ""), LimitError::NotValid),
            (conn.close(1015, ""), LimitError::NotValid),
            (conn.close(2999, ""), LimitError::NotValid),
            (conn.close(5000, ""), LimitError::NotValid),
        ];
        for (index, (outcome, expected)) in checks.into_iter().enumerate() {
            assert_eq!(outcome, Err(expected), "check {index}");
        }
        for topic in 0..128 {
            conn.follow(&topic.to_string(), None).unwrap();
        }
        assert_eq!(conn.follow("one more", None), Err(LimitError::TooMany));
        assert!(conn.follow("5", None).is_ok(), "twice is once");
    }

    #[test]
    fn one_connection_too_many_is_refused_and_a_place_is_free_again_after_one_leaves() {
        let hub = hub();
        let mut conns: Vec<ConnectionGuard> = (0..3)
            .map(|_| hub.open(Accept::default()).unwrap())
            .collect();
        assert_eq!(hub.open(Accept::default()).err(), Some(LimitError::TooMany));
        conns.pop();
        assert!(hub.open(Accept::default()).is_ok());
    }

    #[test]
    fn a_drain_closes_those_that_are_there_and_those_that_come() {
        let hub = hub();
        let early = hub.open(Accept::default()).unwrap();
        hub.connections().close_all(&Close::new(1001, ""));
        let late = hub.open(Accept::default()).unwrap();
        assert!(early.outbox().is_closed() && late.outbox().is_closed());
    }
}
