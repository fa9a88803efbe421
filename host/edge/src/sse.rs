//! Server-Sent Events: `event_stream` encodes them, `feed` is a stream that the host holds.

pub(crate) mod event_stream;
pub(crate) mod feed;
pub(crate) mod heartbeats;
