//! What a client of a server under test gets: answers, and events.

use super::{ConnRef, FeedRef, Server};
use crate::{Response, world::Recording};
use serde::de::DeserializeOwned;
use std::fmt;

/// An answer.
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
pub struct Reply {
    response: Response,
    is_whole: bool,
}

impl Reply {
    /// Status.
    pub fn status(&self) -> u16 {
        self.response.status
    }

    /// The first header of this name. Panics if it is not text.
    pub fn header(&self, name: &str) -> Option<&str> {
        let (_, value) = self.response.headers.iter().find(|(other, _)| other.eq_ignore_ascii_case(name))?;
        Some(std::str::from_utf8(value).expect("a header of text"))
    }

    /// The body.
    pub fn bytes(&self) -> &[u8] {
        &self.response.body
    }

    /// The body as text. Panics if it is none.
    pub fn text(&self) -> &str {
        std::str::from_utf8(self.bytes()).expect("a body of text")
    }

    /// The body as JSON. Panics if it is none of this type.
    pub fn json<T: DeserializeOwned>(&self) -> T {
        serde_json::from_slice(self.bytes()).unwrap_or_else(|error| panic!("{error} in {:?}", String::from_utf8_lossy(self.bytes())))
    }

    /// The body as the events of a stream, as a browser reads them.
    pub fn events(&self) -> Vec<Heard> {
        self.text().split_inclusive("\n\n").filter_map(Heard::parse).collect()
    }

    /// Whether the answer came to its end: a streamed one may be broken off, by either side.
    pub fn is_whole(&self) -> bool {
        self.is_whole
    }
}

impl fmt::Debug for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {:?}", self.status(), String::from_utf8_lossy(self.bytes()))
    }
}

impl From<Response> for Reply {
    fn from(response: Response) -> Reply {
        Reply { response, is_whole: true }
    }
}

impl From<Recording> for Reply {
    fn from(recording: Recording) -> Reply {
        let head = recording.head.expect("every stream route answers");
        Reply { response: Response { body: recording.pieces.concat(), ..head }, is_whole: recording.is_finished }
    }
}

/// An event as a client gets it. Equal to a text if that is its data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heard {
    pub(super) id: Option<String>,
    pub(super) name: Option<String>,
    pub(super) data: String,
}

impl Heard {
    /// Its id, if it has one.
    pub fn id(&self) -> Option<&str> {
        self.id.as_deref()
    }

    /// Its name, if it has one.
    pub fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// Its data, the lines joined by LF.
    pub fn data(&self) -> &str {
        &self.data
    }

    /// Reads one event, of LF-ended lines as the SDK writes them; `None` for one without data.
    fn parse(text: &str) -> Option<Heard> {
        let field = |name: &'static str| {
            let value = move |line: &str| line.strip_prefix(name)?.strip_prefix(": ").map(str::to_owned);
            text.lines().filter_map(value)
        };
        let data: Vec<String> = field("data").collect();
        if data.is_empty() {
            return None;
        }
        Some(Heard { id: field("id").next_back(), name: field("event").next_back(), data: data.join("\n") })
    }
}

impl PartialEq<&str> for Heard {
    fn eq(&self, data: &&str) -> bool {
        self.data == *data
    }
}

/// Where a request led to.
pub(super) enum Outcome {
    Reply(Reply),
    Conn(ConnRef),
    Feed(FeedRef),
}

impl Outcome {
    /// An answer of the host's own.
    pub(super) fn text(status: u16, text: &str) -> Outcome {
        Outcome::Reply(Response::text(text).with_status(status).into())
    }

    pub(super) fn with_headers(mut self, headers: Vec<(String, Vec<u8>)>, server: &mut Server) -> Outcome {
        match &mut self {
            Outcome::Reply(reply) => reply.response.headers.extend(headers),
            Outcome::Conn(conn) => server.clients[conn.0].handshake.response.headers.extend(headers),
            Outcome::Feed(_) => {}
        }
        self
    }

    pub(super) fn without_body(mut self) -> Outcome {
        if let Outcome::Reply(reply) = &mut self {
            reply.response.body.clear();
        }
        self
    }

    /// As seen by a client that doesn't know what it got.
    pub(super) fn into_reply(self, server: &mut Server) -> Reply {
        match self {
            Outcome::Reply(reply) => reply,
            Outcome::Conn(conn) => server.handshake(conn).clone(),
            Outcome::Feed(_) => Response::new(200).header("content-type", "text/event-stream").into(),
        }
    }
}
