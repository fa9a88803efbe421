//! The pause between two attempts to open the storage.

use std::time::Duration;

/// Pause before the first try to open again, and the longest: each is twice the one before.
const REOPEN_PAUSE: Duration = Duration::from_millis(100);
const REOPEN_PAUSE_MAX: Duration = Duration::from_secs(5);

/// Time of the next try to open, and the pause if that fails.
pub(super) struct Pause {
    /// By [`clock::now`].
    until: Duration,
    length: Duration,
}

impl Pause {
    pub(super) fn begin(now: Duration) -> Pause {
        Pause {
            until: now + REOPEN_PAUSE,
            length: REOPEN_PAUSE,
        }
    }

    pub(super) fn is_over(&self, now: Duration) -> bool {
        now >= self.until
    }

    pub(super) fn grow(&mut self, now: Duration) {
        self.length = (2 * self.length).min(REOPEN_PAUSE_MAX);
        self.until = now + self.length;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_a_maximum_and_end_on_a_clock_jump() {
        let mut now = Duration::from_secs(1000);
        let mut pause = Pause::begin(now);
        for milliseconds in [100, 200, 400, 800, 1600, 3200, 5000, 5000] {
            let length = Duration::from_millis(milliseconds);
            assert!(!pause.is_over(now + length - Duration::from_nanos(1)));
            now += length;
            assert!(pause.is_over(now), "{length:?}");
            pause.grow(now);
        }
        // The machine was suspended meanwhile.
        assert!(pause.is_over(now + Duration::from_secs(3600)));
    }
}
