//! What an app answers to a client that asks for an event stream.

use crate::{hub::FeedGuard, limits::LimitError};

/// What a feed begins with and follows.
#[derive(Default)]
pub struct Feed {
    /// Names of topics.
    pub topics: Vec<String>,
    /// Sent before anything else.
    pub first: Vec<FeedEvent>,
    /// A room's feed, which began with the event that admitted it: nothing between the two is missed.
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
