//! Stream routes: bodies are read and written piece by piece, as long as client and handler want.

use crate::{Error, IntoResponse, Outcome, Request, Response, Result, sse::Event, task, world};
use std::fmt;

/// The body of a [`Request`].
///
/// # Examples
///
/// ```
/// use tidegate::{prelude::*, testing};
///
/// let upper = async |mut req: Request, reply: Reply| -> Result {
///     let mut body = reply.header("content-type", "text/plain").start()?;
///     while let Some(piece) = req.body().next().await? {
///         body.write(piece.to_ascii_uppercase()).await?;
///     }
///     Ok(())
/// };
/// let mut server = testing::serve(App::new().stream_on("POST", "/upper", upper));
/// assert_eq!(server.request("POST", "/upper", &[], b"low water").text(), "LOW WATER");
/// ```
#[derive(Debug, Default)]
pub struct Body {
    whole: Vec<u8>,
    pieces: Option<world::Incoming>,
}

impl Body {
    pub(crate) fn of_bytes(whole: Vec<u8>) -> Body {
        Body {
            whole,
            pieces: None,
        }
    }

    pub(crate) fn of_pieces(pieces: world::Incoming) -> Body {
        Body {
            whole: Vec::new(),
            pieces: Some(pieces),
        }
    }

    pub(crate) fn whole(&self) -> &[u8] {
        &self.whole
    }

    /// Returns the next piece, never empty and at most 64 KiB; `None` after the last. A client that
    /// disconnects is an error, [`Gone`].
    ///
    /// # Errors
    ///
    /// The cause is [`Gone`] if the client disconnected.
    pub async fn next(&mut self) -> Result<Option<Vec<u8>>> {
        match &mut self.pieces {
            Some(pieces) => pieces.next().await,
            None => Ok(Some(std::mem::take(&mut self.whole)).filter(|whole| !whole.is_empty())),
        }
    }

    /// Returns the rest of the body. If it is larger than `bytes_max`, the client receives 413.
    ///
    /// # Errors
    ///
    /// 413 for a larger body; otherwise as for [`next`](Body::next).
    pub async fn rest(&mut self, bytes_max: usize) -> Result<Vec<u8>> {
        let mut all = Vec::new();
        while let Some(piece) = self.next().await? {
            if all.len() + piece.len() > bytes_max {
                return Err(Error::status(
                    413,
                    format!("at most {bytes_max} bytes, please"),
                ));
            }
            all.extend_from_slice(&piece);
        }
        Ok(all)
    }
}

/// The answer of a stream route before its head. An error before the head is answered as on any
/// other route; a later error breaks the answer off, which the client notices.
///
/// # Examples
///
/// ```
/// use tidegate::{prelude::*, testing};
/// use std::time::Duration;
///
/// let ticks = async |_, reply: Reply| -> Result {
///     let mut events = reply.events()?;
///     for n in 1.. {
///         events.send(Event::data(format!("tick {n}")).id(n.to_string())).await?;
///         sleep(Duration::from_secs(1)).await;
///     }
///     Ok(())
/// };
/// let mut server = testing::serve(App::new().stream("/ticks", ticks));
/// let reply = server.stream("/ticks").take(2); // then the client goes away
/// assert_eq!(reply.header("content-type"), Some("text/event-stream"));
/// assert_eq!(reply.events(), ["tick 1", "tick 2"]);
/// ```
pub struct Reply {
    outgoing: world::Outgoing,
    /// Status that the handler set.
    status: Option<u16>,
    head: Response,
}

impl Reply {
    pub(crate) fn new(outgoing: world::Outgoing) -> Reply {
        Reply {
            outgoing,
            status: None,
            head: Response::new(200),
        }
    }

    /// Sets the status, 200 to 599. The default is 200, or the status of the whole answer that is
    /// [sent](Reply::send).
    pub fn status(mut self, status: u16) -> Reply {
        self.status = Some(status);
        self
    }

    /// Adds a header.
    pub fn header(mut self, name: &str, value: impl AsRef<[u8]>) -> Reply {
        self.head = self.head.header(name, value);
        self
    }

    /// Sends the head and returns the writer of the body, which ends with the handler.
    ///
    /// # Errors
    ///
    /// A fault if the status is not one of an answer.
    pub fn start(self) -> Result<BodyWriter> {
        self.outgoing
            .start(&self.head.with_status(self.status.unwrap_or(200)))?;
        Ok(BodyWriter {
            outgoing: self.outgoing,
        })
    }

    /// Sends the head of an event stream and returns its writer.
    ///
    /// # Errors
    ///
    /// As for [`start`](Reply::start).
    pub fn events(self) -> Result<Events> {
        let stream = self
            .header("content-type", "text/event-stream")
            .header("cache-control", "no-cache, no-transform");
        Ok(Events {
            writer: stream.header("x-accel-buffering", "no").start()?,
        })
    }

    /// Sends a whole answer: its status, unless another one was [set](Reply::status), the headers
    /// added here and then its own, and its body.
    ///
    /// # Errors
    ///
    /// A fault if the status is not one of an answer; the cause is [`Gone`] if the client
    /// disconnected.
    ///
    /// # Examples
    ///
    /// ```
    /// use tidegate::{prelude::*, testing};
    ///
    /// let closed = async |_, reply: Reply| reply.status(403).send("the harbour is closed").await;
    /// let mut server = testing::serve(App::new().stream("/", closed));
    /// assert_eq!((server.get("/").status(), server.get("/").text()), (403, "the harbour is closed"));
    /// ```
    pub async fn send(self, answer: impl IntoResponse) -> Result {
        let Response {
            status,
            headers,
            body,
        } = answer.into_response()?;
        let head = headers.iter().fold(
            self.head.with_status(self.status.unwrap_or(status)),
            |head, (name, value)| head.header(name, value),
        );
        self.outgoing.start(&head)?;
        self.outgoing.write(&body).await
    }
}

/// The body of an answer whose head was sent.
pub struct BodyWriter {
    outgoing: world::Outgoing,
}

impl BodyWriter {
    /// Sends a piece, and waits while the client is slow. A client that disconnected is an error;
    /// use `?` to end the handler.
    ///
    /// # Errors
    ///
    /// The cause is [`Gone`] if the client disconnected.
    pub async fn write(&mut self, piece: impl AsRef<[u8]>) -> Result {
        self.outgoing.write(piece.as_ref()).await
    }
}

/// An event stream whose head was sent.
pub struct Events {
    writer: BodyWriter,
}

impl Events {
    /// Sends an event at once, and waits while the client is slow. A client that disconnected is an
    /// error; use `?` to end the handler.
    ///
    /// # Errors
    ///
    /// The cause is [`Gone`] if the client disconnected; a fault if id or name of the event has a
    /// line break or a NUL.
    pub async fn send(&mut self, event: impl Into<Event>) -> Result {
        let text = event.into().encode()?;
        self.writer.write(text).await
    }
}

/// The client disconnected while it received the answer: the cause in an [`Error`] of
/// [`BodyWriter::write`]. The handler has nothing to do, and nothing is logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gone;

impl fmt::Display for Gone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the client went away")
    }
}

impl std::error::Error for Gone {}

/// The handler of a stream route.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a stream handler",
    label = "neither an `async` closure nor an `async fn` of a `Request` and a `Reply`",
    note = "write `async |req: Request, reply: Reply| -> Result {{ ... }}`"
)]
pub trait StreamHandler<R>: AsyncFn(Request, Reply) -> R {}

#[diagnostic::do_not_recommend]
impl<F, R> StreamHandler<R> for F where F: AsyncFn(Request, Reply) -> R {}

/// The handler of a stream route, type-erased.
pub(crate) type RunStream = Box<dyn Fn(Request, Reply) -> Result>;

pub(crate) fn handler<F, R>(handler: F) -> RunStream
where
    F: StreamHandler<R> + 'static,
    R: Outcome,
{
    Box::new(move |request, reply| task::run(handler(request, reply)).into_result())
}

/// Lets the handler answer, and ends the answer according to the handler's result.
pub(crate) fn answer(
    handler: &RunStream,
    request: Request,
    outgoing: world::Outgoing,
    place: fmt::Arguments<'_>,
) {
    let outcome = handler(request, Reply::new(outgoing.clone()));
    let error = match outcome {
        Ok(()) if outgoing.is_started() => return outgoing.finish(),
        Ok(()) => Error::fault("the handler ended without an answer"),
        Err(error) => error,
    };
    if error.is_gone() {
        return;
    }
    let response = error.answer(place);
    if !outgoing.is_started() && task::run(Reply::new(outgoing.clone()).send(response)).is_ok() {
        outgoing.finish();
    }
}
