//! The time that caches may keep a file: from the operator's rules, otherwise from the file's name.

use http::{HeaderMap, HeaderValue, header};

/// An operator's rule: the value of `Cache-Control` for the files of some paths.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CacheRule {
    /// Path pattern; `*` matches any text, including slashes.
    pattern: String,
    value: HeaderValue,
}

impl CacheRule {
    /// Parses "PATTERN VALUE", as in "/downloads/* public, max-age=3600".
    ///
    /// # Errors
    /// Returns a text with the correct form.
    pub fn parse(text: &str) -> Result<CacheRule, String> {
        let wrong = || {
            format!(
                "{text:?} is no rule: write a path and a value of Cache-Control, as in \"/downloads/* public, max-age=3600\""
            )
        };
        let (pattern, value) = text
            .trim()
            .split_once(char::is_whitespace)
            .ok_or_else(wrong)?;
        let value = HeaderValue::from_str(value.trim()).map_err(|_| wrong())?;
        if !pattern.starts_with(['/', '*']) || value.is_empty() {
            return Err(wrong());
        }
        Ok(CacheRule {
            pattern: pattern.to_owned(),
            value,
        })
    }
}

/// A name that contains a hash of the content never gets other content.
const HASHED: &str = "max-age=31536000, immutable";
/// Caches keep the file and revalidate its tag before each use.
const OTHERS: &str = "no-cache";

/// Returns the value for the file of this path, such as "/css/style.css".
pub(crate) fn of(path: &str, rules: &[CacheRule]) -> HeaderValue {
    match rules.iter().find(|rule| matches(&rule.pattern, path)) {
        Some(rule) => rule.value.clone(),
        None => {
            HeaderValue::from_static(if is_hashed(path.rsplit('/').next().unwrap_or_default()) {
                HASHED
            } else {
                OTHERS
            })
        }
    }
}

/// Keeps an answer that passed a guard out of shared caches, unless a rule sets another value.
pub(crate) fn make_private(headers: &mut HeaderMap) {
    let Some(value) = headers
        .get(header::CACHE_CONTROL)
        .and_then(|value| value.to_str().ok())
    else {
        return;
    };
    if !["public", "private", "no-store"]
        .iter()
        .any(|directive| value.contains(directive))
    {
        let value = HeaderValue::try_from(format!("private, {value}")).expect("a value and a word");
        headers.insert(header::CACHE_CONTROL, value);
    }
}

/// Walks both texts once, and goes back to the last star where they differ.
fn matches(pattern: &str, text: &str) -> bool {
    let (pattern, text) = (pattern.as_bytes(), text.as_bytes());
    let (mut p, mut t, mut star) = (0, 0, None);
    while t < text.len() {
        match (pattern.get(p), star) {
            (Some(b'*'), _) => {
                star = Some((p + 1, t));
                p += 1;
            }
            (Some(byte), _) if *byte == text[t] => (p, t) = (p + 1, t + 1),
            (_, Some((after, from))) => {
                (p, t) = (after, from + 1);
                star = Some((after, from + 1));
            }
            (_, None) => return false,
        }
    }
    pattern[p..].iter().all(|byte| *byte == b'*')
}

/// Returns true if a part of the name, after the first one, looks like the hash of a bundler.
fn is_hashed(name: &str) -> bool {
    let parts = |separators: &'static [char]| name.split(separators).skip(1);
    parts(&['.', '-']).any(is_hash) || parts(&['.', '-', '_']).any(is_hash)
}

/// Returns true for at least 8 characters in which letters and digits alternate as in no word or
/// date: hexadecimal with both, or another alphabet with at least three changes between digits,
/// small and large letters.
fn is_hash(part: &str) -> bool {
    let is_of_alphabet = part
        .bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    let has_both = part.bytes().any(|byte| byte.is_ascii_digit())
        && part.bytes().any(|byte| byte.is_ascii_alphabetic());
    if part.len() < 8 || !is_of_alphabet || !has_both {
        return false;
    }
    let is_hexadecimal = part.bytes().all(|byte| byte.is_ascii_hexdigit());
    let class = |byte: u8| {
        (
            byte.is_ascii_digit(),
            byte.is_ascii_uppercase(),
            byte.is_ascii_lowercase(),
        )
    };
    let changes = part
        .as_bytes()
        .windows(2)
        .filter(|pair| class(pair[0]) != class(pair[1]))
        .count();
    is_hexadecimal || changes >= 3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_with_a_hash_are_kept_and_others_are_asked_for() {
        let hashed = [
            "main.3f2a1b4c.js",
            "index-BX3k9a2_.js",
            "app-4QXPZ7LA.css",
            "app-0a1b2c3d4e5f6071_bg.wasm",
            "index.4a8b2c1d.css",
            "chunk-5d41402abc4b2a76b9719d911017c592.js.map",
            "logo.2f7e21f8.svg",
        ];
        let others = [
            "index.html",
            "app.js",
            "jquery-3.7.1.min.js",
            "user-settings.js",
            "report-20240105.pdf",
            "report-2024-01-05.pdf",
            "notes-Release1.txt",
            "version2024.txt",
            "3f2a1b4c.js",
            "app.bootstrap.js",
            "defaced-facade.js",
            "ab12",
            "",
        ];
        for name in hashed {
            assert_eq!(of(&format!("/assets/{name}"), &[]), HASHED, "{name}");
        }
        for name in others {
            assert_eq!(of(&format!("/assets/{name}"), &[]), OTHERS, "{name}");
        }
    }

    #[test]
    fn the_first_rule_of_a_path_says_how_long_it_is_kept() {
        let rules = [
            "/a/*.js max-age=1",
            "*.html no-store",
            "/a/* max-age=2",
            "/exact  public, max-age=3",
            "*a*b*c* max-age=4",
        ];
        let rules: Vec<CacheRule> = rules
            .iter()
            .map(|rule| CacheRule::parse(rule).unwrap())
            .collect();
        let rows = [
            ("/a/x.js", "max-age=1"),
            ("/a/b/x.js", "max-age=1"),
            ("/a/x.html", "no-store"),
            ("/a/x.css", "max-age=2"),
            ("/exact", "public, max-age=3"),
            ("/exact2", OTHERS),
            ("/x/a1b2c", "max-age=4"),
            ("/b/a1b2", OTHERS),
        ];
        for (path, expected) in rows {
            assert_eq!(of(path, &rules), expected, "{path}");
        }
        for text in ["", "/a", "a max-age=1", "/a \u{1}", "/a  "] {
            assert!(CacheRule::parse(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn what_a_guard_lets_pass_is_not_for_shared_caches() {
        let rows = [
            ("no-cache", "private, no-cache"),
            (HASHED, "private, max-age=31536000, immutable"),
            ("public, max-age=1", "public, max-age=1"),
            ("no-store", "no-store"),
        ];
        for (given, expected) in rows {
            let mut headers =
                HeaderMap::from_iter([(header::CACHE_CONTROL, HeaderValue::from_static(given))]);
            make_private(&mut headers);
            assert_eq!(headers[header::CACHE_CONTROL], expected);
        }
    }
}
