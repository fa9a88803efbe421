//! JSON from apps and clients: checked, kept on one line, and escaped for a script of a page.

use serde::de::IgnoredAny;
use serde_json::json;
use tidegate_hub::{Fault, contract, page::HandlerError};

/// Checks a value from an app: JSON of at most this number of bytes. Returns it on one line.
pub(super) fn checked(text: String, bytes_max: usize) -> Result<String, Fault> {
    contract::check_value(&text, bytes_max)?;
    if let Err(error) = serde_json::from_str::<IgnoredAny>(&text) {
        return Err(Fault::Answer(format!("a value is not JSON: {error}")));
    }
    // In valid JSON, line breaks are only between tokens.
    Ok(if text.contains(['\n', '\r']) {
        text.replace(['\n', '\r'], " ")
    } else {
        text
    })
}

/// Returns JSON as a JavaScript string for `JSON.parse`. As JavaScript source, JSON can mean
/// another value (`__proto__`). The result can't end the script or begin an HTML comment.
pub(super) fn for_script(json: &str) -> String {
    let mut string = String::with_capacity(json.len() + 64);
    string.push('\'');
    for character in json.chars() {
        match character {
            '\\' => string.push_str("\\\\"),
            '\'' => string.push_str("\\'"),
            '<' => string.push_str("\\x3c"),
            '\n' => string.push_str("\\n"),
            '\r' => string.push_str("\\r"),
            '\u{2028}' => string.push_str("\\u2028"),
            '\u{2029}' => string.push_str("\\u2029"),
            other => string.push(other),
        }
    }
    string.push('\'');
    string
}

/// Returns `{"error":{"status":504,"message":"it took too long"}}`.
pub(super) fn error(problem: &HandlerError) -> String {
    json!({ "error": { "status": problem.status.as_u16(), "message": problem.message } })
        .to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_json_or_too_long_is_refused() {
        let cases = [
            ("1", Some("1")),
            ("{\"a\":\r\n[1,\n2]}", Some("{\"a\":  [1, 2]}")),
            ("\"a\\nb\"", Some("\"a\\nb\"")),
            ("", None),
            ("{", None),
            ("1 2", None),
            ("NaN", None),
            ("\"a\nb\"", None),
            ("\"0123456789012345\"", None),
        ];
        for (text, expected) in cases {
            assert_eq!(
                checked(text.to_owned(), 17).ok().as_deref(),
                expected,
                "{text:?}"
            );
        }
    }

    #[test]
    fn nothing_in_a_value_ends_its_script() {
        let cases = [
            (
                r#""</script><script>alert(1)</script>""#,
                r#"'"\x3c/script>\x3cscript>alert(1)\x3c/script>"'"#,
            ),
            (r#""<!--""#, r#"'"\x3c!--"'"#),
            ("\"\u{2028}\u{2029}\"", r#"'"\u2028\u2029"'"#),
            (r#""it's \" \\ \n""#, r#"'"it\'s \\" \\\\ \\n"'"#),
            ("[1,\r\n2]", r"'[1,\r\n2]'"),
            (r#"{"a":"b"}"#, r#"'{"a":"b"}'"#),
            ("", "''"),
        ];
        for (json, expected) in cases {
            assert_eq!(for_script(json), expected);
        }
    }
}
