//! JSON that apps and clients give: checked, kept on one line, and made fit for a script of a page.

use serde::de::IgnoredAny;
use serde_json::json;
use std::borrow::Cow;
use tidegate_hub::{Fault, contract, page::Problem};

/// A value that an app gave: JSON on one line, if it is JSON of at most so many bytes.
pub(super) fn checked(text: String, bytes_max: usize) -> Result<String, Fault> {
    contract::check_value(&text, bytes_max)?;
    if let Err(error) = serde_json::from_str::<IgnoredAny>(&text) {
        return Err(Fault::Answer(format!("a value is not JSON: {error}")));
    }
    // In JSON a line break stands between tokens only.
    Ok(if text.contains(['\n', '\r']) { text.replace(['\n', '\r'], " ") } else { text })
}

/// JSON as a script may contain it: nothing in it ends the script, or begins a comment of HTML.
pub(super) fn for_script(json: &str) -> Cow<'_, str> {
    if !json.contains(['<', '\u{2028}', '\u{2029}']) {
        return json.into();
    }
    json.replace('<', "\\u003c").replace('\u{2028}', "\\u2028").replace('\u{2029}', "\\u2029").into()
}

/// `{"error":{"status":504,"message":"it took too long"}}`
pub(super) fn error(problem: &Problem) -> String {
    json!({ "error": { "status": problem.status, "message": problem.message } }).to_string()
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
            assert_eq!(checked(text.to_owned(), 17).ok().as_deref(), expected, "{text:?}");
        }
    }

    #[test]
    fn nothing_in_a_value_ends_its_script() {
        let cases = [
            (r#""</script><script>alert(1)</script>""#, r#""\u003c/script>\u003cscript>alert(1)\u003c/script>""#),
            (r#""<!--""#, r#""\u003c!--""#),
            ("\"\u{2028}\u{2029}\"", r#""\u2028\u2029""#),
            (r#"{"a":"b"}"#, r#"{"a":"b"}"#),
        ];
        for (json, expected) in cases {
            assert_eq!(for_script(json), expected);
            let (one, other): (serde_json::Value, serde_json::Value) =
                (serde_json::from_str(json).unwrap(), serde_json::from_str(expected).unwrap());
            assert_eq!(one, other, "it means the same");
        }
    }
}
