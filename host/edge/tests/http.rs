//! HTTP on the wire: raw requests against a served fake app.

mod support;

use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use std::sync::{Arc, mpsc};
use support::{Served, guarded, report_channel, usual};
use tidegate_edge::Config;
use tidegate_hub::{
    BodyError, Fault, Feed, FeedEvent, Frame, Limits, Message, Pass, Publication, Response,
    StreamingResponse, Verdict, app::Stream, contract, testing::FakeApp,
};

fn status(answer: &str) -> &str {
    answer.split(' ').nth(1).unwrap_or("none")
}

#[test]
fn an_invalid_request_has_its_exact_answer() {
    let served = Served::usual(FakeApp::default());
    let cases = [
        (
            "GET /hello HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n",
            "200",
        ),
        ("GET /hello HTTP/1.0\r\n\r\n", "200"),
        (
            "GET http://other/hello HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n",
            "200",
        ),
        (
            "HEAD /hello HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n",
            "200",
        ),
        ("GET /hello HTTP/1.1\r\nconnection: close\r\n\r\n", "400"),
        (
            "GET /hello HTTP/1.1\r\nhost: a\r\nhost: b\r\nconnection: close\r\n\r\n",
            "400",
        ),
        (
            "GET /hello HTTP/1.1\r\nhost: a b\r\nconnection: close\r\n\r\n",
            "400",
        ),
        (
            "GET /hello HTTP/1.1\r\nhost: user@a\r\nconnection: close\r\n\r\n",
            "400",
        ),
        (
            "GET /%zz HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n",
            "400",
        ),
        (
            "GET /%00 HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n",
            "400",
        ),
        (
            "GET /nothing HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n",
            "404",
        ),
        (
            "GET /__loaders HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n",
            "404",
        ),
        (
            "GET /__tidegate/health HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n",
            "200",
        ),
        (
            "GET /__tidegate/x HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n",
            "404",
        ),
        (
            "PUT /hello HTTP/1.1\r\nhost: test\r\ncontent-length: 0\r\nconnection: close\r\n\r\n",
            "405",
        ),
        (
            "POST /items/7 HTTP/1.1\r\nhost: test\r\ncontent-length: 2\r\nconnection: close\r\n\r\nhi",
            "200",
        ),
        (
            "POST /items/7 HTTP/1.1\r\nhost: test\r\ncontent-length: 1048577\r\nconnection: close\r\n\r\n",
            "413",
        ),
        (
            "POST /items/7 HTTP/1.1\r\nhost: test\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nhi",
            "400",
        ),
        (
            "POST /items/7 HTTP/1.1\r\nhost: test\r\ntransfer-encoding: gzip\r\n\r\n",
            "400",
        ),
        (
            "POST /items/7 HTTP/1.1\r\nhost: test\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n2\r\nhi\r\n0\r\n\r\n",
            "200",
        ),
        (
            "GET /hello HTTP/1.1\r\nhost:\r\nconnection: close\r\n\r\n",
            "400",
        ),
        (
            "OPTIONS * HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n",
            "204",
        ),
        (
            "GET x HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n",
            "400",
        ),
        (
            "GET other:80 HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n",
            "400",
        ),
        (
            "GET http://user@test/hello HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n",
            "400",
        ),
        (
            "GET ftp://test/hello HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n",
            "400",
        ),
        (
            "GET /hello HTTP/1.1\r\nhost: test:99999\r\nconnection: close\r\n\r\n",
            "400",
        ),
        ("GET /hello HTTP/1.0\r\n\r\n", "200"),
        (
            "GET /hello\\x HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n",
            "400",
        ),
        (
            "GET /hello%2Fx HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n",
            "400",
        ),
        (
            "GET /__tidegate%2Fhealth HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n",
            "400",
        ),
        (
            "GET /__tidegate/health%2F HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n",
            "400",
        ),
        (
            "GET * HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n",
            "400",
        ),
        (
            "GET /caf\u{e9} HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n",
            "400",
        ),
        (
            "CONNECT test:80 HTTP/1.1\r\nhost: test:80\r\nconnection: close\r\n\r\n",
            "501",
        ),
        (
            "TRACE /hello HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n",
            "501",
        ),
        (
            "POST /items/7 HTTP/1.1\r\nhost: test\r\ncontent-length: 2\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n",
            "200",
        ),
        ("no request at all\r\n\r\n", "400"),
        ("GET /hello HTTP/1.1\r\nbad header\r\n\r\n", "400"),
        (
            "GET /ws HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n",
            "426",
        ),
    ];
    for (request, expected) in cases {
        let answer = served.ask(request);
        assert_eq!(status(&answer), expected, "{request:?}\n{answer}");
    }
}

#[test]
fn a_head_request_has_the_length_and_no_body_and_a_405_its_methods() {
    let served = Served::usual(FakeApp::default());
    let head = served.ask("HEAD /hello HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n");
    assert!(
        head.contains("content-length: 6") && head.ends_with("\r\n\r\n"),
        "{head}"
    );
    let refused = served
        .ask("PUT /hello HTTP/1.1\r\nhost: test\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
    assert!(refused.contains("allow: GET, HEAD\r\n"), "{refused}");
}

#[test]
fn a_body_without_a_length_is_still_bounded() {
    let limits = Limits {
        body_bytes_max: 10,
        ..Limits::default()
    };
    let served = Served::new(FakeApp::default(), usual(), limits, Config::default());
    let head = "POST /items/7 HTTP/1.1\r\nhost: test\r\ntransfer-encoding: chunked\r\n\r\n";
    let answer = served.ask(&format!("{head}6\r\n123456\r\n6\r\n123456\r\n0\r\n\r\n"));
    assert_eq!(status(&answer), "413", "{answer}");
}

#[test]
fn an_app_receives_the_request_as_sent_with_its_path_in_normal_form() {
    let (report, next_report) = report_channel();
    let handle = move |(request, body): (tidegate_hub::Request, Bytes)| {
        let line = format!(
            "{} {} {} {:?} {:?} {body:?}",
            request.method, request.authority, request.path, request.params, request.headers["x-a"]
        );
        report.send(line).unwrap();
        Ok(Response {
            status: StatusCode::CREATED,
            headers: vec![("x-b".into(), "2".into())],
            body: "made".into(),
        })
    };
    let served = Served::usual(FakeApp {
        handle: Box::new(handle),
        ..FakeApp::default()
    });
    let answer = served.ask(
        "POST /x/..//items//%61%20b/?q=%20#top HTTP/1.1\r\nhost: test:1\r\nx-a: 1\r\ncontent-length: 2\r\nconnection: close\r\n\r\nhi",
    );
    assert_eq!(
        next_report(),
        r#"POST test:1 /items/a%20b/?q=%20 [("id", "a b")] "1" b"hi""#
    );
    assert!(
        answer.starts_with("HTTP/1.1 201") && answer.contains("x-b: 2") && answer.ends_with("made"),
        "{answer}"
    );
}

#[test]
fn a_fault_answers_one_request_and_the_next_one_is_served() {
    let handle = |(request, _): (tidegate_hub::Request, Bytes)| match request.query() {
        Some("trap") => Err(Fault::Trap("canary".into())),
        Some("slow") => Err(Fault::Wall),
        Some("busy") => Err(Fault::Busy),
        Some("status") => Ok(Response {
            status: contract::status(99)?,
            ..Response::default()
        }),
        Some("header") => Ok(Response {
            status: StatusCode::OK,
            headers: vec![("a\nb".into(), "".into())],
            ..Response::default()
        }),
        _ => Ok(Response {
            status: StatusCode::OK,
            ..Response::default()
        }),
    };
    let served = Served::usual(FakeApp {
        handle: Box::new(handle),
        ..FakeApp::default()
    });
    for (query, expected) in [
        ("trap", "500"),
        ("slow", "504"),
        ("busy", "503"),
        ("status", "500"),
        ("header", "500"),
        ("fine", "200"),
    ] {
        let answer = served.get(&format!("/hello?{query}"));
        assert_eq!(status(&answer), expected, "{answer}");
        assert!(!answer.contains("canary"));
    }
}

#[test]
fn guards_run_in_order_before_files_and_routes_and_add_context_and_headers() {
    let (report, next_report) = report_channel();
    let check = |(guard, request): (u32, tidegate_hub::Request)| match guard {
        0 => Ok(Verdict::Pass(Pass {
            headers: vec![("x-guard".into(), "0".into())],
            context: vec![("user".into(), "ann".into())],
        })),
        _ if request.query() == Some("no") => Ok(Verdict::Answer(Response {
            status: StatusCode::UNAUTHORIZED,
            headers: vec![],
            body: "who?".into(),
        })),
        _ => Ok(Verdict::Pass(Pass {
            headers: vec![],
            context: vec![("saw".into(), format!("{:?}", request.context))],
        })),
    };
    let handle = move |(request, _): (tidegate_hub::Request, Bytes)| {
        report.send(format!("{:?}", request.context)).unwrap();
        Ok(Response {
            status: StatusCode::OK,
            ..Response::default()
        })
    };
    let app = FakeApp {
        check: Box::new(check),
        handle: Box::new(handle),
        ..FakeApp::default()
    };
    let served = Served::new(
        app,
        guarded(usual(), &["/*", "/hello"]),
        Limits::default(),
        Config::default(),
    );
    let passed = served.get("/hello");
    assert_eq!(
        next_report(),
        r#"[("user", "ann"), ("saw", "[(\"user\", \"ann\")]")]"#
    );
    assert!(passed.contains("x-guard: 0"), "{passed}");
    let refused = served.get("/hello?no");
    assert!(
        refused.starts_with("HTTP/1.1 401")
            && refused.contains("x-guard: 0")
            && refused.ends_with("who?"),
        "{refused}"
    );
    let missing = served.get("/__reserved");
    assert!(
        missing.starts_with("HTTP/1.1 404") && missing.contains("x-guard: 0"),
        "guards cover reserved paths: {missing}"
    );
    assert!(
        !served.get("/__tidegate/health").contains("x-guard"),
        "the host's own paths precede guards"
    );
}

#[test]
fn a_feed_sends_its_first_events_then_publications_until_the_drain() {
    let subscribe = |(request, last): (tidegate_hub::Request, Option<String>)| match request.query()
    {
        Some("no") => Ok(Err(Response {
            status: StatusCode::FORBIDDEN,
            ..Response::default()
        })),
        _ => Ok(Ok(Feed {
            topics: vec!["news".into()],
            first: vec![FeedEvent {
                data: format!("{last:?}\nhi"),
                event: Some("welcome".into()),
            }],
            ..Feed::default()
        })),
    };
    let mut served = Served::usual(FakeApp {
        subscribe: Box::new(subscribe),
        ..FakeApp::default()
    });
    assert_eq!(status(&served.get("/feed?no")), "403");
    let mut feed = served.raw();
    feed.send(b"GET /feed HTTP/1.1\r\nhost: test\r\nlast-event-id: 7\r\nconnection: close\r\n\r\n");
    let head = feed.head();
    for header in [
        "text/event-stream",
        "cache-control: no-cache, no-transform",
        "x-accel-buffering: no",
    ] {
        assert!(head.contains(header), "{head}");
    }
    let first = feed.until("hi\n\n");
    served
        .hub
        .publish(
            "news",
            Publication {
                event: Some("tick".into()),
                ..Publication::new(Message::text("one"))
            },
        )
        .unwrap();
    served
        .hub
        .publish("news", Publication::new(Message::binary("two")))
        .unwrap();
    served.stop();
    let all = first + &feed.rest();
    assert!(
        all.contains("event: welcome\ndata: Some(\"7\")\ndata: hi\n\n"),
        "{all}"
    );
    assert!(all.contains("id: 2-1\nevent: tick\ndata: one\n\n"), "{all}");
    assert!(
        all.ends_with("0\r\n\r\n") && !all.contains("two"),
        "a drain completes a feed: {all}"
    );
}

/// A body of these pieces, with a pause for each `None`. It reports when it is dropped.
struct Pieces(
    Vec<Option<Result<Frame, BodyError>>>,
    Option<mpsc::Sender<String>>,
);

impl Stream for Pieces {
    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<Frame, BodyError>>> {
        match self.0.first() {
            None if self.1.is_some() => std::task::Poll::Pending,
            None => std::task::Poll::Ready(None),
            Some(None) => {
                self.0.remove(0);
                cx.waker().wake_by_ref();
                std::task::Poll::Pending
            }
            Some(Some(_)) => std::task::Poll::Ready(self.0.remove(0)),
        }
    }
}

impl Drop for Pieces {
    fn drop(&mut self) {
        if let Some(report) = &self.1 {
            _ = report.send("dropped".into());
        }
    }
}

fn data(text: &'static str) -> Option<Result<Frame, BodyError>> {
    Some(Ok(Frame::Data(Bytes::from_static(text.as_bytes()))))
}

#[test]
fn a_streamed_answer_comes_in_pieces_and_looks_incomplete_if_it_is() {
    let (report, next_report) = report_channel();
    let report = Arc::new(std::sync::Mutex::new(report));
    let stream = move |request: tidegate_hub::Request, _| {
        let pieces = match request.query() {
            Some("broken") => Pieces(
                vec![data("one"), None, Some(Err(BodyError("lost".into())))],
                None,
            ),
            Some("endless") => Pieces(vec![data("one")], Some(report.lock().unwrap().clone())),
            _ => Pieces(vec![data("one"), data("two")], None),
        };
        let mut headers = HeaderMap::new();
        headers.insert("connection", "upgrade".parse().unwrap());
        Ok(StreamingResponse {
            status: StatusCode::OK,
            headers,
            body: Box::pin(pieces),
        })
    };
    let served = Served::usual(FakeApp {
        stream: Box::new(stream),
        ..FakeApp::default()
    });
    let whole = served.get("/stream");
    assert!(
        whole.ends_with("3\r\none\r\n3\r\ntwo\r\n0\r\n\r\n") && !whole.contains("upgrade"),
        "{whole}"
    );
    let broken = served.get("/stream?broken");
    assert!(broken.ends_with("3\r\none\r\n"), "no last chunk: {broken}");
    let mut endless = served.raw();
    endless.send(b"GET /stream?endless HTTP/1.1\r\nhost: test\r\n\r\n");
    endless.head();
    drop(endless);
    assert_eq!(
        next_report(),
        "dropped",
        "a client that goes away is noticed"
    );
}

#[test]
fn a_streamed_request_reaches_the_app_as_it_arrives() {
    let served = Served::usual(FakeApp::default());
    let mut raw = served.raw();
    raw.send(b"POST /stream HTTP/1.1\r\nhost: test\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n3\r\none\r\n");
    assert!(
        raw.head().starts_with("HTTP/1.1 200"),
        "the head precedes the end of the request"
    );
    raw.send(b"3\r\ntwo\r\n0\r\n\r\n");
    assert!(raw.rest().ends_with("3\r\ntwo\r\n0\r\n\r\n"));
}

#[test]
fn an_upload_larger_than_the_budget_passes_through_a_stream_that_answers_early() {
    const PIECE: usize = 64 << 10;
    let limits = Limits {
        memory_max: 1 << 20,
        ..Limits::default()
    };
    let bytes = 8 * limits.memory_max;
    let served = Served::new(FakeApp::default(), usual(), limits, Config::default());
    let mut raw = served.raw();
    let head = format!(
        "POST /stream HTTP/1.1\r\nhost: test\r\nconnection: close\r\ncontent-length: {bytes}\r\n\r\n"
    );
    raw.send(head.as_bytes());
    assert!(
        raw.head().starts_with("HTTP/1.1 200"),
        "the head precedes the upload"
    );
    let mut sender = support::Raw(raw.0.try_clone().unwrap());
    let sending = std::thread::spawn(move || {
        for _ in 0..bytes / PIECE {
            sender.send(&[b'x'; PIECE]);
        }
    });
    let answer = raw.rest_bytes();
    sending.join().unwrap();
    let received = answer.iter().filter(|byte| **byte == b'x').count();
    assert_eq!(received, bytes, "the whole upload comes back");
    assert_eq!(served.hub.budget().refusals(), 0);
}

#[test]
fn files_are_served_by_their_exact_path_and_a_page_falls_back_to_the_index() {
    let root = std::env::temp_dir().join(format!("tidegate-assets-{}", std::process::id()));
    std::fs::create_dir_all(root.join("css")).unwrap();
    std::fs::create_dir_all(root.join("__x")).unwrap();
    for (name, text) in [
        ("index.html", "<p>index"),
        ("css/a b.css", "p{}"),
        (".secret", "no"),
        ("hello", "file"),
        ("__x/y.js", "no"),
    ] {
        std::fs::write(root.join(name), text).unwrap();
    }
    let config = Config {
        assets: Some(root.clone()),
        ..Config::default()
    };
    let served = Served::new(FakeApp::default(), usual(), Limits::default(), config);
    let cases = [
        ("GET", "/css/a%20b.css", "200", "p{}"),
        ("GET", "/css/../css/a%20b.css", "200", "p{}"),
        ("GET", "/hello", "200", "file"),
        ("GET", "/", "200", "<p>index"),
        ("GET", "/some/page", "200", "<p>index"),
        ("GET", "/missing.js", "404", ""),
        ("GET", "/.secret", "404", ""),
        ("GET", "/css", "200", "<p>index"),
        ("GET", "/../../etc/passwd", "200", "<p>index"),
        ("GET", "/css%2Fa%20b.css", "400", ""),
        ("GET", "/css/a%20b.css%5C", "400", ""),
        ("GET", "/__x/y.js", "404", ""),
        ("POST", "/css/a%20b.css", "405", ""),
        ("GET", "/items/7", "405", ""),
    ];
    for (method, path, expected, body) in cases {
        let answer = served.ask(&format!("{method} {path} HTTP/1.1\r\nhost: test\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"));
        assert!(
            status(&answer) == expected && answer.ends_with(body),
            "{method} {path}\n{answer}"
        );
    }
    let conditional = "GET /index.html HTTP/1.1\r\nhost: test\r\nif-modified-since: Fri, 01 Jan 2100 00:00:00 GMT\r\nconnection: close\r\n\r\n";
    assert_eq!(status(&served.ask(conditional)), "304");
    let part = served.ask(
        "GET /index.html HTTP/1.1\r\nhost: test\r\nrange: bytes=3-4\r\nconnection: close\r\n\r\n",
    );
    assert!(status(&part) == "206" && part.ends_with("in"), "{part}");
    std::fs::remove_dir_all(root).unwrap();
}
