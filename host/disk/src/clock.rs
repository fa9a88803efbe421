//! The clock of pauses and intervals.

use rustix::time::{ClockId, clock_gettime};
use std::time::Duration;

/// Time since an unspecified moment before the start, by a clock that cannot be set and that counts
/// suspend. A pause that a suspended machine has slept through is over when it resumes.
pub(crate) fn now() -> Duration {
    #[cfg(target_os = "linux")]
    const MONOTONIC: ClockId = ClockId::Boottime;
    #[cfg(not(target_os = "linux"))]
    const MONOTONIC: ClockId = ClockId::Monotonic;
    let time = clock_gettime(MONOTONIC);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}
