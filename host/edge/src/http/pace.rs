//! Limits on a slow client.
//!
//! A [`PaceMeter`] adds up the time that the host waits for a client in one direction, and the
//! bytes that move in that time; the [`PaceRule`] decides when that is too slow. Time in which the
//! host does not wait does not count: a guest that does not read, or a feed without events, is not
//! the client's fault. The owner of the connection has the clock and the timer.

use std::{
    future::Future as _,
    pin::{Pin, pin},
    task::{Context, Poll, Waker},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, DuplexStream, Interest},
    net::TcpStream,
    task::unconstrained,
    time::{Instant, Sleep},
};

/// Number of checks in the time that a client has for a byte.
pub(crate) const LOOKS: u32 = 10;

/// Minimum pace of a client while the host waits for it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PaceRule {
    /// At least one byte moves in this time, and `bytes_min` in all.
    pub(crate) within: Duration,
    /// Minimum number of bytes; zero for no such limit.
    bytes_min: u64,
}

impl PaceRule {
    pub(crate) fn new(within: Duration, bytes_per_second_min: usize) -> PaceRule {
        let bytes_min = (bytes_per_second_min as u128).saturating_mul(within.as_millis()) / 1000;
        PaceRule {
            within,
            bytes_min: bytes_min.try_into().unwrap_or(u64::MAX),
        }
    }

    /// Returns true if this number of bytes in this time is fast enough on average.
    pub(crate) fn is_kept_by(self, moved: u64, time: Duration) -> bool {
        u128::from(moved) * self.within.as_millis() >= u128::from(self.bytes_min) * time.as_millis()
    }

    /// Returns the same rate with a time of at most `within`.
    pub(crate) fn at_most(self, within: Duration) -> PaceRule {
        if within >= self.within {
            return self;
        }
        let bytes_min = u128::from(self.bytes_min).saturating_mul(within.as_millis())
            / self.within.as_millis().max(1);
        PaceRule {
            within,
            bytes_min: bytes_min.try_into().unwrap_or(u64::MAX),
        }
    }
}

/// Time that the host waited for a client, and the bytes that moved in it.
#[derive(Debug, Default)]
pub(crate) struct PaceMeter {
    state: MeterState,
    /// Total number of bytes at the last check.
    total: u64,
    /// Time waited since the last byte moved.
    silence: Duration,
    /// Time waited since the rate was last evaluated.
    waited: Duration,
    /// Number of bytes that moved in `waited`.
    moved: u64,
}

#[derive(Debug, Default)]
enum MeterState {
    #[default]
    Unused,
    /// The host waits for the client. The value is the time of the last check.
    Waiting(Instant),
    /// The host waited until this time.
    Rested(Instant),
}

impl PaceMeter {
    /// Returns true if the host waited for the client at the last check.
    pub(crate) fn is_waiting(&self) -> bool {
        matches!(self.state, MeterState::Waiting(_))
    }

    /// Resets the waiting time: the client has sent the expected bytes.
    pub(crate) fn reset(&mut self) {
        *self = PaceMeter::default();
    }

    /// Records that `total` bytes have moved since the connection began, and whether the host waits
    /// from now on. Returns true if it waits and the client is too slow. A pause does not end an
    /// average; otherwise a client could start a new one by a byte at the right moment.
    pub(crate) fn note(
        &mut self,
        total: u64,
        is_waiting: bool,
        rule: PaceRule,
        now: Instant,
    ) -> bool {
        match self.state {
            MeterState::Waiting(since) => {
                let (passed, moved) = (
                    now.saturating_duration_since(since),
                    total.saturating_sub(self.total),
                );
                self.waited += passed;
                self.moved += moved;
                self.silence = if moved > 0 {
                    Duration::ZERO
                } else {
                    self.silence + passed
                };
            }
            // After a pause of this length, the average has no earlier time.
            MeterState::Rested(until) if now.saturating_duration_since(until) >= rule.within => {
                self.reset()
            }
            MeterState::Rested(_) | MeterState::Unused => {}
        }
        self.total = total;
        self.state = match (is_waiting, &self.state) {
            (true, _) => MeterState::Waiting(now),
            (false, MeterState::Waiting(_)) => MeterState::Rested(now),
            (false, MeterState::Rested(until)) => MeterState::Rested(*until),
            (false, MeterState::Unused) => MeterState::Unused,
        };
        if !is_waiting {
            return false;
        }
        let is_judged = self.waited >= rule.within;
        let is_late = self.silence >= rule.within || is_judged && self.moved < rule.bytes_min;
        if is_judged {
            (self.waited, self.moved) = (Duration::ZERO, 0);
        }
        is_late
    }

    /// Returns the time of the next check, if the host waits. Bytes that moved since the last check
    /// may have moved just after it, so checks are closer together than `within`.
    pub(crate) fn due(&self, rule: PaceRule) -> Option<Instant> {
        let MeterState::Waiting(since) = self.state else {
            return None;
        };
        Some(
            since
                + rule
                    .within
                    .saturating_sub(self.silence.max(self.waited))
                    .min(rule.within / LOOKS),
        )
    }
}

/// The directions of a connection that its client has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ClientEnd {
    /// Neither direction.
    None,
    /// Neither direction yet, but bytes are ready to be read: the end would come after them and
    /// wakes no task.
    Unread,
    /// The sending direction of the client: it may have left, or it may wait for its answer. TCP
    /// has the same sign for both.
    Sending,
    /// Both directions.
    Both,
}

/// A stream of bytes to and from a client.
pub(crate) trait ClientSocket: AsyncRead + AsyncWrite + Unpin + Send + 'static {
    /// Returns the number of written bytes that the client's machine has not acknowledged.
    fn unacknowledged(&self) -> u64;

    /// Returns the directions that the client has ended, without reading. Wakes the task when that
    /// changes, or when bytes arrive.
    fn poll_end(&self, cx: &mut Context<'_>) -> ClientEnd;

    /// Notifies the socket that another task uses it from now on.
    fn change_task(&mut self) {}

    /// Makes the drop of the connection discard the bytes that the kernel still holds for the
    /// client.
    fn abort(&self);
}

impl ClientSocket for TcpStream {
    #[cfg(target_os = "linux")]
    fn unacknowledged(&self) -> u64 {
        /// tcp(7): number of bytes in the send queue.
        const SIOCOUTQ: rustix::ioctl::Opcode = 0x5411;
        // SAFETY: this ioctl of a TCP socket writes one C int.
        #[allow(unsafe_code)]
        let queued = unsafe {
            rustix::ioctl::ioctl(
                self,
                rustix::ioctl::Getter::<SIOCOUTQ, std::ffi::c_int>::new(),
            )
        };
        queued
            .ok()
            .and_then(|queued| queued.try_into().ok())
            .unwrap_or_default()
    }

    #[cfg(not(target_os = "linux"))]
    fn unacknowledged(&self) -> u64 {
        0
    }

    fn poll_end(&self, cx: &mut Context<'_>) -> ClientEnd {
        if self.poll_read_ready(cx).is_pending() {
            return ClientEnd::None;
        }
        let ready = pin!(self.ready(Interest::READABLE | Interest::WRITABLE))
            .poll(&mut Context::from_waker(Waker::noop()));
        match ready {
            Poll::Ready(Ok(ready)) if ready.is_write_closed() => ClientEnd::Both,
            Poll::Ready(Ok(ready)) if ready.is_read_closed() => ClientEnd::Sending,
            _ => ClientEnd::Unread,
        }
    }

    fn abort(&self) {
        // Otherwise the kernel would continue to send some megabytes to a client that reads
        // nothing. A failure has only this effect.
        _ = self.set_zero_linger();
    }
}

/// A pipe in this process: written bytes count as received.
impl ClientSocket for DuplexStream {
    fn unacknowledged(&self) -> u64 {
        0
    }

    /// The end of a pipe is read like any other byte.
    fn poll_end(&self, _: &mut Context<'_>) -> ClientEnd {
        ClientEnd::None
    }

    fn abort(&self) {}
}

/// Polls a timer that is polled once and then left alone until it fires. A task that has moved many
/// bytes in one turn has used up tokio's budget, and polling a timer would then not even set it.
pub(crate) fn poll_timer(timer: Pin<&mut Sleep>, cx: &mut Context<'_>) -> Poll<()> {
    pin!(unconstrained(timer)).poll(cx)
}

/// Maximum number of bytes of one connection that the kernel accepts before it can send them. The
/// host therefore notices a client that reads nothing after these bytes, and not after megabytes
/// that would be produced for nothing.
const UNSENT_BYTES_MAX: u32 = 128 << 10;

/// Time between two probes of a client's machine that does not answer them.
const PROBE_EVERY: Duration = Duration::from_secs(5);

/// Number of such probes before the connection fails.
const PROBES_MAX: u32 = 2;

/// Limits the bytes that wait in the kernel. If there are none, the kernel probes the client's
/// machine after this time without a byte from it (RFC 9293 section 3.8.4): a client that has
/// vanished would otherwise hold an idle answer forever. The connection then fails with `TimedOut`.
pub(crate) fn bound(socket: &TcpStream, within: Duration) {
    // On systems without these options, only the meters apply.
    #[cfg(target_os = "linux")]
    {
        let socket = socket2::SockRef::from(socket);
        _ = socket.set_tcp_notsent_lowat(UNSENT_BYTES_MAX);
        _ = socket.set_tcp_keepalive(
            &socket2::TcpKeepalive::new()
                .with_time(within.max(Duration::from_secs(1)))
                .with_interval(PROBE_EVERY)
                .with_retries(PROBES_MAX),
        );
    }
    #[cfg(not(target_os = "linux"))]
    let _ = (socket, within);
}

/// Resolves when the shutdown begins.
pub(crate) async fn stopped(mut stopping: tokio::sync::watch::Receiver<bool>) {
    _ = stopping.wait_for(|stopping| *stopping).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn rule() -> PaceRule {
        PaceRule::new(30 * SECOND, 256)
    }

    /// Moves `bytes` at the end of every `every` while the host waits. Returns the second in which
    /// that is too slow, if it is within an hour.
    fn late(every: u32, bytes: u64) -> Option<u32> {
        let (start, mut meter) = (Instant::now(), PaceMeter::default());
        assert!(!meter.note(0, true, rule(), start));
        let mut total = 0;
        (1..3600).find(|second| {
            if second % every == 0 {
                total += bytes;
            }
            meter.note(total, true, rule(), start + *second * SECOND)
        })
    }

    #[test]
    fn a_client_moves_a_byte_in_thirty_seconds_and_256_a_second_on_average() {
        let cases = [
            ("nothing", 3600, 0, Some(30)),
            ("a byte every 20 s", 20, 1, Some(30)),
            ("a byte a second", 1, 1, Some(30)),
            ("255 bytes a second", 1, 255, Some(30)),
            ("256 bytes a second", 1, 256, None),
            ("much every 15 s", 15, 100_000, None),
            ("much, then nothing for 40 s", 40, 1_000_000, Some(30)),
            ("a slow link", 1, 40_000, None),
        ];
        for (name, every, bytes, expected) in cases {
            assert_eq!(late(every, bytes), expected, "{name}");
        }
        let (start, mut meter) = (Instant::now(), PaceMeter::default());
        meter.note(0, true, rule(), start);
        assert!(!meter.note(1 << 20, true, rule(), start + SECOND));
        assert!(!meter.note(1 << 20, true, rule(), start + 30 * SECOND));
        assert!(
            meter.note(1 << 20, true, rule(), start + 31 * SECOND),
            "a burst buys no more silence than any byte"
        );
    }

    #[test]
    fn only_time_in_which_the_host_waits_counts() {
        let (start, mut meter) = (Instant::now(), PaceMeter::default());
        let mut now = start;
        for _ in 0..100 {
            assert!(!meter.note(0, true, rule(), now));
            now += SECOND / 10;
            assert!(!meter.note(0, false, rule(), now));
            assert_eq!(meter.due(rule()), None);
            now += 29 * SECOND;
        }
        meter.note(0, true, rule(), now);
        assert!(
            meter.note(0, true, rule(), now + 20 * SECOND),
            "ten seconds were waited before"
        );
        now += 20 * SECOND;
        assert!(
            !meter.note(0, false, rule(), now),
            "nothing is late at a rest"
        );
        now += 31 * SECOND;
        meter.note(0, true, rule(), now);
        assert!(
            !meter.note(0, true, rule(), now + 29 * SECOND),
            "after a rest they are forgotten"
        );
        assert_eq!(meter.due(rule()), Some(now + 30 * SECOND));
        let (before, mut meter) = (now, PaceMeter::default());
        meter.note(1 << 20, true, rule(), before);
        assert!(
            meter.note(1 << 20, true, rule(), before + 30 * SECOND),
            "what moved before the host waited pays for nothing"
        );
    }

    #[test]
    fn a_rest_at_the_end_of_an_average_begins_no_new_one() {
        // The guest takes each byte at once, and waits for the next one.
        for every in [1, 5, 10, 15] {
            let (start, mut meter) = (Instant::now(), PaceMeter::default());
            meter.note(0, true, rule(), start);
            let late = (1..3600).find(|second| {
                let now = start + *second * SECOND;
                if second % every == 0 {
                    let total = u64::from(second / every);
                    assert!(!meter.note(total, false, rule(), now));
                }
                meter.note(u64::from(second / every), true, rule(), now)
            });
            assert_eq!(late, Some(30), "a byte every {every} s");
        }
    }

    #[test]
    fn less_patience_is_the_same_rate() {
        let rule = rule().at_most(5 * SECOND);
        assert_eq!((rule.within, rule.bytes_min), (5 * SECOND, 1280));
        assert_eq!(rule.at_most(9 * SECOND).within, 5 * SECOND);
        let off = PaceRule::new(SECOND, 0);
        let (start, mut meter) = (Instant::now(), PaceMeter::default());
        meter.note(0, true, off, start);
        assert!(
            !meter.note(1, true, off, start + SECOND)
                && meter.note(1, true, off, start + 2 * SECOND)
        );
    }
}
