//! A message to all followers of a topic, and the policy for followers that are too slow.

use crate::{
    budget::{Budget, Charge, MemoryKind, OutOfMemory},
    limits::{LimitError, Limits},
    message::Message,
    name::ConnId,
};
use bytes::Bytes;
use std::sync::{Arc, OnceLock};

/// Policy for a publication that does not fit into a follower's outbox.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Overflow {
    /// The follower is closed with 1013.
    #[default]
    Close,
    /// The follower loses the oldest publications that wait for it.
    DropOldest,
}

/// Overflow policies of topics, by full name or by a prefix that ends in `*`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TopicPolicy {
    /// Topics whose slow followers lose their oldest publications. Followers of all others are
    /// closed.
    pub drop_oldest: Vec<String>,
}

impl TopicPolicy {
    /// Returns the policy of this topic.
    pub fn overflow(&self, topic: &str) -> Overflow {
        let matches = |name: &String| match name.strip_suffix('*') {
            Some(prefix) => topic.starts_with(prefix),
            None => topic == name,
        };
        if self.drop_oldest.iter().any(matches) {
            Overflow::DropOldest
        } else {
            Overflow::Close
        }
    }
}

/// One message to all followers of a topic.
#[derive(Debug)]
pub struct Publication {
    /// Message for WebSockets.
    pub message: Message,
    /// Name of the event on event streams.
    pub event: Option<String>,
    /// True if it is not kept and has no number: a client that comes back does not get it.
    pub transient: bool,
    /// Connection that does not get it.
    pub except: Option<ConnId>,
    /// Distinguishes the numbers of this topic from those that the same name had before a restart.
    pub epoch: u64,
    /// Number of the publication in its topic, from 1; 0 if it is transient.
    pub sequence: u64,
    /// The message as event streams carry it. The first writer stores it here.
    pub event_stream: OnceLock<Bytes>,
    /// Reservation for a large publication. Its followers share it.
    pub charge: Charge,
}

impl Publication {
    /// Returns a message to all followers, without an event name.
    pub fn new(message: Message) -> Publication {
        let (event_stream, charge) = (OnceLock::new(), Charge::new(MemoryKind::Publication));
        Publication {
            message,
            event: None,
            transient: false,
            except: None,
            epoch: 0,
            sequence: 0,
            event_stream,
            charge,
        }
    }

    /// Returns the memory that it takes, in bytes: the record and its strings.
    pub(crate) fn weight(&self) -> usize {
        size_of::<Publication>() + self.message.len() + self.event.as_ref().map_or(0, String::len)
    }

    /// Reserves its memory.
    pub(crate) fn charge(&mut self, budget: &Arc<Budget>) -> Result<(), OutOfMemory> {
        let weight = self.weight();
        self.charge.fit(budget, weight)
    }

    pub(crate) fn check(&self, limits: &Limits) -> Result<(), LimitError> {
        let event = self.event.as_deref().unwrap_or_default();
        if event.contains(['\r', '\n', '\0']) {
            return Err(LimitError::NotValid);
        }
        let too_large =
            self.message.len() > limits.message_bytes_max || event.len() > limits.topic_bytes_max;
        if too_large {
            Err(LimitError::TooLarge)
        } else {
            Ok(())
        }
    }
}
