//! Trailers of a streamed answer (RFC 9110 section 6.5): the clients that receive them, and the
//! permitted fields.
//!
//! hyper writes only the trailers that the head announces in `Trailer`. A guest need not announce
//! its trailers, so an answer to a client that accepts trailers bypasses hyper (`held.rs`) where
//! that is possible: after the whole request has been read.

use http::{HeaderMap, HeaderName, HeaderValue, header};

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
