//! Compressed forms of a file that lie next to it, and the choice among them (RFC 9110 section
//! 12.5.3).

use http::{HeaderMap, header};

/// A content coding, with the suffix of its files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Coding {
    pub(crate) name: &'static str,
    pub(crate) suffix: &'static str,
}

/// All served codings, best compression first. The order decides between codings of equal quality.
pub(crate) const CODINGS: [Coding; 3] = [
    Coding {
        name: "br",
        suffix: ".br",
    },
    Coding {
        name: "zstd",
        suffix: ".zst",
    },
    Coding {
        name: "gzip",
        suffix: ".gz",
    },
];

/// Returns the coding that the client prefers. Returns `None` if the client prefers the plain file,
/// or accepts none of them.
pub(crate) fn choose(headers: &HeaderMap, offered: &[Coding]) -> Option<Coding> {
    let values = headers
        .get_all(header::ACCEPT_ENCODING)
        .iter()
        .filter_map(|value| value.to_str().ok());
    let accepted: Vec<(&str, u16)> = values
        .flat_map(|value| value.split(','))
        .filter_map(parse)
        .collect();
    let named = |name: &str| {
        let is_it = |given: &str| {
            given.eq_ignore_ascii_case(name)
                || (name == "gzip" && given.eq_ignore_ascii_case("x-gzip"))
        };
        accepted
            .iter()
            .find(|(given, _)| is_it(given))
            .map(|(_, quality)| *quality)
    };
    let any = named("*");
    // This finds the first of the best; `max_by_key` would return the last.
    let best = offered
        .iter()
        .rev()
        .filter_map(|coding| Some((named(coding.name).or(any)?, *coding)))
        .max_by_key(|(quality, _)| *quality);
    // If the client does not name `identity`, it prefers every coding that it accepts.
    let identity = named("identity").unwrap_or(0);
    best.filter(|(quality, _)| *quality > 0 && *quality >= identity)
        .map(|(_, coding)| coding)
}

/// Returns name and quality, in thousandths.
fn parse(text: &str) -> Option<(&str, u16)> {
    let mut parts = text.split(';').map(str::trim);
    let name = parts.next().filter(|name| !name.is_empty())?;
    let quality =
        parts.find_map(|part| part.strip_prefix("q=").or_else(|| part.strip_prefix("Q=")));
    let quality = quality.map_or(Some(1.0), |quality| quality.parse::<f32>().ok())?;
    Some((name, (quality.clamp(0.0, 1.0) * 1000.0) as u16))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_coding_is_the_one_that_the_client_likes_best() {
        let [br, zstd, gzip] = CODINGS;
        let rows: &[(Option<&str>, &[Coding], Option<&str>)] = &[
            (None, &CODINGS, None),
            (Some(""), &CODINGS, None),
            (Some("gzip, deflate, br, zstd"), &CODINGS, Some("br")),
            (Some("gzip, deflate"), &CODINGS, Some("gzip")),
            (Some("x-gzip"), &CODINGS, Some("gzip")),
            (Some("GZIP"), &CODINGS, Some("gzip")),
            (Some("gzip, br"), &[zstd, gzip], Some("gzip")),
            (Some("gzip;q=1.0, br;q=0.5"), &CODINGS, Some("gzip")),
            (Some("br;q=0, gzip;q=0.001"), &CODINGS, Some("gzip")),
            (Some("br;q=0"), &[br], None),
            (Some("*"), &CODINGS, Some("br")),
            (Some("*;q=0"), &CODINGS, None),
            (Some("*;q=0, zstd"), &CODINGS, Some("zstd")),
            (Some("br;q=0, *"), &CODINGS, Some("zstd")),
            (Some("identity, gzip;q=0.5"), &CODINGS, None),
            (Some("identity;q=0.5, gzip;q=0.5"), &CODINGS, Some("gzip")),
            (Some("identity;q=0, gzip"), &CODINGS, Some("gzip")),
            (Some("deflate"), &CODINGS, None),
            (Some("gzip;q=x"), &CODINGS, None),
            (Some("gzip"), &[], None),
        ];
        for (accept, offered, expected) in rows {
            let headers: HeaderMap = accept
                .iter()
                .map(|accept| (header::ACCEPT_ENCODING, accept.parse().unwrap()))
                .collect();
            assert_eq!(
                choose(&headers, offered).map(|coding| coding.name),
                *expected,
                "{accept:?}"
            );
        }
    }
}
