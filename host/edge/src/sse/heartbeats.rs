//! Heartbeats in event streams that an app writes: its own streams, and the progress of an action.
//!
//! A comment is a line (WHATWG HTML, section 9.2.5), so it may be inserted only between lines. The
//! wrapper tracks the end of the bytes so far. Between two events it writes a comment and a blank
//! line. Within an event it writes a comment alone, because a blank line would dispatch the event.
//! Within a line it writes nothing.
//!
//! Invariant: the client reads the same events as without heartbeats.

use crate::{
    http::answer::{AnswerBody, HttpAnswer},
    sse::event_stream,
};
use bytes::{Buf as _, Bytes};
use http::{StatusCode, header};
use std::{
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};
use tidegate_hub::{self as hub, BodyError, Frame, app::Stream};
use tokio::time::{Instant, Sleep, sleep};

/// Byte order mark, which a client skips only at the beginning of a stream (WHATWG HTML, section
/// 9.2.6).
const BOM: &[u8] = b"\xef\xbb\xbf";

/// Number of bytes at the end of a piece that determine its end: at most two line ends of two bytes
/// each, after another byte.
const TAIL_BYTES: usize = 5;

/// Adds heartbeats to a streamed answer, and the header that announces them, if clients read it as
/// an event stream: with status 200, without an encoding and without a known length.
pub(crate) fn add(mut answer: HttpAnswer, every: Duration) -> HttpAnswer {
    let headers = answer.headers();
    let is_event_stream = headers.get(header::CONTENT_TYPE).is_some_and(|kind| {
        let kind = kind.as_bytes().split(|byte| *byte == b';').next();
        kind.is_some_and(|kind| kind.trim_ascii().eq_ignore_ascii_case(b"text/event-stream"))
    });
    let is_changed = !is_event_stream
        || answer.status() != StatusCode::OK
        || headers.contains_key(header::CONTENT_LENGTH)
        || headers.contains_key(header::CONTENT_ENCODING);
    if is_changed {
        return answer;
    }
    let announced = event_stream::heartbeat(every);
    answer
        .headers_mut()
        .insert(event_stream::HEARTBEAT, announced);
    answer.map(|body| match body {
        AnswerBody::Stream(body) => AnswerBody::Stream(Box::pin(Heartbeats::new(body, every))),
        body => body,
    })
}

struct Heartbeats {
    body: hub::BodyStream,
    every: Duration,
    silence: Pin<Box<Sleep>>,
    text: SentText,
}

impl Heartbeats {
    fn new(body: hub::BodyStream, every: Duration) -> Heartbeats {
        Heartbeats {
            body,
            every,
            silence: Box::pin(sleep(every)),
            text: SentText::default(),
        }
    }
}

impl Stream for Heartbeats {
    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame, BodyError>>> {
        let this = &mut *self;
        let bytes = match this.body.as_mut().poll_frame(cx) {
            Poll::Ready(Some(Ok(Frame::Data(bytes)))) => this.text.pass(bytes),
            Poll::Ready(other) => return Poll::Ready(other),
            Poll::Pending => loop {
                ready!(this.silence.as_mut().poll(cx));
                match this.text.comment() {
                    Some(comment) => break Bytes::from_static(comment.as_bytes()),
                    None => this.silence.as_mut().reset(Instant::now() + this.every),
                }
            },
        };
        this.silence.as_mut().reset(Instant::now() + this.every);
        Poll::Ready(Some(Ok(Frame::Data(bytes))))
    }
}

/// The text that has been sent.
#[derive(Default)]
struct SentText {
    end: TextEnd,
    /// Bytes that are left out if the app continues with them, because a comment was sent before
    /// them.
    left_out: &'static [u8],
}

/// End of the text so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum TextEnd {
    /// There is no text yet.
    #[default]
    Start,
    /// After a blank line.
    Event,
    /// After another line.
    Line,
    /// After a carriage return, which ends a line. A line feed may still belong to it.
    Return {
        is_blank: bool,
    },
    Within,
}

impl TextEnd {
    /// Returns the end after one more byte.
    fn then(self, byte: u8) -> TextEnd {
        let is_blank = match self {
            TextEnd::Start | TextEnd::Event | TextEnd::Line => true,
            // The byte is the second half of a line end, or begins another line.
            TextEnd::Return { is_blank } => is_blank || byte == b'\r',
            TextEnd::Within => false,
        };
        match byte {
            b'\r' => TextEnd::Return { is_blank },
            b'\n' if is_blank => TextEnd::Event,
            b'\n' => TextEnd::Line,
            _ => TextEnd::Within,
        }
    }
}

impl SentText {
    /// Takes bytes of the app, and returns the bytes to send.
    fn pass(&mut self, mut bytes: Bytes) -> Bytes {
        while !bytes.is_empty() && !self.left_out.is_empty() {
            if bytes[0] == self.left_out[0] {
                bytes.advance(1);
                self.left_out = &self.left_out[1..];
            } else {
                self.left_out = b"";
            }
        }
        let tail = bytes.len().saturating_sub(TAIL_BYTES);
        if tail > 0 {
            self.end = TextEnd::Within;
        }
        self.end = bytes[tail..]
            .iter()
            .fold(self.end, |end, byte| end.then(*byte));
        bytes
    }

    /// Returns the comment to send here, if one is allowed.
    fn comment(&mut self) -> Option<&'static str> {
        match self.end {
            TextEnd::Start => self.left_out = BOM,
            TextEnd::Return { .. } => self.left_out = b"\n",
            TextEnd::Event | TextEnd::Line | TextEnd::Within => {}
        }
        let (comment, end) = match self.end {
            TextEnd::Start | TextEnd::Event | TextEnd::Return { is_blank: true } => {
                (event_stream::COMMENT, TextEnd::Event)
            }
            TextEnd::Line | TextEnd::Return { is_blank: false } => (":\n", TextEnd::Line),
            TextEnd::Within => return None,
        };
        self.end = end;
        Some(comment)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads a stream like a client, and returns the data of its events.
    fn events(text: &str) -> Vec<String> {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let text = text.replace("\r\n", "\n").replace('\r', "\n");
        let (mut events, mut data) = (Vec::new(), String::new());
        for line in text.split('\n') {
            if let Some(value) = line.strip_prefix("data:") {
                data += value;
            } else if line.is_empty() && !data.is_empty() {
                events.push(std::mem::take(&mut data));
            } else {
                assert!(line.is_empty() || line.starts_with(':'), "{line:?}");
            }
        }
        events
    }

    #[test]
    fn a_comment_changes_no_event_wherever_the_app_pauses() {
        // `|` is a pause, and `!` a pause in which no comment is allowed.
        let cases = [
            "|data:a\n\n|data:b\n\n|",
            "data:a\n|\n|data:b\n|data:c\n\n|",
            "data:a\r\n\r\n|data:b\r\n|\r\n|",
            "data:a\r|\n\r|\n|data:b\r\n\r|\n|",
            "data:a\r|\r|data:b\r\r|",
            "data:a\r|data:b\r|\r|",
            "data:a\r\n\n|data:b\n\r\n|data:c\n\r|\n|",
            "d!a!t!a!:!a\n|\n|d!ata:b\n\n|",
            ":!own\n|\n|data:a\n:own\n|\n|",
            "|\u{feff}data:a\n\n|",
            "|\n|\r|\r\n|data:a\n\n|",
            "|data:a\ndata:b\n|data:c\ndata:a long line after others\n|\n|",
            "|data:a\n\ndata:a long line that is open!\n|\n|",
        ];
        for case in cases {
            let (mut text, mut sent) = (SentText::default(), String::new());
            let mut rest = case;
            while !rest.is_empty() {
                let at = rest.find(['|', '!']).unwrap_or(rest.len());
                let piece = Bytes::copy_from_slice(&rest.as_bytes()[..at]);
                sent += str::from_utf8(&text.pass(piece)).unwrap();
                if let Some(pause) = rest.get(at..at + 1) {
                    for _ in 0..2 {
                        let comment = text.comment();
                        assert_eq!(comment.is_some(), pause == "|", "{case:?} at {sent:?}");
                        sent += comment.unwrap_or_default();
                    }
                }
                rest = rest.get(at + 1..).unwrap_or_default();
            }
            let alone = case.replace(['|', '!'], "");
            assert_eq!(events(&sent), events(&alone), "{case:?}: {sent:?}");
        }
    }

    #[test]
    fn a_byte_order_mark_in_pieces_is_left_out_after_a_comment() {
        let mut text = SentText::default();
        assert_eq!(text.comment(), Some(":\n\n"));
        let sent: Vec<u8> = [&b"\xef"[..], b"", b"\xbb\xbfda", b"ta:a"]
            .into_iter()
            .flat_map(|piece| text.pass(Bytes::from_static(piece)))
            .collect();
        assert_eq!(sent, b"data:a");
    }

    #[test]
    fn only_an_event_stream_that_clients_read_as_one_gets_heartbeats() {
        let with = |status: u16, headers: &[(&str, &str)]| {
            let mut answer = http::Response::builder().status(status);
            for (name, value) in headers {
                answer = answer.header(*name, *value);
            }
            let answer = answer.body(AnswerBody::Whole(None)).unwrap();
            let announced = add(answer, Duration::from_secs(15));
            announced.headers().contains_key(event_stream::HEARTBEAT)
        };
        let kind = |kind| ("content-type", kind);
        let stream = kind("text/event-stream");
        // Only streamed bodies get timers.
        assert!(with(200, &[stream]));
        assert!(with(200, &[kind("Text/Event-Stream ; charset=utf-8")]));
        assert!(!with(200, &[]) && !with(200, &[kind("text/event-streams")]));
        assert!(!with(204, &[stream]) && !with(503, &[stream]));
        assert!(!with(200, &[stream, ("content-encoding", "gzip")]));
        assert!(!with(200, &[stream, ("content-length", "7")]));
    }
}
