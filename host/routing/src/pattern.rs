//! Patterns of routes and guards: literal segments, `{parameters}` and a last `{*rest}`.

use crate::path::{BadPath, Path, SEPARATORS, decode, encoded, is_unreserved};
use std::fmt;

/// A pattern in normal form, which has the same shape as the paths that it is compared with.
///
/// ```
/// use tidegate_routing::Pattern;
/// assert_eq!(Pattern::parse("/users//{id}/").unwrap(), Pattern::parse("/users/{id}").unwrap());
/// assert!(Pattern::parse("/users/{id}x").is_err());
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern {
    segments: Vec<Segment>,
}

/// One segment of a [`Pattern`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Segment {
    /// Matches this text, percent-decoded.
    Literal(String),
    /// Matches any one segment. Only here a client may encode a slash.
    Parameter(String),
    /// Matches the remaining segments, at least one.
    Rest(String),
}

/// Reason why a text is no pattern. Its `Display` says what to write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BadPattern {
    /// A syntax error; the text is the reason.
    Syntax(&'static str),
    /// A segment that other routers read as a parameter or a rest: `:id`, `*`.
    Wildcard {
        /// The segment as it was written.
        segment: String,
        /// The same in the syntax of this router: `{id}`, `{*rest}`.
        instead: String,
    },
}

impl fmt::Display for BadPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BadPattern::Syntax(why) => f.write_str(why),
            BadPattern::Wildcard { segment, instead } => {
                write!(f, "{segment:?} is no parameter here: write {instead:?}")
            }
        }
    }
}

/// Maximum number of segments of a pattern: more than any API has, and few enough for recursion.
const SEGMENTS_MAX: usize = 64;

impl Pattern {
    /// Reads a route's pattern.
    pub fn parse(text: &str) -> Result<Pattern, BadPattern> {
        let Some(path) = text.strip_prefix('/') else {
            return Err(BadPattern::Syntax("a pattern begins with \"/\""));
        };
        // ":id?" is a wildcard of another router, which is reported below.
        if path.contains(['?', '#'])
            && path
                .split('/')
                .all(|segment| foreign_wildcard(segment).is_none())
        {
            return Err(BadPattern::Syntax(
                "a pattern has no query and no fragment; read the query in the handler",
            ));
        }
        let mut segments: Vec<Segment> = Vec::new();
        for raw in path.split('/') {
            match parse_segment(raw)? {
                Segment::Literal(literal) if literal.is_empty() || literal == "." => {}
                Segment::Literal(literal) if literal == ".." => _ = segments.pop(),
                segment => segments.push(segment),
            }
        }
        check(&segments)?;
        Ok(Pattern { segments })
    }

    /// Returns the pattern "/".
    pub(crate) fn root() -> Pattern {
        Pattern {
            segments: Vec::new(),
        }
    }

    /// Returns the pattern "/{*rest}".
    pub(crate) fn catch_all() -> Pattern {
        Pattern {
            segments: vec![Segment::Rest("rest".to_owned())],
        }
    }

    /// Returns the segments in their order.
    pub fn segments(&self) -> &[Segment] {
        &self.segments
    }

    /// Returns the names of the parameters in their order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.segments.iter().filter_map(Segment::name)
    }

    /// Returns the path of the pattern with these values of its parameters. All but unreserved
    /// characters are encoded (RFC 3986 section 2.3). The slashes of a rest stay. A path with dot
    /// segments may lead elsewhere: ask the router.
    ///
    /// # Errors Returns the name of a parameter without a value or with an empty one.
    pub fn path<'v>(&self, value_of: impl Fn(&str) -> Option<&'v str>) -> Result<String, String> {
        let value = |name: &str| {
            value_of(name)
                .filter(|value| !value.is_empty())
                .ok_or_else(|| name.to_owned())
        };
        let mut path = String::new();
        for segment in &self.segments {
            match segment {
                Segment::Literal(literal) => push_encoded(&mut path, literal),
                Segment::Parameter(name) => push_encoded(&mut path, value(name)?),
                Segment::Rest(name) => value(name)?
                    .split('/')
                    .for_each(|segment| push_encoded(&mut path, segment)),
            }
        }
        Ok(if path.is_empty() { "/".into() } else { path })
    }

    /// Returns true if it matches every path but "/".
    pub fn is_catch_all(&self) -> bool {
        matches!(self.segments[..], [Segment::Rest(_)])
    }

    /// Returns true if it names a reserved path: its first segment is a literal that begins with
    /// two underscores.
    pub fn is_reserved(&self) -> bool {
        matches!(self.segments.first(), Some(Segment::Literal(literal)) if literal.starts_with("__"))
    }

    /// Returns true if it matches every path that the other matches.
    pub fn includes(&self, other: &Pattern) -> bool {
        let (own, other) = (&self.segments[..], &other.segments[..]);
        let all = own
            .iter()
            .zip(other)
            .all(|(own, other)| match (own, other) {
                (Segment::Rest(_), _) => true,
                (_, Segment::Rest(_)) => false,
                (Segment::Parameter(_), _) => true,
                (Segment::Literal(own), Segment::Literal(other)) => own == other,
                (Segment::Literal(_), Segment::Parameter(_)) => false,
            });
        all && (own.len() == other.len()
            || own.len() < other.len() && matches!(own.last(), Some(Segment::Rest(_))))
    }

    fn covers(&self, given: &[impl AsRef<str>], below: bool) -> bool {
        let steps = &self.segments;
        let all = steps
            .iter()
            .zip(given)
            .all(|(step, given)| step.takes(given.as_ref()));
        let open_end = below || matches!(steps.last(), Some(Segment::Rest(_)));
        all && (given.len() == steps.len() || open_end && given.len() > steps.len())
    }

    /// Returns true if a segment with a separator is at a place where the pattern compares more
    /// than a last parameter.
    fn goes_on_at_separator(&self, path: &Path<'_>) -> bool {
        let mut steps = self.segments.iter().peekable();
        for given in path.segments() {
            let Some(step) = steps.next() else {
                return false;
            };
            let is_last = steps.peek().is_none();
            match step {
                Segment::Rest(_) => return false,
                Segment::Literal(_) if given.contains(SEPARATORS) => return true,
                Segment::Parameter(_) if given.contains(SEPARATORS) && !is_last => return true,
                step if !step.takes(given) => return false,
                _ => {}
            }
        }
        false
    }
}

impl Segment {
    fn takes(&self, given: &str) -> bool {
        match self {
            Segment::Literal(literal) => literal == given,
            Segment::Parameter(_) | Segment::Rest(_) => true,
        }
    }

    fn name(&self) -> Option<&str> {
        match self {
            Segment::Literal(_) => None,
            Segment::Parameter(name) | Segment::Rest(name) => Some(name),
        }
    }
}

/// The pattern of a guard: that of a route, or with a last `*` a path and all below it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GuardPattern {
    pattern: Pattern,
    below: bool,
}

impl GuardPattern {
    /// Reads a guard's pattern: that of a route, "/private/*" or "/*".
    pub fn parse(text: &str) -> Result<GuardPattern, BadPattern> {
        match text.strip_suffix("/*") {
            Some(above) => Ok(GuardPattern {
                pattern: Pattern::parse(if above.is_empty() { "/" } else { above })?,
                below: true,
            }),
            None => Ok(GuardPattern {
                pattern: Pattern::parse(text)?,
                below: false,
            }),
        }
    }

    /// Returns true if the guard runs before this path, however it is spelled.
    pub fn covers(&self, path: &Path<'_>) -> bool {
        self.pattern.covers(path.segments(), self.below)
    }

    /// Returns true if an app could read a path with a separator as one that the guard covers
    /// although the guard does not run, or as another one below the guard's pattern.
    /// `decoded_first` has the path's segments as such an app reads them.
    pub(crate) fn may_be_misread(&self, path: &Path<'_>, decoded_first: &[&str]) -> bool {
        self.pattern.goes_on_at_separator(path)
            || self.pattern.covers(decoded_first, self.below) && !self.covers(path)
    }

    /// Returns the pattern without its star.
    pub fn pattern(&self) -> &Pattern {
        &self.pattern
    }
}

fn push_encoded(path: &mut String, segment: &str) {
    path.push('/');
    for byte in segment.bytes() {
        if is_unreserved(byte) {
            path.push(byte.into())
        } else {
            path.extend(encoded(byte))
        }
    }
}

fn is_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(is_of_name)
}

fn is_of_name(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-'
}

/// Returns the parameter or rest that another router would see in this segment, in the syntax of
/// this router. Hono, Express and others have `:id`, `:id{[0-9]+}`, `:id?`, `:path*`, `*` and
/// `*path`. A literal that begins with a colon can be written with `%3A`.
fn foreign_wildcard(raw: &str) -> Option<String> {
    let (name, is_rest) = match raw.strip_prefix(':') {
        Some(name) => (name, name.ends_with(['*', '+'])),
        None if raw.contains('*') && !raw.contains(['{', '}']) => {
            (raw.strip_prefix('*').unwrap_or_default(), true)
        }
        None => return None,
    };
    let name = &name[..name
        .bytes()
        .position(|byte| !is_of_name(byte))
        .unwrap_or(name.len())];
    match (name, is_rest) {
        ("", true) => Some("{*rest}".to_owned()),
        ("", false) => None,
        (name, true) => Some(format!("{{*{name}}}")),
        (name, false) => Some(format!("{{{name}}}")),
    }
}

fn parse_segment(raw: &str) -> Result<Segment, BadPattern> {
    if let Some(instead) = foreign_wildcard(raw) {
        return Err(BadPattern::Wildcard {
            segment: raw.to_owned(),
            instead,
        });
    }
    if let Some(inner) = raw.strip_prefix('{').and_then(|raw| raw.strip_suffix('}')) {
        let (name, segment): (_, fn(String) -> Segment) = match inner.strip_prefix('*') {
            Some(name) => (name, Segment::Rest),
            None => (inner, Segment::Parameter),
        };
        return if is_name(name) {
            Ok(segment(name.to_owned()))
        } else {
            Err(BadPattern::Syntax(
                "a parameter is \"{name}\" or \"{*name}\", with letters, digits, \"_\" and \"-\"",
            ))
        };
    }
    if raw.contains(['{', '}']) {
        return Err(BadPattern::Syntax(
            "a parameter is a whole segment: write \"/{id}\", and take the rest apart in the handler",
        ));
    }
    match decode(raw) {
        Ok(literal) if literal.contains(SEPARATORS) => Err(BadPattern::Syntax(
            "a slash inside of a segment is matched only by a parameter",
        )),
        Ok(literal) => Ok(Segment::Literal(literal.into_owned())),
        Err(BadPath::Backslash) => Err(BadPattern::Syntax("no path has a backslash: write \"/\"")),
        Err(_) => Err(BadPattern::Syntax(
            "a broken percent-encoding or a control character",
        )),
    }
}

fn check(segments: &[Segment]) -> Result<(), BadPattern> {
    if segments.len() > SEGMENTS_MAX {
        return Err(BadPattern::Syntax("a pattern has at most 64 segments"));
    }
    let rest = segments
        .iter()
        .position(|segment| matches!(segment, Segment::Rest(_)));
    if rest.is_some_and(|at| at + 1 < segments.len()) {
        return Err(BadPattern::Syntax("\"{*rest}\" stands only at the end"));
    }
    let names: Vec<&str> = segments.iter().filter_map(Segment::name).collect();
    let twice = names
        .iter()
        .enumerate()
        .any(|(at, name)| names[..at].contains(name));
    if twice {
        Err(BadPattern::Syntax("two parameters have the same name"))
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guard_covers_the_paths_of_its_pattern() {
        let cases = [
            ("/*", "/", true),
            ("/*", "/a/b", true),
            ("/*", "/__loaders", true),
            ("/private/*", "/private", true),
            ("/private/*", "/private/", true),
            ("/private/*", "//private/x/y", true),
            ("/private/*", "/%70rivate/x", true),
            ("/private/*", "/a/../private/x", true),
            ("/private/*", "/privates", false),
            ("/private/*", "/", false),
            ("/private", "/private/x", false),
            ("/users/{id}/*", "/users/7/x", true),
            ("/users/{id}/*", "/users", false),
            ("/files/{*rest}", "/files/a/b", true),
            ("/files/{*rest}", "/files", false),
            ("/__loaders", "/__loaders", true),
        ];
        for (pattern, path, covered) in cases {
            let path_parsed = Path::parse(path).unwrap();
            assert_eq!(
                GuardPattern::parse(pattern).unwrap().covers(&path_parsed),
                covered,
                "{pattern} over {path}"
            );
        }
    }

    #[test]
    fn a_wildcard_of_another_router_is_refused_with_its_correction() {
        let cases = [
            (":id", Some("{id}")),
            (":user-id", Some("{user-id}")),
            (":id?", Some("{id}")),
            (":id{[0-9]+}", Some("{id}")),
            (":id.json", Some("{id}")),
            (":path*", Some("{*path}")),
            (":path+", Some("{*path}")),
            ("*", Some("{*rest}")),
            ("**", Some("{*rest}")),
            ("*path", Some("{*path}")),
            ("a*", Some("{*rest}")),
            (":", None),
            ("a:b", None),
            ("{*rest}", None),
        ];
        for (segment, instead) in cases {
            let parsed = Pattern::parse(&format!("/a/{segment}"));
            let expected = instead.map(|instead| BadPattern::Wildcard {
                segment: segment.to_owned(),
                instead: instead.to_owned(),
            });
            assert_eq!(parsed.err(), expected, "{segment}");
        }
    }
}
