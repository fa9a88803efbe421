//! The head of a request after routing, and a whole response.

use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode};
use std::{
    fmt,
    hash::{BuildHasher, RandomState},
    sync::{
        LazyLock,
        atomic::{AtomicU64, Ordering},
    },
};

/// Name and value of a header from an app. The writer checks them before they reach a client.
pub type Header = (String, Bytes);

/// Bytes that a header takes beside its name and value.
const FIELD_BYTES: usize = 64;

/// Returns the bytes of memory that headers take.
pub(crate) fn headers_weight(headers: &[Header]) -> usize {
    headers
        .iter()
        .map(|(name, value)| name.len() + value.len() + FIELD_BYTES)
        .sum()
}

/// Identifies a request in the log and, in the head of a streamed answer, to its client.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RequestId(pub u64);

impl RequestId {
    /// Returns an id that no other request of this process has.
    pub fn next() -> RequestId {
        static NEXT: LazyLock<AtomicU64> =
            LazyLock::new(|| AtomicU64::new(RandomState::new().hash_one(0)));
        RequestId(NEXT.fetch_add(1, Ordering::Relaxed))
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// The head of an HTTP request, after routing (WIT `types.request`).
///
/// ```
/// let request = tidegate_hub::Request::get("/users/7?tab=1");
/// assert_eq!(request.method, "GET");
/// ```
#[derive(Clone, Debug)]
pub struct Request {
    /// Method, as the client sent it.
    pub method: Method,
    /// "https" or "http", as the client sees it.
    pub scheme: &'static str,
    /// Host and port that the client named: the `Host` header, or the target if that is absolute.
    /// It is the listener's address for HTTP/1.0 without `Host`.
    pub authority: String,
    /// The path in normal form, still encoded, and the query as the client sent it:
    /// [`Path::target`](tidegate_routing::Path::target).
    pub path: String,
    /// Headers, as the client sent them.
    pub headers: HeaderMap,
    /// Parameters of the matched pattern in its order, percent-decoded once.
    pub params: Vec<(String, String)>,
    /// The client's address, "ip:port".
    pub peer: String,
    /// Index into the manifest's routes; for a guard, into its guards.
    pub route: u32,
    /// Names and values that guards have added; never from the client.
    pub context: Vec<(String, String)>,
    /// Id of a request whose response streams; 0 for all others. Faults of the others get an id of
    /// their own.
    pub id: RequestId,
}

impl Request {
    /// Returns a GET of this path with nothing else, for tests and examples.
    pub fn get(path: impl Into<String>) -> Request {
        Request {
            method: Method::GET,
            scheme: "http",
            authority: "localhost".into(),
            path: path.into(),
            headers: HeaderMap::new(),
            params: Vec::new(),
            peer: "127.0.0.1:1".into(),
            route: 0,
            context: Vec::new(),
            id: RequestId::default(),
        }
    }

    /// Returns the bytes of memory that it takes.
    pub fn weight(&self) -> usize {
        let headers: usize = self
            .headers
            .iter()
            .map(|(name, value)| name.as_str().len() + value.len() + FIELD_BYTES)
            .sum();
        let pairs = self.params.iter().chain(&self.context);
        let pairs: usize = pairs
            .map(|(name, value)| name.len() + value.len() + size_of::<(String, String)>())
            .sum();
        size_of::<Request>()
            + self.authority.len()
            + self.path.len()
            + self.peer.len()
            + headers
            + pairs
    }

    /// Returns the query string without its question mark, if there is one.
    pub fn query(&self) -> Option<&str> {
        self.path.split_once('?').map(|(_, query)| query)
    }
}

/// A whole response (WIT `types.response`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Response {
    /// Status from 200 to 599: [`status`](crate::contract::status).
    pub status: StatusCode,
    /// Headers. Framing and hop-by-hop headers are left out when it is written.
    pub headers: Vec<Header>,
    /// The whole body.
    pub body: Bytes,
}

impl Response {
    /// Returns the bytes of memory that it takes.
    pub fn weight(&self) -> usize {
        size_of::<Response>() + headers_weight(&self.headers) + self.body.len()
    }
}
