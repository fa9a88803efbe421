//! The members of a JSON object as the client wrote them. A value that is parsed and written again
//! may change, as large numbers do.

/// Returns name and value of each member in their order, as they are in the text: names with their
/// quotes and escapes. Returns `None` if the text is no object. The text must be valid JSON (RFC
/// 8259); otherwise the result has no meaning.
///
/// ```
/// let members = tidegate_hub::json::members(r#" {"n": 1e400, "a": ["}"]} "#);
/// assert_eq!(members.unwrap().collect::<Vec<_>>(), [("\"n\"", "1e400"), ("\"a\"", "[\"}\"]")]);
/// assert!(tidegate_hub::json::members("[]").is_none());
/// ```
pub fn members(json: &str) -> Option<impl Iterator<Item = (&str, &str)>> {
    let mut rest = json.trim().strip_prefix('{')?.strip_suffix('}')?;
    Some(std::iter::from_fn(move || {
        let (colon, end) = member(rest)?;
        let member = (rest[..colon].trim(), rest[colon + 1..end].trim());
        rest = rest.get(end + 1..).unwrap_or_default();
        Some(member)
    }))
}

/// Returns the places of the colon and of the end of the first member; `None` if there is no
/// member.
fn member(text: &str) -> Option<(usize, usize)> {
    let (mut depth, mut in_string, mut is_escaped, mut colon) = (0_usize, false, false, None);
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            _ if std::mem::take(&mut is_escaped) => {}
            b'\\' => is_escaped = in_string,
            b'"' => in_string = !in_string,
            _ if in_string => {}
            b'{' | b'[' => depth += 1,
            b'}' | b']' => depth = depth.saturating_sub(1),
            b':' if depth == 0 => colon = Some(at),
            b',' if depth == 0 => return Some((colon?, at)),
            _ => {}
        }
    }
    Some((colon?, text.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    type Members<'a> = Option<&'a [(&'a str, &'a str)]>;

    #[test]
    fn members_stand_as_they_were_written() {
        let cases: [(&str, Members<'_>); 9] = [
            ("{}", Some(&[])),
            (" { } \n", Some(&[])),
            ("1", None),
            ("\"{}\"", None),
            (r#"{"a":1}"#, Some(&[("\"a\"", "1")])),
            (
                r#"{"a" : 12345678901234567890123 , "a":-0.10e+5}"#,
                Some(&[("\"a\"", "12345678901234567890123"), ("\"a\"", "-0.10e+5")]),
            ),
            (
                r#"{"a,:\"{":"b\\","c":"}]\","}"#,
                Some(&[(r#""a,:\"{""#, r#""b\\""#), ("\"c\"", r#""}]\",""#)]),
            ),
            (
                r#"{"a":{"b":[1,{"c":2}]},"é":[]}"#,
                Some(&[("\"a\"", r#"{"b":[1,{"c":2}]}"#), ("\"é\"", "[]")]),
            ),
            (r#"{"":null}"#, Some(&[("\"\"", "null")])),
        ];
        for (json, expected) in cases {
            assert_eq!(
                members(json).map(Iterator::collect::<Vec<_>>).as_deref(),
                expected,
                "{json}"
            );
        }
    }
}
