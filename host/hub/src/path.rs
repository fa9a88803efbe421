//! A request's path as the router sees it: segments, percent-decoded once, without empty and dot segments.

use std::borrow::Cow;

/// The normal form of a path. Double and trailing slashes, `.` and `..` (also encoded) are gone,
/// so that no spelling of a path escapes the rules for it.
///
/// ```
/// let path = tidegate_hub::path::Path::parse("/a//b/./x/../%5f%5Fc/?q=1").unwrap();
/// assert_eq!(path.segments(), ["a", "b", "__c"]);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Path<'a> {
    segments: Vec<Cow<'a, str>>,
}

/// The path has a broken percent-encoding, or one that is not UTF-8 or a control character.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadPath;

impl<'a> Path<'a> {
    /// Takes a path with or without a query; what stands behind `?` is left out.
    pub fn parse(path: &'a str) -> Result<Path<'a>, BadPath> {
        let path = path.split_once('?').map_or(path, |(path, _)| path);
        let mut segments = Vec::new();
        for raw in path.split('/') {
            let segment = decode(raw)?;
            match &*segment {
                "" | "." => {}
                ".." => _ = segments.pop(),
                _ => segments.push(segment),
            }
        }
        Ok(Path { segments })
    }

    /// The segments; none for "/".
    pub fn segments(&self) -> &[Cow<'a, str>] {
        &self.segments
    }

    /// Whether no app may serve it: its first segment begins with two underscores.
    pub fn is_reserved(&self) -> bool {
        self.segments.first().is_some_and(|first| first.starts_with("__"))
    }

    /// Whether it is one of the host's own: `/__tidegate/` and all below.
    pub fn is_host(&self) -> bool {
        self.segments.first().is_some_and(|first| first.eq_ignore_ascii_case("__tidegate"))
    }
}

/// Percent-decodes one segment (RFC 3986 section 2.1).
pub fn decode(raw: &str) -> Result<Cow<'_, str>, BadPath> {
    if !raw.contains('%') {
        return if raw.bytes().any(|b| b.is_ascii_control()) { Err(BadPath) } else { Ok(Cow::Borrowed(raw)) };
    }
    let mut decoded = Vec::with_capacity(raw.len());
    let mut rest = raw.bytes();
    while let Some(byte) = rest.next() {
        let byte = if byte == b'%' { hex(rest.next())? << 4 | hex(rest.next())? } else { byte };
        if byte.is_ascii_control() {
            return Err(BadPath);
        }
        decoded.push(byte);
    }
    String::from_utf8(decoded).map(Cow::Owned).map_err(|_| BadPath)
}

fn hex(digit: Option<u8>) -> Result<u8, BadPath> {
    let value = digit.and_then(|digit| (digit as char).to_digit(16)).ok_or(BadPath)?;
    Ok(value as u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_spelling_of_a_path_has_one_normal_form() {
        let cases = [
            ("/", ""),
            ("", ""),
            ("//", ""),
            ("/a/b", "a|b"),
            ("/a/b/", "a|b"),
            ("//a///b//", "a|b"),
            ("/a/./b", "a|b"),
            ("/a/x/../b", "a|b"),
            ("/../../a", "a"),
            ("/a/%2e%2E/b", "b"),
            ("/%2e/a", "a"),
            ("/%61", "a"),
            ("/a%2Fb", "a/b"),
            ("/a%252e", "a%2e"),
            ("/%5f%5Floaders", "__loaders"),
            ("/caf%C3%A9?x=/y/", "café"),
        ];
        for (path, segments) in cases {
            assert_eq!(Path::parse(path).unwrap().segments().join("|"), segments, "{path}");
        }
    }

    #[test]
    fn a_broken_encoding_is_no_path() {
        for path in ["/%", "/%4", "/%zz", "/%ff", "/a/%c3", "/%00", "/%0a", "/%7f", "/%+1"] {
            assert_eq!(Path::parse(path), Err(BadPath), "{path}");
        }
    }

    #[test]
    fn reserved_is_what_begins_with_two_underscores() {
        let cases =
            [("/__x", true), ("/__", true), ("//%5f_x/", true), ("/a/../__x", true), ("/_x", false), ("/a/__x", false), ("/", false)];
        for (path, reserved) in cases {
            assert_eq!(Path::parse(path).unwrap().is_reserved(), reserved, "{path}");
        }
    }
}
