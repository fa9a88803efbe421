//! Minimum pace of a client, in each direction and for each wait, and waits that are not its fault.

mod support;

use bytes::Bytes;
use http::StatusCode;
use std::{
    io::Write as _,
    pin::Pin,
    sync::{Arc, mpsc},
    task::{Context, Poll},
    time::Duration,
};
use support::{Served, handshake, masked, usual, wait_until};
use tidegate_edge::Config;
use tidegate_hub::{
    BodyError, Call, Conn, Feed, FeedEvent, Frame, Limits, Message, Publication, Response,
    StreamingResponse,
    app::{BodyStream, Stream},
    page::{ActionOutcome, ActionStep, Form},
    testing::FakeApp,
};
use tidegate_routing::{Manifest, Page};

const SHORT: Duration = Duration::from_millis(300);
/// A time that no test reaches.
const LONG: Duration = Duration::from_secs(60);

fn patient() -> Config {
    Config {
        header_within: LONG,
        idle_within: LONG,
        body_within: LONG,
        read_within: LONG,
        write_within: LONG,
        drain_within: SHORT * 3,
        ..Config::default()
    }
}

/// An endless body of pieces of this size; of size zero, it sends nothing and does not end.
struct Endless(
    usize,
    #[allow(dead_code, reason = "it is held, not read")] Option<BodyStream>,
);

impl Stream for Endless {
    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame, BodyError>>> {
        if self.0 == 0 {
            Poll::Pending
        } else {
            Poll::Ready(Some(Ok(Frame::Data(Bytes::from(vec![b'x'; self.0])))))
        }
    }
}

/// Returns an app that echoes its upload as it arrives.
fn echoing() -> FakeApp {
    FakeApp {
        stream: Box::new(|_, upload| {
            Ok(StreamingResponse {
                status: StatusCode::OK,
                headers: Default::default(),
                body: upload,
            })
        }),
        ..FakeApp::default()
    }
}

/// Returns an app that answers without end, and does not read the upload.
fn deaf(piece: usize) -> FakeApp {
    let stream = move |_, upload| {
        Ok(StreamingResponse {
            status: StatusCode::OK,
            headers: Default::default(),
            body: Box::pin(Endless(piece, Some(upload))),
        })
    };
    FakeApp {
        stream: Box::new(stream),
        ..FakeApp::default()
    }
}

fn feeds() -> FakeApp {
    let feed = || Feed {
        topics: vec!["news".into()],
        first: vec![FeedEvent {
            data: "hello".into(),
            event: None,
        }],
        ..Feed::default()
    };
    FakeApp {
        subscribe: Box::new(move |_| Ok(Ok(feed()))),
        ..FakeApp::default()
    }
}

fn large() -> FakeApp {
    let body = Bytes::from(vec![b'x'; 32 << 20]);
    FakeApp {
        handle: Box::new(move |_| {
            Ok(Response {
                status: StatusCode::OK,
                headers: vec![],
                body: body.clone(),
            })
        }),
        ..FakeApp::default()
    }
}

const CHUNKED: &str = "POST /stream HTTP/1.1\r\nhost: test\r\ntransfer-encoding: chunked\r\n\r\n";
const HELLO: &str = "GET /hello HTTP/1.1\r\nhost: test\r\n\r\n";

#[test]
fn a_head_is_timed_from_its_first_byte_and_an_idle_connection_separately() {
    let half = "GET /hello HTTP/1.1\r\nho";
    let upload = "POST /items/7 HTTP/1.1\r\nhost: test\r\ncontent-length: 2\r\n\r\nhi";
    let cases: [(&str, Vec<String>, bool); 9] = [
        ("nothing at all", vec![], false),
        ("half a head", vec![half.into()], true),
        ("a single byte", vec!["G".into()], true),
        (
            "half a head after a request",
            vec![HELLO.into(), half.into()],
            true,
        ),
        (
            "half a head with the request before it",
            vec![format!("{HELLO}{half}")],
            true,
        ),
        (
            "half a head after two requests at once",
            vec![format!("{HELLO}{HELLO}{half}")],
            true,
        ),
        ("nothing after a body", vec![upload.into()], false),
        (
            "half a head with the body before it",
            vec![format!("{upload}{half}")],
            true,
        ),
        (
            "half an upgrade",
            vec![handshake("/ws", "").trim_end().into()],
            true,
        ),
    ];
    for (name, sent, is_head) in cases {
        let served = Served::new(
            FakeApp::default(),
            usual(),
            Limits::default(),
            Config {
                header_within: SHORT,
                ..patient()
            },
        );
        let idle = Served::new(
            FakeApp::default(),
            usual(),
            Limits::default(),
            Config {
                idle_within: SHORT,
                ..patient()
            },
        );
        for (served, ends) in [(served, is_head), (idle, !is_head)] {
            let mut raw = served.raw();
            for bytes in &sent {
                raw.send(bytes.as_bytes());
            }
            if !ends {
                continue;
            }
            let rest = raw.rest();
            assert_eq!(rest.contains("HTTP/1.1 408"), is_head, "{name}: {rest}");
            assert_eq!(
                served.hub.counters().late_heads.get(),
                u64::from(is_head),
                "{name}"
            );
        }
    }
}

#[test]
fn an_idle_connection_ends_after_idle_within_without_counting_as_stalled() {
    let served = Served::new(
        FakeApp::default(),
        usual(),
        Limits::default(),
        Config {
            idle_within: SHORT,
            ..patient()
        },
    );
    let upload = "POST /items/7 HTTP/1.1\r\nhost: test\r\ncontent-length: 2\r\n\r\nhi";
    for request in [HELLO, upload] {
        let mut raw = served.raw();
        for _ in 0..3 {
            raw.send(request.as_bytes());
            raw.head();
        }
        assert!(!raw.rest().contains("408"));
    }
    let counters = served.hub.counters();
    assert_eq!(
        (
            counters.late_heads.get(),
            counters.stalled_uploads.get(),
            counters.stalled_readers.get()
        ),
        (0, 0, 0)
    );
}

#[test]
fn a_body_that_stalls_while_it_is_read_ends_with_408() {
    let form = "POST /items/7 HTTP/1.1\r\nhost: test\r\ncontent-length: 1000\r\n\r\n";
    let cases: [(&str, &str, &[&str]); 6] = [
        ("nothing of a body", form, &[]),
        ("a byte of a body", form, &["x"]),
        ("a byte of a stream", CHUNKED, &["1\r\nx\r\n"]),
        ("half the size of a chunk", CHUNKED, &["1\r\nx\r\n", "1"]),
        ("half a chunk", CHUNKED, &["ff\r\nx"]),
        (
            "half of the trailers",
            CHUNKED,
            &["1\r\nx\r\n0\r\n", "x-half: "],
        ),
    ];
    for (name, head, pieces) in cases {
        let served = Served::new(
            echoing(),
            usual(),
            Limits::default(),
            Config {
                read_within: SHORT,
                ..patient()
            },
        );
        let mut raw = served.raw();
        raw.send(head.as_bytes());
        for piece in pieces {
            raw.send(piece.as_bytes());
        }
        let rest = raw.rest();
        // An answer that has begun is truncated: it has no last chunk.
        let is_reported = if head == CHUNKED {
            !rest.ends_with("0\r\n\r\n")
        } else {
            rest.starts_with("HTTP/1.1 408")
        };
        assert!(is_reported, "{name}: {rest}");
        assert_eq!(served.hub.counters().stalled_uploads.get(), 1, "{name}");
    }
}

#[test]
fn a_client_below_the_minimum_rate_counts_as_stopped() {
    let config = Config {
        read_within: SHORT,
        bytes_per_second_min: 10_000,
        ..patient()
    };
    let served = Served::new(echoing(), usual(), Limits::default(), config);
    let mut raw = served.raw();
    raw.send(CHUNKED.as_bytes());
    wait_until("it is given up", || {
        raw.send(b"1\r\nx\r\n");
        served.hub.counters().stalled_uploads.get() == 1
    });
}

/// Returns a page with an action that reads its form to the end, and reports when it begins and how
/// it ends.
fn reads_form() -> (FakeApp, Manifest, mpsc::Receiver<String>) {
    let (report, reports) = mpsc::channel();
    let act = move |_, _, mut form: Box<dyn Form>| -> Call<'static, Vec<ActionStep>> {
        let report = report.clone();
        Box::pin(async move {
            report.send("begun".to_owned()).unwrap();
            let end = loop {
                match form.next().await {
                    Ok(Some(_)) => while let Ok(Some(_)) = form.read().await {},
                    Ok(None) => break "whole".to_owned(),
                    Err(error) => break format!("{error:?}"),
                }
            };
            report.send(end).unwrap();
            Ok(vec![ActionStep::Done(Ok(ActionOutcome::Success {
                value: "1".into(),
                stale: vec![],
            }))])
        })
    };
    let page = Page {
        pattern: "/shop".into(),
        actions: vec!["buy".into()],
        ..Page::default()
    };
    let manifest = Manifest {
        routes: vec![],
        guards: vec![],
        pages: vec![page],
    };
    (
        FakeApp {
            act: Arc::new(act),
            ..FakeApp::default()
        },
        manifest,
        reports,
    )
}

#[test]
fn an_action_starts_when_64_kib_or_all_of_its_form_arrived() {
    let part = |name: &str, content: &str| {
        format!("--B\r\ncontent-disposition: form-data; name=\"{name}\"\r\n\r\n{content}\r\n")
    };
    let action = part("__action", "buy");
    let cases: [(&str, String, &str, &[&str]); 4] = [
        (
            "whole and small",
            format!("{action}--B--\r\n"),
            "200",
            &["begun", "whole"],
        ),
        ("named, then nothing", action.clone(), "408", &[]),
        (
            "60 KiB, then nothing",
            format!("{action}{}", part("a", &"x".repeat(60 << 10))),
            "408",
            &[],
        ),
        (
            "70 KiB, then nothing",
            format!("{action}{}", part("a", &"x".repeat(70 << 10))),
            "408",
            &["begun", "TooSlow"],
        ),
    ];
    for accept in ["application/json", "text/html"] {
        for (name, form, status, expected) in &cases {
            let (app, manifest, reports) = reads_form();
            let served = Served::new(
                app,
                manifest,
                Limits::default(),
                Config {
                    read_within: SHORT,
                    ..patient()
                },
            );
            let length = if *status == "200" {
                form.len()
            } else {
                1 << 20
            };
            let head = "POST /shop HTTP/1.1\r\nhost: test\r\ncontent-type: multipart/form-data; boundary=B\r\n";
            let mut raw = served.raw();
            raw.send(
                format!("{head}accept: {accept}\r\ncontent-length: {length}\r\n\r\n{form}")
                    .as_bytes(),
            );
            let answer = raw.head();
            let status = if *status == "200" && *accept == *"text/html" {
                "303"
            } else {
                status
            };
            assert_eq!(answer[9..12], *status, "{name}: {answer}");
            drop(raw);
            drop(served);
            assert_eq!(reports.try_iter().collect::<Vec<_>>(), *expected, "{name}");
        }
    }
}

#[test]
fn a_body_that_the_app_does_not_read_is_not_a_stalled_upload() {
    let served = Served::new(
        deaf(0),
        usual(),
        Limits::default(),
        Config {
            read_within: SHORT,
            idle_within: SHORT,
            header_within: SHORT,
            ..patient()
        },
    );
    let mut raw = served.raw();
    raw.send(format!("{CHUNKED}1\r\nx\r\n").as_bytes());
    raw.head();
    std::thread::sleep(SHORT * 3);
    assert_eq!(served.hub.counters().stalled_uploads.get(), 0);
    raw.0
        .set_read_timeout(Some(Duration::from_millis(10)))
        .unwrap();
    assert!(
        std::io::Read::read(&mut raw.0, &mut [0]).is_err(),
        "the connection is still open"
    );
}

#[test]
fn a_client_that_does_not_read_loses_its_connection() {
    let follow = "GET /feed HTTP/1.1\r\nhost: test\r\naccept: text/event-stream\r\n\r\n";
    // With the default limits, an overflow of the outbox would end the feed first.
    let limits = Limits {
        outbox_bytes_max: 1 << 30,
        outbox_messages_max: 1 << 20,
        ..Limits::default()
    };
    let cases: [(&str, FakeApp, &str); 3] = [
        (
            "a stream",
            deaf(4096),
            "POST /stream HTTP/1.1\r\nhost: test\r\ncontent-length: 0\r\n\r\n",
        ),
        ("a large answer", large(), HELLO),
        ("a feed", feeds(), follow),
    ];
    for (name, app, request) in cases {
        let served = Served::new(
            app,
            usual(),
            limits.clone(),
            Config {
                write_within: SHORT,
                ..patient()
            },
        );
        let mut raw = served.raw();
        raw.send(request.as_bytes());
        wait_until(name, || {
            for _ in 0..if name == "a feed" { 10 } else { 0 } {
                let message = Message::text("x".repeat(10_000));
                _ = served.hub.publish("news", Publication::new(message));
            }
            served.hub.counters().stalled_readers.get() == 1
        });
        wait_until(name, || served.hub.connections().count() == (0, 0));
    }
}

#[test]
fn a_slow_client_at_the_minimum_rate_receives_everything() {
    let served = Served::new(
        large(),
        usual(),
        Limits::default(),
        Config {
            write_within: SHORT * 2,
            ..patient()
        },
    );
    let mut raw = served.raw();
    raw.send(b"GET /hello HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n");
    raw.head();
    let (mut read, mut buffer) = (0, vec![0; 1 << 20]);
    // The kernel buffers some of these megabytes, so the host can write only now and then.
    while read < 32 << 20 {
        std::thread::sleep(Duration::from_millis(10));
        let n = std::io::Read::read(&mut raw.0, &mut buffer).unwrap();
        assert!(n > 0, "cut after {read}");
        read += n;
    }
    assert_eq!(served.hub.counters().stalled_readers.get(), 0);
}

#[test]
fn a_websocket_that_stalls_within_a_message_is_closed() {
    let text = masked(0x81, b"hello");
    let cases: [(&str, Vec<u8>, bool); 6] = [
        ("nothing", vec![], false),
        ("a whole message", text.clone(), false),
        ("a byte of a head", text[..1].to_vec(), true),
        ("a head", text[..6].to_vec(), true),
        ("half a payload", text[..8].to_vec(), true),
        ("a fragment of a message", masked(0x01, b"hello"), true),
    ];
    for (name, bytes, is_late) in cases {
        let limits = Limits {
            ping_every: Duration::ZERO,
            ..Limits::default()
        };
        let served = Served::new(
            FakeApp::default(),
            usual(),
            limits,
            Config {
                read_within: SHORT,
                ..patient()
            },
        );
        let mut raw = served.websocket();
        raw.send(&bytes);
        if is_late {
            assert_eq!(raw.rest_bytes(), b"", "{name}");
        } else {
            std::thread::sleep(SHORT * 3);
            raw.text("still here");
            raw.bytes_until("still here");
        }
        assert_eq!(
            served.hub.counters().stalled_uploads.get(),
            u64::from(is_late),
            "{name}"
        );
    }
}

#[test]
fn a_websocket_that_reads_nothing_is_closed() {
    let messages = |(conn, _): (Arc<Conn>, Vec<Message>)| {
        while conn.send(Message::text("x".repeat(100_000))).is_ok() {}
        Ok(())
    };
    let app = FakeApp {
        messages: Box::new(messages),
        ..FakeApp::default()
    };
    let limits = Limits {
        ping_every: Duration::ZERO,
        ..Limits::default()
    };
    let served = Served::new(
        app,
        usual(),
        limits,
        Config {
            write_within: SHORT,
            ..patient()
        },
    );
    let mut raw = served.websocket();
    wait_until("it is given up", || {
        _ = raw.0.write(&masked(0x81, b"more"));
        served.hub.counters().stalled_readers.get() == 1
    });
    wait_until("it is gone", || served.hub.connections().count() == (0, 0));
}

#[test]
fn bytes_of_a_message_are_a_sign_of_life() {
    let limits = Limits {
        ping_every: SHORT,
        pong_within: SHORT * 3,
        idle_max: SHORT * 3,
        ..Limits::default()
    };
    let served = Served::new(FakeApp::default(), usual(), limits, patient());
    let mut raw = served.websocket();
    // It takes longer than a ping and its pong may take, and each of its gaps is much shorter.
    let message = masked(0x81, &[b'x'; 1000]);
    for byte in &message {
        raw.send(&[*byte]);
        std::thread::sleep(Duration::from_millis(2));
    }
    raw.bytes_until(&"x".repeat(1000));
    // The client is silent from now on.
    assert!(raw.rest_bytes().len() < 100);
}

#[test]
fn a_ping_waits_for_the_message_before_it() {
    let messages = |(conn, _): (Arc<Conn>, Vec<Message>)| {
        for _ in 0..12 {
            conn.send(Message::binary(vec![b'x'; 1 << 20])).unwrap();
        }
        Ok(())
    };
    let app = FakeApp {
        messages: Box::new(messages),
        ..FakeApp::default()
    };
    let limits = Limits {
        ping_every: SHORT / 3,
        outbox_bytes_max: 100 << 20,
        ..Limits::default()
    };
    let served = Served::new(app, usual(), limits, patient());
    let mut raw = served.websocket();
    raw.text("more");
    let (mut messages, mut bytes) = (0, 0);
    while messages < 12 {
        std::thread::sleep(Duration::from_millis(50));
        let (first, payload) = raw.frame();
        match first {
            0x82 => {
                assert!(
                    payload.iter().all(|byte| *byte == b'x'),
                    "no ping interrupts a message"
                );
                messages += 1;
                bytes += payload.len();
            }
            0x89 => raw.send(&masked(0x8a, &payload)),
            other => panic!("{other:x}"),
        }
    }
    assert_eq!(bytes, 12 << 20);
}

#[test]
fn pings_and_pongs_have_a_rate() {
    for first in [0x89, 0x8a] {
        let limits = Limits {
            control_frames_max: 20,
            ..Limits::default()
        };
        let served = Served::new(FakeApp::default(), usual(), limits, patient());
        let mut raw = served.websocket();
        raw.send(&masked(0x81, b"before"));
        raw.bytes_until("before");
        raw.send(&masked(first, b"flood").repeat(30));
        let close = loop {
            match raw.frame() {
                (0x8a, _) => {}
                (0x88, payload) => break u16::from_be_bytes([payload[0], payload[1]]),
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(
            (close, served.hub.counters().control_floods.get()),
            (1008, 1)
        );
    }
}

#[test]
fn slow_clients_do_not_hold_the_drain() {
    type App = fn() -> FakeApp;
    let cases: [(&str, App, &str); 5] = [
        ("nothing yet", FakeApp::default, ""),
        ("half a head", FakeApp::default, "GET /hello HT"),
        ("an idle connection", FakeApp::default, HELLO),
        (
            "half a body",
            echoing,
            "POST /items/7 HTTP/1.1\r\nhost: test\r\ncontent-length: 1000\r\n\r\nx",
        ),
        ("a reader that does not read", large, HELLO),
    ];
    for (name, app, bytes) in cases {
        let config = Config {
            drain_within: LONG / 60 * 2,
            ..patient()
        };
        let mut served = Served::new(app(), usual(), Limits::default(), config);
        let mut raw = served.raw();
        raw.send(bytes.as_bytes());
        // The server must accept the connection before it stops.
        std::thread::sleep(Duration::from_millis(100));
        served.stop();
        assert!(served.drained().in_time, "{name}");
        drop(raw);
    }
}
