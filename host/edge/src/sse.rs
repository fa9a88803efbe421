//! Server-Sent Events: `event_stream` encodes them, `feed` is a stream held by the host, and
//! `heartbeats` adds comments to an app's own streams.

pub(crate) mod event_stream;
pub(crate) mod feed;
pub(crate) mod heartbeats;
