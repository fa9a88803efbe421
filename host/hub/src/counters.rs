//! What is counted since the start, for operators and tests.

use std::sync::atomic::{AtomicU64, Ordering};

/// A number that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Counts `n` more.
    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    /// What was counted so far.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// What happened since the start.
#[derive(Debug, Default)]
pub struct Counters {
    /// HTTP requests, upgrades included.
    pub requests: Counter,
    /// WebSocket connections that were opened.
    pub connections: Counter,
    /// Feeds that were opened.
    pub feeds: Counter,
    /// Calls into guest code.
    pub guest_calls: Counter,
    /// Calls that ended in a fault.
    pub faults: Counter,
    /// Publications to topics.
    pub publications: Counter,
    /// Publications that were queued towards a follower.
    pub deliveries: Counter,
    /// Messages that were answered without a call.
    pub auto_responses: Counter,
    /// Instances that were made for a room.
    pub wakes: Counter,
    /// Commits of rooms; one may be of several events.
    pub commits: Counter,
    /// Connections that were closed because a request's head took longer than `header_within`.
    pub late_heads: Counter,
    /// Connections that were closed because a body, a form or a WebSocket message came too slowly (`read_within`, `bytes_per_second_min`).
    pub stalled_uploads: Counter,
    /// Connections that were closed because their client took too slowly what waited for it (`write_within`, `bytes_per_second_min`).
    pub stalled_readers: Counter,
    /// WebSockets that were closed because of `control_frames_max`.
    pub control_floods: Counter,
    /// Lines of the app's output that were left out of the log because it printed too much.
    pub output_dropped: Counter,
    /// Connections, and static files, that were refused because `sockets_max` were open.
    pub refused_sockets: Counter,
    /// Connections that were refused because their address had `sockets_per_address_max`.
    pub refused_address: Counter,
    /// Connections that were refused because no file descriptor was left.
    pub refused_descriptors: Counter,
    /// HTTP connections that were refused, or closed while they waited for a request, because
    /// memory was short.
    pub refused_memory: Counter,
    /// WebSockets that were refused because `connections_max` were open.
    pub refused_websockets: Counter,
    /// Feeds that were refused because `feeds_max` were open.
    pub refused_feeds: Counter,
}
