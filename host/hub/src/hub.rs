//! The hub: the handle to limits, connections, topics, alarms, memory and counters of a running
//! app.

use crate::{
    budget::Budget,
    counters::Counters,
    event::Accept,
    limits::{LimitError, Limits},
    name::{ConnId, RoomId},
    now::Now,
    realtime::{
        connections::{ConnectionGuard, Connections},
        history::{Position, Positions, Replay, StartPoint},
        outbox::Outbox,
        publication::{Publication, TopicPolicy},
        topics::Topics,
    },
    rooms::{
        alarms::Alarms,
        calls::{CallError, Callee, RoomCall},
        storage::EngineStatus,
    },
};
use bytes::Bytes;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, Weak};

/// The state that edge, wasm and the scheduler of rooms share. It is created once for a served app.
pub struct Hub {
    limits: Limits,
    connections: Arc<Connections>,
    topics: Arc<Topics<str>>,
    /// The topics of rooms.
    room_topics: Arc<Topics<RoomId>>,
    counters: Arc<Counters>,
    /// The stored alarm of every room that has one.
    alarms: Mutex<Alarms>,
    budget: Arc<Budget>,
    /// The receiver of calls to rooms, if the app has rooms.
    callee: OnceLock<Weak<dyn Callee>>,
}

impl Hub {
    /// `seed` makes the ids and topic epochs of this run differ from those of other runs.
    pub fn new(limits: Limits, policy: TopicPolicy, seed: u64) -> Arc<Hub> {
        let budget = Arc::new(Budget::new(limits.memory_max));
        let topics = Arc::new(Topics::new(
            limits.clone(),
            policy.clone(),
            budget.clone(),
            seed,
        ));
        let room_topics = Arc::new(Topics::new(limits.clone(), policy, budget.clone(), !seed));
        let counters = Arc::<Counters>::default();
        let connections = Connections::new(
            limits.clone(),
            topics.clone(),
            room_topics.clone(),
            counters.clone(),
            budget.clone(),
            seed,
        );
        let (alarms, callee) = Default::default();
        Arc::new(Hub {
            limits,
            connections,
            topics,
            room_topics,
            counters,
            alarms,
            budget,
            callee,
        })
    }

    /// Returns all limits.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Returns the live connections.
    pub fn connections(&self) -> &Connections {
        &self.connections
    }

    /// Returns all counters.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Returns the memory of the process.
    pub fn budget(&self) -> &Arc<Budget> {
        &self.budget
    }

    /// Drops the histories of topics, to free their memory.
    pub fn shed(&self) {
        self.topics.shed();
    }

    /// Registers a connection that an app accepted.
    pub fn open(self: &Arc<Hub>, accept: Accept) -> Result<ConnectionGuard, LimitError> {
        let opened = self.connections.open(accept)?;
        self.counters.connections.add(1);
        Ok(opened)
    }

    /// Advances the hub's time to `now`. Call it about every 100 ms, because the histories of
    /// topics have a maximum age.
    pub fn tick(&self, now: Now) {
        self.topics.tick(now);
    }

    /// Returns the time of the last tick.
    pub fn now(&self) -> Now {
        self.topics.now()
    }

    /// Returns the index of alarms.
    pub(crate) fn alarms(&self) -> MutexGuard<'_, Alarms> {
        self.alarms
            .lock()
            .expect("nothing panics while it holds the alarms")
    }

    /// Registers a feed that follows these topics, from its earlier positions if it has any.
    pub fn subscribe(
        self: &Arc<Hub>,
        topics: Vec<String>,
        since: Option<&Positions>,
    ) -> Result<FeedGuard, LimitError> {
        self.open_feed(topics, since, None)
    }

    /// As [`subscribe`](Hub::subscribe); the feed also gets the broadcasts of the room, first those
    /// that it missed.
    pub(crate) fn subscribe_in(
        self: &Arc<Hub>,
        topics: Vec<String>,
        since: Option<&Positions>,
        room: &RoomId,
        missed: (StartPoint, Replay),
    ) -> Result<FeedGuard, LimitError> {
        self.open_feed(topics, since, Some((room, missed)))
    }

    fn open_feed(
        self: &Arc<Hub>,
        topics: Vec<String>,
        since: Option<&Positions>,
        room: Option<(&RoomId, (StartPoint, Replay))>,
    ) -> Result<FeedGuard, LimitError> {
        if topics.len() > self.limits.follows_max {
            return Err(LimitError::TooMany);
        }
        let outbox = Outbox::in_budget(&self.limits, &self.budget);
        let id = self.connections.add_feed(&outbox)?;
        self.counters.feeds.add(1);
        let (positions, gap) = Default::default();
        let mut guard = FeedGuard {
            id,
            outbox,
            topics: Vec::new(),
            room: None,
            positions,
            gap,
            hub: self.clone(),
        };
        if let Some((room, missed)) = room {
            let followed = self
                .room_topics
                .follow_with(room, id, &guard.outbox, missed)?;
            guard.room = Some(room.clone());
            guard.note(followed);
        }
        for topic in topics {
            let followed = self.topics.follow(&topic, id, &guard.outbox, since)?;
            guard.topics.push(topic);
            guard.note(followed);
        }
        Ok(guard)
    }

    /// Sends a message to all followers of `topic`. Returns its number in the topic from 1, or 0 if
    /// it is transient.
    pub fn publish(&self, topic: &str, publication: Publication) -> Result<u64, LimitError> {
        let (sequence, taken) = self.topics.publish(topic, publication)?;
        self.counters.publications.add(1);
        self.counters.deliveries.add(taken);
        Ok(sequence)
    }

    /// Sends a message, which has its number, to the connections and feeds of a room.
    pub(crate) fn broadcast(
        &self,
        room: &RoomId,
        publication: &Arc<Publication>,
    ) -> Result<(), LimitError> {
        let taken = self.room_topics.deliver(room, publication)?;
        self.counters.publications.add(1);
        self.counters.deliveries.add(taken);
        Ok(())
    }

    /// Returns how a connection would begin to follow a topic now.
    pub(crate) fn check_follow(
        &self,
        topic: &str,
        since: Option<Position>,
    ) -> Result<StartPoint, LimitError> {
        self.topics.check(topic, since)
    }

    /// Sets the receiver of calls to rooms, once.
    pub(crate) fn set_callee(&self, callee: Weak<dyn Callee>) {
        _ = self.callee.set(callee);
    }

    /// Returns whether rooms can be read and written now; [`EngineStatus::Open`] if the app has
    /// none.
    pub fn storage_status(&self) -> EngineStatus {
        self.callee
            .get()
            .and_then(Weak::upgrade)
            .map_or(EngineStatus::Open, |callee| callee.storage_status())
    }

    /// Calls a room (WIT `rooms.call`), once.
    pub(crate) fn call(
        &self,
        caller: Option<&RoomId>,
        class: &str,
        name: &str,
        payload: Bytes,
    ) -> RoomCall {
        let callee = self.callee.get().and_then(Weak::upgrade);
        let call = match (callee, RoomId::new(class, name)) {
            (Some(_), Ok(_)) if payload.len() > self.limits.call_bytes_max => {
                Err(CallError::TooLarge)
            }
            (Some(callee), Ok(room)) => Ok(callee.call_room(caller, room, payload)),
            _ => Err(CallError::NotValid),
        };
        call.unwrap_or_else(|error| Box::pin(async { Err(error) }))
    }

    /// Returns the position of a room's topic, as far as it is known in memory.
    pub(crate) fn room_position(&self, room: &RoomId) -> Result<Position, LimitError> {
        self.room_topics.position(room)
    }
}

/// Owner of an open feed. Dropping it takes the feed out of topics and registry.
pub struct FeedGuard {
    id: ConnId,
    outbox: Arc<Outbox>,
    topics: Vec<String>,
    room: Option<RoomId>,
    positions: Positions,
    gap: bool,
    hub: Arc<Hub>,
}

impl FeedGuard {
    /// Returns the queue of messages to the client.
    pub fn outbox(&self) -> &Arc<Outbox> {
        &self.outbox
    }

    /// Returns its start in each topic that it follows.
    pub fn positions(&self) -> &Positions {
        &self.positions
    }

    /// Returns true if publications that it did not have are gone.
    pub fn has_gap(&self) -> bool {
        self.gap
    }

    fn note(&mut self, (start, missed): (StartPoint, u64)) {
        self.positions.0.push(start.position);
        self.gap |= start.has_gap;
        self.hub.counters.deliveries.add(missed);
    }
}

impl Drop for FeedGuard {
    fn drop(&mut self) {
        self.outbox.abandon();
        for topic in &self.topics {
            self.hub.topics.unfollow(topic, self.id);
        }
        if let Some(room) = &self.room {
            self.hub.room_topics.unfollow(room, self.id);
        }
        self.hub.connections.remove_feed(self.id);
    }
}
