//! Preconditions of a request for a file (RFC 9110 section 13), in the order of section 13.2.2.

use http::{HeaderMap, HeaderName, header};
use std::time::SystemTime;

/// Values that distinguish one state of a file from all others.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Validators<'a> {
    /// A strong entity tag, including its quotes.
    pub(crate) etag: &'a str,
    /// Date in whole seconds; `None` if the file system has no meaningful date.
    pub(crate) modified: Option<SystemTime>,
}

/// Result of the preconditions of a GET or HEAD.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PreconditionResult {
    Send,
    /// The answer is 304.
    NotModified,
    /// The answer is 412.
    Failed,
}

/// Evaluates all conditions except `If-Range`.
pub(crate) fn evaluate(headers: &HeaderMap, file: Validators<'_>) -> PreconditionResult {
    let is_failed = match tags(headers, &header::IF_MATCH) {
        Some(mut tags) => !tags.any(|tag| tag == Tag::Any || tag == Tag::Strong(file.etag)),
        None => date(headers, &header::IF_UNMODIFIED_SINCE)
            .zip(file.modified)
            .is_some_and(|(date, modified)| modified > date),
    };
    if is_failed {
        return PreconditionResult::Failed;
    }
    let is_known = match tags(headers, &header::IF_NONE_MATCH) {
        Some(mut tags) => tags.any(|tag| {
            matches!(tag, Tag::Any)
                || matches!(tag, Tag::Strong(own) | Tag::Weak(own) if own == file.etag)
        }),
        None => date(headers, &header::IF_MODIFIED_SINCE)
            .zip(file.modified)
            .is_some_and(|(date, modified)| modified <= date),
    };
    if is_known {
        PreconditionResult::NotModified
    } else {
        PreconditionResult::Send
    }
}

/// Returns true if a range may be sent: there is no `If-Range`, or it names this state by strong
/// comparison (RFC 9110 section 13.1.5). A date must be exactly that of the file.
pub(crate) fn allows_range(headers: &HeaderMap, file: Validators<'_>) -> bool {
    let mut values = headers.get_all(header::IF_RANGE).iter();
    match (values.next(), values.next()) {
        (None, _) => true,
        (Some(value), None) => value.to_str().is_ok_and(|text| {
            let text = text.trim();
            text == file.etag
                || file
                    .modified
                    .is_some_and(|modified| httpdate::parse_http_date(text).ok() == Some(modified))
        }),
        (Some(_), Some(_)) => false,
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tag<'a> {
    /// `*`
    Any,
    /// Strong tag, including its quotes.
    Strong(&'a str),
    /// Weak tag without its prefix.
    Weak(&'a str),
}

/// Returns all tags of this field, if the request has it. An opaque tag may contain commas.
fn tags<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<impl Iterator<Item = Tag<'a>>> {
    let values = headers.get_all(name);
    values.iter().next()?;
    Some(
        values
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| {
                let mut rest = value;
                std::iter::from_fn(move || {
                    rest = rest.trim_start_matches([' ', '\t', ',']);
                    if let Some(after) = rest.strip_prefix('*') {
                        rest = after;
                        return Some(Tag::Any);
                    }
                    let (is_weak, opaque) = rest
                        .strip_prefix("W/")
                        .map_or((false, rest), |opaque| (true, opaque));
                    let length = opaque.strip_prefix('"')?.find('"')? + 2;
                    let (tag, after) = opaque.split_at(length);
                    rest = after;
                    Some(if is_weak {
                        Tag::Weak(tag)
                    } else {
                        Tag::Strong(tag)
                    })
                })
            }),
    )
}

/// Returns the date of this field. An invalid date counts as missing (RFC 9110 sections 13.1.3 and
/// 13.1.4).
fn date(headers: &HeaderMap, name: &HeaderName) -> Option<SystemTime> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (Some(value), None) => httpdate::parse_http_date(value.to_str().ok()?).ok(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, UNIX_EPOCH};

    const BEFORE: &str = "Thu, 01 Jan 2026 00:00:00 GMT";
    const THEN: &str = "Thu, 01 Jan 2026 00:00:01 GMT";
    const AFTER: &str = "Thu, 01 Jan 2026 00:00:02 GMT";

    fn headers(pairs: &[(&str, &str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| (name.parse::<HeaderName>().unwrap(), value.parse().unwrap()))
            .collect()
    }

    fn file() -> Validators<'static> {
        Validators {
            etag: "\"a\"",
            modified: Some(UNIX_EPOCH + Duration::from_secs(1_767_225_601)),
        }
    }

    #[test]
    fn conditions_are_judged_in_their_order() {
        use PreconditionResult::*;
        let rows: &[(&[(&str, &str)], PreconditionResult)] = &[
            (&[], Send),
            (&[("if-none-match", "\"a\"")], NotModified),
            (&[("if-none-match", "W/\"a\"")], NotModified),
            (&[("if-none-match", "*")], NotModified),
            (&[("if-none-match", "\"x\", W/\"y,z\" ,\"a\"")], NotModified),
            (
                &[("if-none-match", "\"x\""), ("if-none-match", "\"a\"")],
                NotModified,
            ),
            (&[("if-none-match", "\"x\"")], Send),
            (&[("if-none-match", "a")], Send),
            (&[("if-none-match", "\"x, \"a\"")], Send),
            (
                &[("if-none-match", "\"x\""), ("if-modified-since", AFTER)],
                Send,
            ),
            (
                &[("if-none-match", "\"a\""), ("if-modified-since", BEFORE)],
                NotModified,
            ),
            (&[("if-modified-since", THEN)], NotModified),
            (&[("if-modified-since", AFTER)], NotModified),
            (&[("if-modified-since", BEFORE)], Send),
            (&[("if-modified-since", "yesterday")], Send),
            (&[("if-match", "\"a\"")], Send),
            (&[("if-match", "*")], Send),
            (&[("if-match", "W/\"a\"")], Failed),
            (&[("if-match", "\"x\"")], Failed),
            (&[("if-match", "\"x\", \"a\"")], Send),
            (
                &[("if-match", "\"a\""), ("if-unmodified-since", BEFORE)],
                Send,
            ),
            (&[("if-match", "\"x\""), ("if-none-match", "\"a\"")], Failed),
            (
                &[("if-match", "\"a\""), ("if-none-match", "\"a\"")],
                NotModified,
            ),
            (&[("if-unmodified-since", BEFORE)], Failed),
            (&[("if-unmodified-since", THEN)], Send),
            (&[("if-unmodified-since", "never")], Send),
        ];
        for (given, expected) in rows {
            assert_eq!(evaluate(&headers(given), file()), *expected, "{given:?}");
        }
        let undated = Validators {
            modified: None,
            ..file()
        };
        for given in [
            ("if-modified-since", AFTER),
            ("if-unmodified-since", BEFORE),
        ] {
            assert_eq!(evaluate(&headers(&[given]), undated), Send, "{given:?}");
        }
    }

    #[test]
    fn a_range_is_sent_of_exactly_the_state_that_the_client_has() {
        let rows: &[(&[(&str, &str)], bool)] = &[
            (&[], true),
            (&[("if-range", "\"a\"")], true),
            (&[("if-range", "W/\"a\"")], false),
            (&[("if-range", "\"x\"")], false),
            (&[("if-range", THEN)], true),
            (&[("if-range", BEFORE)], false),
            (&[("if-range", AFTER)], false),
            (&[("if-range", "a")], false),
            (&[("if-range", "\"a\""), ("if-range", "\"a\"")], false),
        ];
        for (given, expected) in rows {
            assert_eq!(
                allows_range(&headers(given), file()),
                *expected,
                "{given:?}"
            );
        }
    }
}
