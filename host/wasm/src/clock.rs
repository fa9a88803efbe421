//! The clocks of guests: a wall clock that a test moves, and sleeps that count suspend.
//!
//! The timers of the runtime stand still while the machine is suspended. A sleep compares its end
//! with a clock that counts that time, at least every [`LOOK`]. So a sleep that has ended during a
//! suspend is noticed at most that long after the resume, and no task has to watch for resumes.

use rustix::time::{ClockId, clock_gettime};
use std::{
    future::{Future, poll_fn},
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::Poll,
    time::Duration,
};
use wasmtime_wasi::HostWallClock;

/// Maximum time between two looks of a sleep at the clock. A sleep needs an instance, so the number
/// of looks is bounded.
const LOOK: Duration = Duration::from_secs(1);

/// Returns the time since an unspecified moment before the start, by a clock that cannot be set and
/// that counts suspend.
pub(crate) fn monotonic() -> Duration {
    #[cfg(target_os = "linux")]
    const MONOTONIC: ClockId = ClockId::Boottime;
    #[cfg(not(target_os = "linux"))]
    const MONOTONIC: ClockId = ClockId::Monotonic;
    let time = clock_gettime(MONOTONIC);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// Waits until [`monotonic`] is at least `until`.
pub(crate) async fn sleep_until(until: Duration) {
    sleep_until_by(monotonic, LOOK, until).await;
}

/// Waits for this duration, which includes the time for which the machine is suspended.
pub(crate) async fn sleep(duration: Duration) {
    sleep_until(monotonic().saturating_add(duration)).await;
}

async fn sleep_until_by(now: impl Fn() -> Duration, look: Duration, until: Duration) {
    loop {
        let left = until.saturating_sub(now());
        if left.is_zero() {
            return;
        }
        tokio::time::sleep(left.min(look)).await;
    }
}

/// Returns the output of `future`, or none if it takes longer than `duration`, in which suspends
/// are included.
pub(crate) async fn timeout<T>(duration: Duration, future: impl Future<Output = T>) -> Option<T> {
    let (mut future, mut end) = (pin!(future), pin!(sleep(duration)));
    poll_fn(|cx| match future.as_mut().poll(cx) {
        Poll::Ready(output) => Poll::Ready(Some(output)),
        Poll::Pending => end.as_mut().poll(cx).map(|()| None),
    })
    .await
}

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
    /// Returns a clock that stands still at this Unix time, in milliseconds.
    pub fn at(unix_ms: u64) -> Clock {
        Clock(Arc::new(AtomicU64::new(unix_ms)))
    }

    /// Returns the Unix time, in milliseconds.
    pub fn now(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// Sets the Unix time, in milliseconds.
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    const HOUR: Duration = Duration::from_secs(3600);
    const SOON: Duration = Duration::from_millis(1);

    fn block_on<T>(future: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .unwrap()
            .block_on(future)
    }

    #[test]
    fn a_sleep_that_ends_during_a_suspend_is_over_soon_after_it() {
        let now = Cell::new(HOUR);
        block_on(async {
            let mut sleep = pin!(sleep_until_by(|| now.get(), SOON, 2 * HOUR));
            // The machine is awake while the runtime's timers run several times.
            let awake = tokio::time::timeout(20 * SOON, sleep.as_mut()).await;
            assert!(awake.is_err());
            now.set(HOUR + HOUR / 2);
            let awake = tokio::time::timeout(20 * SOON, sleep.as_mut()).await;
            assert!(awake.is_err(), "one half of the time is left");
            now.set(3 * HOUR);
            sleep.await;
        });
    }

    #[test]
    fn a_call_that_takes_longer_than_its_time_by_either_clock_is_given_up() {
        block_on(async {
            assert_eq!(timeout(HOUR, async { 1 }).await, Some(1));
            assert_eq!(timeout(SOON, std::future::pending::<()>()).await, None);
            let began = monotonic();
            sleep(20 * SOON).await;
            assert!(monotonic() - began >= 20 * SOON);
        });
    }
}
