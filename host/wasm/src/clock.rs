//! A wall clock that a test moves.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use wasmtime_wasi::HostWallClock;

/// The time of day of an app under test; clones are the same clock.
///
/// ```
/// let clock = tidegate_wasm::Clock::at(2_000_000_000_000);
/// clock.clone().set(2_000_000_000_500);
/// assert_eq!(clock.now(), 2_000_000_000_500);
/// ```
#[derive(Clone, Debug)]
pub struct Clock(Arc<AtomicU64>);

impl Clock {
    /// A clock that stands still at this Unix time in milliseconds.
    pub fn at(unix_ms: u64) -> Clock {
        Clock(Arc::new(AtomicU64::new(unix_ms)))
    }

    /// Unix time in milliseconds.
    pub fn now(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// It is so late now.
    pub fn set(&self, unix_ms: u64) {
        self.0.store(unix_ms, Ordering::Relaxed);
    }
}

impl HostWallClock for Clock {
    fn resolution(&self) -> Duration {
        Duration::from_millis(1)
    }

    fn now(&self) -> Duration {
        Duration::from_millis(Clock::now(self))
    }
}
