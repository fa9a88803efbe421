//! Counters since the start of the process, for operators and tests.

use std::sync::atomic::{AtomicU64, Ordering};

/// A number that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds `n`.
    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    /// Returns the count so far.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Calls another macro with all counters and their documentation. The struct and the fields of the
/// log are made of this list.
#[macro_export]
macro_rules! for_each_counter {
    ($define:ident) => {
        $define! {
            /// HTTP requests, upgrades included.
            requests,
            /// WebSocket connections that were opened.
            connections,
            /// Feeds that were opened.
            feeds,
            /// Calls into guest code.
            guest_calls,
            /// Faults; each is counted once, by [`Fault::report`](crate::Fault::report).
            faults,
            /// Publications to topics.
            publications,
            /// Publications that were queued for a follower.
            deliveries,
            /// Messages that were answered without a call.
            auto_responses,
            /// Instances that were created for a room.
            wakes,
            /// Commits of rooms. One commit may be of several events.
            commits,
            /// Connections that were closed because a request's head took longer than
            /// `header_within`.
            late_heads,
            /// Connections that were closed because a body, a form or a WebSocket message came too
            /// slowly (`read_within`, `bytes_per_second_min`).
            stalled_uploads,
            /// Connections that were closed because their client read too slowly (`write_within`,
            /// `bytes_per_second_min`).
            stalled_readers,
            /// WebSockets that were closed because of `control_frames_max`.
            control_floods,
            /// Lines of the app's output that were left out of the log because it printed too much.
            output_dropped,
            /// Connections, and static files, that were refused because `sockets_max` were open.
            refused_sockets,
            /// Connections that were refused because their address had `sockets_per_address_max`.
            refused_address,
            /// Connections that were refused because no file descriptor was left.
            refused_descriptors,
            /// HTTP connections that were refused, or closed while they waited for a request,
            /// because memory was short.
            refused_memory,
            /// WebSockets that were refused because `connections_max` were open.
            refused_websockets,
            /// Feeds that were refused because `feeds_max` were open.
            refused_feeds,
        }
    };
}

macro_rules! define_counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// Numbers of events since the start.
        #[derive(Debug, Default)]
        pub struct Counters {
            $($(#[$doc])* pub $name: Counter,)*
        }

        impl Counters {
            /// Returns the name and the value of each counter. Names and order are stable; new
            /// counters come last.
            pub fn values(&self) -> Vec<(&'static str, u64)> {
                vec![$((stringify!($name), self.$name.get())),*]
            }
        }
    };
}

for_each_counter!(define_counters);
