//! Media types that a client accepts and sends (RFC 9110 sections 8.3 and 12.5.1).

use http::{HeaderMap, header};

/// Returns the element of `offered` that the client's `Accept` prefers, or `None` if it accepts
/// none. Between elements of equal quality, the most exactly named one wins, then the first.
pub(crate) fn pick<T: Copy>(headers: &HeaderMap, offered: &[(&str, T)]) -> Option<T> {
    let values: Vec<&str> = headers
        .get_all(header::ACCEPT)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .collect();
    if values.is_empty() {
        return offered.first().map(|(_, answer)| *answer);
    }
    let ranges: Vec<MediaRange<'_>> = values
        .iter()
        .flat_map(|value| value.split(','))
        .filter_map(MediaRange::parse)
        .collect();
    let rank = |kind: &str| {
        let fitting = ranges
            .iter()
            .filter_map(|range| Some((range.fit(kind)?, range.quality)));
        fitting
            .max_by_key(|(fit, _)| *fit)
            .map(|(fit, quality)| (quality, fit))
    };
    let ranked = offered
        .iter()
        .enumerate()
        .filter_map(|(at, (kind, answer))| {
            let (quality, fit) = rank(kind)?;
            (quality > 0).then_some(((quality, fit, std::cmp::Reverse(at)), *answer))
        });
    ranked
        .max_by_key(|(rank, _)| *rank)
        .map(|(_, answer)| answer)
}

/// Returns true if the client accepts exactly this type by name.
pub(crate) fn names(headers: &HeaderMap, kind: &str) -> bool {
    let values = headers
        .get_all(header::ACCEPT)
        .iter()
        .filter_map(|value| value.to_str().ok());
    values
        .flat_map(|value| value.split(','))
        .filter_map(MediaRange::parse)
        .any(|range| range.quality > 0 && range.fit(kind) == Some(2))
}

/// Returns the media type of the content, in lower case and without parameters.
pub(crate) fn content_type(headers: &HeaderMap) -> Option<String> {
    let value = headers.get(header::CONTENT_TYPE)?.to_str().ok()?;
    Some(
        value
            .split(';')
            .next()
            .unwrap_or_default()
            .trim()
            .to_ascii_lowercase(),
    )
}

struct MediaRange<'a> {
    kind: &'a str,
    /// Quality in thousandths.
    quality: u16,
}

impl<'a> MediaRange<'a> {
    fn parse(text: &'a str) -> Option<MediaRange<'a>> {
        let mut parts = text.split(';').map(str::trim);
        let kind = parts.next().filter(|kind| kind.contains('/'))?;
        let quality =
            parts.find_map(|part| part.strip_prefix("q=").or_else(|| part.strip_prefix("Q=")));
        let quality = quality.map_or(Some(1.0), |quality| quality.parse::<f32>().ok())?;
        Some(MediaRange {
            kind,
            quality: (quality.clamp(0.0, 1.0) * 1000.0) as u16,
        })
    }

    /// Returns how exactly the range names the type; `None` if it does not match.
    fn fit(&self, kind: &str) -> Option<u8> {
        let group = kind.split('/').next().unwrap_or_default();
        match self.kind.split_once('/')? {
            ("*", "*") => Some(0),
            (own, "*") => own.eq_ignore_ascii_case(group).then_some(1),
            _ => self.kind.eq_ignore_ascii_case(kind).then_some(2),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_is_what_the_client_likes_best() {
        let offered = [
            ("text/html", "html"),
            ("application/json", "json"),
            ("text/event-stream", "events"),
        ];
        let cases = [
            (None, Some("html")),
            (Some("*/*"), Some("html")),
            (Some("application/json"), Some("json")),
            (Some("application/json, text/plain, */*"), Some("json")),
            (
                Some("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"),
                Some("html"),
            ),
            (
                Some("text/html;q=0.5, application/json;q=0.6"),
                Some("json"),
            ),
            (Some("text/*"), Some("html")),
            (Some("text/*;q=0.1, TEXT/Event-Stream"), Some("events")),
            (Some("text/html;q=0, */*"), Some("json")),
            (Some("text/html;level=1"), Some("html")),
            (Some("image/png"), None),
            (Some("*/*;q=0"), None),
            (Some("nonsense"), None),
        ];
        for (accept, expected) in cases {
            let mut headers = HeaderMap::new();
            accept.map(|accept| headers.insert(header::ACCEPT, accept.parse().unwrap()));
            assert_eq!(pick(&headers, &offered), expected, "{accept:?}");
        }
    }

    #[test]
    fn a_type_is_read_without_its_parameters() {
        for (value, expected) in [
            ("Application/JSON; charset=utf-8", "application/json"),
            ("a/b", "a/b"),
        ] {
            let headers = HeaderMap::from_iter([(header::CONTENT_TYPE, value.parse().unwrap())]);
            assert_eq!(content_type(&headers).as_deref(), Some(expected));
        }
        assert_eq!(content_type(&HeaderMap::new()), None);
    }
}
