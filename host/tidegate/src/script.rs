//! Parses the scripts of `tidegate test` from TOML to steps. An error has the line and the
//! correction.

// Named, since a fuzz target includes this file from another directory.
#[path = "script/table_reader.rs"]
mod table_reader;

use self::table_reader::TableReader;
use crate::quantity;
use serde_json::Value;
use std::{
    fmt,
    ops::Range,
    path::{Path, PathBuf},
    time::Duration,
};
use toml::de::{DeTable, DeValue};

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

#[cfg(test)]
mod tests;
