//! Pauses between tries of a task that the host could not do.

use crate::limits::{HOST_RETRY, HOST_RETRY_MAX};

/// Each pause is twice as long as the one before it, from [`HOST_RETRY`] to [`HOST_RETRY_MAX`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Backoff(u32);

impl Backoff {
    /// Returns true if there was no pause yet.
    pub fn is_fresh(&self) -> bool {
        self.0 == 0
    }

    /// Returns the pause before the next try in milliseconds.
    ///
    /// ```
    /// let mut backoff = tidegate_hub::retry::Backoff::default();
    /// assert_eq!([(); 7].map(|()| backoff.pause()), [250, 500, 1000, 2000, 4000, 5000, 5000]);
    /// ```
    pub fn pause(&mut self) -> u64 {
        let pause = (HOST_RETRY.as_millis() as u64) << self.0;
        self.0 = (self.0 + 1).min(16);
        pause.min(HOST_RETRY_MAX.as_millis() as u64)
    }
}
