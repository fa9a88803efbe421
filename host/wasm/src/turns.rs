//! Which guest computes next on a worker. A call that ends within one tick runs in its task like everything else of the worker; a call
//! that computed for longer is a spinner, and computes only in turns of at most one tick, while the worker has nothing else to do or
//! when the tenth of the worker that belongs to spinners is due.
//!
//! One spinner at a time waits for the next turn, the others wait after it in the order of their coming (`baton`). It looks after
//! each round of the worker: a round is over when every task that was ready has run and the worker has looked at its sockets. Only
//! spinners pay for this: a call that ends within one tick costs one count.

use std::{
    cell::{Cell, RefCell},
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::{sync::Semaphore, task::yield_now};

/// How often the length of its turn spinners leave to the others: they have at least a tenth of a worker.
const OTHERS: u32 = 9;
/// A worker without a call for this time has nothing else to do: long enough for a client on the same machine to ask again.
const QUIET: Duration = Duration::from_micros(100);
/// A round without calls that took longer was not quiet either.
const ROUND: Duration = Duration::from_millis(1);

thread_local! {
    static BATON: RefCell<Arc<Semaphore>> = RefCell::new(Arc::new(Semaphore::new(1)));
    /// Calls that were looked at and are no spinners.
    static CALLS: Cell<u64> = const { Cell::new(0) };
    /// Start of the running turn.
    static BEGAN: Cell<Option<Instant>> = const { Cell::new(None) };
    /// Time that spinners owe the other tasks for their last turn.
    static OWED: Cell<Duration> = const { Cell::new(Duration::ZERO) };
}

/// A call is looked at that is no spinner.
pub(crate) fn count_call() {
    CALLS.set(CALLS.get().wrapping_add(1));
}

/// The guest that had a turn, if one had, does not compute now.
pub(crate) fn end() {
    if let Some(began) = BEGAN.take() {
        OWED.set(began.elapsed() * OTHERS);
    }
}

/// Waits for a turn. It lasts until [`end`].
pub(crate) async fn next() {
    let baton = BATON.with_borrow(Arc::clone);
    let _baton = baton.acquire().await;
    let mut others = Others::new(Instant::now(), CALLS.get());
    loop {
        yield_now().await;
        let now = Instant::now();
        if others.may_compute(now, CALLS.get(), OWED.get()) {
            BEGAN.set(Some(now));
            return;
        }
    }
}

/// Activity of a worker's other tasks since a spinner started to wait for its turn.
struct Others {
    last: Instant,
    calls: u64,
    quiet_since: Instant,
    used: Duration,
}

impl Others {
    fn new(now: Instant, calls: u64) -> Others {
        Others {
            last: now,
            calls,
            quiet_since: now,
            used: Duration::ZERO,
        }
    }

    /// Whether it is the spinner's turn after another round.
    fn may_compute(&mut self, now: Instant, calls: u64, owed: Duration) -> bool {
        let round = now - self.last;
        if calls != self.calls || round > ROUND {
            self.used += round;
            self.quiet_since = now;
        }
        (self.last, self.calls) = (now, calls);
        now - self.quiet_since >= QUIET || self.used >= owed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWED_NOW: Duration = Duration::from_millis(90);

    /// The round at which it may compute, of rounds of this length in which so many calls are looked at.
    fn turn(round: Duration, calls: impl Fn(u32) -> u64) -> Option<u32> {
        let began = Instant::now();
        let mut others = Others::new(began, 0);
        (1..=10_000)
            .find(|number| others.may_compute(began + round * *number, calls(*number), OWED_NOW))
    }

    #[test]
    fn a_spinner_computes_when_nothing_else_does_or_when_its_tenth_is_due() {
        let (short, long) = (Duration::from_micros(20), Duration::from_millis(3));
        assert_eq!(
            turn(short, |_| 0),
            Some(5),
            "a worker that is quiet for 100 µs"
        );
        assert_eq!(
            turn(short, u64::from),
            Some(4500),
            "a call in each round: after 90 ms of them"
        );
        assert_eq!(
            turn(short, |number| u64::from(number.min(50))),
            Some(55),
            "the last call was in the 50th round"
        );
        assert_eq!(
            turn(long, |_| 0),
            Some(30),
            "long rounds without calls are work as well"
        );
    }
}
