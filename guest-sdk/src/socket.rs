//! WebSocket routes: from the handshake to the close, as four optional hooks.

use crate::{Conn, Error, Message, Request, Response, Result, task};
use serde::Serialize;
use std::{fmt, future::Future, ops};

/// The handler of a WebSocket route. It has no state (`&self`), so any instance can run it: the
/// attachment holds the state of a connection, and topics reach the other connections.
///
/// A closure `async |conn: Conn, msg| ...` is also a socket, with defaults for the other hooks.
///
/// # Errors
///
/// An error of a hook ends the connection: with 1008 and the error's text for a client's error (a
/// status below 500), otherwise with 1011 and a fixed text.
///
/// # Examples
///
/// ```
/// use tidegate::{prelude::*, testing};
///
/// struct Lobby;
///
/// impl Socket for Lobby {
///     async fn upgrade(&self, upgrade: &Upgrade) -> Result<Accept> {
///         let name: String = upgrade.query("name")?;
///         Ok(Accept::new().state(&name)?.protocol(upgrade.pick(&["v2", "v1"])))
///     }
///     async fn open(&self, conn: &Conn, _: &Request) -> Result {
///         conn.follow("lobby")
///     }
///     async fn message(&self, conn: &Conn, msg: Message) -> Result {
///         let name: String = conn.state()?.unwrap_or_default();
///         publish("lobby", format!("{name}: {}", msg.text()?))
///     }
/// }
///
/// let mut server = testing::serve(App::new().socket("/lobby", Lobby));
/// let ann = server.connect("/lobby?name=Ann");
/// server.send(ann, "hi");
/// assert_eq!(server.received(ann), ["Ann: hi"]);
/// assert_eq!(server.try_connect("/lobby").unwrap_err().status(), 400);
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a socket",
    label = "neither an `async` closure of a `Conn` and a `Message` that returns `()` or `Result`, nor a type that implements `Socket`",
    note = "write `async |conn: Conn, msg| conn.send(msg)`, with the type of `conn`",
    note = "or implement `Socket` for a type of your own and give a value of it"
)]
pub trait Socket {
    /// Decides about the handshake: accepts it, or refuses it with an error, whose answer the
    /// client receives. With its guards it has 10 s; then the client receives 503.
    fn upgrade(&self, upgrade: &Upgrade) -> impl Future<Output = Result<Accept>> {
        let _ = upgrade;
        async { Ok(Accept::new()) }
    }

    /// Called after the handshake and before the first message.
    fn open(&self, conn: &Conn, request: &Request) -> impl Future<Output = Result> {
        let _ = (conn, request);
        async { Ok(()) }
    }

    /// Called with one message. Messages of one connection come in order, one at a time.
    fn message(&self, conn: &Conn, message: Message) -> impl Future<Output = Result> {
        let _ = (conn, message);
        async { Ok(()) }
    }

    /// Called exactly once after the end of a connection for which [`open`](Socket::open) was
    /// called, even if the client left during that call. It is called later while every instance is
    /// busy, and not again if it fails.
    fn close(&self, conn: &Conn, info: &CloseEvent) -> impl Future<Output = Result> {
        let _ = (conn, info);
        async { Ok(()) }
    }
}

#[diagnostic::do_not_recommend]
impl<F, R> Socket for F
where
    F: AsyncFn(Conn, Message) -> R,
    R: Outcome,
{
    async fn message(&self, conn: &Conn, message: Message) -> Result {
        self(conn.again(), message).await.into_result()
    }
}

/// Results of a message closure and of a stream handler.
#[diagnostic::on_unimplemented(
    message = "a handler of messages or of a stream returns `()` or `Result`, not `{Self}`",
    note = "end it with `;`, or with `Ok(())` after a `?`"
)]
pub trait Outcome {
    /// Converts into a result.
    fn into_result(self) -> Result;
}

impl Outcome for () {
    fn into_result(self) -> Result {
        Ok(())
    }
}

impl<E: Into<Error>> Outcome for std::result::Result<(), E> {
    fn into_result(self) -> Result {
        self.map_err(Into::into)
    }
}

/// A request for a WebSocket: the [`Request`], and the subprotocols that the client offers.
#[derive(Debug)]
pub struct Upgrade {
    pub(crate) request: Request,
    pub(crate) offered: Vec<String>,
}

impl Upgrade {
    /// Returns the subprotocols that the client offers, in its order of preference.
    pub fn offered(&self) -> &[String] {
        &self.offered
    }

    /// Returns the first of `ours` that the client offers.
    pub fn pick<'a>(&self, ours: &[&'a str]) -> Option<&'a str> {
        ours.iter()
            .copied()
            .find(|own| self.offered.iter().any(|offered| offered == own))
    }
}

impl ops::Deref for Upgrade {
    type Target = Request;

    fn deref(&self) -> &Request {
        &self.request
    }
}

/// Initial state of a connection, empty by default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Accept {
    pub(crate) protocol: Option<String>,
    pub(crate) headers: Vec<(String, Vec<u8>)>,
    pub(crate) attachment: Vec<u8>,
    pub(crate) tags: Vec<String>,
    pub(crate) close: Option<(u16, String)>,
}

impl Accept {
    /// Accepts the connection.
    pub fn new() -> Accept {
        Accept::default()
    }

    /// Accepts and closes at once, with a code of 3000 to 4999 and a reason of at most 123 bytes:
    /// for browsers, which can't read a refusal's status.
    pub fn then_close(code: u16, reason: &str) -> Accept {
        Accept {
            close: Some((code, reason.to_owned())),
            ..Accept::default()
        }
    }

    /// Sets the subprotocol: one that the client offered, or none. Any other is a fault of the app:
    /// 500.
    pub fn protocol<'a>(mut self, protocol: impl Into<Option<&'a str>>) -> Accept {
        self.protocol = protocol.into().map(str::to_owned);
        self
    }

    /// Adds a header to the 101. The host drops hop-by-hop and `sec-websocket-*` headers.
    pub fn header(mut self, name: &str, value: impl AsRef<[u8]>) -> Accept {
        self.headers
            .push((name.to_ascii_lowercase(), value.as_ref().to_vec()));
        self
    }

    /// Sets the connection's attachment, at most 16 KiB.
    pub fn attachment(mut self, bytes: impl Into<Vec<u8>>) -> Accept {
        self.attachment = bytes.into();
        self
    }

    /// Sets the connection's attachment to a value as JSON, for [`Conn::state`].
    ///
    /// # Errors
    ///
    /// A fault if the value is not one of JSON.
    pub fn state(self, value: &impl Serialize) -> Result<Accept> {
        Ok(self.attachment(serde_json::to_vec(value)?))
    }

    /// Adds a tag, by which [`ids`](crate::ids) finds the connection: at most 10, of 1 to 256
    /// bytes.
    pub fn tag(mut self, tag: impl Into<String>) -> Accept {
        self.tags.push(tag.into());
        self
    }
}

/// How a connection ended (WIT `websocket-handler.close-event`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CloseEvent {
    /// Code of the Close frame; 1005 if the frame had none, 1006 if there was no Close frame.
    pub code: u16,
    /// Reason of the Close frame; empty if there was none.
    pub reason: String,
    /// True if the closing handshake was completed (RFC 6455 section 7.1.4).
    pub was_clean: bool,
    /// True if the client's Close frame or its disconnection came before the host's Close frame.
    pub is_peer_initiated: bool,
}

/// A type-erased [`Socket`]. Its hooks run to their end inside the call, so that no future needs a
/// box.
pub(crate) trait DynSocket {
    fn upgrade(&self, upgrade: Upgrade, place: fmt::Arguments<'_>) -> Result<Accept, Response>;
    fn open(&self, conn: &Conn, request: Request, place: fmt::Arguments<'_>);
    fn messages(
        &self,
        conn: &Conn,
        messages: &mut dyn Iterator<Item = Message>,
        place: fmt::Arguments<'_>,
    );
    fn close(&self, conn: &Conn, info: CloseEvent, place: fmt::Arguments<'_>);
}

impl<S: Socket> DynSocket for S {
    fn upgrade(&self, upgrade: Upgrade, place: fmt::Arguments<'_>) -> Result<Accept, Response> {
        task::run(Socket::upgrade(self, &upgrade)).map_err(|error| error.answer(place))
    }

    fn open(&self, conn: &Conn, request: Request, place: fmt::Arguments<'_>) {
        settle(task::run(Socket::open(self, conn, &request)), conn, place);
    }

    fn messages(
        &self,
        conn: &Conn,
        messages: &mut dyn Iterator<Item = Message>,
        place: fmt::Arguments<'_>,
    ) {
        for message in messages {
            if !settle(task::run(Socket::message(self, conn, message)), conn, place) {
                return;
            }
        }
    }

    fn close(&self, conn: &Conn, info: CloseEvent, place: fmt::Arguments<'_>) {
        settle(task::run(Socket::close(self, conn, &info)), conn, place);
    }
}

/// Closes a connection whose hook failed. Returns true if it stays open.
fn settle(outcome: Result, conn: &Conn, place: fmt::Arguments<'_>) -> bool {
    let Err(error) = outcome else { return true };
    if let Some((code, reason)) = error.close(place) {
        // If the connection is closing already, its first close counts.
        _ = conn.close(code, reason);
    }
    false
}
