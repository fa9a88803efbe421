//! Feeds: the app's response to a client that asks for an event stream.

use crate::{hub::FeedGuard, limits::LimitError};

/// The first events of a feed, and the topics that it follows.
#[derive(Default)]
pub struct Feed {
    /// Names of topics.
    pub topics: Vec<String>,
    /// Events that are sent before all others.
    pub first: Vec<FeedEvent>,
    /// The feed of a room. It was opened in the event that admitted it, so it misses nothing after
    /// that.
    pub opened: Option<Result<FeedGuard, LimitError>>,
}

/// One event that a feed begins with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FeedEvent {
    /// The event's data, of any number of lines.
    pub data: String,
    /// The event's name, without line breaks.
    pub event: Option<String>,
}
