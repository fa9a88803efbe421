//! A ping on its way to the client.
//!
//! The time for the pong starts when the ping has left this machine. The session starts it when the
//! ping is written. At that time, up to some 100 KB of earlier bytes may still be in the kernel,
//! and a slow link takes seconds for them. So a late pong is excused in two cases: these bytes
//! still move at the minimum rate, or the ping has left since the last check.

use crate::http::pace::PaceRule;
use std::time::Duration;

/// Progress of the ping.
#[derive(Debug, PartialEq)]
pub(crate) enum PingDelivery {
    None,
    /// It waits until everything before it is written.
    Due,
    /// It is framed; `start` bytes were written before it.
    Framed {
        start: u64,
    },
    /// It is in the kernel, with earlier bytes before it. It has left when `end` bytes are
    /// acknowledged; the connection last saw `acknowledged`.
    Queued {
        end: u64,
        acknowledged: u64,
    },
}

impl PingDelivery {
    /// Returns the state of a ping that has just been written as the last of `end` bytes. If all
    /// bytes before it are acknowledged, it leaves at once.
    pub(crate) fn written(start: u64, end: u64, acknowledged: u64) -> PingDelivery {
        if acknowledged >= start {
            PingDelivery::None
        } else {
            PingDelivery::Queued { end, acknowledged }
        }
    }

    /// Returns true if the pong, which has not come for `pong_within`, gets this time once more.
    pub(crate) fn excuses_pong(
        &mut self,
        acknowledged: u64,
        rule: PaceRule,
        pong_within: Duration,
    ) -> bool {
        let PingDelivery::Queued {
            end,
            acknowledged: before,
        } = self
        else {
            return false;
        };
        if acknowledged >= *end {
            *self = PingDelivery::None;
            return true;
        }
        let moved = acknowledged.saturating_sub(*before);
        *before = acknowledged;
        moved > 0 && rule.is_kept_by(moved, pong_within)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_for_a_pong_starts_when_the_ping_has_left() {
        // 100,000 bytes and the ping; the minimum rate is 1,000 bytes a second.
        let (start, end) = (100_000, 100_002);
        let rule = PaceRule::new(Duration::from_secs(10), 1_000);
        let pong_within = Duration::from_secs(3);
        for (acknowledged, looks) in [
            // No byte was before the ping, or all had left: no excuse.
            (100_000, &[(100_002, false)][..]),
            (100_001, &[(100_002, false)]),
            // The ping left since the last check: the time starts once more, and only once.
            (0, &[(100_002, true), (100_002, false)]),
            (99_999, &[(100_002, true), (100_002, false)]),
            // The bytes before the ping move for some checks, then it leaves.
            (
                0,
                &[
                    (40_000, true),
                    (80_000, true),
                    (100_002, true),
                    (100_002, false),
                ],
            ),
            // The bytes move at the minimum rate, or slower, or not at all.
            (50_000, &[(53_000, true), (55_999, false)]),
            (50_000, &[(52_999, false)]),
            (50_000, &[(50_000, false)]),
        ] {
            let mut ping = PingDelivery::written(start, end, acknowledged);
            for &(acknowledged, expected) in looks {
                assert_eq!(
                    ping.excuses_pong(acknowledged, rule, pong_within),
                    expected,
                    "{ping:?} at {acknowledged}"
                );
            }
        }
    }
}
