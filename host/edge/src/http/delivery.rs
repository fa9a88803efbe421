//! Bytes that wait in the kernel until the client's machine acknowledges them. The connection's
//! task may have nothing to do then, and no timer: an answer of 100 KB fits into the kernel.
//!
//! [`Delivery`] belongs to the socket and outlives the users of the socket (hyper, a held answer).
//! The first write starts a timer. After it has fired, the next use of the socket checks the number
//! of unacknowledged bytes. If there are none, the timer is removed, so an idle connection has
//! none. Otherwise the checks continue. If a client acknowledges the bytes of a check too slowly,
//! the socket fails with `TimedOut`. Bytes that were written after that check do not count, since
//! they may just have left.
//!
//! `TCP_USER_TIMEOUT` is not suitable for this. Linux starts its time with the first probe of a
//! window that is smaller than the next segment, and acknowledged bytes do not restart it.

use crate::http::pace::{LOOKS, PaceRule, poll_timer};
use std::{io, pin::Pin, task::Context};
use tokio::time::{Instant, Sleep, sleep_until};

/// Progress of a socket's bytes from the kernel to the client's machine.
pub(crate) struct Delivery {
    rule: PaceRule,
    /// Number of bytes that the kernel has taken so far.
    sent: u64,
    /// `None` while no bytes are known to wait in the kernel.
    timer: Option<Pin<Box<Sleep>>>,
    /// `None` until a check has found waiting bytes.
    backlog: Option<Box<Backlog>>,
}

/// Bytes that a check found in the kernel. All counts are since the connection began.
struct Backlog {
    /// Time of that check.
    since: Instant,
    /// Number of bytes that were acknowledged by then.
    start: u64,
    /// Number of bytes that were sent by then.
    end: u64,
    /// Number of acknowledged bytes at the last check.
    acknowledged: u64,
    /// Time of the first check with that number.
    moved_at: Instant,
}

impl Backlog {
    fn new(acknowledged: u64, sent: u64, now: Instant) -> Backlog {
        Backlog {
            since: now,
            start: acknowledged,
            end: sent,
            acknowledged,
            moved_at: now,
        }
    }

    /// Returns true if the client is too slow.
    fn note(&mut self, acknowledged: u64, sent: u64, rule: PaceRule, now: Instant) -> bool {
        if acknowledged >= self.end {
            *self = Backlog::new(acknowledged, sent, now);
            return false;
        }
        if acknowledged > self.acknowledged {
            self.acknowledged = acknowledged;
            self.moved_at = now;
        }
        let time = now.saturating_duration_since(self.since);
        let moved = acknowledged.saturating_sub(self.start);
        now.saturating_duration_since(self.moved_at) >= rule.within
            || time >= rule.within && !rule.is_kept_by(moved, time)
    }
}

impl Delivery {
    pub(crate) fn new(rule: PaceRule) -> Delivery {
        Delivery {
            rule,
            sent: 0,
            timer: None,
            backlog: None,
        }
    }

    /// Records that the kernel accepted some bytes.
    #[inline]
    pub(crate) fn note_written(&mut self, bytes: usize, cx: &mut Context<'_>) {
        self.sent += bytes as u64;
        if self.timer.is_none() {
            self.start_timer(cx);
        }
    }

    #[cold]
    fn start_timer(&mut self, cx: &mut Context<'_>) {
        let due = Instant::now() + self.rule.within / LOOKS;
        let timer = self.timer.insert(Box::pin(sleep_until(due)));
        if poll_timer(timer.as_mut(), cx).is_ready() {
            cx.waker().wake_by_ref();
        }
    }

    /// Checks the bytes in the kernel if it is time to. The timer wakes the task that last wrote or
    /// checked.
    ///
    /// # Errors
    /// Returns `TimedOut` if the client acknowledges the bytes too slowly.
    #[inline]
    pub(crate) fn check(
        &mut self,
        unacknowledged: impl FnOnce() -> u64,
        cx: &mut Context<'_>,
    ) -> io::Result<()> {
        if self.timer.as_ref().is_none_or(|timer| !timer.is_elapsed()) {
            return Ok(());
        }
        self.look(unacknowledged(), cx)
    }

    #[cold]
    fn look(&mut self, unacknowledged: u64, cx: &mut Context<'_>) -> io::Result<()> {
        if unacknowledged == 0 {
            self.reset();
            return Ok(());
        }
        let now = Instant::now();
        let acknowledged = self.sent.saturating_sub(unacknowledged);
        let backlog = self
            .backlog
            .get_or_insert_with(|| Box::new(Backlog::new(acknowledged, self.sent, now)));
        if backlog.note(acknowledged, self.sent, self.rule, now) {
            return Err(io::ErrorKind::TimedOut.into());
        }
        self.start_timer(cx);
        Ok(())
    }

    /// Stops the timer until the next write, which may come from another task.
    pub(crate) fn reset(&mut self) {
        self.timer = None;
        self.backlog = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const SECOND: Duration = Duration::from_secs(1);

    /// Returns the second in which a client is too slow that acknowledges `bytes` every `every`
    /// seconds, if 100 KB wait in the kernel and `more` are written every second.
    fn late(every: u32, bytes: u64, more: u64) -> Option<u32> {
        let (rule, start) = (PaceRule::new(30 * SECOND, 256), Instant::now());
        let (mut acknowledged, mut sent) = (0, 100_000);
        let mut backlog = Backlog::new(acknowledged, sent, start);
        (1..3600).find(|second| {
            sent += more;
            if second % every == 0 {
                acknowledged = sent.min(acknowledged + bytes);
            }
            acknowledged < sent && backlog.note(acknowledged, sent, rule, start + *second * SECOND)
        })
    }

    #[test]
    fn bytes_in_the_kernel_move_at_the_least_rate() {
        for (name, every, bytes, more, expected) in [
            ("nothing", 3600, 0, 0, Some(30)),
            ("a byte every 20 s", 20, 1, 0, Some(30)),
            ("255 bytes a second", 1, 255, 0, Some(30)),
            ("256 bytes a second", 1, 256, 0, None),
            ("much every 29 s", 29, 20_000, 0, None),
            ("much, then nothing for 31 s", 31, 20_000, 0, Some(30)),
            ("256 bytes a second of ever more", 1, 256, 1000, None),
            ("few bytes, and as many written", 1, 30_000, 10, None),
        ] {
            assert_eq!(late(every, bytes, more), expected, "{name}");
        }
    }

    #[test]
    fn bytes_written_after_a_look_are_not_owed_by_it() {
        let (rule, start) = (PaceRule::new(30 * SECOND, 256), Instant::now());
        let mut backlog = Backlog::new(0, 10, start);
        // Ten bytes a second, each acknowledged five seconds after it was written.
        for second in 5..1000_u32 {
            let (acknowledged, sent) = (u64::from(second - 4) * 10, u64::from(second) * 10 + 10);
            let now = start + second * SECOND;
            assert!(!backlog.note(acknowledged, sent, rule, now), "{second}");
        }
    }
}
