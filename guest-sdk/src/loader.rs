//! Running loaders: the host asks for each value, and the loader then continues from its last
//! await.

use crate::{Error, Result, task::WakeFlag, value_slot::ValueSlot, world};
use serde::Serialize;
use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
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
pub struct Sink(pub(crate) ValueSlot);

impl Sink {
    /// Sends a value as JSON, and continues when the client has received it.
    pub async fn send(&mut self, value: &(impl Serialize + ?Sized)) -> Result {
        self.0.give(value).await
    }
}

/// A run of a loader or an action: a future of the app that gives values before it ends.
pub(crate) struct HandlerRun<T> {
    place: String,
    future: Option<Pin<Box<dyn Future<Output = Result<T>>>>>,
    values: ValueSlot,
}

/// Step of a [`HandlerRun`].
#[derive(Debug)]
pub(crate) enum RunStep<T> {
    /// A value as JSON.
    Value(String),
    /// The run waits only for this duration.
    Later(Duration),
    /// The run has ended. An error is its status and text for the client.
    End(Result<T, (u16, String)>),
}

impl<T> HandlerRun<T> {
    pub(crate) fn new(
        place: String,
        begin: impl FnOnce(ValueSlot) -> Pin<Box<dyn Future<Output = Result<T>>>>,
    ) -> HandlerRun<T> {
        let values = ValueSlot::default();
        HandlerRun {
            place,
            future: Some(begin(values.clone())),
            values,
        }
    }

    /// Runs to the next value, the next wait, or the end.
    pub(crate) fn next(&mut self) -> RunStep<T> {
        let flag = Arc::new(WakeFlag::default());
        let waker = Waker::from(flag.clone());
        loop {
            let Some(future) = &mut self.future else {
                return RunStep::End(Err(self.refusal(Error::fault("it has ended"))));
            };
            if let Poll::Ready(end) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
                self.future = None;
                return RunStep::End(end.map_err(|error| self.refusal(error)));
            }
            if let Some(value) = self.values.take() {
                return RunStep::Value(value);
            }
            if flag.take() {
                continue;
            }
            match world::idle() {
                Some(wait) => return RunStep::Later(wait),
                None => world::wait(),
            }
        }
    }

    /// Returns status and text of an error for the client; logs a fault.
    fn refusal(&self, error: Error) -> (u16, String) {
        match error.refusal(format_args!("{}", self.place)) {
            (status @ 400..=599, message) => (status, message),
            (other, _) => (500, format!("{other} is no status of an error")),
        }
    }
}
