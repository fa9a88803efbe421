//! An event of a stream as its client receives it.

use crate::sse::lines;

/// An event as a client receives it. It is equal to a text that is its data.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FeedEvent {
    id: Option<String>,
    name: Option<String>,
    data: String,
}

impl FeedEvent {
    /// Returns the id, if the event has one.
    pub fn id(&self) -> Option<&str> {
        self.id.as_deref()
    }

    /// Returns the name, if the event has one. A browser uses "message" otherwise.
    pub fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// Returns the data, with lines joined by LF.
    pub fn data(&self) -> &str {
        &self.data
    }

    /// Returns the client's view of an event in a feed.
    pub(super) fn of_feed(id: Option<String>, name: Option<&str>, data: &str) -> FeedEvent {
        let data: Vec<&str> = lines(data).collect();
        FeedEvent {
            id,
            name: name.map(str::to_owned),
            data: data.join("\n"),
        }
    }

    /// Reads a stream as a browser does (WHATWG HTML, section 9.2.6): an event without data does
    /// not count, nor does one without a blank line after it.
    pub(super) fn read(stream: &str) -> Vec<FeedEvent> {
        let stream = stream.strip_prefix('\u{feff}').unwrap_or(stream);
        let mut lines: Vec<&str> = lines(stream).collect();
        lines.pop(); // text without a line end
        let mut events: Vec<&[&str]> = lines.split(|line| line.is_empty()).collect();
        events.pop(); // an event without a blank line
        events.into_iter().filter_map(FeedEvent::of_lines).collect()
    }

    fn of_lines(lines: &[&str]) -> Option<FeedEvent> {
        let mut event = FeedEvent::default();
        let mut data: Vec<&str> = Vec::new();
        for line in lines {
            let (field, value) = line.split_once(':').unwrap_or((line, ""));
            let value = value.strip_prefix(' ').unwrap_or(value);
            match field {
                "data" => data.push(value),
                "event" => event.name = Some(value.to_owned()).filter(|name| !name.is_empty()),
                "id" if !value.contains('\0') => event.id = Some(value.to_owned()),
                _ => {}
            }
        }
        event.data = data.join("\n");
        (!data.is_empty()).then_some(event)
    }
}

impl PartialEq<&str> for FeedEvent {
    fn eq(&self, data: &&str) -> bool {
        self.data == *data
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_is_read_as_a_browser_reads_it() {
        let cases: [(&str, &[&str]); 12] = [
            ("data: a\n\ndata: b\n\n", &["--a", "--b"]),
            (
                "\u{feff}data:a\r\n\r\ndata:b\r\rdata:c\n\n",
                &["--a", "--b", "--c"],
            ),
            ("data: a\ndata\ndata:  b\n\n", &["--a\n\n b"]),
            ("data\n\n", &["--"]),
            ("data: \n\n", &["--"]),
            (
                "id: 7\nevent: tick\nretry: 9\ndata: a\n\ndata: b\n\n",
                &["7-tick-a", "--b"],
            ),
            ("id: 7\n\n: still here\n\n\n\n", &[]),
            ("event:\nid: a\0b\ndata: a\n\n", &["--a"]),
            ("data: a:b\n\n", &["--a:b"]),
            ("Data: a\n data: b\nother: c\n\n", &[]),
            ("data: whole\n\ndata: broken off\n", &["--whole"]),
            ("", &[]),
        ];
        for (stream, expected) in cases {
            let tell = |event: &FeedEvent| {
                format!(
                    "{}-{}-{}",
                    event.id().unwrap_or_default(),
                    event.name().unwrap_or_default(),
                    event.data()
                )
            };
            assert_eq!(
                FeedEvent::read(stream).iter().map(tell).collect::<Vec<_>>(),
                expected,
                "{stream:?}"
            );
        }
    }

    #[test]
    fn what_the_encoder_writes_is_read_again() {
        for data in [
            "",
            "a",
            " a",
            ":",
            "a\nb",
            "a\n\nb\n",
            "\n",
            "\u{feff}a",
            "data: a",
            "a\0b",
        ] {
            let event = crate::Event::data(data)
                .id("7")
                .event("tick")
                .encode()
                .unwrap();
            let read = FeedEvent::read(&event);
            assert_eq!(
                read,
                [FeedEvent {
                    id: Some("7".into()),
                    name: Some("tick".into()),
                    data: data.into()
                }]
            );
            assert_eq!(
                FeedEvent::read(&crate::Event::data(data).encode().unwrap()),
                [data]
            );
        }
    }
}
