//! The interface to guest code: one trait, implemented by wasmtime in the host and by closures in
//! tests.

use crate::{
    event::{CloseEvent, Decision, Verdict},
    fault::Fault,
    message::Message,
    page::{ActionStep, Form, HandlerError, LoaderStep, RenderInput, Shell},
    realtime::{connections::Conn, feed::Feed},
    request::{Request, Response, headers_weight},
    rooms::transaction::Transaction,
};
use bytes::Bytes;
use std::{fmt, future::Future, pin::Pin, sync::Arc, task::Context, task::Poll};

/// A call into an app. It lives as long as the values that it borrows. Dropping it before its end
/// cancels it.
pub type Call<'a, T> = Pin<Box<dyn Future<Output = Result<T, Fault>> + Send + 'a>>;

/// Guest code. Events of one connection never overlap: the caller waits for one call before it
/// makes the next. All other calls may be concurrent.
pub trait App: Send + Sync + 'static {
    /// WIT `guard-handler.check`.
    fn check<'a>(&'a self, guard: u32, request: &'a Request) -> Call<'a, Verdict>;
    /// WIT `http-handler.handle`.
    fn handle<'a>(&'a self, request: &'a Request, body: Bytes) -> Call<'a, Response>;
    /// The app's `wasi:http` export. Returns the head of the response; its body is still to come.
    fn stream<'a>(&'a self, request: &'a Request, body: BodyStream) -> Call<'a, StreamingResponse>;
    /// WIT `websocket-handler.on-upgrade`.
    fn upgrade<'a>(&'a self, request: &'a Request, offered: &'a [String]) -> Call<'a, Decision>;
    /// WIT `websocket-handler.on-open`.
    fn open(self: Arc<Self>, conn: Arc<Conn>, request: Request) -> Call<'static, ()>;
    /// WIT `websocket-handler.on-messages`. `messages` is never empty.
    fn messages(self: Arc<Self>, conn: Arc<Conn>, messages: Vec<Message>) -> Call<'static, ()>;
    /// WIT `websocket-handler.on-close`.
    fn close(self: Arc<Self>, conn: Arc<Conn>, info: CloseEvent) -> Call<'static, ()>;
    /// WIT `feed-handler.on-subscribe`.
    fn subscribe<'a>(
        &'a self,
        request: &'a Request,
        last_event_id: Option<&'a str>,
    ) -> Call<'a, Result<Feed, Response>>;
    /// Returns a new instance for a room. The room has it alone until it is dropped.
    fn instance(&self) -> Call<'_, Box<dyn Instance>>;
    /// Returns the handlers of pages.
    fn pages(&self) -> &dyn Pages;
    /// Completes while a call waits for an instance. A caller that waits for the app on behalf of a
    /// client that has probably left should then give up.
    fn wait_for_shortage(&self) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        Box::pin(std::future::pending())
    }
}

/// Guest code for pages, by their index in the manifest.
pub trait Pages: Send + Sync {
    /// WIT `pages.load`, in an instance of its own that lives until the run is dropped.
    fn load<'a>(
        &'a self,
        page: u32,
        loader: &'a str,
        request: &'a Request,
    ) -> Call<'a, Box<dyn LoaderRun>>;
    /// WIT `pages.render`.
    fn render<'a>(
        &'a self,
        page: u32,
        request: &'a Request,
        view: &'a RenderInput,
    ) -> Call<'a, Shell>;
    /// WIT `pages.act`, in an instance of its own that lives until the run is dropped.
    fn act<'a>(
        &'a self,
        page: u32,
        action: &'a str,
        request: &'a Request,
        form: Box<dyn Form>,
    ) -> Call<'a, Box<dyn ActionRun>>;
}

/// One run of a loader. After a fault it is not called again.
pub trait LoaderRun: Send {
    /// WIT `pages.loader.next`.
    fn next(&mut self) -> Call<'_, Result<LoaderStep, HandlerError>>;
}

/// One run of an action. After a fault, or when it is done, it is not called again.
pub trait ActionRun: Send {
    /// WIT `pages.attempt.next`.
    fn next(&mut self) -> Call<'_, ActionStep>;
}

/// The guest code of one room.
pub trait Instance: Send {
    /// Handles one event, which may use the transaction until the call ends. After a fault the
    /// instance is not called again.
    fn call<'a>(
        &'a mut self,
        event: RoomEvent,
        transaction: &'a Transaction,
    ) -> Call<'a, RoomAnswer>;
}

/// An event of a room. Requests are boxed: an event is moved a dozen times on its way to the guest,
/// and most events are messages.
#[derive(Clone)]
pub enum RoomEvent {
    /// WIT `room-handler.wake`: the first event of an instance.
    Wake,
    /// WIT `http-handler.handle`.
    Handle(Box<Request>, Bytes),
    /// WIT `websocket-handler.on-upgrade`, with the offered subprotocols.
    Upgrade(Box<Request>, Vec<String>),
    /// WIT `websocket-handler.on-open`.
    Open(Arc<Conn>, Box<Request>),
    /// WIT `websocket-handler.on-messages`. Never empty.
    Messages(Arc<Conn>, Vec<Message>),
    /// WIT `websocket-handler.on-close`.
    Close(Arc<Conn>, CloseEvent),
    /// WIT `feed-handler.on-subscribe`, with the id of the last event that the client has.
    Subscribe(Box<Request>, Option<String>),
    /// WIT `room-handler.on-alarm`, with the number of the try from 1.
    Alarm(u32),
    /// WIT `room-handler.on-call`.
    Call(Bytes),
}

impl RoomEvent {
    /// Returns the bytes of memory that it takes while it waits: the record, and the values in it.
    pub(crate) fn weight(&self) -> usize {
        let held = match self {
            RoomEvent::Wake | RoomEvent::Alarm(_) => 0,
            RoomEvent::Handle(request, body) => request.weight() + body.len(),
            RoomEvent::Upgrade(request, offered) => request.weight() + strings(offered),
            RoomEvent::Open(_, request) => request.weight(),
            RoomEvent::Messages(_, messages) => messages
                .iter()
                .map(|message| size_of::<Message>() + message.len())
                .sum(),
            RoomEvent::Close(_, info) => info.reason.len(),
            RoomEvent::Subscribe(request, last) => {
                request.weight() + last.as_ref().map_or(0, String::len)
            }
            RoomEvent::Call(payload) => payload.len(),
        };
        size_of::<RoomEvent>() + held
    }

    /// Returns true if the call can be skipped once no caller waits for its answer. Events of a
    /// connection and alarms are never skipped.
    pub(crate) fn can_be_given_up(&self) -> bool {
        matches!(
            self,
            RoomEvent::Handle(..)
                | RoomEvent::Upgrade(..)
                | RoomEvent::Subscribe(..)
                | RoomEvent::Call(_)
        )
    }
}

fn strings(strings: &[String]) -> usize {
    strings
        .iter()
        .map(|string| size_of::<String>() + string.len())
        .sum()
}

/// The answer of a room, by the kind of event.
pub enum RoomAnswer {
    /// Answer to events that need none.
    Done,
    /// Answer to [`RoomEvent::Handle`].
    Response(Response),
    /// Answer to [`RoomEvent::Upgrade`].
    Decision(Decision),
    /// Answer to [`RoomEvent::Subscribe`].
    Feed(Result<Feed, Response>),
    /// Answer to [`RoomEvent::Call`], or status and text of a refusal.
    Called(Result<Bytes, (u16, String)>),
}

impl RoomAnswer {
    /// Returns the bytes of memory that it takes while it waits for the commit.
    pub(crate) fn weight(&self) -> usize {
        match self {
            RoomAnswer::Done => 0,
            RoomAnswer::Response(response)
            | RoomAnswer::Decision(Decision::Reject(response))
            | RoomAnswer::Feed(Err(response)) => response.weight(),
            RoomAnswer::Decision(Decision::Accept(accept)) => {
                let protocol = accept.protocol.as_ref().map_or(0, String::len);
                protocol
                    + headers_weight(&accept.headers)
                    + accept.attachment.len()
                    + strings(&accept.tags)
            }
            RoomAnswer::Decision(Decision::AcceptThenClose(_, reason)) => reason.len(),
            RoomAnswer::Feed(Ok(feed)) => {
                let first = feed.first.iter().map(|first| {
                    size_of_val(first)
                        + first.data.len()
                        + first.event.as_ref().map_or(0, String::len)
                });
                strings(&feed.topics) + first.sum::<usize>()
            }
            RoomAnswer::Called(Ok(answer)) => answer.len(),
            RoomAnswer::Called(Err((_, text))) => text.len(),
        }
    }
}

/// The head of a streamed response, whose body is still to come.
pub struct StreamingResponse {
    /// Status from 200 to 599: [`status`](crate::contract::status).
    pub status: http::StatusCode,
    /// Headers, as the export returned them.
    pub headers: http::HeaderMap,
    /// The body.
    pub body: BodyStream,
}

/// A streamed body of a request or a response. Dropping it notifies its source that no more is
/// read.
pub type BodyStream = Pin<Box<dyn Stream>>;

/// The source of a [`BodyStream`].
pub trait Stream: Send {
    /// Returns the next piece; `None` after the last one, and an error if no end will come.
    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame, BodyError>>>;

    /// Returns the length of the whole body in bytes, if it is known.
    fn length(&self) -> Option<u64> {
        None
    }
}

/// A piece of a [`BodyStream`].
#[derive(Clone, Debug)]
pub enum Frame {
    /// Bytes, at least one.
    Data(Bytes),
    /// Trailers, after all data.
    Trailers(http::HeaderMap),
}

/// Error of a body that broke off: the peer went away or the guest failed. The text is for the
/// operator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BodyError(pub String);

impl fmt::Display for BodyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for BodyError {}
