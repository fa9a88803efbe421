//! The indexes of the live connections: by id, by tag and by room. All are under one lock, which
//! every connection needs, so no search walks through more entries than it returns or than the room
//! has.

use crate::{
    name::{ConnId, RoomId},
    realtime::outbox::{Close, Outbox},
};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    ops::Bound,
    sync::Arc,
};

/// The live connections `C` and feeds. An owner of the lock keeps the indexes consistent.
pub(super) struct Registry<C> {
    /// In the order of their opening.
    pub(super) conns: BTreeMap<ConnId, Arc<C>>,
    pub(super) feeds: HashMap<ConnId, Arc<Outbox>>,
    tagged: HashMap<String, BTreeSet<ConnId>>,
    /// The connections of each room that has any.
    members: HashMap<RoomId, BTreeMap<ConnId, Arc<C>>>,
    /// The close of all connections that are opened from now on.
    pub(super) closing: Option<Close>,
}

impl<C> Default for Registry<C> {
    fn default() -> Registry<C> {
        Registry {
            conns: BTreeMap::new(),
            feeds: HashMap::new(),
            tagged: HashMap::new(),
            members: HashMap::new(),
            closing: None,
        }
    }
}

impl<C> Registry<C> {
    pub(super) fn tag(&mut self, id: ConnId, tags: &[String]) {
        for tag in tags {
            self.tagged.entry(tag.clone()).or_default().insert(id);
        }
    }

    pub(super) fn untag(&mut self, id: ConnId, tags: &[String]) {
        for tag in tags {
            if let Some(tagged) = self.tagged.get_mut(tag) {
                tagged.remove(&id);
                if tagged.is_empty() {
                    self.tagged.remove(tag);
                }
            }
        }
    }

    /// Adds a connection to those of its room.
    pub(super) fn join(&mut self, room: &RoomId, id: ConnId, conn: Arc<C>) {
        self.members
            .entry(room.clone())
            .or_default()
            .insert(id, conn);
    }

    /// Undoes [`join`](Registry::join).
    pub(super) fn part(&mut self, room: &RoomId, id: ConnId) {
        if let Some(members) = self.members.get_mut(room) {
            members.remove(&id);
            if members.is_empty() {
                self.members.remove(room);
            }
        }
    }

    /// Returns a connection of this room by its id.
    pub(super) fn member(&self, room: &RoomId, id: ConnId) -> Option<&Arc<C>> {
        self.members.get(room)?.get(&id)
    }

    /// Returns the next ids in the order of their opening; with a tag, only those that have it.
    pub(super) fn ids(
        &self,
        tag: Option<&str>,
        after: Option<ConnId>,
        limit: usize,
    ) -> Vec<ConnId> {
        let next = after_id(after);
        match tag {
            None => self
                .conns
                .range(next)
                .map(|(id, _)| *id)
                .take(limit)
                .collect(),
            Some(tag) => match self.tagged.get(tag) {
                None => Vec::new(),
                Some(tagged) => tagged.range(next).copied().take(limit).collect(),
            },
        }
    }

    /// As [`ids`](Registry::ids), for the connections of a room.
    pub(super) fn members(
        &self,
        room: &RoomId,
        tag: Option<&str>,
        after: Option<ConnId>,
        limit: usize,
    ) -> BTreeSet<ConnId> {
        let next = after_id(after);
        let Some(members) = self.members.get(room) else {
            return BTreeSet::new();
        };
        match tag {
            None => members.range(next).map(|(id, _)| *id).take(limit).collect(),
            Some(tag) => match self.tagged.get(tag) {
                None => BTreeSet::new(),
                // Walk through the smaller set: never through all connections that have the tag in
                // other rooms.
                Some(tagged) if tagged.len() < members.len() => tagged
                    .range(next)
                    .filter(|id| members.contains_key(id))
                    .take(limit)
                    .copied()
                    .collect(),
                Some(tagged) => members
                    .range(next)
                    .map(|(id, _)| *id)
                    .filter(|id| tagged.contains(id))
                    .take(limit)
                    .collect(),
            },
        }
    }
}

fn after_id(after: Option<ConnId>) -> (Bound<ConnId>, Bound<ConnId>) {
    (
        after.map_or(Bound::Unbounded, Bound::Excluded),
        Bound::Unbounded,
    )
}
