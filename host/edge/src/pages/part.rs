//! Heads of multipart forms: the boundary in `Content-Type`, and `Content-Disposition` of each part
//! (RFC 7578), as browsers write them.
//!
//! `multipart` finds the heads. These parameters are read here, because none of the examined
//! libraries reads them as browsers write them. The grammar of RFC 2045 and that of browsers
//! contradict each other in quoted strings: in MIME a backslash escapes the next character; in a
//! browser it is a character of a file name, and a quote is written as `%22` (WHATWG HTML,
//! multipart/form-data encoding algorithm). A string ends at the quote after which the value ends
//! or another parameter begins, regardless of the character before the quote.

use percent_encoding::percent_decode;
use std::{borrow::Cow, str};
use tidegate_hub::page::Field;

/// Maximum number of fields in the head of a part. Browsers write two.
const HEAD_FIELDS_MAX: usize = 32;

/// Maximum length of a boundary, in bytes (RFC 2046 section 5.1.1).
const BOUNDARY_BYTES_MAX: usize = 70;

/// Returns the boundary that a `Content-Type` names; `None` if it names none, two, or one that RFC
/// 2046 does not allow.
pub(super) fn boundary(content_type: &[u8]) -> Option<String> {
    let (_, parameters) = split(content_type)?;
    let value = find(&parameters, "boundary")??;
    let is_boundary = |byte: &u8| byte.is_ascii_alphanumeric() || b"'()+_,-./:=? ".contains(byte);
    let is_valid = !value.is_empty()
        && value.len() <= BOUNDARY_BYTES_MAX
        && !value.ends_with(b" ")
        && value.iter().all(is_boundary);
    is_valid
        .then(|| String::from_utf8(value.to_vec()).ok())
        .flatten()
}

/// Returns the field of a form that a part's head describes, with the blank line at its end.
///
/// Returns `None` if the head is invalid: it has no `Content-Disposition`, another type than
/// `form-data`, no name, or a repeated parameter. Two fields `Content-Disposition` or
/// `Content-Type` are also invalid, since another reader may use the other one.
pub(super) fn field(head: &[u8]) -> Option<Field> {
    let mut fields = [httparse::EMPTY_HEADER; HEAD_FIELDS_MAX];
    let fields = match httparse::parse_headers(head, &mut fields) {
        Ok(httparse::Status::Complete((length, fields))) if length == head.len() => fields,
        _ => return None,
    };
    let value = |name: &str| {
        let of_name = |field: &&httparse::Header<'_>| field.name.eq_ignore_ascii_case(name);
        single(fields.iter().filter(of_name).map(|field| field.value))
    };
    let (kind, parameters) = split(value("content-disposition")??)?;
    if !kind.eq_ignore_ascii_case(b"form-data") {
        return None;
    }
    let name = text(find(&parameters, "name")??);
    let filename = match (
        find(&parameters, "filename*")?,
        find(&parameters, "filename")?,
    ) {
        // RFC 6266 section 4.3: this parameter takes precedence. RFC 7578 rules it out here, but
        // some clients send it. An invalid one is not ignored: with the name in `filename`, two
        // readers of the same form would see different files.
        (Some(value), _) => Some(extended(value)?),
        (None, plain) => plain.map(text),
    };
    let content_type =
        value("content-type")?.map(|value| String::from_utf8_lossy(value).into_owned());
    Some(Field {
        name,
        filename,
        content_type,
    })
}

/// Name in lower case, and value.
type Parameter<'a> = (String, Cow<'a, [u8]>);

/// Returns the first word of a header's value, and its parameters.
fn split(value: &[u8]) -> Option<(&[u8], Vec<Parameter<'_>>)> {
    let end = value
        .iter()
        .position(|byte| *byte == b';')
        .unwrap_or(value.len());
    let (kind, mut rest) = (value[..end].trim_ascii(), &value[end..]);
    let mut parameters = Vec::new();
    loop {
        rest = rest.trim_ascii_start();
        if rest.is_empty() {
            return Some((kind, parameters));
        }
        rest = rest.strip_prefix(b";")?.trim_ascii_start();
        if rest.is_empty() || rest.starts_with(b";") {
            continue;
        }
        let equals = name_end(rest)?;
        let name = str::from_utf8(rest[..equals].trim_ascii_end())
            .ok()?
            .to_ascii_lowercase();
        let value = rest[equals + 1..].trim_ascii_start();
        let (value, after) = match value.strip_prefix(b"\"") {
            Some(string) => quoted(string)?,
            None => unquoted(value)?,
        };
        parameters.push((name, value));
        rest = after;
    }
}

/// Returns the index of the `=` after the name at the beginning of the text; `None` if there is no
/// name. Reads no further.
fn name_end(text: &[u8]) -> Option<usize> {
    let is_token = |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte);
    let end = text
        .iter()
        .position(|byte| !is_token(byte))
        .filter(|end| *end > 0)?;
    let after = text[end..].trim_ascii_start();
    after.starts_with(b"=").then(|| text.len() - after.len())
}

/// Returns the content of a quoted string, and the text after it; `string` begins after the first
/// quote.
fn quoted(string: &[u8]) -> Option<(Cow<'_, [u8]>, &[u8])> {
    let mut has_escapes = false;
    for at in (0..string.len()).filter(|at| string[*at] == b'"') {
        let after = string[at + 1..].trim_ascii_start();
        let ends = match after.strip_prefix(b";").map(<[u8]>::trim_ascii_start) {
            Some(next) => next.is_empty() || name_end(next).is_some(),
            None => after.is_empty(),
        };
        match ends {
            // Only a sender that escapes quotes also escapes backslashes.
            true if has_escapes => return Some((unescaped(&string[..at]).into(), after)),
            true => return Some((string[..at].into(), after)),
            false if string[..at].ends_with(b"\\") => has_escapes = true,
            false => return None,
        }
    }
    None
}

fn unescaped(string: &[u8]) -> Vec<u8> {
    let mut is_escaped = false;
    let keep = |byte: &&u8| {
        is_escaped = **byte == b'\\' && !is_escaped;
        !is_escaped
    };
    string.iter().filter(keep).copied().collect()
}

fn unquoted(value: &[u8]) -> Option<(Cow<'_, [u8]>, &[u8])> {
    let end = value
        .iter()
        .position(|byte| *byte == b';')
        .unwrap_or(value.len());
    let (value, after) = (value[..end].trim_ascii_end(), &value[end..]);
    (!value.contains(&b'"')).then_some((value.into(), after))
}

/// Returns the value of an optional parameter; `None` if it is repeated.
fn find<'a>(parameters: &'a [Parameter<'_>], name: &str) -> Option<Option<&'a [u8]>> {
    let of_name = parameters.iter().filter(|(own, _)| own == name);
    single(of_name.map(|(_, value)| &**value))
}

/// Returns the only value or no value; `None` if there are several.
fn single<T>(mut values: impl Iterator<Item = T>) -> Option<Option<T>> {
    let value = values.next();
    values.next().is_none().then_some(value)
}

/// Decodes a name in the form of browsers: three characters are escaped, and invalid UTF-8 is
/// replaced (WHATWG, "parse a multipart/form-data name").
fn text(value: &[u8]) -> String {
    String::from_utf8_lossy(value)
        .replace("%22", "\"")
        .replace("%0D", "\r")
        .replace("%0A", "\n")
}

/// Decodes an extended value: character set, language and percent-encoded text (RFC 8187 section
/// 3.2). Returns `None` if it is invalid.
fn extended(value: &[u8]) -> Option<String> {
    let mut parts = str::from_utf8(value).ok()?.splitn(3, '\'');
    let (charset, _, encoded) = (parts.next()?, parts.next()?, parts.next()?);
    let is_plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$&+-.^_`|~".contains(byte);
    let is_encoded = |text: &str| {
        let (digits, plain) = text.as_bytes().split_at_checked(2)?;
        let is_valid = digits.iter().all(u8::is_ascii_hexdigit) && plain.iter().all(is_plain);
        is_valid.then_some(())
    };
    let mut pieces = encoded.split('%');
    if !pieces.next()?.bytes().all(|byte| is_plain(&byte)) {
        return None;
    }
    pieces.try_for_each(is_encoded)?;
    let bytes: Cow<'_, [u8]> = percent_decode(encoded.as_bytes()).into();
    match charset {
        utf8 if utf8.eq_ignore_ascii_case("utf-8") => String::from_utf8(bytes.into_owned()).ok(),
        latin1 if latin1.eq_ignore_ascii_case("iso-8859-1") => {
            Some(bytes.iter().map(|byte| char::from(*byte)).collect())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_boundary_is_read_as_clients_write_it() {
        let cases = [
            ("multipart/form-data; boundary=B", Some("B")),
            ("multipart/form-data;boundary=\"B\"", Some("B")),
            ("Multipart/Form-Data; Charset=utf-8; BOUNDARY=B", Some("B")),
            ("multipart/form-data; boundary=B; charset=utf-8", Some("B")),
            (
                "multipart/form-data; boundary=----=_Part_1.2",
                Some("----=_Part_1.2"),
            ),
            ("multipart/form-data; boundary====1===", Some("===1===")),
            (
                "multipart/form-data; boundary=\"=_a:b?c d\"",
                Some("=_a:b?c d"),
            ),
            ("multipart/form-data; boundary = B ;", Some("B")),
            (
                "multipart/form-data; x=\"; boundary=A\"; boundary=B",
                Some("B"),
            ),
            (
                "multipart/form-data; x=\"boundary=A\"; boundary=B",
                Some("B"),
            ),
            ("multipart/form-data", None),
            ("multipart/form-data; boundary=", None),
            ("multipart/form-data; boundary=\"\"", None),
            ("multipart/form-data; boundary=\"B", None),
            ("multipart/form-data; boundary=\"B \"", None),
            ("multipart/form-data; boundary=A; boundary=B", None),
            ("multipart/form-data; boundary=a[b", None),
            ("multipart/form-data; boundary=\u{e9}", None),
        ];
        for (value, expected) in cases {
            assert_eq!(boundary(value.as_bytes()).as_deref(), expected, "{value}");
        }
        let long = |length: usize| {
            boundary(format!("multipart/form-data; boundary={}", "b".repeat(length)).as_bytes())
                .is_some()
        };
        assert!(long(BOUNDARY_BYTES_MAX) && !long(BOUNDARY_BYTES_MAX + 1));
    }

    #[test]
    fn a_part_s_names_are_read_as_browsers_write_them() {
        let file = |name: &str, filename: &str| Some((name.to_owned(), Some(filename.to_owned())));
        let cases = [
            ("form-data; name=\"a\"", Some(("a".to_owned(), None))),
            ("FORM-DATA; NAME=\"a\"; FileName=\"b\"", file("a", "b")),
            ("form-data; filename=\"b\" ; name = a", file("a", "b")),
            (
                "form-data; name=\"a\"; filename=\"b;c.txt\"",
                file("a", "b;c.txt"),
            ),
            (
                "form-data; name=\"a\"; filename=\"b%22c%0D%0A.txt\"",
                file("a", "b\"c\r\n.txt"),
            ),
            (
                "form-data; name=\"a\"; filename=\"100%.txt\"",
                file("a", "100%.txt"),
            ),
            (
                "form-data; name=\"a\"; filename=\"b\\\"c.txt\"",
                file("a", "b\"c.txt"),
            ),
            (
                "form-data; name=\"a\"; filename=\"b\\\\\\\"; c.txt\"",
                file("a", "b\\\"; c.txt"),
            ),
            (
                "form-data; name=\"a\"; filename=\"dir\\\"",
                file("a", "dir\\"),
            ),
            (
                "form-data; name=\"dir\\\"; filename=\"b\"",
                file("dir\\", "b"),
            ),
            (
                "form-data; name=\"a\"; filename=\"dir\\\\\"",
                file("a", "dir\\\\"),
            ),
            (
                "form-data; name=\"a\"; filename=\"C:\\docs\\b.txt\"",
                file("a", "C:\\docs\\b.txt"),
            ),
            (
                "form-data; name=\"my filename=x\"",
                Some(("my filename=x".to_owned(), None)),
            ),
            (
                "form-data; filename=\"a name=b.txt\"; name=\"f\"",
                file("f", "a name=b.txt"),
            ),
            ("form-data; name=\"\"", Some((String::new(), None))),
            ("form-data; name=\"a\"; filename=\"\"", file("a", "")),
            (
                "form-data; name=\"füld\"; filename=\"日本.txt\"",
                file("füld", "日本.txt"),
            ),
            (
                "form-data; name=a; filename*=UTF-8''%C3%A4.txt",
                file("a", "ä.txt"),
            ),
            (
                "form-data; name=a; filename*=iso-8859-1'de'%E4.txt; filename=\"b\"",
                file("a", "ä.txt"),
            ),
            (
                "form-data; name=a; size=1; x=\"y\";",
                Some(("a".to_owned(), None)),
            ),
            ("form-data", None),
            ("form-data; filename=\"b\"", None),
            ("attachment; name=\"a\"", None),
            ("form-data; name=\"a\"; name=\"b\"", None),
            (
                "form-data; name=\"a\"; filename=\"b\"; filename=\"c\"",
                None,
            ),
            ("form-data; name=\"a", None),
            ("form-data; name=\"a\"b\"", None),
            ("form-data; name=\"a\" filename=\"b\"", None),
            ("form-data; name=a\"b", None),
            ("form-data; name", None),
            ("form-data; =\"a\"", None),
            ("form-data; name=a; filename*=UTF-8''%E4", None),
            ("form-data; name=a; filename*=klingon''b", None),
            ("form-data; name=a; filename*=b", None),
            (
                "form-data; name=a; filename*=utf-8''100%.txt; filename=b",
                None,
            ),
            ("form-data; name=a; filename*=utf-8''%4", None),
            ("form-data; name=a; filename*=utf-8''%zz", None),
            ("form-data; name=a; filename*=utf-8''a b", None),
            ("form-data; name=a; filename*=\"utf-8''a'b\"", None),
            (
                "form-data; name=a; filename*=utf-8''a; filename*=utf-8''b",
                None,
            ),
            ("", None),
        ];
        for (value, expected) in cases {
            let head = format!("Content-Disposition: {value}\r\n\r\n");
            assert_eq!(
                field(head.as_bytes()).map(|field| (field.name, field.filename)),
                expected,
                "{value}"
            );
        }
        let latin1 = b"content-disposition: form-data; name=a; filename=\"\xe4\"\r\n\r\n";
        let replaced = field(latin1).and_then(|field| field.filename);
        assert_eq!(replaced.as_deref(), Some("\u{fffd}"));
    }

    #[test]
    fn a_head_with_two_meanings_is_refused() {
        const NAME: &str = "content-disposition: form-data; name=\"a\"\r\n";
        const TYPE: &str = "content-type: text/plain\r\n";
        let cases = [
            (format!("{NAME}\r\n"), true),
            (format!("{NAME}{TYPE}x: y\r\nx: y\r\n\r\n"), true),
            (format!("{NAME}{NAME}\r\n"), false),
            (
                format!("{NAME}Content-Disposition: form-data; name=\"b\"\r\n\r\n"),
                false,
            ),
            (
                format!("{NAME}CONTENT-DISPOSITION: attachment\r\n\r\n"),
                false,
            ),
            (format!("{TYPE}{NAME}{TYPE}\r\n"), false),
            (format!("{NAME}\n{NAME}\r\n"), false),
            (format!("{NAME}x: y\r\n continued: z\r\n\r\n"), false),
            (
                format!("{NAME}{}\r\n", "x: y\r\n".repeat(HEAD_FIELDS_MAX - 1)),
                true,
            ),
            (
                format!("{NAME}{}\r\n", "x: y\r\n".repeat(HEAD_FIELDS_MAX)),
                false,
            ),
            ("\r\n".into(), false),
        ];
        for (head, is_valid) in cases {
            assert_eq!(field(head.as_bytes()).is_some(), is_valid, "{head}");
        }
    }
}
