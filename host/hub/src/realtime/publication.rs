//! One message to all who follow a topic, and what becomes of those who are too slow for it.

use crate::{
    budget::{Budget, Charge, Kind, OutOfMemory},
    limits::{LimitError, Limits},
    message::Message,
    name::ConnId,
};
use bytes::Bytes;
use std::sync::{Arc, OnceLock};

/// What happens when a follower's outbox has no room for a publication.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Overflow {
    /// The follower is closed with 1013.
    #[default]
    Close,
    /// The follower loses the oldest publications that wait for it.
    DropOldest,
}

/// Which topics have which overflow policy: by full name, or by a prefix that ends in `*`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TopicPolicy {
    /// Topics whose slow followers lose their oldest; all others close.
    pub drop_oldest: Vec<String>,
}

impl TopicPolicy {
    /// The policy of this topic.
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

/// One message to everyone who follows a topic.
#[derive(Debug)]
pub struct Publication {
    /// What WebSockets get.
    pub message: Message,
    /// The event's name on event streams.
    pub event: Option<String>,
    /// Not kept, and without a number: of no use to who comes back.
    pub transient: bool,
    /// Who is left out.
    pub except: Option<ConnId>,
    /// Tells this topic's numbers from those that the same name had before a restart.
    pub epoch: u64,
    /// The publication's number in its topic, from 1; 0 if it is transient.
    pub sequence: u64,
    /// As event streams carry it: kept by the first who writes it there.
    pub event_stream: OnceLock<Bytes>,
    /// Reservation for a large publication. Its followers share it.
    pub charge: Charge,
}

impl Publication {
    /// A message without an event's name, to everybody.
    pub fn new(message: Message) -> Publication {
        let (event_stream, charge) = (OnceLock::new(), Charge::new(Kind::Publication));
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

    /// Bytes of memory that it takes: the record and its strings.
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
