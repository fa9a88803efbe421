//! Awaiting in handlers: a handler's future runs to its end inside the one call that it answers.

use crate::world;
use std::{
    future::Future,
    pin::{Pin, pin},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
    time::Duration,
};

/// Waits for this duration, while other futures of the handler continue. Other events of this
/// instance wait as well; other instances don't. An event may take 30 s in all, and then counts as
/// a fault; a streamed answer that has begun may continue as long as its client reads. In a test
/// the clock moves without waiting.
///
/// # Examples
///
/// ```
/// use tidegate::{prelude::*, testing};
/// use std::time::Duration;
///
/// let slow = async |_| {
///     sleep(Duration::from_secs(3600)).await;
///     "an hour later"
/// };
/// let mut server = testing::serve(App::new().get("/slow", slow));
/// assert_eq!(server.get("/slow").text(), "an hour later");
/// ```
pub async fn sleep(duration: Duration) {
    world::Wait::timer(duration).await;
}

/// Runs a future to its end. Most futures never wait; for these it costs one poll and no
/// allocation.
pub(crate) fn run<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    match future
        .as_mut()
        .poll(&mut Context::from_waker(Waker::noop()))
    {
        Poll::Ready(value) => value,
        Poll::Pending => run_on(future),
    }
}

/// Polls until there is a value, and waits for pollables in between.
fn run_on<F: Future>(mut future: Pin<&mut F>) -> F::Output {
    let flag = Arc::new(WakeFlag::default());
    let waker = Waker::from(flag.clone());
    loop {
        // This polls once before the first wait, because the first poll in `run` had no waker.
        if let Poll::Ready(value) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return value;
        }
        if !flag.take() {
            world::wait();
        }
    }
}

/// True if another poll was requested.
#[derive(Default)]
pub(crate) struct WakeFlag(AtomicBool);

impl WakeFlag {
    /// Returns the flag, and clears it.
    pub(crate) fn take(&self) -> bool {
        self.0.swap(false, Ordering::Relaxed)
    }
}

impl Wake for WakeFlag {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}
