//! The staged effects of a room: the changes of its events that others can see. They are collected
//! while the events run, and released in their order when the events are durable.
//!
//! `Effects` owns them. Most kinds are queued; of the attachment, the tags and the auto-response
//! only the last value counts, so a later one replaces it. For each connection it counts the
//! entries that the room will add to its outbox, so that a message is refused when it is sent
//! rather than lost at the release. Later events of the room read the state as if the effects had
//! happened.
//!
//! Invariant: each effect is weighed before it is staged, so one event cannot fill the memory.
//!
//! The kinds of effects and their rules are in `effect`; the room's own kinds (connections that
//! join or leave, broadcasts, feeds) are here. The commit is left to `transaction`.

use crate::{
    effect::{Effect, EffectError, tags_bytes},
    hub::Hub,
    limits::{LimitError, Limits},
    name::{ConnId, RoomId},
    realtime::{
        auto_response::AutoResponse,
        connections::Conn,
        history::{self, Positions, Replay, StartPoint},
        publication::Publication,
    },
    rooms::{
        allowance::Allowance,
        pending_feed::{PendingFeed, Subscription},
    },
};
use bytes::Bytes;
use std::{
    collections::{BTreeMap, BTreeSet, btree_map::Entry},
    sync::Arc,
};

/// The effects of some events.
#[derive(Default)]
pub(crate) struct Effects {
    in_order: Vec<StagedEffect>,
    /// Changes of connections. Later events read them before they are released.
    changes: BTreeMap<ConnId, ConnectionChanges>,
    /// Connections that joined the room, and `None` for those that left it.
    members: BTreeMap<ConnId, Option<Arc<Conn>>>,
    /// The auto-response, if one was set; the last one counts.
    auto_response: Option<Option<AutoResponse>>,
}

/// An effect in its place in the order.
enum StagedEffect {
    /// An effect of the app's code. Attachments, tags and auto-responses are not in the order.
    App(Effect),
    Join(Arc<Conn>),
    Leave(Arc<Conn>),
    Broadcast(Arc<Publication>),
    Subscribe(Box<Subscription>),
}

impl StagedEffect {
    /// Returns the bytes of memory that it takes until its release: the record, and the strings in
    /// it.
    fn weight(&self) -> usize {
        let held = match self {
            StagedEffect::App(effect) => effect.held_bytes(),
            StagedEffect::Join(_) | StagedEffect::Leave(_) => {
                size_of::<(ConnId, Option<Arc<Conn>>)>()
            }
            StagedEffect::Broadcast(publication) => publication.weight(),
            StagedEffect::Subscribe(subscription) => subscription.weight(),
        };
        size_of::<StagedEffect>() + held
    }

    fn release(self, hub: &Arc<Hub>, room: &RoomId) {
        match self {
            StagedEffect::App(effect) => effect.release(hub, room),
            StagedEffect::Join(conn) => conn.join(),
            StagedEffect::Leave(conn) => conn.part(),
            StagedEffect::Broadcast(publication) => _ = hub.broadcast(room, &publication),
            StagedEffect::Subscribe(subscription) => subscription.open(hub, room),
        }
    }
}

/// Returns the bytes of memory that `messages` messages of `bytes` bytes take.
pub(crate) fn sends_weight(bytes: usize, messages: usize) -> usize {
    bytes + messages * size_of::<StagedEffect>() + size_of::<(ConnId, ConnectionChanges)>()
}

struct ConnectionChanges {
    conn: Arc<Conn>,
    attachment: Option<Bytes>,
    tags: Option<Vec<String>>,
    bytes: usize,
    messages: usize,
    closed: bool,
}

impl Effects {
    /// Admits an effect and queues it in order. Only this function and [`force`](Effects::force)
    /// queue effects, so each one is counted.
    fn push(
        &mut self,
        effect: StagedEffect,
        allowance: &mut Allowance<'_>,
    ) -> Result<(), LimitError> {
        allowance.admit(effect.weight(), 0)?;
        self.in_order.push(effect);
        Ok(())
    }

    /// As `push`, for an effect of the host.
    fn force(&mut self, effect: StagedEffect, allowance: &mut Allowance<'_>) {
        allowance.force(effect.weight());
        self.in_order.push(effect);
    }

    /// Adds a connection to the room. It receives the broadcasts from here on.
    pub(crate) fn join(&mut self, conn: Arc<Conn>, allowance: &mut Allowance<'_>) {
        self.members.insert(conn.id(), Some(conn.clone()));
        self.force(StagedEffect::Join(conn), allowance);
    }

    /// Removes the connection from the room.
    pub(crate) fn leave(&mut self, conn: Arc<Conn>, allowance: &mut Allowance<'_>) {
        self.members.insert(conn.id(), None);
        self.force(StagedEffect::Leave(conn), allowance);
    }

    /// Stages an effect of the app's code whose values have been checked. `earlier` has the effects
    /// of the room's earlier events.
    pub(crate) fn stage(
        &mut self,
        effect: Effect,
        earlier: &Effects,
        allowance: &mut Allowance<'_>,
    ) -> Result<(), EffectError> {
        match effect {
            Effect::SetAttachment(conn, value) => {
                let changes = self.changes(&conn, allowance)?;
                let replaced = changes.attachment.as_ref().map_or(0, Bytes::len);
                allowance.admit(value.len(), replaced)?;
                changes.attachment = Some(value);
            }
            Effect::SetTags(conn, tags) => {
                let changes = self.changes(&conn, allowance)?;
                let replaced = changes.tags.as_deref().map_or(0, tags_bytes);
                allowance.admit(tags_bytes(&tags), replaced)?;
                changes.tags = Some(tags);
            }
            Effect::SetAutoResponse(response) => self.auto_respond(response, allowance)?,
            Effect::Close(conn, close) => {
                let id = conn.id();
                // The first close counts; a later one has no effect.
                if self.pending(id).1 || earlier.pending(id).1 {
                    return Ok(());
                }
                self.changes(&conn, allowance)?;
                self.push(StagedEffect::App(Effect::Close(conn, close)), allowance)?;
                if let Some(changes) = self.changes.get_mut(&id) {
                    changes.closed = true;
                }
            }
            effect => match effect.queued() {
                Some((conn, bytes)) => {
                    let id = conn.id();
                    self.check_outbox(conn, bytes, earlier, allowance)?;
                    self.push(StagedEffect::App(effect), allowance)?;
                    if let Some(changes) = self.changes.get_mut(&id) {
                        changes.bytes += bytes;
                        changes.messages += 1;
                    }
                }
                None => self.push(StagedEffect::App(effect), allowance)?,
            },
        }
        Ok(())
    }

    /// Checks that an entry of this length may be added to the connection's outbox after those of
    /// this event and of earlier ones.
    fn check_outbox(
        &mut self,
        conn: &Arc<Conn>,
        length: usize,
        earlier: &Effects,
        allowance: &mut Allowance<'_>,
    ) -> Result<(), EffectError> {
        let ([bytes, messages], closed) = earlier.pending(conn.id());
        let changes = self.changes(conn, allowance)?;
        let outbox = conn.outbox();
        if closed || changes.closed || outbox.is_closed() {
            return Err(EffectError::Closed);
        }
        let (bytes, messages) = (bytes + changes.bytes, messages + changes.messages);
        if outbox.has_room(bytes, messages, length) {
            Ok(())
        } else {
            Err(EffectError::Full)
        }
    }

    /// Adds a broadcast, which has been checked and has its number.
    pub(crate) fn broadcast(
        &mut self,
        publication: Publication,
        allowance: &mut Allowance<'_>,
    ) -> Result<(), LimitError> {
        self.push(StagedEffect::Broadcast(Arc::new(publication)), allowance)
    }

    /// Returns the broadcasts that have a number.
    pub(crate) fn numbered(&self) -> impl Iterator<Item = &Arc<Publication>> {
        self.in_order.iter().filter_map(|effect| match effect {
            StagedEffect::Broadcast(publication) if !publication.transient => Some(publication),
            _ => None,
        })
    }

    /// Returns the slots of the log that the broadcasts change.
    pub(crate) fn log(&self, now: u64, limits: &Limits) -> Vec<(u32, Bytes)> {
        let slot = |publication: &Publication| {
            (publication.sequence % limits.history_messages_max as u64) as u32
        };
        let latest = self
            .numbered()
            .count()
            .saturating_sub(limits.history_messages_max);
        let latest = self.numbered().skip(latest);
        latest
            .filter_map(|publication| {
                Some((
                    slot(publication),
                    history::encode(publication, now, limits)?,
                ))
            })
            .collect()
    }

    /// Returns true if this much more can be sent to the connection.
    pub(crate) fn has_room(
        &self,
        conn: &Conn,
        bytes: usize,
        messages: usize,
        earlier: &Effects,
    ) -> bool {
        let [own, earlier] = [self, earlier].map(|effects| effects.pending(conn.id()).0);
        conn.outbox().has_room(
            bytes + own[0] + earlier[0],
            messages + own[1] + earlier[1],
            0,
        )
    }

    fn auto_respond(
        &mut self,
        response: Option<AutoResponse>,
        allowance: &mut Allowance<'_>,
    ) -> Result<(), LimitError> {
        let weight =
            |response: &Option<AutoResponse>| response.as_ref().map_or(0, AutoResponse::weight);
        allowance.admit(
            weight(&response),
            self.auto_response.as_ref().map_or(0, weight),
        )?;
        self.auto_response = Some(response);
        Ok(())
    }

    pub(crate) fn subscribe(
        &mut self,
        topics: Vec<String>,
        since: Option<Positions>,
        missed: (StartPoint, Replay),
        allowance: &mut Allowance<'_>,
    ) -> Arc<PendingFeed> {
        let (subscription, feed) = Subscription::new(topics, since, missed);
        self.force(StagedEffect::Subscribe(Box::new(subscription)), allowance);
        feed
    }

    /// Returns the attachment that was set, if there is one.
    pub(crate) fn attachment(&self, id: ConnId) -> Option<Bytes> {
        self.changes.get(&id)?.attachment.clone()
    }

    /// Returns the tags that were set, if there are any.
    pub(crate) fn tags(&self, id: ConnId) -> Option<Vec<String>> {
        self.changes.get(&id)?.tags.clone()
    }

    /// Returns the bytes that will be sent to the connection.
    pub(crate) fn queued(&self, id: ConnId) -> usize {
        self.changes.get(&id).map_or(0, |changes| changes.bytes)
    }

    /// Changes `ids` by the connections of the room that joined, left or changed their tags.
    pub(crate) fn amend(&self, ids: &mut BTreeSet<ConnId>, tag: Option<&str>) {
        for (id, member) in &self.members {
            match member {
                None => _ = ids.remove(id),
                Some(conn) if tag.is_none_or(|tag| conn.tags().iter().any(|own| own == tag)) => {
                    _ = ids.insert(*id)
                }
                Some(_) => {}
            }
        }
        let is_here = |id| !matches!(self.members.get(id), Some(None));
        for (id, changes) in self
            .changes
            .iter()
            .filter(|(id, changes)| changes.conn.room().is_some() && is_here(*id))
        {
            if let (Some(tag), Some(tags)) = (tag, &changes.tags) {
                match tags.iter().any(|own| own == tag) {
                    true => _ = ids.insert(*id),
                    false => _ = ids.remove(id),
                }
            }
        }
    }

    /// Returns the maximum number of ids that [`amend`](Effects::amend) adds or removes.
    pub(crate) fn amends_max(&self) -> usize {
        self.members.len()
            + self
                .changes
                .values()
                .filter(|changes| changes.tags.is_some())
                .count()
    }

    /// Returns the connection if it joined, and `Some(None)` if it left.
    pub(crate) fn member(&self, id: ConnId) -> Option<Option<Arc<Conn>>> {
        self.members.get(&id).cloned()
    }

    /// Returns the effects that stay if the event is rolled back: connections that joined or left,
    /// which is not the event's doing.
    pub(crate) fn members_only(self) -> Effects {
        let in_order = self
            .in_order
            .into_iter()
            .filter(|effect| matches!(effect, StagedEffect::Join(_) | StagedEffect::Leave(_)))
            .collect();
        Effects {
            in_order,
            members: self.members,
            ..Effects::default()
        }
    }

    /// Returns the bytes of memory that they take.
    pub(crate) fn weight(&self) -> usize {
        self.in_order.iter().map(StagedEffect::weight).sum()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.in_order.is_empty() && self.changes.is_empty() && self.auto_response.is_none()
    }

    /// Appends later effects.
    pub(crate) fn absorb(&mut self, later: Effects) {
        self.in_order.extend(later.in_order);
        self.members.extend(later.members);
        self.auto_response = later.auto_response.or(self.auto_response.take());
        for (id, changes) in later.changes {
            match self.changes.get_mut(&id) {
                None => _ = self.changes.insert(id, changes),
                Some(earlier) => earlier.absorb(changes),
            }
        }
    }

    /// Releases all effects.
    pub(crate) fn release(self, hub: &Arc<Hub>, room: &RoomId) {
        if let Some(response) = self.auto_response {
            Effect::SetAutoResponse(response).release(hub, room);
        }
        for changes in self.changes.into_values() {
            let conn = changes.conn;
            if let Some(value) = changes.attachment {
                Effect::SetAttachment(conn.clone(), value).release(hub, room);
            }
            if let Some(tags) = changes.tags {
                Effect::SetTags(conn, tags).release(hub, room);
            }
        }
        for effect in self.in_order {
            effect.release(hub, room);
        }
    }

    fn changes(
        &mut self,
        conn: &Arc<Conn>,
        allowance: &mut Allowance<'_>,
    ) -> Result<&mut ConnectionChanges, LimitError> {
        match self.changes.entry(conn.id()) {
            Entry::Occupied(entry) => Ok(entry.into_mut()),
            Entry::Vacant(entry) => {
                allowance.admit(size_of::<(ConnId, ConnectionChanges)>(), 0)?;
                Ok(entry.insert(ConnectionChanges {
                    conn: conn.clone(),
                    attachment: None,
                    tags: None,
                    bytes: 0,
                    messages: 0,
                    closed: false,
                }))
            }
        }
    }

    /// Returns the bytes and the number of messages that will be sent to it, and true if it will be
    /// closed.
    fn pending(&self, id: ConnId) -> ([usize; 2], bool) {
        self.changes
            .get(&id)
            .map_or_else(Default::default, |changes| {
                ([changes.bytes, changes.messages], changes.closed)
            })
    }
}

impl ConnectionChanges {
    fn absorb(&mut self, later: ConnectionChanges) {
        self.attachment = later.attachment.or(self.attachment.take());
        self.tags = later.tags.or(self.tags.take());
        self.bytes += later.bytes;
        self.messages += later.messages;
        self.closed |= later.closed;
    }
}
