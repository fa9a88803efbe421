//! The one handle: limits, connections, topics and counters of a running app.

use crate::{
    Accept, ConnId, Counters, LimitError, Limits, Opened, Outbox, Publication, RoomId, TopicPolicy,
    connections::Connections,
    limits::{ROOM_CLASS_BYTES_MAX, ROOM_NAME_BYTES_MAX},
    topics::Topics,
};
use std::sync::Arc;

/// What the walls share. Made once for a served app.
pub struct Hub {
    limits: Limits,
    connections: Arc<Connections>,
    topics: Arc<Topics>,
    /// Those of rooms, by class and name.
    room_topics: Arc<Topics>,
    counters: Arc<Counters>,
}

impl Hub {
    /// `seed` tells this run's ids and topic epochs from those of other runs.
    pub fn new(limits: Limits, policy: TopicPolicy, seed: u64) -> Arc<Hub> {
        let topics = Arc::new(Topics::new(limits.clone(), policy.clone(), seed));
        let topic_bytes_max = ROOM_CLASS_BYTES_MAX + 1 + ROOM_NAME_BYTES_MAX;
        let room_topics = Arc::new(Topics::new(Limits { topic_bytes_max, ..limits.clone() }, policy, seed));
        let counters = Arc::<Counters>::default();
        let connections = Connections::new(limits.clone(), topics.clone(), room_topics.clone(), counters.clone(), seed);
        Arc::new(Hub { limits, connections, topics, room_topics, counters })
    }

    /// Every bound.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Who is there.
    pub fn connections(&self) -> &Connections {
        &self.connections
    }

    /// Everything that is counted.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Registers a connection that an app accepted.
    pub fn open(self: &Arc<Hub>, accept: Accept) -> Result<Opened, LimitError> {
        let opened = self.connections.open(accept)?;
        self.counters.connections.add(1);
        Ok(opened)
    }

    /// Registers a feed that follows these topics.
    pub fn subscribe(self: &Arc<Hub>, topics: Vec<String>) -> Result<Subscribed, LimitError> {
        self.open_feed(topics, None)
    }

    /// As [`subscribe`](Hub::subscribe), and the feed also gets what is broadcast in the room.
    pub(crate) fn subscribe_in(self: &Arc<Hub>, topics: Vec<String>, room: &RoomId) -> Result<Subscribed, LimitError> {
        self.open_feed(topics, Some(room))
    }

    fn open_feed(self: &Arc<Hub>, topics: Vec<String>, room: Option<&RoomId>) -> Result<Subscribed, LimitError> {
        if topics.len() > self.limits.follows_max {
            return Err(LimitError::TooMany);
        }
        let outbox = Arc::new(Outbox::new(&self.limits));
        let id = self.connections.add_feed(&outbox)?;
        self.counters.feeds.add(1);
        let mut subscribed = Subscribed { id, outbox, topics: Vec::new(), room: None, hub: self.clone() };
        if let Some(room) = room {
            self.room_topics.follow(&room.to_string(), id, &subscribed.outbox)?;
            subscribed.room = Some(room.clone());
        }
        for topic in topics {
            self.topics.follow(&topic, id, &subscribed.outbox)?;
            subscribed.topics.push(topic);
        }
        Ok(subscribed)
    }

    /// Sends a message to everyone who follows `topic`; its number in the topic, from 1.
    pub fn publish(&self, topic: &str, publication: Publication) -> Result<u64, LimitError> {
        self.publish_to(&self.topics, topic, publication)
    }

    /// Sends a message to the connections and feeds of a room.
    pub(crate) fn broadcast(&self, room: &RoomId, publication: Publication) -> Result<u64, LimitError> {
        self.publish_to(&self.room_topics, &room.to_string(), publication)
    }

    fn publish_to(&self, topics: &Topics, topic: &str, publication: Publication) -> Result<u64, LimitError> {
        let (sequence, taken) = topics.publish(topic, publication)?;
        self.counters.publications.add(1);
        self.counters.deliveries.add(taken);
        Ok(sequence)
    }
}

/// An open feed in its owner's hand; dropping it takes it out of topics and registry.
pub struct Subscribed {
    id: ConnId,
    outbox: Arc<Outbox>,
    topics: Vec<String>,
    room: Option<RoomId>,
    hub: Arc<Hub>,
}

impl Subscribed {
    /// What is on its way to the client.
    pub fn outbox(&self) -> &Arc<Outbox> {
        &self.outbox
    }
}

impl Drop for Subscribed {
    fn drop(&mut self) {
        self.outbox.abandon();
        for topic in &self.topics {
            self.hub.topics.unfollow(topic, self.id);
        }
        if let Some(room) = &self.room {
            self.hub.room_topics.unfollow(&room.to_string(), self.id);
        }
        self.hub.connections.remove_feed(self.id);
    }
}
