//! The seam to guest code: one trait, answered by wasmtime in the host and by closures in tests.

use crate::{Conn, LimitError, Message, Request, Response, request::Header};
use bytes::Bytes;
use std::{fmt, future::Future, pin::Pin, sync::Arc, task::Context, task::Poll};

/// A call into an app: lives as long as what it borrows. Dropping it before its end gives the call up.
pub type Call<'a, T> = Pin<Box<dyn Future<Output = Result<T, Fault>> + Send + 'a>>;

/// Guest code. Events of one connection never overlap (the caller waits for one call before the
/// next); everything else may run at once.
pub trait App: Send + Sync + 'static {
    /// WIT `guard-handler.check`.
    fn check<'a>(&'a self, guard: u32, request: &'a Request) -> Call<'a, Verdict>;
    /// WIT `http-handler.handle`.
    fn handle<'a>(&'a self, request: &'a Request, body: Bytes) -> Call<'a, Response>;
    /// The app's `wasi:http` export: the answer's head, its body still to come.
    fn stream<'a>(&'a self, request: &'a Request, body: Body) -> Call<'a, Streamed>;
    /// WIT `websocket-handler.on-upgrade`.
    fn upgrade<'a>(&'a self, request: &'a Request, offered: &'a [String]) -> Call<'a, Decision>;
    /// WIT `websocket-handler.on-open`.
    fn open(self: Arc<Self>, conn: Arc<Conn>, request: Request) -> Call<'static, ()>;
    /// WIT `websocket-handler.on-messages`. Never empty.
    fn messages(self: Arc<Self>, conn: Arc<Conn>, messages: Vec<Message>) -> Call<'static, ()>;
    /// WIT `websocket-handler.on-close`.
    fn close(self: Arc<Self>, conn: Arc<Conn>, info: CloseInfo) -> Call<'static, ()>;
    /// WIT `events-handler.on-subscribe`.
    fn subscribe<'a>(&'a self, request: &'a Request, last_event_id: Option<&'a str>) -> Call<'a, Result<Feed, Response>>;
}

/// Why a call into an app gave no result. The instance is thrown away; nobody else notices.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The guest trapped (a panic, an unreachable, an out-of-bounds access); the text is the operator's.
    Trap(String),
    /// The guest computed for longer than one event may; look for a busy loop.
    Cpu,
    /// The event took longer than one event may, waiting included.
    Wall,
    /// The guest asked for more memory than an instance may have, and trapped.
    Memory,
    /// Every instance that may exist is busy; try again shortly, or raise the limit.
    Busy,
    /// The guest answered something that the contract does not allow; the text says what.
    Answer(String),
    /// The instance could not be made, or the component does not export the handler.
    Host(String),
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::Trap(chain) => write!(f, "the app trapped: {chain}"),
            Fault::Cpu => write!(f, "the app computed for longer than one event may"),
            Fault::Wall => write!(f, "the app took longer than one event may"),
            Fault::Memory => write!(f, "the app asked for more memory than an instance may have"),
            Fault::Busy => write!(f, "every instance of the app is busy"),
            Fault::Answer(what) => write!(f, "the app broke the contract: {what}"),
            Fault::Host(what) => write!(f, "the app could not be called: {what}"),
        }
    }
}

impl std::error::Error for Fault {}

/// What a guard says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Go on.
    Pass(Passed),
    /// Stop here with this answer.
    Answer(Response),
}

/// What a guard that passes adds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Passed {
    /// To the answer.
    pub headers: Vec<Header>,
    /// To the request's context.
    pub context: Vec<(String, String)>,
}

/// What an app decides about an upgrade.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Complete the handshake.
    Accept(Accept),
    /// Refuse it with this answer.
    Reject(Response),
    /// Complete it and close at once with this code and reason.
    AcceptThenClose(u16, String),
}

/// How a connection begins.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Accept {
    /// One of those offered, or none.
    pub protocol: Option<String>,
    /// Added to the 101.
    pub headers: Vec<Header>,
    /// The app's own state for the connection.
    pub attachment: Bytes,
    /// The connection's tags.
    pub tags: Vec<String>,
}

/// How a connection ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CloseInfo {
    /// As in the close frame; 1005 when it had none, 1006 when there was no close frame.
    pub code: u16,
    /// As in the close frame.
    pub reason: String,
    /// Whether the close handshake was completed.
    pub clean: bool,
    /// Whether the peer began it.
    pub by_peer: bool,
}

/// What a feed begins with and follows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Feed {
    /// Names of topics.
    pub topics: Vec<String>,
    /// Sent before anything else.
    pub first: Vec<First>,
}

/// One event that a feed begins with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct First {
    /// The event's data, of any number of lines.
    pub data: String,
    /// The event's name, without line breaks.
    pub event: Option<String>,
}

/// The head of a streamed answer, its body still to come.
pub struct Streamed {
    /// Status, as the app's `wasi:http` export gave it.
    pub status: u16,
    /// Headers likewise.
    pub headers: http::HeaderMap,
    /// The body.
    pub body: Body,
}

/// A body as it comes, either way. Dropping it tells its maker that nobody reads on.
pub type Body = Pin<Box<dyn Stream>>;

/// The source of a [`Body`].
pub trait Stream: Send {
    /// The next piece; `None` after the last, an error if there is no end in sight any more.
    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame, BodyError>>>;

    /// The whole length in bytes, if it is known.
    fn length(&self) -> Option<u64> {
        None
    }
}

/// A piece of a [`Body`].
#[derive(Clone, Debug)]
pub enum Frame {
    /// Some bytes, at least one.
    Data(Bytes),
    /// Trailers, behind all data.
    Trailers(http::HeaderMap),
}

/// A body broke off: the peer went away or the guest failed. The text is the operator's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BodyError(pub String);

impl fmt::Display for BodyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for BodyError {}

/// Checks an app's own description of a connection against the limits.
pub(crate) fn check_accept(accept: &Accept, limits: &crate::Limits) -> Result<(), LimitError> {
    if accept.attachment.len() > limits.attachment_bytes_max {
        return Err(LimitError::TooLarge);
    }
    crate::connections::check_tags(&accept.tags, limits)
}
