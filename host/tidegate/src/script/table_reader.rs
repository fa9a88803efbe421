//! Reads the values of one table of a script, and refuses keys that no step has.

use super::{Assertion, Expected, Pairs, Payload, ScriptError, TableList};
use serde_json::Value;
use std::{borrow::Cow, fmt, ops::Range};
use toml::{Spanned, de::DeValue};

/// Reads the keys of one table, and keeps the keys that were not read yet.
pub(super) struct TableReader<'a, 't> {
    pub(super) left: Vec<(&'a Spanned<Cow<'t, str>>, &'a Spanned<DeValue<'t>>)>,
    pub(super) known: Vec<&'static str>,
    pub(super) line: &'a dyn Fn(Range<usize>) -> usize,
    pub(super) at: usize,
}

impl<'a, 't> TableReader<'a, 't> {
    pub(super) fn take(&mut self, key: &'static str) -> Option<&'a Spanned<DeValue<'t>>> {
        self.known.push(key);
        let at = self
            .left
            .iter()
            .position(|(name, _)| name.get_ref() == key)?;
        let (name, value) = self.left.swap_remove(at);
        self.at = (self.line)(name.span());
        Some(value)
    }

    pub(super) fn wrong(&self, key: &str, what: impl fmt::Display) -> ScriptError {
        ScriptError {
            line: self.at,
            what: format!("{key}: {what}"),
        }
    }

    pub(super) fn text(&mut self, key: &'static str) -> Result<Option<String>, ScriptError> {
        match self.take(key).map(Spanned::get_ref) {
            None => Ok(None),
            Some(DeValue::String(text)) => Ok(Some(text.to_string())),
            Some(_) => Err(self.wrong(key, "write a string")),
        }
    }

    pub(super) fn needed(&mut self, key: &'static str) -> Result<String, ScriptError> {
        self.text(key)?.ok_or_else(|| ScriptError {
            line: self.at,
            what: format!("{key} is missing"),
        })
    }

    pub(super) fn number(&mut self, key: &'static str) -> Result<Option<u16>, ScriptError> {
        match self.take(key).map(Spanned::get_ref) {
            None => Ok(None),
            Some(DeValue::Integer(number)) => number
                .to_string()
                .parse()
                .map(Some)
                .map_err(|_| self.wrong(key, "write a number below 65536")),
            Some(_) => Err(self.wrong(key, "write a number")),
        }
    }

    pub(super) fn status(&mut self) -> Result<Option<u16>, ScriptError> {
        self.number("status")
    }

    pub(super) fn flag(&mut self, key: &'static str) -> Result<bool, ScriptError> {
        match self.take(key).map(Spanned::get_ref) {
            None => Ok(false),
            Some(DeValue::Boolean(true)) => Ok(true),
            Some(_) => Err(self.wrong(key, "write true, or leave it out")),
        }
    }

    pub(super) fn list(&mut self, key: &'static str) -> Result<Vec<String>, ScriptError> {
        let items = match self.take(key).map(Spanned::get_ref) {
            None => return Ok(Vec::new()),
            Some(DeValue::Array(items)) => items
                .iter()
                .map(|item| item.get_ref().as_str().map(str::to_owned))
                .collect(),
            Some(_) => None,
        };
        items.ok_or_else(|| self.wrong(key, "write a list of strings"))
    }

    pub(super) fn pairs(&mut self, key: &'static str) -> Result<Pairs, ScriptError> {
        let pairs = match self.take(key).map(Spanned::get_ref) {
            None => return Ok(Vec::new()),
            Some(DeValue::Table(table)) => table
                .iter()
                .map(|(name, value)| {
                    Some((
                        name.get_ref().to_string(),
                        value.get_ref().as_str()?.to_owned(),
                    ))
                })
                .collect(),
            Some(_) => None,
        };
        pairs.ok_or_else(|| self.wrong(key, "write { name = \"value\" }"))
    }

    pub(super) fn tables(&mut self, key: &'static str) -> Result<TableList<'a, 't>, ScriptError> {
        let tables = match self.take(key).map(Spanned::get_ref) {
            None => return Ok(Vec::new()),
            Some(DeValue::Array(items)) => {
                let table = |item: &'a Spanned<DeValue<'t>>| match item.get_ref() {
                    DeValue::Table(table) => Some(((self.line)(item.span()), table)),
                    _ => None,
                };
                items.iter().map(table).collect()
            }
            Some(_) => None,
        };
        tables
            .ok_or_else(|| self.wrong(key, format_args!("write a list of tables, as in [[{key}]]")))
    }

    pub(super) fn json(&mut self, key: &'static str) -> Result<Option<Value>, ScriptError> {
        let json = self.take(key).map(|value| json(value.get_ref()));
        json.map(|json| json.ok_or_else(|| self.wrong(key, "JSON has no dates")))
            .transpose()
    }

    pub(super) fn binary(&mut self) -> Result<Option<Vec<u8>>, ScriptError> {
        let hex = self.text("hex")?;
        hex.map(|hex| {
            crate::hex::read(&hex)
                .ok_or_else(|| self.wrong("hex", "write bytes in hex, as in \"00ff2a\""))
        })
        .transpose()
    }

    /// Reads one of text, json and hex.
    pub(super) fn payload(&mut self) -> Result<Payload, ScriptError> {
        self.maybe_payload("text")?.ok_or_else(|| ScriptError {
            line: self.at,
            what: "text, json or hex is missing".into(),
        })
    }

    /// Reads the body of a request. Its key is `body`, since `text` is the expected text of the
    /// answer.
    pub(super) fn body(&mut self) -> Result<Payload, ScriptError> {
        let text = self.text("body")?.map(Payload::Text);
        let json = self
            .json("body_json")?
            .map(|json| Payload::Text(json.to_string()));
        Ok(text.or(json).unwrap_or(Payload::Text(String::new())))
    }

    pub(super) fn maybe_payload(
        &mut self,
        text: &'static str,
    ) -> Result<Option<Payload>, ScriptError> {
        let text = self.text(text)?.map(Payload::Text);
        let json = self
            .json("json")?
            .map(|json| Payload::Text(json.to_string()));
        Ok(text.or(json).or(self.binary()?.map(Payload::Binary)))
    }

    pub(super) fn checks(&mut self) -> Result<Vec<Assertion>, ScriptError> {
        let text = self.text("text")?.map(Assertion::Text);
        let contains = self.text("contains")?.map(Assertion::Contains);
        let json = self.json("json")?.map(Assertion::Json);
        let binary = self.binary()?.map(Assertion::Binary);
        Ok([text, contains, json, binary]
            .into_iter()
            .flatten()
            .collect())
    }

    pub(super) fn expected(&mut self) -> Result<Expected, ScriptError> {
        if self.flag("nothing")? {
            return Ok(Expected::Nothing);
        }
        if let Some(code) = self.number("closed")? {
            return Ok(Expected::Closed(code, self.text("reason")?));
        }
        if self.flag("ended")? {
            return Ok(Expected::Ended);
        }
        let event = self.text("event")?.map(Assertion::Event);
        let checks: Vec<Assertion> = event.into_iter().chain(self.checks()?).collect();
        if checks.is_empty() {
            let what = "text, contains, json, hex, event, closed, ended or nothing is missing";
            return Err(ScriptError {
                line: self.at,
                what: what.into(),
            });
        }
        Ok(Expected::Message(checks))
    }

    pub(super) fn unknown(&self) -> ScriptError {
        let (name, _) = self.left[0];
        let nearest = self
            .known
            .iter()
            .min_by_key(|known| strsim::damerau_levenshtein(name.get_ref(), known));
        let nearest = nearest.expect("every table has known keys");
        ScriptError {
            line: (self.line)(name.span()),
            what: format!(
                "unknown key {:?}: did you mean {nearest:?}?",
                name.get_ref()
            ),
        }
    }

    pub(super) fn end(&self) -> Result<(), ScriptError> {
        if self.left.is_empty() {
            Ok(())
        } else {
            Err(self.unknown())
        }
    }
}

fn json(value: &DeValue<'_>) -> Option<Value> {
    Some(match value {
        DeValue::String(text) => text.to_string().into(),
        DeValue::Integer(number) => number.to_string().parse::<i64>().ok()?.into(),
        DeValue::Float(number) => number.to_string().parse::<f64>().ok()?.into(),
        DeValue::Boolean(flag) => (*flag).into(),
        DeValue::Datetime(_) => return None,
        DeValue::Array(items) => items
            .iter()
            .map(|item| json(item.get_ref()))
            .collect::<Option<Vec<_>>>()?
            .into(),
        DeValue::Table(table) => {
            let members = table
                .iter()
                .map(|(name, value)| Some((name.get_ref().to_string(), json(value.get_ref())?)));
            Value::Object(members.collect::<Option<_>>()?)
        }
    })
}
