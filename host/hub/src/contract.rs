//! Checks of an app's answers against the contract. Statuses are checked where a value of the
//! contract becomes one of the hub; the edge makes the other checks before an answer leaves the
//! host. The SDK's `testing` makes the same ones, so that an app that would fail in production
//! fails its native test with the same text.
//!
//! ```
//! use tidegate_hub::contract;
//!
//! assert_eq!(contract::status(404).unwrap(), 404);
//! let fault = contract::status(101).unwrap_err();
//! assert_eq!(fault.to_string(), "the app broke the contract: 101 is no status of an answer: 200 to 599");
//! ```

use crate::{
    fault::Fault,
    limits::{ANSWER_HEADERS_BYTES_MAX, ANSWER_HEADERS_MAX, GUARD_CONTEXT_BYTES_MAX, LimitError},
    page::ActionOutcome,
    realtime::{connections::check_close, feed::FeedEvent, outbox::Close},
    request::Header,
};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use tidegate_routing::Page;

fn broken<T>(how: String) -> Result<T, Fault> {
    Err(Fault::Answer(how))
}

/// Returns the status of a response, if it is 200 to 599.
pub fn status(status: u16) -> Result<StatusCode, Fault> {
    match StatusCode::from_u16(status) {
        Ok(valid) if (200..=599).contains(&status) => Ok(valid),
        _ => broken(format!("{status} is no status of an answer: 200 to 599")),
    }
}

/// Returns the status of an error of a loader or an action, if it is 400 to 599.
pub fn error_status(status: u16) -> Result<StatusCode, Fault> {
    match StatusCode::from_u16(status) {
        Ok(valid) if (400..=599).contains(&status) => Ok(valid),
        _ => broken(format!("{status} is no status of a problem: 400 to 599")),
    }
}

/// Returns the status of an action's redirect, if it is 301, 302, 303, 307 or 308.
pub fn redirect_status(status: u16) -> Result<StatusCode, Fault> {
    match StatusCode::from_u16(status) {
        Ok(valid) if matches!(status, 301 | 302 | 303 | 307 | 308) => Ok(valid),
        _ => broken(format!(
            "{status} is no status of a redirect: 301, 302, 303, 307 or 308"
        )),
    }
}

/// Returns the status of an action's denial, if it is 400 to 499.
pub fn denial_status(status: u16) -> Result<StatusCode, Fault> {
    match StatusCode::from_u16(status) {
        Ok(valid) if (400..=499).contains(&status) => Ok(valid),
        _ => broken(format!("{status} is no status of a denial: 400 to 499")),
    }
}

/// Adds an app's headers to those of its response, without the ones of the host: see
/// [`is_hosts_header`]. Fails if a name or a value is not valid (RFC 9110 section 5), or if there
/// are more than [`ANSWER_HEADERS_MAX`] or [`ANSWER_HEADERS_BYTES_MAX`].
pub fn append_headers(headers: &mut HeaderMap, given: Vec<Header>) -> Result<(), Fault> {
    let bytes: usize = given
        .iter()
        .map(|(name, value)| name.len() + value.len())
        .sum();
    if headers.len() + given.len() > ANSWER_HEADERS_MAX || bytes > ANSWER_HEADERS_BYTES_MAX {
        let count = given.len();
        return broken(format!(
            "{count} headers of {bytes} bytes: at most {ANSWER_HEADERS_MAX} of {ANSWER_HEADERS_BYTES_MAX} bytes"
        ));
    }
    for (name, value) in given {
        let Ok(parsed) = HeaderName::from_bytes(name.as_bytes()) else {
            return broken(format!("{name:?} is no header name"));
        };
        let Ok(value) = HeaderValue::from_maybe_shared(value) else {
            return broken(format!(
                "the value of the header {name:?} has a byte that no header may have"
            ));
        };
        if !is_hosts_header(&parsed) {
            headers.append(parsed, value);
        }
    }
    Ok(())
}

/// Returns true if only the host sets this header: framing and hop-by-hop headers (RFC 9110 section
/// 7.6.1), those of the WebSocket handshake, the time of the response (section 6.6.1), and `Host`,
/// which belongs to requests.
pub fn is_hosts_header(name: &HeaderName) -> bool {
    matches!(
        name.as_str(),
        "connection"
            | "content-length"
            | "date"
            | "host"
            | "keep-alive"
            | "proxy-connection"
            | "te"
            | "trailer"
            | "transfer-encoding"
            | "upgrade"
    ) || name.as_str().starts_with("sec-websocket-")
}

/// Checks that a guard adds at most [`GUARD_CONTEXT_BYTES_MAX`] to the context of a request.
pub fn check_context(context: &[(String, String)]) -> Result<(), Fault> {
    match context
        .iter()
        .map(|(name, value)| name.len() + value.len())
        .sum::<usize>()
    {
        0..=GUARD_CONTEXT_BYTES_MAX => Ok(()),
        bytes => broken(format!(
            "a guard's context of {bytes} bytes: at most {GUARD_CONTEXT_BYTES_MAX}"
        )),
    }
}

/// Checks that the client offered the subprotocol that the app chose (RFC 6455 section 4.2.2).
pub fn check_protocol(protocol: Option<&str>, offered: &[String]) -> Result<(), Fault> {
    match protocol {
        Some(protocol) if !offered.iter().any(|own| own == protocol) => broken(format!(
            "the subprotocol {protocol:?} was not offered; offered: {offered:?}"
        )),
        _ => Ok(()),
    }
}

/// Returns the close of a connection that is accepted and closed at once. Its code must be free for
/// apps (RFC 6455 section 7.4.2).
pub fn check_final_close(code: u16, reason: String) -> Result<Close, Fault> {
    match check_close(code, &reason) {
        Ok(()) if code >= 3000 => Ok(Close { code, reason }),
        _ => broken(format!(
            "accept-then-close with code {code} and {} bytes: 3000 to 4999, at most 123 bytes",
            reason.len()
        )),
    }
}

/// Returns the fault of an app that accepts a connection with an attachment or tags that are not
/// allowed.
pub fn bad_accept(error: LimitError) -> Fault {
    Fault::Answer(format!(
        "the attachment or the tags of the accepted connection: {error}"
    ))
}

/// Checks the first events of a feed, which have at most this many bytes together.
pub fn check_first_events(first: &[FeedEvent], bytes_max: usize) -> Result<(), Fault> {
    if first.iter().any(|first| {
        first
            .event
            .as_deref()
            .unwrap_or_default()
            .contains(['\r', '\n', '\0'])
    }) {
        return broken("the name of a feed's first event has a line break".to_owned());
    }
    match first.iter().map(|first| first.data.len()).sum::<usize>() {
        bytes if bytes > bytes_max => broken(format!(
            "the first events of a feed have {bytes} bytes: at most {bytes_max}"
        )),
        _ => Ok(()),
    }
}

/// Returns the fault of an app whose feed follows topics that are not allowed.
pub fn bad_topics(error: LimitError) -> Fault {
    Fault::Answer(format!("the topics of a feed: {error}"))
}

/// Checks the answer of a room to a call, which has at most this many bytes.
pub fn check_call_answer(bytes: usize, bytes_max: usize) -> Result<(), Fault> {
    if bytes > bytes_max {
        broken(format!("{bytes} bytes to a call: at most {bytes_max}"))
    } else {
        Ok(())
    }
}

/// Checks the size of a value of a loader or an action: JSON text.
pub fn check_value(json: &str, bytes_max: usize) -> Result<(), Fault> {
    match json.len() {
        bytes if bytes > bytes_max => {
            broken(format!("a value of {bytes} bytes: at most {bytes_max}"))
        }
        _ => Ok(()),
    }
}

/// Checks the outcome of an action of this page. A value has at most this many bytes.
pub fn check_outcome(outcome: &ActionOutcome, page: &Page, bytes_max: usize) -> Result<(), Fault> {
    match outcome {
        ActionOutcome::Success { value, stale } => {
            match stale.iter().find(|name| page.loader(name).is_none()) {
                Some(other) => broken(format!(
                    "the page has no loader {other:?} that could be stale"
                )),
                None => check_value(value, bytes_max),
            }
        }
        ActionOutcome::Redirect { location, .. } if !is_location(location) => broken(format!(
            "{location:?} is no path and no http or https URL, so no client is sent there"
        )),
        ActionOutcome::Redirect { .. } | ActionOutcome::Deny(_) => Ok(()),
    }
}

/// Returns true if a browser that gets this location by a header or a script loads a page: it has
/// no other scheme, and no character that URL parsers skip.
fn is_location(location: &str) -> bool {
    let scheme = location
        .split(['/', '?', '#'])
        .next()
        .and_then(|first| first.split_once(':'))
        .map(|(scheme, _)| scheme);
    let is_page = scheme.is_none_or(|scheme| {
        ["http", "https"]
            .iter()
            .any(|own| scheme.eq_ignore_ascii_case(own))
    });
    is_page
        && !location.is_empty()
        && location
            .bytes()
            .all(|byte| byte.is_ascii_graphic() && byte != b'\\')
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    #[test]
    fn headers_of_the_host_are_left_out_and_invalid_ones_are_faults() {
        let mut headers = HeaderMap::new();
        let hosts = [
            "Connection",
            "content-length",
            "Transfer-Encoding",
            "upgrade",
            "Sec-WebSocket-Accept",
            "Date",
            "host",
        ];
        let given = [&hosts[..], &["x-kept", "set-cookie", "set-cookie"]].concat();
        append_headers(
            &mut headers,
            given
                .iter()
                .map(|name| (name.to_string(), Bytes::from_static(b"1")))
                .collect(),
        )
        .unwrap();
        let kept: Vec<&str> = headers.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(kept, ["x-kept", "set-cookie", "set-cookie"]);
        for (name, value) in [("a b", "x"), ("", "x"), ("x", "a\nb"), ("x", "a\0")] {
            assert!(
                append_headers(&mut headers, vec![(name.to_owned(), Bytes::from(value))]).is_err(),
                "{name:?} {value:?}"
            );
        }
    }

    #[test]
    fn headers_are_bounded_in_number_and_in_bytes() {
        let header = |length: usize| ("x-a".to_owned(), Bytes::from(vec![b'a'; length]));
        for (given, valid) in [
            (vec![header(1); ANSWER_HEADERS_MAX], true),
            (vec![header(1); ANSWER_HEADERS_MAX + 1], false),
            (vec![header(1); 100_000], false),
            (vec![header(ANSWER_HEADERS_BYTES_MAX - 3)], true),
            (vec![header(ANSWER_HEADERS_BYTES_MAX)], false),
        ] {
            assert_eq!(append_headers(&mut HeaderMap::new(), given).is_ok(), valid);
        }
    }

    #[test]
    fn an_app_can_answer_with_200_to_599_only() {
        for (status, valid) in [
            (200, true),
            (599, true),
            (101, false),
            (199, false),
            (600, false),
            (0, false),
            (9999, false),
        ] {
            assert_eq!(self::status(status).is_ok(), valid, "{status}");
        }
    }

    #[test]
    fn a_redirect_leads_only_to_a_page() {
        let pages = [
            "/",
            "/a?b=c#d",
            "?tab=1",
            "#top",
            "next",
            "/a:b",
            "https://example.org/x",
            "HTTP://example.org",
            "//example.org",
        ];
        let others = [
            "",
            " /",
            "javascript:alert(1)",
            "JavaScript:alert(1)",
            "java\tscript:alert(1)",
            "data:text/html,x",
            "/a\r\nb: c",
            "/é",
            "\\\\evil",
            "x:y/z",
        ];
        assert_eq!(pages.map(is_location), [true; 9]);
        assert_eq!(others.map(is_location), [false; 10]);
    }

    #[test]
    fn an_error_a_redirect_and_a_denial_have_statuses_of_their_kind() {
        for (status, is_error, is_redirect, is_denial) in [
            (0, false, false, false),
            (200, false, false, false),
            (300, false, false, false),
            (301, false, true, false),
            (303, false, true, false),
            (304, false, false, false),
            (308, false, true, false),
            (399, false, false, false),
            (400, true, false, true),
            (499, true, false, true),
            (500, true, false, false),
            (599, true, false, false),
            (600, false, false, false),
        ] {
            let valid = [error_status, redirect_status, denial_status]
                .map(|check| check(status).is_ok_and(|valid| valid == status));
            assert_eq!(valid, [is_error, is_redirect, is_denial], "{status}");
        }
    }

    #[test]
    fn an_outcome_has_a_location_of_a_page_and_names_loaders_of_its_page() {
        let redirect = |location: &str| ActionOutcome::Redirect {
            status: StatusCode::SEE_OTHER,
            location: location.to_owned(),
        };
        let success = |stale: &[&str]| ActionOutcome::Success {
            value: "[1]".to_owned(),
            stale: stale.iter().map(ToString::to_string).collect(),
        };
        for (outcome, bytes_max, valid) in [
            (redirect("/"), 0, true),
            (redirect("javascript:1"), 0, false),
            (success(&[]), 3, true),
            (success(&[]), 2, false),
            (success(&["none"]), 3, false),
        ] {
            let checked = check_outcome(&outcome, &Page::default(), bytes_max);
            assert_eq!(checked.is_ok(), valid, "{outcome:?} {bytes_max}");
        }
    }
}
