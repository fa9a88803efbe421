//! Trailers of a streamed answer (RFC 9110 section 6.5): the clients that receive them, the
//! permitted fields, and their way past hyper.
//!
//! hyper writes only the trailers that the head announces in `Trailer`, and a guest need not
//! announce its trailers. So `Http1Body` stores them in `PendingTrailers` and ends without them, and
//! `PacedSocket` writes a last chunk with trailers in place of hyper's last chunk.
//!
//! Invariant: the socket replaces nothing but a last chunk. The body ends only after a flush of the
//! socket, and hyper flushes the socket only when its own buffer is empty. So the next bytes that
//! hyper writes are the last chunk.

use http::{HeaderMap, HeaderName, HeaderValue, header};
use std::sync::{
    Mutex, PoisonError,
    atomic::{AtomicBool, AtomicU8, Ordering::Relaxed},
};

/// The last chunk as hyper writes it (RFC 9112 section 7.1).
pub(crate) const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

/// Trailers of the current answer, between its body and the socket. Both belong to one task.
#[derive(Debug, Default)]
pub(crate) struct PendingTrailers {
    /// True if the current answer has chunks and its client accepts trailers.
    is_accepted: AtomicBool,
    stage: AtomicU8,
    fields: Mutex<HeaderMap>,
}

/// There are no trailers.
const EMPTY: u8 = 0;
/// There are trailers, and hyper may have bytes that precede them.
const STORED: u8 = 1;
/// There are trailers, and the next bytes that hyper writes are the last chunk.
const NEXT: u8 = 2;

impl PendingTrailers {
    /// Records whether the client of the current answer receives trailers. Trailers that are stored
    /// stay: the next request may begin before the last chunk has been written.
    pub(crate) fn accept(&self, is_accepted: bool) {
        self.is_accepted.store(is_accepted, Relaxed);
    }

    /// Stores the permitted ones of these trailers. Returns false if the client receives none.
    pub(crate) fn store(&self, trailers: HeaderMap) -> bool {
        if !self.is_accepted.load(Relaxed) {
            return false;
        }
        let fields = permitted(trailers);
        let has_any = !fields.is_empty();
        if has_any {
            *self.fields.lock().unwrap_or_else(PoisonError::into_inner) = fields;
            self.stage.store(STORED, Relaxed);
        }
        has_any
    }

    /// Returns true if the body may end: the next bytes that hyper writes are the last chunk.
    pub(crate) fn is_next(&self) -> bool {
        self.stage.load(Relaxed) == NEXT
    }

    /// Records that hyper's buffer is empty. Returns true if the body waits for this.
    pub(crate) fn note_flush(&self) -> bool {
        let is_stored = self.stage.load(Relaxed) == STORED;
        if is_stored {
            self.stage.store(NEXT, Relaxed);
        }
        is_stored
    }

    /// Takes the trailers, and returns the last chunk with them.
    pub(crate) fn take_last_chunk(&self) -> Vec<u8> {
        self.stage.store(EMPTY, Relaxed);
        let mut fields = self.fields.lock().unwrap_or_else(PoisonError::into_inner);
        let mut chunk = b"0\r\n".to_vec();
        for (name, value) in &std::mem::take(&mut *fields) {
            chunk.extend([name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"].concat());
        }
        chunk.extend_from_slice(b"\r\n");
        chunk
    }
}

/// Returns true if the client accepts trailers (RFC 9110 section 10.1.4).
pub(crate) fn are_accepted(headers: &HeaderMap) -> bool {
    let values = headers
        .get_all(header::TE)
        .iter()
        .filter_map(|value| value.to_str().ok());
    values
        .flat_map(|value| value.split(','))
        .any(|coding| coding.trim().eq_ignore_ascii_case("trailers"))
}

/// Returns the fields of trailers that a client may receive.
pub(crate) fn permitted(trailers: HeaderMap) -> HeaderMap {
    let mut permitted = HeaderMap::with_capacity(trailers.len());
    let mut name = None;
    // The iterator yields the name only with the first of its values.
    for (next, value) in trailers {
        name = next.or(name);
        if let Some(name) = name.as_ref().filter(|name| is_permitted(name)) {
            permitted.append(name, value);
        }
    }
    permitted
}

/// Returns the names of trailers that an answer announces, without those that are not permitted.
pub(crate) fn announced(headers: &HeaderMap) -> Option<HeaderValue> {
    let values = headers
        .get_all(header::TRAILER)
        .iter()
        .filter_map(|value| value.to_str().ok());
    let names = values
        .flat_map(|value| value.split(','))
        .filter_map(|name| HeaderName::from_bytes(name.trim().as_bytes()).ok());
    let names: Vec<String> = names
        .filter(is_permitted)
        .map(|name| name.to_string())
        .collect();
    if names.is_empty() {
        None
    } else {
        HeaderValue::from_str(&names.join(", ")).ok()
    }
}

/// Returns true if a field may be a trailer. RFC 9110 section 6.5.1 excludes fields that are needed
/// before the body: for framing, routing, request modifiers, authentication, response control, or
/// decoding the body.
fn is_permitted(name: &HeaderName) -> bool {
    let excluded = [
        // Framing, routing and the connection.
        "connection",
        "content-length",
        "host",
        "keep-alive",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        // Request modifiers.
        "cache-control",
        "expect",
        "if-match",
        "if-modified-since",
        "if-none-match",
        "if-range",
        "if-unmodified-since",
        "max-forwards",
        "pragma",
        "range",
        // Authentication and cookies.
        "authentication-info",
        "authorization",
        "cookie",
        "proxy-authenticate",
        "proxy-authentication-info",
        "proxy-authorization",
        "set-cookie",
        "www-authenticate",
        // Response control.
        "age",
        "date",
        "expires",
        "location",
        "retry-after",
        "vary",
        "warning",
        // Needed to decode the body.
        "content-encoding",
        "content-range",
        "content-type",
    ];
    !excluded.contains(&name.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(fields: &[(&'static str, &str)]) -> HeaderMap {
        fields
            .iter()
            .map(|(name, value)| {
                (
                    HeaderName::from_static(name),
                    HeaderValue::from_str(value).unwrap(),
                )
            })
            .collect()
    }

    #[test]
    fn a_client_accepts_trailers_if_it_says_so() {
        let cases = [
            (&[("te", "trailers")][..], true),
            (&[("te", "gzip;q=0.5, Trailers")], true),
            (&[("te", "gzip"), ("te", "trailers")], true),
            (&[("te", "gzip")], false),
            (&[("te", "")], false),
            (&[("trailer", "x-a")], false),
            (&[], false),
        ];
        for (headers, expected) in cases {
            let mut given = HeaderMap::new();
            headers
                .iter()
                .for_each(|(name, value)| _ = given.append(*name, HeaderValue::from_static(value)));
            assert_eq!(are_accepted(&given), expected, "{headers:?}");
        }
    }

    #[test]
    fn fields_that_are_needed_before_the_body_are_no_trailers() {
        let mut given = map(&[
            ("x-checksum", "1"),
            ("etag", "\"a\""),
            ("server-timing", "a"),
            ("content-length", "5"),
            ("transfer-encoding", "chunked"),
            ("host", "evil"),
            ("set-cookie", "a=1"),
            ("www-authenticate", "Basic"),
            ("cache-control", "no-store"),
            ("location", "/x"),
            ("content-type", "text/html"),
            ("content-encoding", "br"),
            ("date", "today"),
        ]);
        given.append("x-checksum", HeaderValue::from_static("2"));
        let kept = permitted(given);
        let mut kept: Vec<_> = kept
            .iter()
            .map(|(name, value)| (name.as_str(), value.to_str().unwrap()))
            .collect();
        kept.sort_unstable();
        assert_eq!(
            kept,
            [
                ("etag", "\"a\""),
                ("server-timing", "a"),
                ("x-checksum", "1"),
                ("x-checksum", "2")
            ]
        );
    }

    #[test]
    fn an_announcement_has_the_names_that_come() {
        for (given, expected) in [
            ("x-a", Some("x-a")),
            ("X-A, content-length, x-b", Some("x-a, x-b")),
            ("host", None),
            ("", None),
            ("a b, x-c", Some("x-c")),
        ] {
            let told = announced(&map(&[("trailer", given)]));
            assert_eq!(
                told.as_ref().map(|value| value.to_str().unwrap()),
                expected,
                "{given:?}"
            );
        }
    }
}
