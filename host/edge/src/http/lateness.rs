//! The clock of an HTTP/1.1 connection that hyper reads and writes.
//!
//! Owner: the connection's task. It asks the [`Watch`] after each poll of hyper whether the client
//! is late. The watch reads the records of the socket and the bodies in [`ConnectionState`].
//!
//! `Watch` distinguishes four waits: for the next request (idle or begun), for the request's body,
//! for the client to read its answer, and, after the client has ended its sending direction, for
//! any progress. A late body ends for the app, which then has `ANSWER_WITHIN` to answer; every
//! other verdict except `Look` ends the connection.
//!
//! Invariant: a meter counts only time in which the host waits for the client, so a slow app does
//! not make a slow client.
//!
//! The clock is read when a connection becomes idle and while the host waits for the client. There
//! is one timer, which is moved only when it fires too early.
//!
//! `pace` has the rules and meters; `http1` acts on the verdict.

use crate::{
    http::connection_state::ConnectionState,
    http::pace::{PaceMeter, PaceRule, poll_timer},
    server::Server,
};
use std::{
    future::Future,
    pin::Pin,
    sync::{Arc, atomic::Ordering::Relaxed},
    task::{Context, Poll, ready},
    time::Duration,
};
use tokio::time::{Instant, Sleep, sleep_until};

/// Maximum time for an app to answer a client whose request's body was too slow. Then the
/// connection ends.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);

/// Time between checks of a connection while a request is handled and bytes of the client are not
/// read: the end of the connection would come after them.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Verdict of a connection's clock on its client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lateness {
    /// The client has sent no request for too long.
    Idle,
    /// A request's head took too long.
    Head,
    /// A request's body comes too slowly. The app may still answer.
    Body,
    /// The app did not answer after that.
    Answer,
    /// The client reads its answer too slowly.
    Reader,
    /// The client has ended its sending direction and has taken no bytes for a while since then: it
    /// has left.
    Left,
    /// The client is not late, but hyper has to be polled to find out whether the client is still
    /// connected.
    Look,
}

/// A client that has ended its sending direction.
struct HalfClosed {
    /// Number of bytes sent when `gone` was created.
    sent: u64,
    /// Completes when the client counts as gone.
    gone: Pin<Box<dyn Future<Output = ()> + Send>>,
}

/// The clock of a connection.
pub(crate) struct Watch {
    server: Arc<Server>,
    times: TimeLimits,
    /// Number of the exchange at the last check.
    count: u64,
    next: NextRequest,
    body: PaceMeter,
    /// End of the app's time to answer, after the body was given up.
    answer_until: Option<Instant>,
    reader: PaceMeter,
    /// Set when the client has ended its sending direction.
    half_closed: Option<HalfClosed>,
    /// Time of the next check whether the client is still connected.
    look_at: Option<Instant>,
    timer: Option<Pin<Box<Sleep>>>,
}

struct TimeLimits {
    idle_within: Duration,
    header_within: Duration,
    body: PaceRule,
    reader: PaceRule,
    half_close_within: Duration,
    /// Maximum waiting time during a drain.
    drain: Duration,
}

/// State of the next request.
enum NextRequest {
    /// Another request is being answered.
    None,
    /// It is due at `until`; `received` bytes had come in all.
    Idle { until: Instant, received: u64 },
    /// Its head has begun, and is due at `until`.
    Begun { until: Instant },
}

impl Watch {
    pub(crate) fn new(server: Arc<Server>) -> Watch {
        let config = &server.config;
        let times = TimeLimits {
            idle_within: config.idle_within,
            header_within: config.header_within,
            body: PaceRule::new(config.read_within, config.bytes_per_second_min),
            reader: PaceRule::new(config.write_within, config.bytes_per_second_min),
            half_close_within: config.half_close_within,
            drain: config.drain_within / 2,
        };
        let (body, reader) = (PaceMeter::default(), PaceMeter::default());
        // No exchange has this number.
        Watch {
            server,
            times,
            count: u64::MAX,
            next: NextRequest::None,
            body,
            answer_until: None,
            reader,
            half_closed: None,
            look_at: None,
            timer: None,
        }
    }

    /// Returns a verdict if the next request has been waited for, or its head has been coming, for
    /// this time.
    pub(crate) fn has_waited(&self, time: Duration, state: &ConnectionState) -> Option<Lateness> {
        let (since, late) = match self.next {
            NextRequest::Idle { until, received } if received == state.received.load(Relaxed) => {
                (until - self.times.idle_within, Lateness::Idle)
            }
            NextRequest::Begun { until } => (until - self.times.header_within, Lateness::Head),
            NextRequest::Idle { .. } | NextRequest::None => return None,
        };
        let is_waiting = self.count == state.request.count.load(Relaxed) && !state.is_busy();
        (is_waiting && since + time <= Instant::now()).then_some(late)
    }

    /// Shortens the limits from now on, so that slow clients do not hold the drain.
    pub(crate) fn drain(&mut self) {
        self.times.body = self.times.body.at_most(self.times.drain);
        self.times.reader = self.times.reader.at_most(self.times.drain);
        self.times.half_close_within = self.times.half_close_within.min(self.times.drain);
        // Without a timer, all limits are checked again.
        self.timer = None;
        self.half_closed = None;
    }

    /// Checks whether the client is late. The caller has polled hyper before.
    pub(crate) fn poll_late(
        &mut self,
        state: &ConnectionState,
        cx: &mut Context<'_>,
    ) -> Poll<Lateness> {
        loop {
            if let Some(late) = self.look(state) {
                return Poll::Ready(late);
            }
            if state.has_ended_sending.load(Relaxed) && self.poll_half_closed(state, cx).is_ready()
            {
                return Poll::Ready(Lateness::Left);
            }
            let due = [
                self.next.until(),
                self.body.due(self.times.body),
                self.answer_until,
                self.reader.due(self.times.reader),
                self.look_at,
            ];
            let Some(due) = due.into_iter().flatten().min() else {
                return Poll::Pending;
            };
            match &mut self.timer {
                // The timer may fire too early, and is then reset.
                Some(timer) if timer.deadline() <= due && !timer.is_elapsed() => {
                    return Poll::Pending;
                }
                Some(timer) => timer.as_mut().reset(due),
                timer => *timer = Some(Box::pin(sleep_until(due))),
            }
            let timer = self.timer.as_mut().expect("it was just set");
            ready!(poll_timer(timer.as_mut(), cx));
        }
    }

    fn look(&mut self, state: &ConnectionState) -> Option<Lateness> {
        let request = &state.request;
        let (is_open, count) = (request.is_open.load(Relaxed), request.count.load(Relaxed));
        if count != self.count {
            self.count = count;
            self.next = NextRequest::None;
            self.answer_until = None;
            self.body.reset();
        }
        if let Some(late) = self.look_at_head(state, is_open) {
            return Some(late);
        }
        let waits_for_body =
            is_open && request.wants_body.load(Relaxed) && state.is_reading.load(Relaxed);
        if self.has_changed(self.body.is_waiting(), waits_for_body)
            && self.body.note(
                state.received.load(Relaxed),
                waits_for_body,
                self.times.body,
                Instant::now(),
            )
            && self.answer_until.is_none()
        {
            self.answer_until = Some(Instant::now() + ANSWER_WITHIN);
            state.give_up_body();
            return Some(Lateness::Body);
        }
        if self
            .answer_until
            .is_some_and(|until| Instant::now() >= until)
        {
            return Some(Lateness::Answer);
        }
        let waits_for_reader = state.is_writing.load(Relaxed);
        if self.has_changed(self.reader.is_waiting(), waits_for_reader) {
            let acknowledged = state.acknowledged.load(Relaxed);
            if self.reader.note(
                acknowledged,
                waits_for_reader,
                self.times.reader,
                Instant::now(),
            ) {
                return Some(Lateness::Reader);
            }
        }
        self.look_at_client(state)
    }

    /// Checks a client that has ended its sending direction: it counts as connected while its
    /// answer makes progress. Completes when it counts as gone.
    fn poll_half_closed(&mut self, state: &ConnectionState, cx: &mut Context<'_>) -> Poll<()> {
        if !state.is_busy() {
            self.half_closed = None;
            return Poll::Pending;
        }
        // If bytes wait for the client, the meter of readers decides.
        if !state.is_flushed() {
            return Poll::Pending;
        }
        let sent = state.sent.load(Relaxed);
        if let Some(half_closed) = &mut self.half_closed
            && half_closed.sent == sent
        {
            return half_closed.gone.as_mut().poll(cx);
        }
        let (server, within) = (self.server.clone(), self.times.half_close_within);
        let gone = Box::pin(async move { server.give_up_half_closed(within).await });
        let half_closed = self.half_closed.insert(HalfClosed { sent, gone });
        half_closed.gone.as_mut().poll(cx)
    }

    fn look_at_client(&mut self, state: &ConnectionState) -> Option<Lateness> {
        if !state.is_unwatched()
            || !state.request.has_unread.load(Relaxed)
            || state.has_ended_sending.load(Relaxed)
        {
            self.look_at = None;
            return None;
        }
        if self.look_at.is_some() && !self.is_due() {
            return None;
        }
        let now = Instant::now();
        let is_due = self.look_at.is_some_and(|at| at <= now);
        if is_due || self.look_at.is_none() {
            self.look_at = Some(now + LOOK_EVERY);
        }
        is_due.then_some(Lateness::Look)
    }

    fn look_at_head(&mut self, state: &ConnectionState, is_open: bool) -> Option<Lateness> {
        if is_open {
            self.next = NextRequest::None;
            return None;
        }
        let begun = |now: Instant, times: &TimeLimits| NextRequest::Begun {
            until: now + times.header_within,
        };
        match self.next {
            NextRequest::None => {
                let now = Instant::now();
                self.next = match state.has_part_of_head() {
                    true => begun(now, &self.times),
                    false => NextRequest::Idle {
                        until: now + self.times.idle_within,
                        received: state.received.load(Relaxed),
                    },
                };
            }
            NextRequest::Idle { received, .. } if received != state.received.load(Relaxed) => {
                self.next = begun(Instant::now(), &self.times)
            }
            NextRequest::Idle { until, .. } | NextRequest::Begun { until }
                if !self.is_due() || Instant::now() < until => {}
            NextRequest::Idle { .. } => return Some(Lateness::Idle),
            NextRequest::Begun { .. } => return Some(Lateness::Head),
        }
        None
    }

    /// Returns true if a meter has to be updated: its state has changed, or it waits and time has
    /// passed.
    fn has_changed(&self, was_waiting: bool, is_waiting: bool) -> bool {
        was_waiting != is_waiting || (is_waiting && self.is_due())
    }

    /// Returns true if the timer has fired. Otherwise no limit can have passed.
    fn is_due(&self) -> bool {
        self.timer.as_ref().is_none_or(|timer| timer.is_elapsed())
    }
}

impl NextRequest {
    fn until(&self) -> Option<Instant> {
        match self {
            NextRequest::None => None,
            NextRequest::Idle { until, .. } | NextRequest::Begun { until } => Some(*until),
        }
    }
}
