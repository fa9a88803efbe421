//! Running loaders: the host asks for each value, and the loader then continues from its last
//! await.

use crate::{Error, Result, world, yielded::Yielded};
use serde::Serialize;
use std::{
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
    time::Duration,
};

/// The receiver of a loader's values.
///
/// ```
/// use std::time::Duration;
/// use tidegate::{prelude::*, testing};
///
/// async fn seconds(_: &Request, sink: &mut Sink) -> Result {
///     for left in (1..=3).rev() {
///         sink.send(&left).await?;
///         sleep(Duration::from_secs(1)).await;
///     }
///     Err(Error::status(410, "lift-off"))
/// }
///
/// fn render(_: &Request, view: &View) -> Result<Response> {
///     Ok(Response::html(format!("{:?}", view.value::<u32>("seconds")?)))
/// }
///
/// let countdown = Page::new(render).loader("seconds", seconds);
/// let mut server = testing::serve(App::new().page("/", countdown));
/// assert_eq!(server.get("/").text(), "Some(3)");
/// let load = server.load("/", "seconds", &[]);
/// assert_eq!((load.values::<u32>(), load.error(), load.took()), (vec![3, 2, 1], Some((410, "lift-off")), Duration::from_secs(3)));
/// ```
pub struct Sink(pub(crate) Yielded);

impl Sink {
    /// Sends a value as JSON, and continues when the client has received it.
    pub async fn send(&mut self, value: &(impl Serialize + ?Sized)) -> Result {
        self.0.give(value).await
    }
}

/// A future of the app that yields values before it ends.
pub(crate) struct Running<T> {
    place: String,
    future: Option<Pin<Box<dyn Future<Output = Result<T>>>>>,
    yielded: Yielded,
}

/// Progress of a running future.
#[derive(Debug)]
pub(crate) enum Progress<T> {
    /// A value as JSON.
    Value(String),
    /// The future waits only for this duration.
    Later(Duration),
    Ended(Result<T>),
}

impl<T> Running<T> {
    pub(crate) fn new(
        place: String,
        begin: impl FnOnce(Yielded) -> Pin<Box<dyn Future<Output = Result<T>>>>,
    ) -> Running<T> {
        let yielded = Yielded::default();
        Running {
            place,
            future: Some(begin(yielded.clone())),
            yielded,
        }
    }

    /// Runs to the next value, the next wait, or the end.
    pub(crate) fn next(&mut self) -> Progress<T> {
        let woken = Arc::new(Woken(AtomicBool::new(false)));
        let waker = Waker::from(woken.clone());
        loop {
            let Some(future) = &mut self.future else {
                return Progress::Ended(Err(Error::fault("it has ended")));
            };
            if let Poll::Ready(ended) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
                self.future = None;
                return Progress::Ended(ended);
            }
            if let Some(value) = self.yielded.take() {
                return Progress::Value(value);
            }
            if woken.0.swap(false, Ordering::Relaxed) {
                continue;
            }
            match world::idle() {
                Some(wait) => return Progress::Later(wait),
                None => world::wait(),
            }
        }
    }

    /// Returns status and text of an error for the client; logs a fault.
    pub(crate) fn status_and_text(&self, error: Error) -> (u16, String) {
        match error.refusal(format_args!("{}", self.place)) {
            (status @ 400..=599, message) => (status, message),
            (other, _) => (500, format!("{other} is no status of an error")),
        }
    }
}

/// True if another poll was requested.
struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}
