//! Loaders and their runs: the host asks for each value, and the loader then continues from its last
//! await.

use crate::{Error, Result, task::WakeFlag, value_slot::ValueSlot, world};
use serde::Serialize;
use std::{
    fmt,
    future::Future,
    marker::PhantomData,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Duration,
};
use tidegate_routing::{FirstValue, LoaderInfo};

/// A loader of a page: its name, its options and the type of its values.
///
/// # Examples
///
/// ```
/// use tidegate::prelude::*;
///
/// const LEVEL: Loader<f32> = Loader::live("level").awaited();
/// assert_eq!(LEVEL.name(), "level");
/// ```
pub struct Loader<T: ?Sized> {
    name: &'static str,
    is_live: bool,
    first_value: FirstValue,
    values: PhantomData<fn(&T)>,
}

impl<T: ?Sized> Loader<T> {
    /// Creates a loader, which has 30 seconds by default.
    pub const fn new(name: &'static str) -> Loader<T> {
        Loader {
            name,
            is_live: false,
            first_value: FirstValue::Soon,
            values: PhantomData,
        }
    }

    /// Creates a loader that may run as long as the client stays.
    pub const fn live(name: &'static str) -> Loader<T> {
        Loader {
            is_live: true,
            ..Loader::new(name)
        }
    }

    /// Renders the page only when the loader has its first value.
    pub const fn awaited(self) -> Loader<T> {
        Loader {
            first_value: FirstValue::Awaited,
            ..self
        }
    }

    /// Starts the loader when the page was sent, for values that are known to be slow. The host
    /// does not wait for a loader that sleeps before its first value, with or without this.
    pub const fn deferred(self) -> Loader<T> {
        Loader {
            first_value: FirstValue::Deferred,
            ..self
        }
    }

    /// Returns the name, which the browser uses.
    pub const fn name(&self) -> &'static str {
        self.name
    }
}

impl<T: ?Sized> Loader<T> {
    /// Returns the declaration for the manifest.
    pub(crate) fn info(self) -> LoaderInfo {
        LoaderInfo {
            name: self.name.to_owned(),
            is_live: self.is_live,
            first_value: self.first_value,
        }
    }
}

// Derived, these would need the same of `T`.
impl<T: ?Sized> Clone for Loader<T> {
    fn clone(&self) -> Loader<T> {
        *self
    }
}

impl<T: ?Sized> Copy for Loader<T> {}

impl<T: ?Sized> fmt::Debug for Loader<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Loader({:?})", self.name)
    }
}

/// The name, for [`testing`](crate::testing).
impl<T: ?Sized> AsRef<str> for Loader<T> {
    fn as_ref(&self) -> &str {
        self.name
    }
}

/// The receiver of a loader's values.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use tidegate::{prelude::*, testing};
///
/// const SECONDS: Loader<u32> = Loader::new("seconds");
///
/// async fn seconds(_: &Request, sink: &mut Sink<u32>) -> Result {
///     for left in (1..=3).rev() {
///         sink.send(&left).await?;
///         sleep(Duration::from_secs(1)).await;
///     }
///     Err(Error::status(410, "lift-off"))
/// }
///
/// fn render(_: &Request, view: &View) -> Result<Response> {
///     Ok(Response::html(format!("{:?}", view.value(SECONDS)?)))
/// }
///
/// let countdown = Page::new(render).loader(SECONDS, seconds);
/// let mut server = testing::serve(App::new().page("/", countdown));
/// assert_eq!(server.get("/").text(), "Some(3)");
/// let load = server.load("/", SECONDS, &[]);
/// assert_eq!((load.values::<u32>(), load.error(), load.took()), (vec![3, 2, 1], Some((410, "lift-off")), Duration::from_secs(3)));
/// ```
pub struct Sink<T: ?Sized> {
    slot: ValueSlot,
    values: PhantomData<fn(&T)>,
}

impl<T: Serialize + ?Sized> Sink<T> {
    pub(crate) fn new(slot: ValueSlot) -> Sink<T> {
        Sink {
            slot,
            values: PhantomData,
        }
    }

    /// Sends a value as JSON, and continues when the client has received it.
    ///
    /// # Errors
    ///
    /// A fault if the value is not one of JSON: a map whose keys are not texts, for example.
    ///
    /// # Limits
    ///
    /// A value has at most 1 MiB of JSON; a larger one is a fault.
    pub async fn send(&mut self, value: &T) -> Result {
        self.slot.give(value).await
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
