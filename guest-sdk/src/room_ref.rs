//! Calls to rooms, by class and name.

use crate::{Error, Result, Room, world};
use serde::{Serialize, de::DeserializeOwned};
use std::{fmt, marker::PhantomData, time::Duration};

/// Returns a reference to the room of this name. Any handler may call it, including that of another
/// room.
///
/// A call is an event of that room ([`Room::call`]): its answer comes when its effects are durable.
/// It does not see the uncommitted effects of the caller's own event, and is not undone with it. If
/// the called room waits, directly or through others, for its caller, the call fails with
/// [`CallError::Cycle`].
///
/// # Examples
///
/// ```
/// use tidegate::{prelude::*, testing};
///
/// #[derive(Default)]
/// struct Counter(u64);
///
/// impl Room for Counter {
///     async fn wake(&mut self, cx: &Cx) -> Result {
///         self.0 = cx.get_json("count")?.unwrap_or(0);
///         Ok(())
///     }
///     async fn call(&mut self, cx: &Cx, payload: Vec<u8>) -> Result<Vec<u8>> {
///         let more: u64 = serde_json::from_slice(&payload)?;
///         if more > 10 {
///             return Err(Error::status(422, "at most 10, please"));
///         }
///         self.0 += more;
///         cx.put_json("count", &self.0)?;
///         Ok(serde_json::to_vec(&self.0)?)
///     }
/// }
///
/// let add = async |req: Request| {
///     let more: u64 = req.param("more")?;
///     let count: u64 = tidegate::room::<Counter>("tea").call_json(&more)?; // a refusal is also the client's
///     Ok::<_, Error>(count.to_string())
/// };
/// let mut server = testing::serve(App::new().room::<Counter>("/counters/{name}").post("/add/{more}", add));
/// assert_eq!(server.post("/add/2", "").text(), "2");
/// assert_eq!(server.post("/add/3", "").text(), "5");
/// assert_eq!(server.post("/add/11", "").status(), 422);
/// ```
pub fn room<R: Room>(name: impl Into<String>) -> RoomRef<R> {
    RoomRef {
        name: name.into(),
        timeout: None,
        attempts: 1,
        class: PhantomData,
    }
}

/// A reference to a room, with options for a call.
#[derive(Clone, Debug)]
pub struct RoomRef<R> {
    name: String,
    timeout: Option<Duration>,
    attempts: u32,
    class: PhantomData<fn() -> R>,
}

/// Reason why a call has no answer (WIT `rooms.call-error`); the cause in an [`Error`] of
/// [`RoomRef::call`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CallError {
    /// The app has no room of this class, or the name is invalid.
    NoSuchRoom,
    /// The payload or the answer has more than 1 MiB.
    TooLarge,
    /// The room waits for its caller.
    Cycle,
    /// The room was not called: too many events wait for it, every instance is in use, or it fails
    /// to wake. Try again later.
    Busy,
    /// The room's event failed, and was undone except for what it flushed. The log has the reason.
    Failed,
    /// There was no answer in time: the event may have taken place, or may still.
    Timeout,
    /// The room refused the call with an HTTP status and a text.
    Refused(u16, String),
}

impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CallError::NoSuchRoom => f.write_str("there is no such room"),
            CallError::TooLarge => f.write_str("a call's payload has at most 1 MiB"),
            CallError::Cycle => f.write_str("the room waits for the one that calls it"),
            CallError::Busy => f.write_str("the room is busy"),
            CallError::Failed => f.write_str("the room's event failed"),
            CallError::Timeout => f.write_str("the room did not answer in time"),
            CallError::Refused(status, text) => write!(f, "the room refused: {status} {text}"),
        }
    }
}

impl std::error::Error for CallError {}

impl<R: Room> RoomRef<R> {
    /// Sets the maximum time for all tries together: 5 seconds by default, and never longer than
    /// the caller's own event may take.
    pub fn timeout(self, timeout: Duration) -> RoomRef<R> {
        RoomRef {
            timeout: Some(timeout),
            ..self
        }
    }

    /// Sets the maximum number of tries if the room fails or is busy: 1 by default. A failed event
    /// is undone before the next try, except for what it flushed.
    pub fn attempts(self, attempts: u32) -> RoomRef<R> {
        RoomRef { attempts, ..self }
    }

    /// Calls the room, and waits for the answer. If the handler passes the error on by `?`, a
    /// refusal with a status below 500 is also the answer to the client; every other failure is a
    /// fault of the app, with a [`CallError`] as its cause.
    ///
    /// # Errors
    ///
    /// The called room's refusal, with its status and text; otherwise a fault with the
    /// [`CallError`] as its cause.
    pub fn call(&self, payload: impl AsRef<[u8]>) -> Result<Vec<u8>> {
        self.try_call(payload).map_err(|error| match error {
            CallError::Refused(status, text) if status < 500 => Error::status(status, text),
            error => error.into(),
        })
    }

    /// Does the same as [`call`](RoomRef::call), and returns the reason of a failure.
    ///
    /// # Errors
    ///
    /// The [`CallError`].
    pub fn try_call(&self, payload: impl AsRef<[u8]>) -> Result<Vec<u8>, CallError> {
        let timeout_ms = self
            .timeout
            .map(|timeout| u32::try_from(timeout.as_millis()).unwrap_or(u32::MAX));
        world::call(
            &R::class(),
            &self.name,
            payload.as_ref(),
            timeout_ms,
            self.attempts,
        )
    }

    /// Does the same as [`call`](RoomRef::call) with JSON values.
    ///
    /// # Errors
    ///
    /// As for [`call`](RoomRef::call), and a fault if a value is not one of JSON.
    pub fn call_json<T: DeserializeOwned>(&self, payload: &impl Serialize) -> Result<T> {
        Ok(serde_json::from_slice(
            &self.call(serde_json::to_vec(payload)?)?,
        )?)
    }
}
