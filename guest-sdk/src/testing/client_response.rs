//! An answer as its client receives it: the app's, changed by the host.

use super::FeedEvent;
use crate::Response;
use bytes::Bytes;
use http::HeaderMap;
use serde::de::DeserializeOwned;
use std::{
    fmt,
    task::{Context, Poll, Waker},
};
use tidegate_hub::{
    self as hub, Accept, Fault, Frame, Header, StreamingResponse, contract, dispatch::HostRefusal,
};

/// An answer.
///
/// # Examples
///
/// ```
/// use tidegate::{prelude::*, testing};
///
/// let mut server = testing::serve(App::new().get("/", async |_| Json([1, 2])));
/// let reply = server.get("/");
/// assert_eq!((reply.status(), reply.header("content-type")), (200, Some("application/json")));
/// assert_eq!(reply.json::<Vec<u8>>(), [1, 2]);
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct ClientResponse {
    response: Response,
    is_whole: bool,
}

impl ClientResponse {
    /// Returns the status.
    pub fn status(&self) -> u16 {
        self.response.status
    }

    /// Returns the first header of this name. Panics if it is not text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers()
            .find(|(other, _)| other.eq_ignore_ascii_case(name))
            .map(|(_, value)| value)
    }

    /// Returns all headers, with names in lower case. Panics if one is not text.
    pub fn headers(&self) -> impl Iterator<Item = (&str, &str)> {
        let text = |value| std::str::from_utf8(value).expect("a header of text");
        self.response
            .headers
            .iter()
            .map(move |(name, value)| (name.as_str(), text(value)))
    }

    /// Returns the body.
    pub fn bytes(&self) -> &[u8] {
        &self.response.body
    }

    /// Returns the body as text. Panics if it is not text.
    pub fn text(&self) -> &str {
        std::str::from_utf8(self.bytes()).expect("a body of text")
    }

    /// Returns the body as JSON. Panics if it does not have this type.
    pub fn json<T: DeserializeOwned>(&self) -> T {
        serde_json::from_slice(self.bytes()).unwrap_or_else(|error| {
            panic!("{error} in {:?}", String::from_utf8_lossy(self.bytes()))
        })
    }

    /// Returns the events of the body as a browser reads them. Panics if the body is not text.
    pub fn events(&self) -> Vec<FeedEvent> {
        FeedEvent::read(self.text())
    }

    /// Returns true if the answer is whole: either side may break off a streamed one.
    pub fn is_whole(&self) -> bool {
        self.is_whole
    }
}

impl fmt::Debug for ClientResponse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} {:?}",
            self.status(),
            String::from_utf8_lossy(self.bytes())
        )
    }
}

/// Returns a value that the host accepts from the app. Otherwise the host would answer with a
/// fault, and the test fails with its text.
pub(super) fn within_contract<T>(checked: Result<T, Fault>) -> T {
    checked.unwrap_or_else(|fault| panic!("{fault}"))
}

/// Answers as the host sends them.
impl ClientResponse {
    /// Converts an app's whole answer, without the headers that the host controls.
    pub(super) fn of_app(response: hub::Response) -> ClientResponse {
        ClientResponse::new(Response {
            status: response.status.as_u16(),
            headers: Vec::new(),
            body: response.body.to_vec(),
        })
        .with_headers(response.headers)
    }

    /// Converts a streamed answer.
    pub(super) fn of_stream(streamed: StreamingResponse) -> ClientResponse {
        let headers = streamed.headers.iter().map(|(name, value)| {
            (
                name.as_str().to_owned(),
                Bytes::copy_from_slice(value.as_bytes()),
            )
        });
        let headers = headers.collect();
        let (body, is_whole) = read_body(streamed.body);
        let response = Response {
            status: streamed.status.as_u16(),
            headers: Vec::new(),
            body,
        };
        ClientResponse { response, is_whole }.with_headers(headers)
    }

    /// Converts the host's refusal.
    pub(super) fn of_refusal(refusal: &HostRefusal) -> ClientResponse {
        let reply = ClientResponse::of_host(refusal.status().as_u16(), &refusal.text());
        match refusal.allow() {
            Some(allow) => reply.with("allow", &allow),
            None => reply,
        }
    }

    /// Returns the host's own JSON answer.
    pub(super) fn of_host_json(status: u16, json: String) -> ClientResponse {
        let response = Response::new(status).header("content-type", "application/json");
        ClientResponse::new(Response {
            body: json.into_bytes(),
            ..response
        })
    }

    /// Returns the host's redirection.
    pub(super) fn of_redirect(status: u16, location: &str) -> ClientResponse {
        ClientResponse::new(Response::redirect(location).with_status(status))
    }

    /// Returns the answer to an event that ended in a fault. Fails the test if the app violated the
    /// contract.
    pub(super) fn of_fault(fault: &Fault) -> ClientResponse {
        assert!(!matches!(fault, Fault::Answer(_)), "{fault}");
        ClientResponse::of_host(fault.status().as_u16(), "internal error")
    }

    /// Returns the 101 for an accepted upgrade.
    pub(super) fn of_upgrade(accept: &Accept) -> ClientResponse {
        let reply = ClientResponse::new(Response::new(101)).with_headers(accept.headers.clone());
        match &accept.protocol {
            Some(protocol) => reply.with("sec-websocket-protocol", protocol),
            None => reply,
        }
    }

    /// Returns the head of a feed.
    pub(super) fn of_feed() -> ClientResponse {
        let head = Response::new(200)
            .header("content-type", "text/event-stream")
            .header("cache-control", "no-cache, no-transform");
        ClientResponse::new(head.header("x-accel-buffering", "no"))
    }

    /// Returns the host's own answer.
    pub(super) fn of_host(status: u16, text: &str) -> ClientResponse {
        ClientResponse::new(Response::text(text).with_status(status))
    }

    /// Adds headers of the app, except those that the host controls.
    pub(super) fn with_headers(mut self, given: Vec<Header>) -> ClientResponse {
        let mut kept = HeaderMap::new();
        within_contract(contract::append_headers(&mut kept, given));
        let kept = kept
            .iter()
            .map(|(name, value)| (name.as_str().to_owned(), value.as_bytes().to_vec()));
        self.response.headers.extend(kept);
        self
    }

    /// Adds a header of the host.
    pub(super) fn with(mut self, name: &str, value: &str) -> ClientResponse {
        self.response = self.response.header(name, value);
        self
    }

    pub(super) fn without_body(mut self) -> ClientResponse {
        self.response.body.clear();
        self
    }

    fn new(response: Response) -> ClientResponse {
        ClientResponse {
            response,
            is_whole: true,
        }
    }
}

/// Reads a body whose pieces are available already. Returns true if it has an end.
fn read_body(mut body: hub::BodyStream) -> (Vec<u8>, bool) {
    let mut bytes = Vec::new();
    let mut cx = Context::from_waker(Waker::noop());
    loop {
        match body.as_mut().poll_frame(&mut cx) {
            Poll::Ready(Some(Ok(Frame::Data(piece)))) => bytes.extend_from_slice(&piece),
            Poll::Ready(Some(Ok(Frame::Trailers(_)))) => {}
            Poll::Ready(Some(Err(_))) | Poll::Pending => return (bytes, false),
            Poll::Ready(None) => return (bytes, true),
        }
    }
}
