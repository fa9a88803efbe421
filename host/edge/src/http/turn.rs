//! Amount of work that one connection does before its worker turns to the others.
//!
//! A client that sends faster than it is served always has more work for the host, so every loop
//! over a connection's work is bounded. It continues after a round of the worker: by then every
//! ready task has run, and the worker has polled its sockets.

use std::{
    future::Future,
    pin::pin,
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
    task::Context,
};
use tokio::task::yield_now;

/// Maximum number of requests of one connection that begin in one poll of its task. Only a client
/// that pipelines has more.
const REQUESTS_MAX: usize = 4;

/// Schedules another poll of the task after a round of the worker. A plain wake-up would run it
/// before the sockets are polled.
pub(crate) fn yield_to_others(cx: &mut Context<'_>) {
    // The first poll requests the round. The future is then dropped, since the task itself
    // continues.
    _ = pin!(yield_now()).poll(cx);
}

/// Number of requests that one connection began in the current poll of its task.
#[derive(Debug, Default)]
pub(crate) struct Requests(AtomicUsize);

impl Requests {
    /// Resets the count at a poll of the connection.
    pub(crate) fn begin_poll(&self) {
        self.0.store(0, Relaxed);
    }

    /// Begins a request, at once or after a round of the worker.
    pub(crate) async fn begin(&self) {
        let begun = self.0.load(Relaxed);
        if begun < REQUESTS_MAX {
            self.0.store(begun + 1, Relaxed);
        } else {
            yield_now().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::task::{Poll, Waker};

    #[tokio::test]
    async fn a_connection_begins_few_requests_in_one_poll_and_the_next_after_a_round() {
        let requests = Requests::default();
        let mut cx = Context::from_waker(Waker::noop());
        for _ in 0..2 {
            requests.begin_poll();
            let at_once = (0..10)
                .take_while(|_| pin!(requests.begin()).poll(&mut cx).is_ready())
                .count();
            assert_eq!(at_once, REQUESTS_MAX);
        }
        let mut late = pin!(requests.begin());
        assert_eq!(late.as_mut().poll(&mut cx), Poll::Pending);
        assert_eq!(late.as_mut().poll(&mut cx), Poll::Ready(()));
    }
}
