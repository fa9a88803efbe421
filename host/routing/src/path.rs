//! A request's path, read once: segments for the host, and one spelling for the app.
//!
//! Guards, router, files, room names, host endpoints and the app have to agree on the meaning of a
//! path; otherwise a spelling of it passes a guard. So there is one parser, and no other code in
//! the host splits or decodes a path. [`Path::parse`] returns
//!
//! - the **segments**: percent-decoded once, without empty and dot segments. The host matches
//!   these.
//! - the **target**: the same segments encoded in one way (RFC 3986 section 6.2.2), with the query
//!   as the client sent it. The app receives this, so an app that splits it finds the host's
//!   segments.
//!
//! An app that decodes a path before it splits it may read it in another way: `a%2Fb` is one
//! segment here and two there. Such a segment [has a separator](Path::has_separator).
//! [`Router::find`](crate::Router::find) accepts it only where a single parameter takes it and no
//! guard could read it otherwise.

use std::{borrow::Cow, fmt};

/// The normal form of a path. Double slashes, `.` and `..` (also encoded) are removed, so that no
/// spelling of a path escapes the rules for it. A slash at the end stays in the target and makes no
/// segment.
///
/// ```
/// let path = tidegate_routing::Path::parse("/a//b/./x/../%5f%5Fc/?q=1#top").unwrap();
/// assert_eq!(path.segments(), ["a", "b", "__c"]);
/// assert_eq!(path.target(), "/a/b/__c/?q=1");
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Path<'a> {
    segments: Vec<Cow<'a, str>>,
    target: Cow<'a, str>,
    has_separator: bool,
}

/// Reason why a text is no path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadPath {
    /// A percent-encoding is broken, is not UTF-8, or stands for a control character.
    Encoding,
    /// A backslash is not encoded: some programs read it as a slash.
    Backslash,
    /// The normal form is longer than [`TARGET_BYTES_MAX`].
    TooLong,
}

/// Maximum length of a normal form with its query, in bytes: the maximum of a URI in the `http`
/// crate.
pub const TARGET_BYTES_MAX: usize = (u16::MAX - 1) as usize;

impl<'a> Path<'a> {
    /// Reads a path with or without a query. A fragment is dropped.
    pub fn parse(target: &'a str) -> Result<Path<'a>, BadPath> {
        let target = target.split_once('#').map_or(target, |(target, _)| target);
        let path = target.split_once('?').map_or(target, |(path, _)| path);
        if is_normal(path) {
            // The usual case: one pass over the bytes, without a copy.
            let segments = path
                .split('/')
                .filter(|segment| !segment.is_empty())
                .map(Cow::Borrowed)
                .collect();
            return Ok(Path {
                segments,
                target: Cow::Borrowed(target),
                has_separator: false,
            });
        }
        let mut normal = Normal {
            text: String::with_capacity(target.len()),
            ..Normal::default()
        };
        path.split('/').try_for_each(|raw| normal.push(raw))?;
        if normal.text.is_empty() || normal.is_open_ended {
            normal.text.push('/');
        }
        normal.text.push_str(&target[path.len()..]);
        if normal.text.len() > TARGET_BYTES_MAX {
            return Err(BadPath::TooLong);
        }
        let segments: Vec<_> = normal
            .segments
            .into_iter()
            .map(|(segment, _)| segment)
            .collect();
        let has_separator = segments.iter().any(|segment| segment.contains(SEPARATORS));
        Ok(Path {
            segments,
            target: Cow::Owned(normal.text),
            has_separator,
        })
    }

    /// Returns the segments; none for "/".
    pub fn segments(&self) -> &[Cow<'a, str>] {
        &self.segments
    }

    /// Returns the path in its normal form with the query as the client sent it. The app receives
    /// this text.
    pub fn target(&self) -> &str {
        &self.target
    }

    /// Returns true if a segment contains a slash or a backslash, which the client had encoded.
    pub fn has_separator(&self) -> bool {
        self.has_separator
    }

    /// Returns true if no app may serve it: its first segment begins with two underscores.
    pub fn is_reserved(&self) -> bool {
        self.segments
            .first()
            .is_some_and(|first| first.starts_with("__"))
    }

    /// Returns true if it is a path of the host: `/__tidegate/` and all below.
    pub fn is_host(&self) -> bool {
        self.segments
            .first()
            .is_some_and(|first| first.eq_ignore_ascii_case("__tidegate"))
    }

    /// Returns the segments as a reader sees them that decodes before it splits, and that reads a
    /// backslash as a slash.
    pub(crate) fn decoded_first(&self) -> Vec<&str> {
        let mut segments = Vec::new();
        for part in self
            .segments
            .iter()
            .flat_map(|segment| segment.split(SEPARATORS))
        {
            match part {
                "" | "." => {}
                ".." => _ = segments.pop(),
                part => segments.push(part),
            }
        }
        segments
    }
}

/// Characters that some readers of a path take as separators of segments.
pub(crate) const SEPARATORS: [char; 2] = ['/', '\\'];

/// Returns true if a path is in normal form already. A name that begins with a dot needs a closer
/// look, because it may be a dot segment.
fn is_normal(path: &str) -> bool {
    let bytes = path.as_bytes();
    let pairs = bytes.iter().zip(&bytes[1.min(bytes.len())..]);
    bytes.first() == Some(&b'/')
        && bytes.iter().all(|byte| *byte == b'/' || is_plain(*byte))
        && pairs
            .into_iter()
            .all(|(one, next)| *one != b'/' || !matches!(next, b'/' | b'.'))
}

/// Returns true if a segment may contain this byte unencoded (RFC 3986 section 3.3).
fn is_plain(byte: u8) -> bool {
    is_unreserved(byte)
        || matches!(
            byte,
            b'!' | b'$'
                | b'&'
                | b'\''
                | b'('
                | b')'
                | b'*'
                | b'+'
                | b','
                | b';'
                | b'='
                | b':'
                | b'@'
        )
}

/// Returns true if the byte means the same whether it is encoded or not (RFC 3986 section 2.3).
pub(crate) fn is_unreserved(byte: u8) -> bool {
    matches!(byte, b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~')
}

/// A normal form to which segments are appended.
#[derive(Default)]
struct Normal<'a> {
    text: String,
    /// Decoded segments, each with the length of the text before it.
    segments: Vec<(Cow<'a, str>, usize)>,
    /// True if the last segment was empty or a dot segment: then a slash ends the path.
    is_open_ended: bool,
}

impl<'a> Normal<'a> {
    fn push(&mut self, raw: &'a str) -> Result<(), BadPath> {
        let segment = decode(raw)?;
        self.is_open_ended = matches!(&*segment, "" | "." | "..");
        match &*segment {
            "" | "." => {}
            ".." => {
                if let Some((_, length)) = self.segments.pop() {
                    self.text.truncate(length);
                }
            }
            _ => {
                self.segments.push((segment, self.text.len()));
                self.text.push('/');
                encode(raw, &mut self.text);
            }
        }
        Ok(())
    }
}

/// Appends a segment that can be decoded. Unreserved characters are appended unencoded; other
/// encodings are kept, in capitals. Encoded characters with a meaning in some paths (`;`, `=`) stay
/// encoded.
fn encode(raw: &str, text: &mut String) {
    let mut rest = raw.bytes();
    while let Some(byte) = rest.next() {
        let digits = if byte == b'%' {
            hex(rest.next()).ok().zip(hex(rest.next()).ok())
        } else {
            None
        };
        match digits.map(|(high, low)| high << 4 | low) {
            Some(decoded) if is_unreserved(decoded) => text.push(decoded.into()),
            Some(decoded) => text.extend(encoded(decoded)),
            None if is_plain(byte) => text.push(byte.into()),
            None => text.extend(encoded(byte)),
        }
    }
}

/// Returns one byte, percent-encoded.
pub(crate) fn encoded(byte: u8) -> [char; 3] {
    let digit = |value: u8| {
        char::from_digit(value.into(), 16)
            .expect("four bits")
            .to_ascii_uppercase()
    };
    ['%', digit(byte >> 4), digit(byte & 15)]
}

/// Percent-decodes one segment (RFC 3986 section 2.1).
pub fn decode(raw: &str) -> Result<Cow<'_, str>, BadPath> {
    if raw.contains('\\') {
        return Err(BadPath::Backslash);
    }
    if !raw.contains('%') {
        return if raw.bytes().any(|b| b.is_ascii_control()) {
            Err(BadPath::Encoding)
        } else {
            Ok(Cow::Borrowed(raw))
        };
    }
    let mut decoded = Vec::with_capacity(raw.len());
    let mut rest = raw.bytes();
    while let Some(byte) = rest.next() {
        let byte = if byte == b'%' {
            hex(rest.next())? << 4 | hex(rest.next())?
        } else {
            byte
        };
        if byte.is_ascii_control() {
            return Err(BadPath::Encoding);
        }
        decoded.push(byte);
    }
    String::from_utf8(decoded)
        .map(Cow::Owned)
        .map_err(|_| BadPath::Encoding)
}

fn hex(digit: Option<u8>) -> Result<u8, BadPath> {
    let value = digit
        .and_then(|digit| (digit as char).to_digit(16))
        .ok_or(BadPath::Encoding)?;
    Ok(value as u8)
}

impl fmt::Display for BadPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            BadPath::Encoding => "the path has a broken percent-encoding or a control character",
            BadPath::Backslash => "the path has a backslash",
            BadPath::TooLong => "the path is too long",
        })
    }
}

impl std::error::Error for BadPath {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_spelling_of_a_path_has_one_normal_form() {
        let cases = [
            // Columns: the path as it was sent, its segments, its normal form.
            ("/", "", "/"),
            ("", "", "/"),
            ("//", "", "/"),
            ("/a/b", "a|b", "/a/b"),
            ("a/b", "a|b", "/a/b"),
            ("/a/b/", "a|b", "/a/b/"),
            ("//a///b//", "a|b", "/a/b/"),
            ("//evil.example/x", "evil.example|x", "/evil.example/x"),
            ("/a/./b", "a|b", "/a/b"),
            ("/a/x/../b", "a|b", "/a/b"),
            ("/a/b/..", "a", "/a/"),
            ("/a/.", "a", "/a/"),
            ("/../../a", "a", "/a"),
            ("/..", "", "/"),
            ("/a/%2e%2E/b", "b", "/b"),
            ("/%2e/a", "a", "/a"),
            ("/.well-known/x", ".well-known|x", "/.well-known/x"),
            ("/...", "...", "/..."),
            ("/%61%7e%3d", "a~=", "/a~%3D"),
            ("/a+b%2bc;d%3be", "a+b+c;d;e", "/a+b%2Bc;d%3Be"),
            ("/a%2Fb", "a/b", "/a%2Fb"),
            ("/a%5cb%2f", "a\\b/", "/a%5Cb%2F"),
            ("/a%252e", "a%2e", "/a%252e"),
            ("/%5f%5Floaders", "__loaders", "/__loaders"),
            ("/a b\"c", "a b\"c", "/a%20b%22c"),
            ("/café", "café", "/caf%C3%A9"),
            ("/caf%C3%A9?x=/y/", "café", "/caf%C3%A9?x=/y/"),
            ("/a?b/../c%2f", "a", "/a?b/../c%2f"),
            ("/a//b?c//d", "a|b", "/a/b?c//d"),
            ("/a#b", "a", "/a"),
            ("/a//#b", "a", "/a/"),
            ("/a?b#c?d", "a", "/a?b"),
            ("/a#?b", "a", "/a"),
        ];
        for (sent, segments, target) in cases {
            let path = Path::parse(sent).unwrap();
            assert_eq!(
                (path.segments().join("|").as_str(), path.target()),
                (segments, target),
                "{sent}"
            );
            let again = Path::parse(path.target()).unwrap();
            assert_eq!(
                (again.segments(), again.target()),
                (path.segments(), path.target()),
                "{sent}"
            );
            assert_eq!(
                path.has_separator(),
                segments.contains(SEPARATORS),
                "{sent}"
            );
        }
    }

    #[test]
    fn a_text_without_a_single_meaning_is_no_path() {
        for path in [
            "/%", "/%4", "/%zz", "/%ff", "/a/%c3", "/%00", "/%0a", "/%7f", "/%+1", "/a\nb",
        ] {
            assert_eq!(Path::parse(path), Err(BadPath::Encoding), "{path}");
        }
        for path in ["/a\\b", "/\\", "/a/..\\b", "/%61\\"] {
            assert_eq!(Path::parse(path), Err(BadPath::Backslash), "{path}");
        }
        assert!(
            Path::parse("/a?b\\c").is_ok(),
            "a query is the app's to read"
        );
        let long = format!("/{}", "\"".repeat(TARGET_BYTES_MAX / 3 + 1));
        assert_eq!(Path::parse(&long), Err(BadPath::TooLong));
    }

    #[test]
    fn a_first_segment_with_two_underscores_is_reserved() {
        let cases = [
            ("/__x", true),
            ("/__", true),
            ("//%5f_x/", true),
            ("/a/../__x", true),
            ("/_x", false),
            ("/a/__x", false),
            ("/", false),
        ];
        for (path, reserved) in cases {
            assert_eq!(Path::parse(path).unwrap().is_reserved(), reserved, "{path}");
        }
    }
}
