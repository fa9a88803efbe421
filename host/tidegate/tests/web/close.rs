//! The close of a connection loses no answer: an upload that is refused before it is read, a client
//! that has ended its sending side, and a held answer that ends as a whole.

use crate::support::{
    Tidegate,
    client::{Raw, serve_sleeping_request, soon},
    component,
};
use futures_util::future::join_all;
use std::{path::Path, process::Command, thread, time::Duration};
use tokio::time::sleep;

fn rogue(args: &[&str]) -> Tidegate {
    Tidegate::serve(&component("rogue"), args)
}

fn limits(limits: &[&'static str]) -> Vec<&'static str> {
    limits.iter().flat_map(|limit| ["--limit", limit]).collect()
}

/// More bytes than the sockets on both sides buffer.
const UPLOAD_BYTES: usize = 12 << 20;

fn upload(path: &str, more: &str) -> String {
    format!("POST {path} HTTP/1.1\r\nhost: x\r\n{more}content-length: {UPLOAD_BYTES}\r\n\r\n")
}

#[tokio::test]
async fn an_answer_before_the_body_is_read_arrives_with_connection_close() {
    let server = rogue(&[]);
    let form = |with: &str| format!("content-type: {with}\r\n");
    let multipart = "content-type: multipart/form-data; boundary=b\r\n";
    let rows = [
        (
            "a body that is too large",
            "/web/upload",
            String::new(),
            "413",
        ),
        (
            "a path that nothing answers",
            "/nothing/is/here",
            String::new(),
            "404",
        ),
        (
            "a method that is not allowed",
            "/calm",
            String::new(),
            "405",
        ),
        (
            "a guard that refuses",
            "/web/vault/upload",
            String::new(),
            "401",
        ),
        (
            "a guard that fails",
            "/guarded/calm?how=fail",
            String::new(),
            "500",
        ),
        (
            "a host endpoint",
            "/__tidegate/health",
            String::new(),
            "405",
        ),
        (
            "a path that is ambiguous",
            "/web%2Fupload",
            String::new(),
            "400",
        ),
        (
            "a form of no known type",
            "/page",
            form("text/plain"),
            "415",
        ),
        (
            "a form from elsewhere",
            "/page",
            format!("{multipart}origin: http://evil.example\r\n"),
            "403",
        ),
        (
            "a form that is too large to gather",
            "/page",
            form("application/x-www-form-urlencoded"),
            "413",
        ),
        (
            "a loader asked for in no known type",
            "/__loaders",
            form("text/plain"),
            "415",
        ),
        (
            "a method that the server does not know",
            "/web/upload",
            String::new(),
            "501",
        ),
    ];
    for (name, path, more, status) in rows {
        let head = upload(path, &more);
        let head = if status == "501" {
            head.replacen("POST", "TRACE", 1)
        } else {
            head
        };
        for _ in 0..3 {
            // This client reads only after it has sent everything.
            let mut raw = Raw::send(server.address(), &head).await;
            for _ in 0..UPLOAD_BYTES >> 20 {
                raw.write(vec![b'x'; 1 << 20]).await;
            }
            let answer = raw.rest().await;
            assert!(
                answer.starts_with(&format!("HTTP/1.1 {status} ")),
                "{name}: {answer:?}"
            );
            assert!(
                answer.contains("\r\nconnection: close\r\n"),
                "{name}: {answer:?}"
            );
        }
    }
    assert_eq!(server.stop().counter("stalled_readers"), 0);
}

#[tokio::test]
async fn a_client_that_sends_its_body_first_gets_a_large_answer() {
    let server = rogue(&[]);
    for framing in [
        format!("content-length: {UPLOAD_BYTES}"),
        "transfer-encoding: chunked".to_owned(),
    ] {
        let mut raw = Raw::send(
            server.address(),
            &format!("POST /web/refuse HTTP/1.1\r\nhost: x\r\n{framing}\r\n\r\n"),
        )
        .await;
        let is_chunked = framing.contains("chunked");
        let piece = vec![b'x'; 1 << 20];
        for _ in 0..UPLOAD_BYTES >> 20 {
            raw.write(if is_chunked {
                [&b"100000\r\n"[..], &piece, b"\r\n"].concat()
            } else {
                piece.clone()
            })
            .await;
        }
        let answer = raw.rest().await;
        assert!(
            answer.starts_with("HTTP/1.1 403 ") && answer.ends_with("\r\n0\r\n\r\n"),
            "{framing}"
        );
        assert_eq!(answer.matches('x').count(), 64 * (64 << 10), "{framing}");
    }
}

#[tokio::test]
async fn a_small_unread_body_keeps_the_connection() {
    let server = rogue(&[]);
    let mut raw = Raw::connect(server.address()).await;
    for _ in 0..3 {
        raw.write("POST /nothing/is/here HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\n\r\nhello")
            .await;
        let answer = raw.until("nothing is here\n").await;
        assert!(
            answer.starts_with("HTTP/1.1 404 ") && !answer.contains("connection: close"),
            "{answer}"
        );
    }
    raw.write("GET /calm HTTP/1.1\r\nhost: x\r\n\r\n").await;
    raw.until("calm").await;
}

/// Number of tries of each client with each refusal.
const TRIES: usize = 100;

#[test]
fn common_clients_see_the_status_of_a_refused_upload() {
    let server = rogue(&[]);
    let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/web");
    let (url, tries) = (server.url(""), TRIES.to_string());
    let expected: String = [
        ("/web/upload", 413),
        ("/web/vault/upload", 401),
        ("/nothing/is/here", 404),
    ]
    .map(|(path, status)| format!("{path} {status} {TRIES}\n"))
    .concat();
    let clients = [
        ("node", "uploads.mjs", ""),
        ("python3", "uploads.py", "http.client"),
        ("python3", "uploads.py", "aiohttp"),
        ("python3", "uploads.py", "curl"),
    ];
    thread::scope(|scope| {
        for (program, script, client) in clients {
            let (path, args, expected) = (scripts.join(script), [&url, &tries, client], &expected);
            scope.spawn(move || {
                let output = Command::new(program)
                    .arg(path)
                    .args(args)
                    .output()
                    .expect("it is installed");
                let printed = String::from_utf8_lossy(&output.stdout);
                assert_eq!(
                    printed,
                    *expected,
                    "{program} {client}: {}",
                    String::from_utf8_lossy(&output.stderr)
                );
            });
        }
    });
}

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n")
}

#[tokio::test]
async fn a_half_closed_client_gets_its_answer() {
    let server = rogue(&[]);
    let post = "POST /web/upload HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\n\r\nhello";
    let chunked = "POST /stream/collect HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n";
    let loader = r#"{"page":"/web/page","loader":"slow","params":{},"search":""}"#;
    let loaders = |accept: &str| {
        format!(
            "POST /__loaders HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\naccept: {accept}\r\ncontent-length: {}\r\n\r\n{loader}",
            loader.len()
        )
    };
    let rows = [
        ("a plain route", get("/calm"), "\r\n\r\ncalm", 1),
        (
            "a plain route of HTTP/1.0",
            "GET /calm HTTP/1.0\r\n\r\n".into(),
            "\r\n\r\ncalm",
            1,
        ),
        (
            "a plain route that takes its time",
            get("/pause/300"),
            "\r\n\r\n",
            1,
        ),
        ("a request with a body", post.into(), "\r\n\r\n5", 1),
        ("a stream", get("/web/slow"), "three\r\n0\r\n\r\n", 1),
        (
            "a stream of HTTP/1.0",
            "GET /web/slow HTTP/1.0\r\n\r\n".into(),
            "one two three",
            1,
        ),
        (
            "a stream of a whole body",
            chunked.into(),
            "collected\r\n0\r\n\r\n",
            1,
        ),
        ("a page", get("/web/page"), "</body>\r\n0\r\n\r\n", 1),
        (
            "a loader by itself",
            loaders("application/json"),
            "\"the slow value\"",
            1,
        ),
        (
            "a loader that streams",
            loaders("text/event-stream"),
            "event: end\ndata: {}\n\n\r\n0\r\n\r\n",
            1,
        ),
        (
            "the last of three",
            [
                get("/calm"),
                get("/web/slow"),
                get("/pause/100") + &get("/calm"),
            ]
            .concat(),
            "\r\n\r\ncalm",
            4,
        ),
        (
            "a page after a plain route",
            get("/calm") + &get("/web/page"),
            "</body>\r\n0\r\n\r\n",
            2,
        ),
        (
            "a plain route after a page",
            get("/web/page") + &get("/calm"),
            "\r\n\r\ncalm",
            2,
        ),
        ("a refusal", get("/nothing/is/here"), "nothing is here\n", 1),
        (
            "a plain route that takes longer than a client without a free instance would have",
            get("/pause/4000"),
            "\r\n\r\n",
            1,
        ),
        (
            "a stream that pauses for longer than that",
            get("/web/pause/4000"),
            "two\r\n0\r\n\r\n",
            1,
        ),
    ];
    let answers = rows.map(async |(name, request, end, count)| {
        let mut raw = Raw::send(server.address(), &request).await;
        raw.end_sending().await;
        let answer = raw.rest().await;
        assert!(answer.ends_with(end), "{name}: {answer:?}");
        assert_eq!(
            answer.matches("HTTP/1.").count(),
            count,
            "{name}: {answer:?}"
        );
    });
    join_all(answers).await;
    assert_eq!(server.stop().counter("faults"), 0);
}

#[tokio::test]
async fn a_half_closed_client_that_stops_reading_is_dropped() {
    for path in [
        "/do/sleep",
        "/stream/sleep/before",
        "/stream/idle",
        "/guarded/calm?how=sleep",
    ] {
        let limits = ["--limit", "after_answer_max=100ms"];
        let (server, mut raw) = serve_sleeping_request(path, &limits).await;
        raw.end_sending().await;
        let answer = raw.rest().await;
        assert!(!answer.ends_with("0\r\n\r\n"), "{path}: {answer}");
        let calm = soon("its instance is free", reqwest::get(server.url("/calm")))
            .await
            .unwrap();
        assert_eq!(calm.status(), 200, "{path}");
    }
}

#[tokio::test]
async fn a_feed_and_a_live_page_end_when_their_client_half_closes() {
    let server = rogue(&[]);
    let feed = "GET /feed?topic=news HTTP/1.1\r\nhost: x\r\naccept: text/event-stream\r\n\r\n";
    for (request, begun) in [
        (feed.to_owned(), "second\n\n"),
        (get("/parting"), "still here"),
    ] {
        let mut raw = Raw::send(server.address(), &request).await;
        raw.until(begun).await;
        raw.end_sending().await;
        let rest = raw.rest().await;
        assert!(!rest.ends_with("\r\n0\r\n\r\n"), "{request}: {rest:?}");
    }
    server.wait_for("the loader was dropped");
}

#[tokio::test]
async fn a_connection_continues_after_a_complete_held_answer() {
    let server = rogue(&[]);
    let mut raw = Raw::connect(server.address()).await;
    for _ in 0..3 {
        raw.write(get("/web/page")).await;
        let page = raw.until("\r\n0\r\n\r\n").await;
        assert!(
            page.contains("the slow value") && !page.contains("connection: close"),
            "{page}"
        );
        raw.write(get("/calm")).await;
        raw.until("calm").await;
    }
    // Requests that arrive while the answer is held wait for their turn.
    raw.write(get("/web/page") + &get("/calm")).await;
    raw.until("\r\n0\r\n\r\n").await;
    raw.until("calm").await;
    raw.write(get("/web/page")).await;
    raw.until("<body>").await;
    raw.write("GET /calm HT").await;
    raw.until("\r\n0\r\n\r\n").await;
    raw.write("TP/1.1\r\nhost: x\r\n\r\n").await;
    raw.until("calm").await;
}

#[tokio::test]
async fn a_held_answer_closes_on_request_or_after_much_pipelined_data() {
    let server = rogue(&[]);
    let close = get("/web/page").replacen("host", "connection: x, Close\r\nhost", 1);
    let ahead = get("/web/page")
        + &format!(
            "GET /calm HTTP/1.1\r\nhost: x\r\nx-long: {}\r\n\r\n",
            "x".repeat(5000)
        );
    for (name, request) in [("connection: close", close), ("much ahead", ahead)] {
        let answer = Raw::send(server.address(), &request).await.rest().await;
        assert!(
            answer.contains("\r\nconnection: close\r\n") && answer.ends_with("\r\n0\r\n\r\n"),
            "{name}: {answer}"
        );
        assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{name}: {answer}");
    }
}

/// Keeps sending after the answer, and returns the number of bytes that the server accepted.
async fn sends_on(server: &Tidegate, piece: usize, pause: Duration) -> usize {
    let mut raw = Raw::send(
        server.address(),
        &upload("/web/upload", "").replace(&UPLOAD_BYTES.to_string(), "1000000000000"),
    )
    .await;
    raw.until("larger than").await;
    let mut sent = 0;
    let piece = vec![b'x'; piece];
    let send = async {
        while raw.try_write(&piece).await {
            sent += piece.len();
            sleep(pause).await;
        }
    };
    soon("the end of the connection", send).await;
    sent
}

#[tokio::test]
async fn data_after_the_last_answer_is_bounded() {
    let bytes = rogue(&limits(&["linger_bytes_max=1MiB", "linger_within=1h"]));
    let sent = sends_on(&bytes, 64 << 10, Duration::ZERO).await;
    assert!(sent >= 1 << 20, "{sent}");
    let time = rogue(&limits(&["linger_within=500ms"]));
    sends_on(&time, 10, Duration::from_millis(20)).await;
    // A client that sends nothing and stays is closed as well, and its place is free again.
    let silence = rogue(&limits(&["sockets_max=2", "linger_within=1h"]));
    let mut stays = Vec::new();
    for _ in 0..2 {
        let mut raw = Raw::send(silence.address(), &upload("/web/upload", "")).await;
        raw.until("larger than").await;
        stays.push(raw);
    }
    let refused = Raw::send(silence.address(), &get("/calm"))
        .await
        .rest()
        .await;
    assert!(
        refused.starts_with("HTTP/1.1 503 "),
        "a connection that is being closed keeps its place: {refused}"
    );
    let served = async {
        while !Raw::send(
            silence.address(),
            &get("/calm").replace("host", "connection: close\r\nhost"),
        )
        .await
        .rest()
        .await
        .ends_with("calm")
        {
            sleep(Duration::from_millis(100)).await;
        }
    };
    soon("a place", served).await;
}

#[tokio::test]
async fn a_closing_connection_does_not_delay_the_drain() {
    let server = rogue(&["--limit", "linger_within=1h", "--drain", "1h"]);
    let mut raw = Raw::send(server.address(), &upload("/web/upload", "")).await;
    raw.until("larger than").await;
    let stopped = server.stop();
    assert!(!stopped.stderr.contains("cut off"), "{}", stopped.stderr);
}
