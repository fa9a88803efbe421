//! A request as a handler reads it. An invalid part is the client's error.

use crate::{Error, Result, stream::Body};
use serde::de::DeserializeOwned;
use std::{fmt::Display, str::FromStr};

/// A request after routing, with its body.
///
/// # Examples
///
/// ```
/// use tidegate::{prelude::*, testing};
///
/// async fn search(req: Request) -> Result<String> {
///     let shelf: String = req.param("shelf")?;
///     let page: u32 = req.query_opt("page")?.unwrap_or(1);
///     let words: Vec<String> = req.json()?;
///     Ok(format!("{shelf} {page} {}", words.join("+")))
/// }
///
/// let mut server = testing::serve(App::new().post("/{shelf}/search", search));
/// let found = server.request("POST", "/a%20b/search?page=2", &[], br#"["sea", "salt"]"#);
/// assert_eq!(found.text(), "a b 2 sea+salt");
/// let refused = server.request("POST", "/a/search?page=two", &[], b"[]");
/// assert_eq!((refused.status(), refused.text()), (400, "query parameter `page`: invalid digit found in string"));
/// ```
#[derive(Debug)]
pub struct Request {
    pub(crate) head: RequestHead,
    pub(crate) body: Body,
}

/// The head of a request (WIT `types.request`).
#[derive(Clone, Debug)]
pub(crate) struct RequestHead {
    pub(crate) method: String,
    pub(crate) scheme: String,
    pub(crate) authority: String,
    pub(crate) path: String,
    pub(crate) headers: Vec<(String, Vec<u8>)>,
    pub(crate) params: Vec<(String, String)>,
    pub(crate) peer: String,
    pub(crate) route: u32,
    pub(crate) context: Vec<(String, String)>,
}

impl Request {
    /// Returns the method as the client sent it: "GET", "POST", ...
    pub fn method(&self) -> &str {
        &self.head.method
    }

    /// Returns "https" or "http", as the client sees it.
    pub fn scheme(&self) -> &str {
        &self.head.scheme
    }

    /// Returns host and port of the request's target: "example.org" or "127.0.0.1:8080".
    pub fn authority(&self) -> &str {
        &self.head.authority
    }

    /// Returns the path, still encoded, and the query as the client sent it: "/users/a%20b?tab=1".
    /// Guards and routes were matched against this path. It is normalized: without empty and dot
    /// segments, and with minimal encoding.
    pub fn uri(&self) -> &str {
        &self.head.path
    }

    /// Returns the path alone, still encoded.
    pub fn path(&self) -> &str {
        self.uri()
            .split_once('?')
            .map_or(self.uri(), |(path, _)| path)
    }

    /// Returns the query without its question mark, not decoded; empty if there is none.
    pub fn query_string(&self) -> &str {
        self.uri().split_once('?').map_or("", |(_, query)| query)
    }

    /// Returns the client's address, "ip:port". The port is 0 if a trusted proxy gives the address
    /// without one. The text is empty in a stream route, because `wasi:http` does not carry it.
    pub fn peer(&self) -> &str {
        &self.head.peer
    }

    /// Returns a parameter of the route's pattern, percent-decoded. If it isn't a `T`, the client
    /// receives 400; if the pattern doesn't have it, that is a fault of the app.
    ///
    /// # Errors
    ///
    /// 400 if the value is not a `T`; a fault if the route has no such parameter.
    pub fn param<T: FromStr<Err: Display>>(&self, name: &str) -> Result<T> {
        match find(&self.head.params, name) {
            Some(value) => parse("parameter", name, value),
            None => Err(Error::fault(format!(
                "the route's pattern has no parameter `{name}`"
            ))),
        }
    }

    /// Returns a parameter of the query. If it is missing or isn't a `T`, the client receives 400.
    ///
    /// # Errors
    ///
    /// 400 if the parameter is missing or is not a `T`.
    pub fn query<T: FromStr<Err: Display>>(&self, name: &str) -> Result<T> {
        let missing = || Error::bad_request(format!("query parameter `{name}` is missing"));
        self.query_opt(name)?.ok_or_else(missing)
    }

    /// Returns an optional parameter of the query, the first of its name. If it isn't a `T`, the
    /// client receives 400.
    ///
    /// # Errors
    ///
    /// 400 if the value is not a `T`.
    pub fn query_opt<T: FromStr<Err: Display>>(&self, name: &str) -> Result<Option<T>> {
        let mut pairs = form_urlencoded::parse(self.query_string().as_bytes());
        match pairs.find(|(other, _)| other == name) {
            Some((_, value)) => parse("query parameter", name, &value).map(Some),
            None => Ok(None),
        }
    }

    /// Returns the first header of this name, if it is text. Names are lower-case.
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut headers = self.headers();
        let (_, value) = headers.find(|(other, _)| other.eq_ignore_ascii_case(name))?;
        std::str::from_utf8(value).ok()
    }

    /// Returns all headers in their order, with names in lower case.
    pub fn headers(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.head
            .headers
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_slice()))
    }

    /// Returns the first cookie of this name as the client sent it (RFC 6265 section 4.2.1), not
    /// decoded.
    pub fn cookie(&self, name: &str) -> Option<&str> {
        let headers = self.headers().filter(|(other, _)| *other == "cookie");
        let mut cookies = headers
            .filter_map(|(_, value)| std::str::from_utf8(value).ok())
            .flat_map(|value| value.split(';'));
        cookies
            .find_map(|cookie| {
                cookie
                    .trim()
                    .split_once('=')
                    .filter(|(other, _)| *other == name)
            })
            .map(|(_, value)| value)
    }

    /// Returns the token of an `authorization: Bearer` header.
    pub fn bearer(&self) -> Option<&str> {
        let (scheme, token) = self.header("authorization")?.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
    }

    /// Returns a value that a guard added to the request (a user, a tenant), the last one of this
    /// name. Clients cannot set it. None in a stream route, because `wasi:http` does not carry it.
    pub fn context(&self, name: &str) -> Option<&str> {
        self.head
            .context
            .iter()
            .rev()
            .find(|(other, _)| other == name)
            .map(|(_, value)| value.as_str())
    }

    /// Returns the id of the last event that a feed's client received, if it reconnects.
    pub fn last_event_id(&self) -> Option<&str> {
        self.header("last-event-id")
    }

    /// Returns the whole body of at most 1 MiB; the client of a larger one receives 413. It is
    /// empty in a stream route, whose body comes in pieces: see [`body`](Request::body).
    pub fn bytes(&self) -> &[u8] {
        self.body.whole()
    }

    /// Returns the body as text. If it is not UTF-8, the client receives 400.
    ///
    /// # Errors
    ///
    /// 400 if the body is not UTF-8.
    pub fn text(&self) -> Result<&str> {
        std::str::from_utf8(self.bytes()).map_err(|_| Error::bad_request("the body is not UTF-8"))
    }

    /// Returns the value of a JSON body. If it is invalid, the client receives 400.
    ///
    /// # Errors
    ///
    /// 400 if the body is not the JSON of a `T`.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T> {
        serde_json::from_slice(self.bytes())
            .map_err(|error| Error::bad_request(format!("the body: {error}")))
    }

    /// Returns the body of a stream route, to be read in pieces.
    pub fn body(&mut self) -> &mut Body {
        &mut self.body
    }
}

fn find<'a>(pairs: &'a [(String, String)], name: &str) -> Option<&'a str> {
    pairs
        .iter()
        .find(|(other, _)| other == name)
        .map(|(_, value)| value.as_str())
}

fn parse<T: FromStr<Err: Display>>(kind: &str, name: &str, value: &str) -> Result<T> {
    value
        .parse()
        .map_err(|error| Error::bad_request(format!("{kind} `{name}`: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    type Headers = [(&'static str, &'static str)];

    fn request(headers: &Headers) -> Request {
        let headers = headers
            .iter()
            .map(|(name, value)| (name.to_string(), value.as_bytes().to_vec()));
        let head = RequestHead {
            method: "GET".into(),
            scheme: "http".into(),
            authority: "localhost".into(),
            path: "/".into(),
            headers: headers.collect(),
            params: Vec::new(),
            peer: String::new(),
            route: 0,
            context: Vec::new(),
        };
        Request {
            head,
            body: Body::default(),
        }
    }

    #[test]
    fn a_cookie_is_found_by_its_whole_name() {
        let cases: [(&Headers, Option<&str>); 7] = [
            (&[("cookie", "id=7")], Some("7")),
            (&[("cookie", "kid=1; id=a=b; id=8")], Some("a=b")),
            (&[("cookie", "other=1"), ("cookie", "id=9")], Some("9")),
            (&[("cookie", "id=")], Some("")),
            (&[("cookie", "id; ID=1;;")], None),
            (&[("x", "id=7")], None),
            (&[], None),
        ];
        for (headers, expected) in cases {
            assert_eq!(request(headers).cookie("id"), expected, "{headers:?}");
        }
    }

    #[test]
    fn a_token_is_a_bearers_alone() {
        for (value, expected) in [
            ("Bearer x", Some("x")),
            ("bearer  x ", Some("x")),
            ("Basic x", None),
            ("Bearer", None),
        ] {
            assert_eq!(
                request(&[("authorization", value)]).bearer(),
                expected,
                "{value}"
            );
        }
    }
}
