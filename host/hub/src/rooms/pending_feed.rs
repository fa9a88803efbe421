//! A feed of a room between the event that admitted it and the commit of that event.

use crate::{
    hub::{FeedGuard, Hub},
    limits::LimitError,
    name::RoomId,
    realtime::history::{Position, Positions, Replay, StartPoint},
};
use std::sync::{Arc, Mutex};

/// The feed of a room, once the event that admitted it is durable.
#[derive(Default)]
pub struct PendingFeed(Mutex<Option<Result<FeedGuard, LimitError>>>);

impl PendingFeed {
    /// Returns the feed, once.
    pub fn take(&self) -> Option<Result<FeedGuard, LimitError>> {
        self.0
            .lock()
            .expect("nothing panics while it holds a slot")
            .take()
    }
}

/// A feed that is about to be opened.
pub(crate) struct Subscription {
    topics: Vec<String>,
    since: Option<Positions>,
    /// Start and missed publications of the room's own topic.
    missed: (StartPoint, Replay),
    slot: Arc<PendingFeed>,
}

impl Subscription {
    /// Returns a feed that is about to be opened, and the place where it will be.
    pub(crate) fn new(
        topics: Vec<String>,
        since: Option<Positions>,
        missed: (StartPoint, Replay),
    ) -> (Subscription, Arc<PendingFeed>) {
        let slot = Arc::<PendingFeed>::default();
        let subscription = Subscription {
            topics,
            since,
            missed,
            slot: slot.clone(),
        };
        (subscription, slot)
    }

    /// Returns the bytes of memory that it takes.
    pub(crate) fn weight(&self) -> usize {
        let topics: usize = self
            .topics
            .iter()
            .map(|topic| size_of::<String>() + topic.len())
            .sum();
        let positions = self
            .since
            .as_ref()
            .map_or(0, |since| since.0.len() * size_of::<Position>());
        let missed: usize = self
            .missed
            .1
            .iter()
            .map(|publication| publication.weight())
            .sum();
        size_of::<Subscription>() + topics + positions + missed
    }

    /// Opens the feed, because its event is durable.
    pub(crate) fn open(self, hub: &Arc<Hub>, room: &RoomId) {
        let Subscription {
            topics,
            since,
            missed,
            slot,
        } = self;
        let subscribed = hub.subscribe_in(topics, since.as_ref(), room, missed);
        *slot.0.lock().expect("nothing panics while it holds a slot") = Some(subscribed);
    }
}
