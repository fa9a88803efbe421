//! Parses the scripts of `tidegate test` from TOML to steps. An error has the line and the
//! correction.

use crate::quantity;
use serde_json::Value;
use std::{
    borrow::Cow,
    fmt,
    ops::Range,
    path::{Path, PathBuf},
    time::Duration,
};
use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

/// A test: its steps run one after the other, against an app without state.
#[derive(Debug)]
pub(crate) struct Test {
    pub(crate) name: String,
    pub(crate) steps: Vec<TestStep>,
}

/// A step, with its line.
#[derive(Debug)]
pub(crate) struct TestStep {
    pub(crate) line: usize,
    pub(crate) action: Action,
}

/// An action of a client, or on the server.
#[derive(Debug, PartialEq)]
pub(crate) enum Action {
    /// Opens a WebSocket; a `status` other than 101 expects a refusal.
    Connect {
        client: String,
        to: String,
        headers: Pairs,
        protocols: Vec<String>,
        status: u16,
        protocol: Option<String>,
    },
    /// Opens a feed; a `status` other than 200 expects a refusal.
    Subscribe {
        client: String,
        to: String,
        headers: Pairs,
        status: u16,
    },
    /// Sends a message.
    Send { client: String, payload: Payload },
    /// Checks the next event that the client receives.
    Expect { client: String, what: Expected },
    /// Closes the WebSocket.
    Close {
        client: String,
        code: u16,
        reason: String,
    },
    /// Disconnects without a close.
    Disconnect { client: String },
    /// Sends a request, and checks the answer.
    Request {
        method: String,
        path: String,
        headers: Pairs,
        body: Payload,
        status: Option<u16>,
        checks: Vec<Assertion>,
        answer: Pairs,
    },
    /// Publishes to a topic from outside of the app.
    Publish {
        topic: String,
        payload: Payload,
        event: Option<String>,
    },
    /// Puts the room of this path to sleep.
    Sleep { path: String },
    /// Advances the clock.
    Advance { time: Duration },
    /// Loads this file, or the same file again, as another version.
    Reload { file: Option<PathBuf> },
    /// Restarts the server, as after a kill.
    Restart,
    /// Makes the next commit of a room fail.
    FailNextCommit,
}

/// Names and values.
pub(crate) type Pairs = Vec<(String, String)>;

/// Content of a message or body.
#[derive(Debug, PartialEq)]
pub(crate) enum Payload {
    Text(String),
    Binary(Vec<u8>),
}

/// The expected next event of a client.
#[derive(Debug, PartialEq)]
pub(crate) enum Expected {
    /// A message or event that passes all of these assertions.
    Message(Vec<Assertion>),
    /// No event.
    Nothing,
    /// The close of a WebSocket, with its code and a part of its reason.
    Closed(u16, Option<String>),
    /// The end of a feed.
    Ended,
}

/// An assertion on a message, event or body.
#[derive(Debug, PartialEq)]
pub(crate) enum Assertion {
    Text(String),
    Contains(String),
    /// Equal JSON, except that objects may have further members.
    Json(Value),
    Binary(Vec<u8>),
    /// The name of an event.
    Event(String),
}

/// An error in a script, with its line.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct ScriptError {
    pub(crate) line: usize,
    pub(crate) what: String,
}

impl fmt::Display for ScriptError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.line, self.what)
    }
}

/// Parses a script. Relative paths in it begin at `base`.
pub(crate) fn parse(text: &str, base: &Path) -> Result<Vec<Test>, ScriptError> {
    let line = |span: Range<usize>| {
        1 + text.as_bytes()[..span.start.min(text.len())]
            .iter()
            .filter(|b| **b == b'\n')
            .count()
    };
    let bad = |error: toml::de::Error| ScriptError {
        line: line(error.span().unwrap_or_default()),
        what: error.message().replace('\n', ", "),
    };
    let file = DeTable::parse(text).map_err(bad)?;
    let reader = ScriptReader { line: &line, base };
    let mut fields = reader.fields(file.get_ref(), 1);
    let tests = fields.tables("test")?;
    fields.end()?;
    if tests.is_empty() {
        return Err(ScriptError {
            line: 1,
            what: "the script has no test: begin one with [[test]]".into(),
        });
    }
    tests
        .into_iter()
        .map(|(at, table)| reader.test(at, table))
        .collect()
}

struct ScriptReader<'a> {
    line: &'a dyn Fn(Range<usize>) -> usize,
    base: &'a Path,
}

type TableList<'a, 't> = Vec<(usize, &'a DeTable<'t>)>;

/// Reads the keys of one table, and keeps the keys that were not read yet.
struct TableReader<'a, 't> {
    left: Vec<(&'a Spanned<Cow<'t, str>>, &'a Spanned<DeValue<'t>>)>,
    known: Vec<&'static str>,
    line: &'a dyn Fn(Range<usize>) -> usize,
    at: usize,
}

impl<'a> ScriptReader<'a> {
    fn fields<'t>(&self, table: &'a DeTable<'t>, at: usize) -> TableReader<'a, 't> {
        TableReader {
            left: table.iter().collect(),
            known: Vec::new(),
            line: self.line,
            at,
        }
    }

    fn test(&self, at: usize, table: &'a DeTable<'_>) -> Result<Test, ScriptError> {
        let mut fields = self.fields(table, at);
        let name = fields.needed("name")?;
        let steps = fields.tables("steps")?;
        fields.end()?;
        let steps = steps.into_iter().map(|(line, table)| {
            let mut fields = self.fields(table, line);
            let action = self.action(&mut fields)?;
            fields.end()?;
            Ok(TestStep { line, action })
        });
        Ok(Test {
            name,
            steps: steps.collect::<Result<_, _>>()?,
        })
    }

    /// Parses a step: the first key names the action, the others are its arguments.
    fn action(&self, fields: &mut TableReader<'a, '_>) -> Result<Action, ScriptError> {
        if let Some(client) = fields.text("connect")? {
            return Ok(Action::Connect {
                client,
                to: fields.needed("to")?,
                headers: fields.pairs("headers")?,
                protocols: fields.list("protocols")?,
                status: fields.status()?.unwrap_or(101),
                protocol: fields.text("protocol")?,
            });
        }
        if let Some(client) = fields.text("subscribe")? {
            return Ok(Action::Subscribe {
                client,
                to: fields.needed("to")?,
                headers: fields.pairs("headers")?,
                status: fields.status()?.unwrap_or(200),
            });
        }
        if let Some(client) = fields.text("send")? {
            return Ok(Action::Send {
                client,
                payload: fields.payload()?,
            });
        }
        if let Some(client) = fields.text("expect")? {
            return Ok(Action::Expect {
                client,
                what: fields.expected()?,
            });
        }
        if let Some(client) = fields.text("close")? {
            return Ok(Action::Close {
                client,
                code: fields.number("code")?.unwrap_or(1000),
                reason: fields.text("reason")?.unwrap_or_default(),
            });
        }
        if let Some(client) = fields.text("disconnect")? {
            return Ok(Action::Disconnect { client });
        }
        if let Some(request) = fields.text("request")? {
            let (method, path) = request.split_once(' ').ok_or_else(|| {
                fields.wrong("request", "write method and path, as in \"GET /users/7\"")
            })?;
            return Ok(Action::Request {
                method: method.into(),
                path: path.into(),
                headers: fields.pairs("headers")?,
                body: fields.body()?,
                status: fields.status()?,
                answer: fields.pairs("header")?,
                checks: fields.checks()?,
            });
        }
        if let Some(topic) = fields.text("publish")? {
            return Ok(Action::Publish {
                topic,
                event: fields.text("event")?,
                payload: fields.payload()?,
            });
        }
        if let Some(path) = fields.text("sleep")? {
            return Ok(Action::Sleep { path });
        }
        if let Some(time) = fields.text("advance")? {
            let time = quantity::time(&time).map_err(|what| fields.wrong("advance", what))?;
            return Ok(Action::Advance { time });
        }
        if let Some(file) = fields.take("reload") {
            let file = match file.get_ref() {
                DeValue::Boolean(true) => None,
                DeValue::String(file) => Some(self.base.join(&**file)),
                _ => {
                    return Err(
                        fields.wrong("reload", "write true, or the file of another version")
                    );
                }
            };
            return Ok(Action::Reload { file });
        }
        for (key, action) in [
            ("restart", Action::Restart),
            ("fail_next_commit", Action::FailNextCommit),
        ] {
            if fields.flag(key)? {
                return Ok(action);
            }
        }
        match fields.left.first() {
            Some(_) => Err(fields.unknown()),
            None => Err(ScriptError {
                line: fields.at,
                what: format!("a step is one of {}", fields.known.join(", ")),
            }),
        }
    }
}

impl<'a, 't> TableReader<'a, 't> {
    fn take(&mut self, key: &'static str) -> Option<&'a Spanned<DeValue<'t>>> {
        self.known.push(key);
        let at = self
            .left
            .iter()
            .position(|(name, _)| name.get_ref() == key)?;
        let (name, value) = self.left.swap_remove(at);
        self.at = (self.line)(name.span());
        Some(value)
    }

    fn wrong(&self, key: &str, what: impl fmt::Display) -> ScriptError {
        ScriptError {
            line: self.at,
            what: format!("{key}: {what}"),
        }
    }

    fn text(&mut self, key: &'static str) -> Result<Option<String>, ScriptError> {
        match self.take(key).map(Spanned::get_ref) {
            None => Ok(None),
            Some(DeValue::String(text)) => Ok(Some(text.to_string())),
            Some(_) => Err(self.wrong(key, "write a string")),
        }
    }

    fn needed(&mut self, key: &'static str) -> Result<String, ScriptError> {
        self.text(key)?.ok_or_else(|| ScriptError {
            line: self.at,
            what: format!("{key} is missing"),
        })
    }

    fn number(&mut self, key: &'static str) -> Result<Option<u16>, ScriptError> {
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

    fn status(&mut self) -> Result<Option<u16>, ScriptError> {
        self.number("status")
    }

    fn flag(&mut self, key: &'static str) -> Result<bool, ScriptError> {
        match self.take(key).map(Spanned::get_ref) {
            None => Ok(false),
            Some(DeValue::Boolean(true)) => Ok(true),
            Some(_) => Err(self.wrong(key, "write true, or leave it out")),
        }
    }

    fn list(&mut self, key: &'static str) -> Result<Vec<String>, ScriptError> {
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

    fn pairs(&mut self, key: &'static str) -> Result<Pairs, ScriptError> {
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

    fn tables(&mut self, key: &'static str) -> Result<TableList<'a, 't>, ScriptError> {
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

    fn json(&mut self, key: &'static str) -> Result<Option<Value>, ScriptError> {
        let json = self.take(key).map(|value| json(value.get_ref()));
        json.map(|json| json.ok_or_else(|| self.wrong(key, "JSON has no dates")))
            .transpose()
    }

    fn binary(&mut self) -> Result<Option<Vec<u8>>, ScriptError> {
        let hex = self.text("hex")?;
        hex.map(|hex| {
            crate::hex::read(&hex)
                .ok_or_else(|| self.wrong("hex", "write bytes in hex, as in \"00ff2a\""))
        })
        .transpose()
    }

    /// Reads one of text, json and hex.
    fn payload(&mut self) -> Result<Payload, ScriptError> {
        self.maybe_payload("text")?.ok_or_else(|| ScriptError {
            line: self.at,
            what: "text, json or hex is missing".into(),
        })
    }

    /// Reads the body of a request. Its key is `body`, since `text` is the expected text of the
    /// answer.
    fn body(&mut self) -> Result<Payload, ScriptError> {
        let text = self.text("body")?.map(Payload::Text);
        let json = self
            .json("body_json")?
            .map(|json| Payload::Text(json.to_string()));
        Ok(text.or(json).unwrap_or(Payload::Text(String::new())))
    }

    fn maybe_payload(&mut self, text: &'static str) -> Result<Option<Payload>, ScriptError> {
        let text = self.text(text)?.map(Payload::Text);
        let json = self
            .json("json")?
            .map(|json| Payload::Text(json.to_string()));
        Ok(text.or(json).or(self.binary()?.map(Payload::Binary)))
    }

    fn checks(&mut self) -> Result<Vec<Assertion>, ScriptError> {
        let text = self.text("text")?.map(Assertion::Text);
        let contains = self.text("contains")?.map(Assertion::Contains);
        let json = self.json("json")?.map(Assertion::Json);
        let binary = self.binary()?.map(Assertion::Binary);
        Ok([text, contains, json, binary]
            .into_iter()
            .flatten()
            .collect())
    }

    fn expected(&mut self) -> Result<Expected, ScriptError> {
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

    fn unknown(&self) -> ScriptError {
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

    fn end(&self) -> Result<(), ScriptError> {
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

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn action(step: &str) -> Result<Action, String> {
        let text = format!("[[test]]\nname = \"x\"\nsteps = [\n{{ {step} }},\n]\n");
        parse(&text, Path::new("/base"))
            .map(|mut tests| tests.remove(0).steps.remove(0).action)
            .map_err(|wrong| wrong.to_string())
    }

    #[test]
    fn every_step_is_read() {
        let client = || "ann".to_owned();
        let cases = [
            (
                "disconnect = \"ann\"",
                Action::Disconnect { client: client() },
            ),
            (
                "close = \"ann\"",
                Action::Close {
                    client: client(),
                    code: 1000,
                    reason: String::new(),
                },
            ),
            (
                "send = \"ann\", json = { a = [1, 2.5, true] }",
                Action::Send {
                    client: client(),
                    payload: Payload::Text(r#"{"a":[1,2.5,true]}"#.into()),
                },
            ),
            (
                "send = \"ann\", hex = \"00 ff\"",
                Action::Send {
                    client: client(),
                    payload: Payload::Binary(vec![0, 255]),
                },
            ),
            (
                "expect = \"ann\", closed = 1011",
                Action::Expect {
                    client: client(),
                    what: Expected::Closed(1011, None),
                },
            ),
            (
                "expect = \"ann\", event = \"tick\", json = { a = 1 }",
                Action::Expect {
                    client: client(),
                    what: Expected::Message(vec![
                        Assertion::Event("tick".into()),
                        Assertion::Json(json!({ "a": 1 })),
                    ]),
                },
            ),
            (
                "sleep = \"/rooms/tea\"",
                Action::Sleep {
                    path: "/rooms/tea".into(),
                },
            ),
            (
                "advance = \"90s\"",
                Action::Advance {
                    time: Duration::from_secs(90),
                },
            ),
            ("reload = true", Action::Reload { file: None }),
            (
                "reload = \"next.wasm\"",
                Action::Reload {
                    file: Some("/base/next.wasm".into()),
                },
            ),
            ("restart = true", Action::Restart),
            ("fail_next_commit = true", Action::FailNextCommit),
        ];
        for (step, expected) in cases {
            assert_eq!(action(step), Ok(expected), "{step}");
        }
    }

    #[test]
    fn every_error_has_its_line_and_a_correction() {
        let steps = [
            (
                "conect = \"ann\"",
                "4: unknown key \"conect\": did you mean \"connect\"?",
            ),
            ("connect = \"ann\"", "4: to is missing"),
            ("send = \"ann\"", "4: text, json or hex is missing"),
            ("send = \"ann\"", "4: text, json or hex is missing"),
            (
                "send = \"ann\", txt = \"x\", text = \"y\"",
                "4: unknown key \"txt\": did you mean \"text\"?",
            ),
            ("send = 1, text = \"x\"", "4: send: write a string"),
            (
                "send = \"ann\", hex = \"0\"",
                "4: hex: write bytes in hex, as in \"00ff2a\"",
            ),
            (
                "expect = \"ann\"",
                "4: text, contains, json, hex, event, closed, ended or nothing is missing",
            ),
            (
                "expect = \"ann\", nothing = false",
                "4: nothing: write true, or leave it out",
            ),
            (
                "advance = \"soon\"",
                "4: advance: \"soon\" is not a duration: write a number with ms, s, m, h or d, as in \"30s\"",
            ),
            (
                "request = \"/\"",
                "4: request: write method and path, as in \"GET /users/7\"",
            ),
            (
                "request = \"GET /\", status = 70000",
                "4: status: write a number below 65536",
            ),
            (
                "reload = 7",
                "4: reload: write true, or the file of another version",
            ),
            (
                "connect = \"ann\", to = \"/\", headers = [1]",
                "4: headers: write { name = \"value\" }",
            ),
        ];
        for (step, told) in steps {
            assert_eq!(action(step), Err(told.to_owned()), "{step}");
        }
        assert!(
            action("")
                .unwrap_err()
                .starts_with("4: a step is one of connect, subscribe, send, expect, ")
        );
        let files = [
            ("", "1: the script has no test: begin one with [[test]]"),
            (
                "\ntests = 1",
                "2: unknown key \"tests\": did you mean \"test\"?",
            ),
            ("[[test]]\nsteps = []", "1: name is missing"),
            (
                "test = 1",
                "1: test: write a list of tables, as in [[test]]",
            ),
        ];
        for (file, told) in files {
            assert_eq!(
                parse(file, Path::new("")).unwrap_err().to_string(),
                told,
                "{file:?}"
            );
        }
    }
}
