//! How much one connection does before its worker turns to the others. A client that sends faster than it is served always has more
//! for the host to do, so every loop over what a connection has is bounded, and goes on after a round of the worker: every task that
//! is ready has run by then, and the worker has looked at its sockets.

use std::{
    future::Future,
    pin::pin,
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
    task::Context,
};
use tokio::task::yield_now;

/// Requests of one connection that are begun in one poll of its task; only a client that pipelines has more.
const REQUESTS_MAX: usize = 4;

/// Has the task polled again after a round of the worker. A plain wake-up would put it before the sockets are looked at.
pub(crate) fn yield_to_others(cx: &mut Context<'_>) {
    // Its first poll asks for the round; the task itself is what goes on afterwards.
    _ = pin!(yield_now()).poll(cx);
}

/// Requests that one connection began in the current poll of its task.
#[derive(Debug, Default)]
pub(crate) struct Requests(AtomicUsize);

impl Requests {
    /// The connection is polled.
    pub(crate) fn begin_poll(&self) {
        self.0.store(0, Relaxed);
    }

    /// Begins a request: at once, or after a round of the worker.
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
