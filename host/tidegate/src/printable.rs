//! Makes text of clients and guests safe for terminals and logs: control characters are escaped.

use std::{borrow::Cow, fmt::Write as _};

/// True for characters that a terminal or a line reader may interpret: control characters (C0, DEL
/// and C1), line separators, and characters that change the direction of text.
fn is_control(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Returns the text with each control character as a Rust escape: `\n`, `\r`, `\t`, `\u{1b}`.
pub(crate) fn escaped(text: &str) -> Cow<'_, str> {
    escaped_but(text, |_| 0)
}

/// Like [`escaped`], but keeps the colours of the text (`ESC [ … m`).
pub(crate) fn escaped_coloured(text: &str) -> Cow<'_, str> {
    escaped_but(text, |rest| {
        let Some(code) = rest.strip_prefix("\x1b[") else {
            return 0;
        };
        let digits = code
            .find(|c: char| !c.is_ascii_digit() && c != ';')
            .unwrap_or(code.len());
        if code[digits..].starts_with('m') {
            2 + digits + 1
        } else {
            0
        }
    })
}

/// Escapes control characters, except where `kept` returns the length of a sequence that stays
/// unchanged.
fn escaped_but(text: &str, kept: impl Fn(&str) -> usize) -> Cow<'_, str> {
    let Some(first) = text.find(is_control) else {
        return text.into();
    };
    let mut escaped = String::with_capacity(text.len() + 16);
    let (plain, mut rest) = text.split_at(first);
    escaped.push_str(plain);
    while let Some(c) = rest.chars().next() {
        let length = kept(rest);
        if length > 0 {
            escaped.push_str(&rest[..length]);
        } else {
            escaped.extend(c.escape_default());
        }
        let (_, after) = rest.split_at(length.max(c.len_utf8()));
        let plain = after.find(is_control).unwrap_or(after.len());
        escaped.push_str(&after[..plain]);
        rest = &after[plain..];
    }
    escaped.into()
}

/// Escapes the control characters that JSON allows unescaped. They can occur only in strings.
pub(crate) fn escaped_json(json: &str) -> Cow<'_, str> {
    if !json.contains(is_control) {
        return json.into();
    }
    let mut escaped = String::with_capacity(json.len() + 16);
    for c in json.chars() {
        if is_control(c) {
            _ = write!(escaped, "\\u{:04x}", u32::from(c));
        } else {
            escaped.push(c);
        }
    }
    escaped.into()
}

/// Returns at most `bytes_max` bytes of the text, with a mark and the full length if it was cut.
pub(crate) fn cut(text: &str, bytes_max: usize) -> Cow<'_, str> {
    if text.len() <= bytes_max {
        return text.into();
    }
    format!(
        "{}… ({} bytes)",
        &text[..text.floor_char_boundary(bytes_max)],
        text.len()
    )
    .into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_are_escaped() {
        let cases = [
            ("plain é 😀", "plain é 😀"),
            ("a\nb\r\tc", "a\\nb\\r\\tc"),
            ("\x1b[31mred\x1b[0m", "\\u{1b}[31mred\\u{1b}[0m"),
            ("\u{9b}31m\u{7f}\0", "\\u{9b}31m\\u{7f}\\u{0}"),
            ("a\u{202e}b\u{2028}", "a\\u{202e}b\\u{2028}"),
            ("", ""),
        ];
        for (text, expected) in cases {
            assert_eq!(escaped(text), expected);
        }
    }

    #[test]
    fn only_colours_stay() {
        let cases = [
            ("\x1b[2mdim\x1b[0m\r", "\x1b[2mdim\x1b[0m\\r"),
            ("\x1b[1;31mx", "\x1b[1;31mx"),
            (
                "\x1b[2Jx\x1b]0;title\x07\x1b[",
                "\\u{1b}[2Jx\\u{1b}]0;title\\u{7}\\u{1b}[",
            ),
        ];
        for (text, expected) in cases {
            assert_eq!(escaped_coloured(text), expected);
        }
    }

    #[test]
    fn escaped_json_has_the_same_value() {
        for text in [
            "plain",
            "\u{9b}2J",
            "a\u{7f}\u{2028}\u{202e}b\r\n\x1b",
            "😀",
        ] {
            let json = serde_json::to_string(text).unwrap();
            let escaped = escaped_json(&json);
            assert!(!escaped.contains(is_control), "{escaped}");
            assert_eq!(serde_json::from_str::<String>(&escaped).unwrap(), text);
        }
    }

    #[test]
    fn a_long_text_is_cut_between_characters() {
        assert_eq!(
            (cut("abc", 3), cut("abcd", 3), cut("é", 1)),
            ("abc".into(), "abc… (4 bytes)".into(), "… (2 bytes)".into())
        );
    }
}
