//! Server-Sent Events as bytes (WHATWG HTML, section 9.2), for answers that the app streams itself.

use crate::{Message, Result};
use serde::Serialize;
use std::{fmt, time::Duration};

/// One event of a stream.
///
/// # Examples
///
/// ```
/// use tidegate::sse::Event;
/// use std::time::Duration;
///
/// let event = Event::data("12\n13").event("price").id("7").retry(Duration::from_secs(2));
/// assert_eq!(event.encode().unwrap(), "event: price\nid: 7\nretry: 2000\ndata: 12\ndata: 13\n\n");
/// assert_eq!(Event::comment("still here").encode().unwrap(), ": still here\n\n");
/// assert!(Event::data("x").event("two\nlines").encode().is_err());
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Event {
    comment: Option<String>,
    event: Option<String>,
    id: Option<String>,
    retry: Option<Duration>,
    data: Option<String>,
}

/// An invalid event, which a client would read as a different one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadEvent {
    /// A CR, an LF or a NUL in the event's name.
    Name,
    /// A CR, an LF or a NUL in the id.
    Id,
}

impl fmt::Display for BadEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            BadEvent::Name => "an event's name has no line break and no NUL",
            BadEvent::Id => "an event's id has no line break and no NUL",
        })
    }
}

impl std::error::Error for BadEvent {}

impl Event {
    /// Creates an event with this data of any number of lines. A client receives CR and CRLF as LF.
    pub fn data(data: impl Into<String>) -> Event {
        Event {
            data: Some(data.into()),
            ..Event::default()
        }
    }

    /// Creates an event with a value as JSON.
    ///
    /// # Errors
    ///
    /// A fault if the value is not one of JSON.
    pub fn json(value: &impl Serialize) -> Result<Event> {
        Ok(Event::data(serde_json::to_string(value)?))
    }

    /// Creates a comment, which clients skip: it keeps the stream alive.
    pub fn comment(text: impl Into<String>) -> Event {
        Event {
            comment: Some(text.into()),
            ..Event::default()
        }
    }

    /// Sets the name: the event type for `addEventListener` in a browser. The default is "message".
    /// A line break or NUL in it is an error of [`encode`](Event::encode).
    pub fn event(mut self, name: impl Into<String>) -> Event {
        self.event = Some(name.into());
        self
    }

    /// Sets the id, which a client sends when it reconnects. A line break or NUL in it is an error
    /// of [`encode`](Event::encode).
    pub fn id(mut self, id: impl Into<String>) -> Event {
        self.id = Some(id.into());
        self
    }

    /// Sets the time after which the client reconnects, in whole milliseconds.
    pub fn retry(mut self, after: Duration) -> Event {
        self.retry = Some(after);
        self
    }

    /// Returns the event's text in the stream, including the blank line at its end.
    ///
    /// # Errors
    ///
    /// The [`BadEvent`] if id or name has a line break or a NUL.
    pub fn encode(&self) -> Result<String, BadEvent> {
        check(self.event.as_deref(), BadEvent::Name)?;
        check(self.id.as_deref(), BadEvent::Id)?;
        let mut text = String::with_capacity(32 + self.data.as_deref().map_or(0, str::len));
        for line in self.comment.iter().flat_map(|comment| lines(comment)) {
            field(&mut text, "", line);
        }
        let retry = self.retry.map(|after| after.as_millis().to_string());
        let single = [("event", &self.event), ("id", &self.id), ("retry", &retry)];
        for (name, value) in single {
            value.iter().for_each(|value| field(&mut text, name, value));
        }
        for line in self.data.iter().flat_map(|data| lines(data)) {
            field(&mut text, "data", line);
        }
        text.push('\n');
        Ok(text)
    }
}

impl From<&str> for Event {
    fn from(data: &str) -> Event {
        Event::data(data)
    }
}

impl From<String> for Event {
    fn from(data: String) -> Event {
        Event::data(data)
    }
}

impl From<Message> for Event {
    /// Converts the message's text; invalid UTF-8 is replaced.
    fn from(message: Message) -> Event {
        Event::data(String::from_utf8_lossy(message.bytes()))
    }
}

fn check(value: Option<&str>, error: BadEvent) -> Result<(), BadEvent> {
    match value.is_some_and(|value| value.contains(['\r', '\n', '\0'])) {
        true => Err(error),
        false => Ok(()),
    }
}

/// Splits a text into lines as the reader of a stream does: at CR, LF or CRLF.
pub(crate) fn lines(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = Some(text);
    std::iter::from_fn(move || {
        let text = rest?;
        let Some(end) = text.find(['\r', '\n']) else {
            rest = None;
            return Some(text);
        };
        let (line, behind) = text.split_at(end);
        rest = Some(behind.strip_prefix("\r\n").unwrap_or(&behind[1..]));
        Some(line)
    })
}

fn field(text: &mut String, name: &str, value: &str) {
    text.push_str(name);
    text.push_str(": ");
    text.push_str(value);
    text.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_written_so_that_a_reader_gets_the_same() {
        let cases = [
            (Event::data("a"), "data: a\n\n"),
            (Event::data(""), "data: \n\n"),
            (Event::data(" a"), "data:  a\n\n"),
            (Event::data("a\nb"), "data: a\ndata: b\n\n"),
            (Event::data("a\r\nb"), "data: a\ndata: b\n\n"),
            (Event::data("a\rb"), "data: a\ndata: b\n\n"),
            (
                Event::data("a\n\nb\n"),
                "data: a\ndata: \ndata: b\ndata: \n\n",
            ),
            (Event::data("a\n\rb"), "data: a\ndata: \ndata: b\n\n"),
            (Event::data("a").event("tick"), "event: tick\ndata: a\n\n"),
            (
                Event::data("a").event("tick: tock"),
                "event: tick: tock\ndata: a\n\n",
            ),
            (Event::data("a").id(""), "id: \ndata: a\n\n"),
            (Event::data("ü→"), "data: ü→\n\n"),
            (
                Event::default().retry(Duration::from_millis(1500)),
                "retry: 1500\n\n",
            ),
            (Event::comment("a\nb"), ": a\n: b\n\n"),
            (Event::from("text"), "data: text\n\n"),
        ];
        for (event, expected) in cases {
            assert_eq!(event.encode().as_deref(), Ok(expected), "{event:?}");
        }
    }

    #[test]
    fn a_line_break_or_nul_in_a_name_or_an_id_is_an_error() {
        for bad in ["a\nb", "a\rb", "\r\n", "a\0"] {
            assert_eq!(
                Event::data("x").event(bad).encode(),
                Err(BadEvent::Name),
                "{bad:?}"
            );
            assert_eq!(
                Event::data("x").id(bad).encode(),
                Err(BadEvent::Id),
                "{bad:?}"
            );
        }
    }
}
