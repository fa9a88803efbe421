//! Calls to rooms, by class and name.

use crate::{Error, Result, Room, world};
use serde::{Serialize, de::DeserializeOwned};
use std::{fmt, marker::PhantomData, time::Duration};

/// The room of this name, to be called from any handler, another room's included.
///
/// A call is an event of that room ([`Room::call`]): its answer comes when what it did is durable. It sees nothing of what the
/// caller's own event has done so far, and is not undone with it. A room that is called while it waits, perhaps through others, for
/// the one that calls it, is a [`CallError::Cycle`].
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

/// A room that is about to be called.
#[derive(Clone, Debug)]
pub struct RoomRef<R> {
    name: String,
    timeout: Option<Duration>,
    attempts: u32,
    class: PhantomData<fn() -> R>,
}

/// Why a call gave no answer (WIT `rooms.call-error`); the cause in an [`Error`] of [`RoomRef::call`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CallError {
    /// The app has no room of this class, or no room can have this name.
    NoSuchRoom,
    /// A payload, and an answer, have at most 1 MiB.
    TooLarge,
    /// The room waits for the one that calls it.
    Cycle,
    /// Nothing has happened: too many wait for the room, every instance is in use, or it fails to wake. Try again later.
    Busy,
    /// The room's event failed, and was undone unless it flushed. Its own log says why.
    Failed,
    /// There was no answer in time: the event may have happened, or may still.
    Timeout,
    /// The room's own refusal: a status as in HTTP, and a text.
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
    /// Waits so long for the answer, all tries included: 5 seconds by default, and never longer than the caller's own event may take.
    pub fn timeout(self, timeout: Duration) -> RoomRef<R> {
        RoomRef {
            timeout: Some(timeout),
            ..self
        }
    }

    /// Tries so often in all, if it fails or is busy: once by default. The event before is undone first,
    /// except for what it flushed.
    pub fn attempts(self, attempts: u32) -> RoomRef<R> {
        RoomRef { attempts, ..self }
    }

    /// Calls the room, and waits for the answer. Given up by `?`, a refusal with a status below 500 is the answer to the client, too;
    /// every other failure is our own fault, with a [`CallError`] as its cause.
    pub fn call(&self, payload: impl AsRef<[u8]>) -> Result<Vec<u8>> {
        self.try_call(payload).map_err(|error| match error {
            CallError::Refused(status, text) if status < 500 => Error::status(status, text),
            error => error.into(),
        })
    }

    /// As [`call`](RoomRef::call), and why not.
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

    /// As [`call`](RoomRef::call), with values as JSON both ways.
    pub fn call_json<T: DeserializeOwned>(&self, payload: &impl Serialize) -> Result<T> {
        Ok(serde_json::from_slice(
            &self.call(serde_json::to_vec(payload)?)?,
        )?)
    }
}
