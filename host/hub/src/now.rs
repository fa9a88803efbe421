//! The time as the hub is given it: two clocks, read at the same moment.

use std::sync::atomic::{AtomicU64, Ordering};

/// One moment, by two clocks. Durations are differences of `monotonic`; `wall` is for moments that people and apps name (alarms)
/// and for ages that must hold over a restart (histories). A wall clock that is set changes nothing else.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Now {
    /// Milliseconds since an unspecified moment before the start, by a clock that cannot be set and that counts suspend.
    pub monotonic: u64,
    /// Unix time in milliseconds; it may jump in either direction.
    pub wall: u64,
}

impl Now {
    /// A moment by a clock that is never set, as tests have it: both readings are the same.
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

/// The latest moment that was given, for many readers.
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
