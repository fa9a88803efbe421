//! The text of Server-Sent Events (WHATWG HTML, section 9.2): one event per piece of bytes.

use bytes::Bytes;
use http::HeaderValue;
use std::time::Duration;
use tidegate_hub::{Message, Position, Positions, Publication};

/// Comment that keeps a silent stream open. Clients ignore it.
pub(crate) const COMMENT: &str = ":\n\n";

/// Header with the number of milliseconds after which a silent stream gets a comment. If two are
/// missing, the connection is dead.
pub(crate) const HEARTBEAT: &str = "tidegate-heartbeat";

/// Returns the value of that header.
pub(crate) fn heartbeat(every: Duration) -> HeaderValue {
    HeaderValue::from(u64::try_from(every.as_millis()).unwrap_or(u64::MAX))
}

/// Returns the notice for a client that comes back after missed publications were dropped. It is
/// one event with the id of the new position, so a client receives both or neither.
pub(crate) fn gap(positions: &Positions) -> Bytes {
    event(
        Some(&positions.to_string()),
        Some("tidegate-gap"),
        "read the state anew",
    )
}

/// Returns the line with the client's position, which counts after its event has ended.
pub(crate) fn id(positions: &Positions) -> String {
    format!("id: {positions}\n")
}

/// Returns a publication's event without its id line.
pub(crate) fn without_id(event: &Bytes) -> Bytes {
    let end = event
        .iter()
        .position(|byte| *byte == b'\n')
        .expect("the id has a line");
    event.slice(end + 1..)
}

/// Returns one event; `data` is split at every kind of line end. Name and id have no line breaks,
/// as the hub has checked.
pub(crate) fn event(id: Option<&str>, name: Option<&str>, data: &str) -> Bytes {
    let mut text = String::with_capacity(data.len() + 64);
    for (field, value) in [("id", id), ("event", name)] {
        if let Some(value) = value {
            text.extend([field, ": ", value, "\n"]);
        }
    }
    for line in lines(data) {
        text.extend(["data: ", line, "\n"]);
    }
    text.push('\n');
    text.into()
}

/// Returns a publication's event for every feed of only this topic: encoded once, then shared.
/// Returns `None` for binary data.
pub(crate) fn publication(publication: &Publication) -> Option<Bytes> {
    let Message::Text(text) = &publication.message else {
        return None;
    };
    let encode = || {
        let Publication {
            epoch,
            sequence,
            transient,
            ..
        } = *publication;
        let id = (!transient).then(|| Position { epoch, sequence }.to_string());
        event(id.as_deref(), publication.event.as_deref(), text)
    };
    Some(publication.event_stream.get_or_init(encode).clone())
}

/// Splits at LF, CR and CRLF, and keeps empty lines.
fn lines(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = Some(text);
    std::iter::from_fn(move || {
        let text = rest?;
        // A search for bytes is several times as fast as one for characters, and first events may have
        // a megabyte.
        let is_end = |byte| matches!(byte, b'\r' | b'\n');
        let Some(at) = text.bytes().position(is_end) else {
            return rest.take();
        };
        let width = if text[at..].starts_with("\r\n") { 2 } else { 1 };
        rest = Some(&text[at + width..]);
        Some(&text[..at])
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_written_line_by_line() {
        let cases = [
            (None, None, "hi", "data: hi\n\n"),
            (None, None, "", "data: \n\n"),
            (
                Some("5-1"),
                Some("tick"),
                "hi",
                "id: 5-1\nevent: tick\ndata: hi\n\n",
            ),
            (
                None,
                None,
                "a\nb\rc\r\nd",
                "data: a\ndata: b\ndata: c\ndata: d\n\n",
            ),
            (None, None, "a\n\n", "data: a\ndata: \ndata: \n\n"),
            (None, None, "\r\r\n", "data: \ndata: \ndata: \n\n"),
            (None, None, "id: 7", "data: id: 7\n\n"),
        ];
        for (id, name, data, expected) in cases {
            assert_eq!(event(id, name, data), expected, "{data:?}");
        }
    }

    #[test]
    fn a_publication_is_encoded_once_for_all_feeds() {
        let shared = Publication {
            epoch: 10,
            sequence: 3,
            ..Publication::new(Message::text("x"))
        };
        let (first, second) = (publication(&shared).unwrap(), publication(&shared).unwrap());
        assert_eq!(
            (&first[..], &without_id(&first)[..]),
            (&b"id: a-3\ndata: x\n\n"[..], &b"data: x\n\n"[..])
        );
        let passing = Publication {
            transient: true,
            ..Publication::new(Message::text("x"))
        };
        assert_eq!(publication(&passing).unwrap(), "data: x\n\n");
        assert_eq!(first.as_ptr(), second.as_ptr());
        assert_eq!(publication(&Publication::new(Message::binary("x"))), None);
    }
}
