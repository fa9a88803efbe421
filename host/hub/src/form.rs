//! Small forms: read whole from `application/x-www-form-urlencoded` or JSON, and split into the
//! name of the action and its fields. Forms with files are streamed by the edge.

use crate::{
    json,
    limits::FORM_FIELDS_MAX,
    page::{Field, Form, FormPiece, HandlerError},
};
use bytes::Bytes;
use http::StatusCode;
use serde::de::IgnoredAny;
use std::{collections::VecDeque, fmt::Display};

/// Name of the field that names the action. The app does not see it.
pub const ACTION_FIELD: &str = "__action";

/// Encoding of a small form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FormEncoding {
    /// `application/x-www-form-urlencoded`.
    UrlEncoded,
    /// `application/json`: one object.
    Json,
}

/// Fields of a form that are in memory.
#[derive(Debug, Default)]
pub struct WholeForm {
    json: Option<String>,
    fields: VecDeque<(Field, Bytes)>,
    /// Rest of the value of the field that was read last.
    value: Option<Bytes>,
}

/// Memory of a field beside its name and value, in bytes.
pub const FIELD_BYTES: usize = size_of::<(Field, Bytes)>();

impl WholeForm {
    /// Returns a form of these fields.
    pub fn of_fields(fields: VecDeque<(Field, Bytes)>) -> WholeForm {
        WholeForm {
            fields,
            ..WholeForm::default()
        }
    }

    /// Reads a form. Returns the action that it names, and its other fields. A refusal has the
    /// status 400 or 413.
    ///
    /// ```
    /// use tidegate_hub::form::{FormEncoding, WholeForm};
    ///
    /// let (action, mut form) = WholeForm::read(FormEncoding::UrlEncoded, b"__action=buy&id=7").unwrap();
    /// assert_eq!((action.as_str(), form.next_field().unwrap().name.as_str()), ("buy", "id"));
    /// assert_eq!(form.take_value().unwrap(), "7");
    /// assert_eq!(WholeForm::read(FormEncoding::Json, b"{}").unwrap_err().status, 400);
    /// ```
    pub fn read(encoding: FormEncoding, body: &[u8]) -> Result<(String, WholeForm), HandlerError> {
        match encoding {
            FormEncoding::UrlEncoded => WholeForm::read_url_encoded(body),
            FormEncoding::Json => WholeForm::read_json(body),
        }
    }

    fn read_url_encoded(body: &[u8]) -> Result<(String, WholeForm), HandlerError> {
        let (mut action, mut fields) = (None, VecDeque::new());
        for (count, (name, value)) in form_urlencoded::parse(body).enumerate() {
            if count == FORM_FIELDS_MAX {
                return Err(too_many_fields());
            }
            if name == ACTION_FIELD {
                action.get_or_insert(value.into_owned());
                continue;
            }
            let field = Field {
                name: name.into_owned(),
                ..Field::default()
            };
            fields.push_back((field, Bytes::from(value.into_owned())));
        }
        Ok((action.ok_or_else(no_action)?, WholeForm::of_fields(fields)))
    }

    /// Reads a JSON object. Its members reach the app as the client wrote them.
    fn read_json(body: &[u8]) -> Result<(String, WholeForm), HandlerError> {
        // RFC 8259 section 8.1: a parser may ignore a byte order mark.
        let body = body.strip_prefix("\u{feff}".as_bytes()).unwrap_or(body);
        let text = str::from_utf8(body).map_err(|error| not_an_object(&error))?;
        serde_json::from_str::<IgnoredAny>(text).map_err(|error| not_an_object(&error))?;
        let members = json::members(text).ok_or_else(|| not_an_object(&"it is another value"))?;
        let (mut action, mut others) = (None, String::with_capacity(text.len()));
        for (name, value) in members {
            let name_text: String =
                serde_json::from_str(name).map_err(|error| not_an_object(&error))?;
            if name_text != ACTION_FIELD {
                let separator = if others.is_empty() { "{" } else { "," };
                others.extend([separator, name, ":", value]);
            } else if action.replace(value).is_some() {
                return Err(refusal(
                    StatusCode::BAD_REQUEST,
                    format!("the form has two members {ACTION_FIELD}"),
                ));
            }
        }
        others.push_str(if others.is_empty() { "{}" } else { "}" });
        let action = action.and_then(|action| serde_json::from_str(action).ok());
        let form = WholeForm {
            json: Some(others),
            ..WholeForm::default()
        };
        Ok((action.ok_or_else(no_action)?, form))
    }

    /// Returns the bytes of memory that the fields take.
    pub fn weight(&self) -> usize {
        let fields = self
            .fields
            .iter()
            .map(|(field, value)| FIELD_BYTES + field.name.len() + value.len());
        fields.sum::<usize>() + self.json.as_ref().map_or(0, String::len)
    }

    /// Moves on to the next field, and returns it.
    pub fn next_field(&mut self) -> Option<Field> {
        let (field, value) = self.fields.pop_front().unzip();
        self.value = value;
        field
    }

    /// Returns true if the last field of [`next_field`](WholeForm::next_field) was one of this
    /// form.
    pub fn is_in_field(&self) -> bool {
        self.value.is_some()
    }

    /// Returns the value of the current field, if it is not empty and was not taken before.
    pub fn take_value(&mut self) -> Option<Bytes> {
        let value = self.value.as_mut().map(std::mem::take);
        value.filter(|value| !value.is_empty())
    }
}

impl Form for WholeForm {
    fn json(&self) -> Option<&str> {
        self.json.as_deref()
    }

    fn next(&mut self) -> FormPiece<'_, Field> {
        Box::pin(std::future::ready(Ok(self.next_field())))
    }

    fn read(&mut self) -> FormPiece<'_, Bytes> {
        Box::pin(std::future::ready(Ok(self.take_value())))
    }
}

fn refusal(status: StatusCode, message: String) -> HandlerError {
    HandlerError { status, message }
}

fn not_an_object(why: &dyn Display) -> HandlerError {
    refusal(
        StatusCode::BAD_REQUEST,
        format!("the form is no JSON object: {why}"),
    )
}

/// Returns the refusal of a form with more than [`FORM_FIELDS_MAX`] fields.
pub fn too_many_fields() -> HandlerError {
    refusal(
        StatusCode::PAYLOAD_TOO_LARGE,
        format!("more than {FORM_FIELDS_MAX} fields"),
    )
}

/// Returns the refusal of a form without a field [`ACTION_FIELD`].
pub fn no_action() -> HandlerError {
    let text = format!("the form names no action: it needs a field {ACTION_FIELD}");
    refusal(StatusCode::BAD_REQUEST, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_form_names_its_action() {
        let cases = [
            (FormEncoding::UrlEncoded, "__action=buy&n=1", Ok("buy")),
            (FormEncoding::UrlEncoded, "n=1&__action=a+b", Ok("a b")),
            (FormEncoding::UrlEncoded, "n=1", Err(400)),
            (FormEncoding::UrlEncoded, "", Err(400)),
            (FormEncoding::Json, r#"{"__action":"buy","n":1}"#, Ok("buy")),
            (
                FormEncoding::Json,
                "\u{feff}{\"__action\":\"buy\"}",
                Ok("buy"),
            ),
            (FormEncoding::Json, r#"{"_\u005faction":"buy"}"#, Ok("buy")),
            (
                FormEncoding::Json,
                r#"{"__action":"buy","__action":"sell"}"#,
                Err(400),
            ),
            (FormEncoding::Json, r#"{"__action":"buy"} x"#, Err(400)),
            (FormEncoding::Json, r#"{"__action":1}"#, Err(400)),
            (FormEncoding::Json, r#"{"n":1}"#, Err(400)),
            (FormEncoding::Json, "[]", Err(400)),
            (FormEncoding::Json, "{", Err(400)),
        ];
        for (kind, body, expected) in cases {
            let read = WholeForm::read(kind, body.as_bytes());
            assert_eq!(
                read.as_ref()
                    .map(|(action, _)| action.as_str())
                    .map_err(|refusal| refusal.status.as_u16()),
                expected,
                "{body}"
            );
        }
        let many = |fields: usize| {
            let body = "__action=buy&".to_owned() + &"a&".repeat(fields);
            WholeForm::read(FormEncoding::UrlEncoded, body.as_bytes())
                .map(drop)
                .map_err(|refusal| refusal.status.as_u16())
        };
        assert!(many(FORM_FIELDS_MAX - 1).is_ok() && many(FORM_FIELDS_MAX).err() == Some(413));
        let json = [
            (r#"{"__action":"buy","n":1}"#, r#"{"n":1}"#),
            (
                r#"{ "z": 12345678901234567890123, "__action": "buy", "a": 1.10 }"#,
                r#"{"z":12345678901234567890123,"a":1.10}"#,
            ),
            (
                r#"{"__action":"buy","a":1e400,"a":{"b" : [ 1 ]}}"#,
                r#"{"a":1e400,"a":{"b" : [ 1 ]}}"#,
            ),
            (
                r#"{"__action":"buy","__proto__":{"x":1},"\u00e9":"\u00e9"}"#,
                r#"{"__proto__":{"x":1},"\u00e9":"\u00e9"}"#,
            ),
            (r#"{"__action":"buy"}"#, "{}"),
        ];
        for (body, expected) in json {
            let (_, form) = WholeForm::read(FormEncoding::Json, body.as_bytes())
                .unwrap_or_else(|refused| panic!("{body}: {refused:?}"));
            assert_eq!(form.json(), Some(expected));
        }
        let (action, mut form) =
            WholeForm::read(FormEncoding::UrlEncoded, b"__action=a&n=1&__action=b").unwrap();
        let names = [
            form.next_field().map(|field| field.name),
            form.next_field().map(|_| String::new()),
        ];
        assert_eq!(
            (action.as_str(), names),
            ("a", [Some("n".to_owned()), None]),
            "the first one counts"
        );
    }
}
