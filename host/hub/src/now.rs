//! The time that the hub receives: two clocks, read at the same moment.

use std::sync::atomic::{AtomicU64, Ordering};

/// One moment by two clocks. Durations are differences of `monotonic`. `wall` is for moments that
/// people and apps name (alarms), and for ages that must hold over a restart (histories). A wall
/// clock that is set has no other effect.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Now {
    /// Milliseconds since an unspecified moment before the start, by a clock that cannot be set and
    /// that includes suspends.
    pub monotonic: u64,
    /// Unix time in milliseconds; it may jump in either direction.
    pub wall: u64,
}

impl Now {
    /// Returns a moment by a clock that is never set, for tests: both readings are the same.
    ///
    /// ```
    /// use tidegate_hub::Now;
    /// assert_eq!(Now::at(5), Now { monotonic: 5, wall: 5 });
    /// ```
    pub fn at(ms: u64) -> Now {
        Now {
            monotonic: ms,
            wall: ms,
        }
    }
}

/// The latest moment, for many readers.
#[derive(Default)]
pub(crate) struct SharedNow {
    monotonic: AtomicU64,
    wall: AtomicU64,
}

impl SharedNow {
    pub(crate) fn set(&self, now: Now) {
        self.monotonic.store(now.monotonic, Ordering::Relaxed);
        self.wall.store(now.wall, Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> Now {
        Now {
            monotonic: self.monotonic.load(Ordering::Relaxed),
            wall: self.wall.load(Ordering::Relaxed),
        }
    }
}
