//! Held answers: the bytes on the wire when hyper has given up the connection, and when it has not.

mod support;

use bytes::Bytes;
use http::StatusCode;
use std::{
    io::Read as _,
    pin::Pin,
    task::{Context, Poll},
    time::{Duration, Instant},
};
use support::{PATIENCE, Served, routes, usual};
use tidegate_edge::Config;
use tidegate_hub::{
    BodyError, Feed, FeedEvent, Frame, Limits, Message, Publication, StreamingResponse,
    app::{BodyStream, Stream},
    testing::FakeApp,
};
use tidegate_routing::Target;

fn feeds() -> FakeApp {
    let first = || FeedEvent {
        data: "hello".into(),
        event: None,
    };
    let feed = move || Feed {
        topics: vec!["news".into()],
        first: vec![first()],
        ..Feed::default()
    };
    FakeApp {
        subscribe: Box::new(move |_| Ok(Ok(feed()))),
        ..FakeApp::default()
    }
}

fn ask(path: &str, version: &str) -> Vec<u8> {
    format!("GET {path} HTTP/{version}\r\nhost: test\r\naccept: text/event-stream\r\n\r\n")
        .into_bytes()
}

#[test]
fn a_held_answer_comes_in_chunks_and_ends_with_the_server() {
    let mut served = Served::usual(feeds());
    let mut feed = served.raw();
    feed.send(&ask("/feed", "1.1"));
    let head = feed.head();
    let headers = [
        "HTTP/1.1 200 OK\r\n",
        "content-type: text/event-stream\r\n",
        "transfer-encoding: chunked\r\n",
        "\r\ndate: ",
    ];
    assert!(
        headers.iter().all(|header| head.contains(header)) && !head.contains("connection: "),
        "{head}"
    );
    assert!(head.contains("\r\ntidegate-heartbeat: 15000\r\n"), "{head}");
    feed.until("data: hello\n\n\r\n");
    feed.until("-0\n\n\r\n");
    served
        .hub
        .publish("news", Publication::new(Message::text("high water")))
        .unwrap();
    let piece = feed.until("data: high water\n\n\r\n");
    assert_eq!(
        usize::from_str_radix(piece.lines().next().unwrap(), 16).unwrap(),
        piece.len() - piece.find('\n').unwrap() - 1 - 2,
        "{piece:?}"
    );
    served.stop();
    assert_eq!(feed.rest(), "0\r\n\r\n");
    assert!(served.drained().in_time);
}

#[test]
fn a_client_of_http_1_0_receives_a_held_answer_without_chunks() {
    let mut served = Served::usual(feeds());
    let mut feed = served.raw();
    feed.send(&ask("/feed", "1.0"));
    let head = feed.head();
    assert!(
        head.starts_with("HTTP/1.0 200 OK\r\n")
            && !head.contains("\r\ntransfer-encoding: ")
            && !head.contains("\r\nconnection: "),
        "{head}"
    );
    feed.until("data: hello\n\n");
    feed.until("-0\n\n");
    served.stop();
    assert_eq!(feed.rest(), "");
}

/// A body that breaks off after its first piece.
struct BrokenBody(Option<Bytes>);

impl Stream for BrokenBody {
    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame, BodyError>>> {
        let piece = self.0.take();
        Poll::Ready(Some(
            piece.map(Frame::Data).ok_or(BodyError("broken".into())),
        ))
    }
}

#[test]
fn an_incomplete_held_answer_has_no_last_chunk_or_ends_with_a_reset() {
    let stream = |_, _| {
        Ok(StreamingResponse {
            status: StatusCode::OK,
            headers: Default::default(),
            body: Box::pin(BrokenBody(Some(Bytes::from_static(b"first")))),
        })
    };
    let served = Served::usual(FakeApp {
        stream: Box::new(stream),
        ..feeds()
    });
    for (version, rest) in [("1.1", Some("")), ("1.0", None)] {
        let mut broken = served.raw();
        // A client that accepts trailers gets its streamed answer without hyper.
        let head = format!("GET /stream HTTP/{version}\r\nhost: test\r\nte: trailers\r\n\r\n");
        broken.send(head.as_bytes());
        broken.until("first");
        if version == "1.1" {
            broken.until("\r\n");
        }
        let mut bytes = String::new();
        let outcome = broken.0.read_to_string(&mut bytes);
        assert_eq!(outcome.ok().map(|_| &*bytes), rest, "{version}");
    }
}

/// A body of one piece, which keeps the upload that it answers.
struct Piece {
    bytes: Option<Bytes>,
    _upload: BodyStream,
}

impl Stream for Piece {
    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame, BodyError>>> {
        Poll::Ready(self.bytes.take().map(|bytes| Ok(Frame::Data(bytes))))
    }

    fn length(&self) -> Option<u64> {
        Some(BYTES as u64)
    }
}

const BYTES: usize = 4 << 20;

#[test]
fn earlier_answers_that_were_not_read_yet_are_sent_whole() {
    // The unread upload is dropped with the answer.
    let stream = |_, upload| {
        let body = Piece {
            bytes: Some(Bytes::from(vec![b'x'; BYTES])),
            _upload: upload,
        };
        Ok(StreamingResponse {
            status: StatusCode::OK,
            headers: Default::default(),
            body: Box::pin(body),
        })
    };
    let served = Served::usual(FakeApp {
        stream: Box::new(stream),
        ..feeds()
    });
    let mut both = served.raw();
    let upload = b"POST /stream HTTP/1.1\r\nhost: test\r\ncontent-length: 5\r\n\r\nhello";
    both.send(&[&upload[..], &ask("/feed", "1.1")].concat());
    assert!(both.head().contains("content-length: 4194304"));
    let mut body = vec![0; BYTES];
    both.0.read_exact(&mut body).unwrap();
    assert!(body.iter().all(|byte| *byte == b'x'));
    assert!(both.head().starts_with("HTTP/1.1 200 OK\r\n"));
    both.until("data: hello\n\n");
}

fn wait_until(what: &str, is_so: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::yield_now();
    }
}

#[test]
fn a_kept_connection_can_end_with_a_held_answer() {
    let served = Served::usual(feeds());
    let mut kept = served.raw();
    for _ in 0..2 {
        kept.send(b"GET /hello HTTP/1.1\r\nhost: test\r\n\r\n");
        kept.head();
        kept.until("/hello");
    }
    kept.send(&ask("/feed", "1.1"));
    kept.until("data: hello\n\n");
}

#[test]
fn a_held_answer_ends_when_its_client_leaves_or_sends_too_much() {
    let limits = Limits {
        comment_every: Duration::from_millis(20),
        ..Limits::default()
    };
    let served = Served::new(feeds(), usual(), limits, Config::default());
    let mut gone = served.raw();
    gone.send(&ask("/feed", "1.1"));
    gone.until("data: hello\n\n");
    drop(gone);
    let mut chatty = served.raw();
    chatty.send(&ask("/feed", "1.1"));
    chatty.until("data: hello\n\n");
    chatty.send(&[b'x'; 1000]);
    chatty.until(":\n\n\r\n");
    served
        .hub
        .publish("news", Publication::new(Message::text("still here")))
        .unwrap();
    chatty.until("data: still here\n\n");
    drop(chatty);
    wait_until("both are given up", || {
        served.hub.connections().count().1 == 0
    });
}

#[test]
fn a_held_answer_to_head_has_no_body() {
    let served = Served::new(
        feeds(),
        routes(&[("GET", "/feed", Target::Feed)]),
        Limits::default(),
        Config::default(),
    );
    let answer = served.ask("HEAD /feed HTTP/1.1\r\nhost: test\r\nconnection: close\r\naccept: text/event-stream\r\n\r\n");
    assert!(
        answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("\r\n\r\n"),
        "{answer}"
    );
}
