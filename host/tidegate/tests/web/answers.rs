//! An answer that its guest does not finish is truncated, which its client and the log can see.

use crate::support::{
    Tidegate,
    client::{Raw, soon},
    component,
};
use std::io::ErrorKind;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

/// A component of each `wasi:http`, with a new instance for each request and with reused instances.
const APPS: [(&str, &[&str]); 4] = [
    ("proxy02", &[]),
    ("proxy02", REUSE),
    ("proxy03", &[]),
    ("proxy03", REUSE),
];
const REUSE: &[&str] = &["--reuse-foreign"];

/// End of an answer, as its client sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// The answer ends with its last chunk, or with as many bytes as its length says.
    Whole,
    /// The connection ended earlier.
    Broken,
}
use End::{Broken, Whole};

/// An answer as its client received it.
struct Answer {
    head: String,
    body: String,
    end: End,
}

impl Answer {
    /// Parses the bytes of a connection that was closed after the answer.
    fn parse(text: &str) -> Answer {
        let (head, rest) = text
            .split_once("\r\n\r\n")
            .unwrap_or_else(|| panic!("no head in {text:?}"));
        let head = head.to_owned();
        if let Some(length) = header(&head, "content-length") {
            let end = if length == rest.len().to_string() {
                Whole
            } else {
                Broken
            };
            return Answer {
                head,
                body: rest.to_owned(),
                end,
            };
        }
        assert_eq!(
            header(&head, "transfer-encoding"),
            Some("chunked"),
            "{head}"
        );
        let (mut body, mut rest) = (String::new(), rest);
        loop {
            let Some((size, after)) = rest.split_once("\r\n") else {
                return Answer {
                    head,
                    body,
                    end: Broken,
                };
            };
            match usize::from_str_radix(size, 16).unwrap() {
                // Trailers stand in the place of the next chunk.
                0 => {
                    return Answer {
                        head,
                        body: body + after.strip_suffix("\r\n").unwrap(),
                        end: Whole,
                    };
                }
                size => {
                    body += &after[..size];
                    rest = &after[size + 2..];
                }
            }
        }
    }

    fn id(&self) -> &str {
        header(&self.head, "tidegate-id").unwrap_or_else(|| panic!("no id in {}", self.head))
    }
}

fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines()
        .skip(1)
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
}

async fn request(server: &Tidegate, head: &str, more: &str) -> Answer {
    let mut raw = Raw::send(
        server.address(),
        &format!("{head} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{more}"),
    )
    .await;
    Answer::parse(&raw.rest().await)
}

async fn get(server: &Tidegate, path: &str) -> Answer {
    request(server, &format!("GET {path}"), "\r\n").await
}

/// Limits that a guest reaches soon.
const LIMITS: [&str; 8] = [
    "--cpu",
    "200ms",
    "--memory",
    "16 MiB",
    "--limit",
    "after_answer_max=30s",
    "--log",
    "warn",
];

fn serve(component_of: &str, args: &[&str]) -> Tidegate {
    Tidegate::serve(&component(component_of), &[&LIMITS[..], args].concat())
}

/// Returns the lines of the log that have an id.
fn faults(log: &str) -> Vec<&str> {
    log.lines().filter(|line| line.contains(" id=")).collect()
}

/// The way in which an answer ends, its body, its end, and the cause in the log, if there is one.
type Case = (&'static str, &'static str, End, Option<&'static str>);

const TRAP: Option<&str> = Some("the app trapped: ");
const CPU: Option<&str> = Some("computed for longer");
const MEMORY: Option<&str> = Some("asked for more memory");
const UNFINISHED: Option<&str> = Some("it returned without finishing its body");

/// The ways that guests of both versions have.
const BOTH: [Case; 20] = [
    ("finish", "hello", Whole, None),
    ("finish?length=5", "hello", Whole, None),
    ("more", "hello and more", Whole, None),
    ("more?length=14", "hello and more", Whole, None),
    ("trap", "hello", Broken, TRAP),
    ("trap?length=10", "hello", Broken, TRAP),
    ("trap?length=5", "hello", Whole, TRAP), // the client has received everything
    ("exit", "hello", Broken, TRAP),
    ("spin", "hello", Broken, CPU),
    ("spin?length=10", "hello", Broken, CPU),
    ("memory", "hello", Broken, MEMORY),
    ("leak", "hello", Broken, UNFINISHED),
    (
        "finish?length=10",
        "hello",
        Broken,
        Some("its Content-Length is 10, but its body ended after 5 bytes"),
    ),
    (
        "more?length=10",
        "hello",
        Broken,
        Some("its Content-Length is 10, but its body has 14 bytes"),
    ),
    (
        "more?length=5",
        "hello",
        Whole,
        Some("its Content-Length is 5, but its body has 14 bytes"),
    ),
    ("bodiless", "", Whole, None),
    (
        "bodiless?length=5",
        "",
        Broken,
        Some("its Content-Length is 5, but its body ended after 0 bytes"),
    ),
    (
        "finish-trap",
        "hello",
        Whole,
        Some("the app failed after its answer: the app trapped: "),
    ),
    ("finish-wait", "hello", Whole, None),
    (
        "finish-spin",
        "hello",
        Whole,
        Some("the app failed after its answer: the app computed for longer"),
    ),
];

const ONLY_02: [Case; 4] = [
    (
        "drop",
        "hello",
        Broken,
        Some("it dropped its body without finishing it"),
    ),
    ("leak-stream", "hello", Broken, UNFINISHED),
    (
        "leak?length=10",
        "hello",
        Broken,
        Some("its Content-Length is 10, but its body ended after 5 bytes"),
    ),
    (
        "drop?length=10",
        "hello",
        Broken,
        Some("its Content-Length is 10, but its body ended after 5 bytes"),
    ),
];

const ONLY_03: [Case; 3] = [
    ("keep", "hello", Broken, UNFINISHED),
    (
        "trailers-error",
        "hello",
        Broken,
        Some("its body ended with the error InternalError"),
    ),
    ("trailers-never", "hello", Broken, UNFINISHED),
];

#[tokio::test]
async fn an_unfinished_answer_is_cut_off_and_logged_with_the_id_that_its_client_has() {
    for (app, args) in APPS {
        let server = serve(app, args);
        let only: &[Case] = if app == "proxy02" { &ONLY_02 } else { &ONLY_03 };
        let mut expected = Vec::new();
        for (how, body, end, fault) in BOTH.iter().chain(only) {
            let answer = get(&server, &format!("/end/{how}")).await;
            assert_eq!(
                (answer.body.as_str(), answer.end),
                (*body, *end),
                "{app} {args:?} {how}"
            );
            if let Some(fault) = fault {
                let line = server.wait_for(answer.id());
                assert!(
                    line.contains(fault) && line.contains("ERROR"),
                    "{app} {args:?} {how}: {line}"
                );
                expected.push(answer.id().to_owned());
            }
        }
        let stopped = server.stop();
        let lines = faults(&stopped.stderr);
        assert_eq!(
            lines.len(),
            expected.len(),
            "{app} {args:?}: the log has one line for each fault\n{}",
            lines.join("\n")
        );
        assert_eq!(
            stopped.counter("faults"),
            expected.len() as u64,
            "{app} {args:?}"
        );
    }
}

#[tokio::test]
async fn a_fault_before_the_head_is_one_log_line_with_the_id_of_the_answer() {
    for (app, args) in APPS {
        // Ten times the CPU limit, so that a spinning guest reaches that one first on a busy machine.
        let server = serve(app, &[args, &["--wall", "2s"]].concat());
        let only = if app == "proxy02" {
            ("/silent", 500, "without setting its response")
        } else {
            ("/ever", 500, "computed for longer")
        };
        let cases = [
            ("/trap", 500, "the app trapped: "),
            ("/error", 500, "answered with the error"),
            ("/wait", 504, "took longer"),
            only,
        ];
        for (path, status, cause) in cases {
            let answer = get(&server, path).await;
            assert!(
                answer.head.starts_with(&format!("HTTP/1.1 {status} ")),
                "{app} {path}: {}",
                answer.head
            );
            let id = answer
                .body
                .split_once("(id ")
                .and_then(|(_, rest)| rest.split_once(')'))
                .map(|(id, _)| id.to_owned());
            let line =
                server.wait_for(&id.unwrap_or_else(|| panic!("{app} {path}: {}", answer.body)));
            assert!(line.contains(cause), "{app} {args:?} {path}: {line}");
        }
        let stopped = server.stop();
        assert_eq!(
            faults(&stopped.stderr).len(),
            cases.len(),
            "{app} {args:?}\n{}",
            stopped.stderr
        );
        assert_eq!(
            stopped.counter("faults"),
            cases.len() as u64,
            "{app} {args:?}"
        );
    }
}

/// HTTP/1.0 has no chunks: an answer without a length ends with its connection, and a truncated one
/// with a reset.
#[tokio::test]
async fn a_client_without_chunked_encoding_sees_a_reset() {
    for (app, args) in APPS {
        let server = serve(app, args);
        for (how, end) in [
            ("finish", Whole),
            ("bodiless", Whole),
            ("trap", Broken),
            ("leak", Broken),
            ("spin", Broken),
        ] {
            let mut stream = TcpStream::connect(server.address()).await.unwrap();
            stream
                .write_all(format!("GET /end/{how} HTTP/1.0\r\n\r\n").as_bytes())
                .await
                .unwrap();
            let outcome = soon(how, stream.read_to_end(&mut Vec::new()))
                .await
                .map_err(|error| error.kind());
            let expected = if end == Whole {
                None
            } else {
                Some(ErrorKind::ConnectionReset)
            };
            assert_eq!(outcome.err(), expected, "{app} {args:?} {how}");
        }
    }
}

#[tokio::test]
async fn a_stream_that_is_cut_off_leaves_other_streams_running() {
    for (app, args) in APPS {
        let server = serve(app, args);
        let mut other = Raw::send(
            server.address(),
            "POST /echo HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n",
        )
        .await;
        other.write("5\r\nfirst\r\n").await;
        other.until("first\r\n").await;
        for how in ["trap", "leak", "spin"] {
            assert_eq!(
                get(&server, &format!("/end/{how}")).await.end,
                Broken,
                "{app} {args:?} {how}"
            );
        }
        other.write("5\r\nother\r\n0\r\n\r\n").await;
        assert_eq!(
            other.until("0\r\n\r\n").await,
            "5\r\nother\r\n0\r\n\r\n",
            "{app} {args:?}"
        );
    }
}

#[tokio::test]
async fn only_clients_that_accept_trailers_get_them_and_only_permitted_fields() {
    let accepts = "te: gzip;q=0.1, trailers\r\n\r\n";
    let body = "te: trailers\r\ncontent-length: 3\r\n\r\nabc";
    let begun = "te: trailers\r\ncontent-length: 10\r\n\r\nabc";
    let begun_chunked = "te: trailers\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n";
    let cases = [
        ("GET /trailers?x-a", accepts, "x-a: 1\r\n"),
        ("GET /trailers?announced&x-a", accepts, "x-a: 1\r\n"),
        ("GET /trailers?x-a&etag", accepts, "etag: 1\r\nx-a: 1\r\n"),
        (
            "GET /trailers?announced&x-a&content-length&set-cookie&date&cache-control&content-type",
            accepts,
            "x-a: 1\r\n",
        ),
        (
            "GET /trailers?content-length&set-cookie&www-authenticate&host&trailer",
            accepts,
            "",
        ),
        ("GET /trailers?announced&x-a", "\r\n", ""),
        ("GET /trailers?x-a", "\r\n", ""),
        ("GET /trailers?x-a", "te: gzip\r\n\r\n", ""),
        // Large enough for several writes.
        ("GET /trailers?x-a&size=300000", accepts, "x-a: 1\r\n"),
        (
            "GET /trailers?announced&x-a&size=300000",
            accepts,
            "x-a: 1\r\n",
        ),
        // The guest does not read the request's body.
        (
            "POST /trailers?announced&x-a&set-cookie",
            body,
            "x-a: 1\r\n",
        ),
        ("POST /trailers?x-a&set-cookie", body, "x-a: 1\r\n"),
        ("POST /trailers?x-a&x-b", body, "x-a: 1\r\nx-b: 1\r\n"),
        // The body of the request is not there yet.
        ("POST /trailers?x-a&x-b", begun, "x-a: 1\r\nx-b: 1\r\n"),
        ("POST /trailers?announced&x-a", begun, "x-a: 1\r\n"),
        ("POST /trailers?x-a&size=300000", begun, "x-a: 1\r\n"),
        ("POST /trailers?x-a", begun_chunked, "x-a: 1\r\n"),
        ("POST /trailers?host", begun, ""),
        // The guest has read the first bytes of a body that goes on.
        ("POST /trailers?x-a&read", begun, "x-a: 1\r\n"),
        ("POST /trailers?announced&x-a&read", begun, "x-a: 1\r\n"),
        ("POST /trailers?x-a&read", begun_chunked, "x-a: 1\r\n"),
        ("POST /trailers?x-a&read&size=300000", begun, "x-a: 1\r\n"),
        (
            "POST /trailers?x-a&read",
            "content-length: 10\r\n\r\nabc",
            "",
        ),
    ];
    for (app, args) in APPS {
        let server = serve(app, args);
        for (head, more, trailers) in cases {
            let answer = request(&server, head, more).await;
            let size = head
                .split_once("size=")
                .map_or(0, |(_, size)| size.parse().unwrap());
            let text = "hello".repeat(size / 5 + 1);
            let mut lines: Vec<&str> = answer.body[text.len()..].split_inclusive("\r\n").collect();
            lines.sort_unstable();
            assert_eq!(
                (lines.concat().as_str(), answer.end),
                (trailers, Whole),
                "{app} {args:?} {head}"
            );
            let announced = header(&answer.head, "trailer").unwrap_or_default();
            let refused = [
                "content-length",
                "set-cookie",
                "date",
                "cache-control",
                "content-type",
            ];
            assert!(
                refused.iter().all(|name| !announced.contains(name)),
                "{app} {head}: {announced}"
            );
        }
        assert_eq!(server.stop().counter("faults"), 0, "{app} {args:?}");
    }
}

#[tokio::test]
async fn trailers_end_one_answer_of_a_connection_and_no_other() {
    let data = "hello";
    let cases: [(&str, &[&str], &[&str]); 6] = [
        (
            "GET /trailers?x-a HTTP/1.1\r\nhost: x\r\nte: trailers\r\n\r\n\
             GET /trailers?x-b HTTP/1.1\r\nhost: x\r\n\r\n\
             GET /trailers?x-c HTTP/1.1\r\nhost: x\r\nte: trailers\r\nconnection: close\r\n\r\n",
            &[data, data, data],
            &["x-a: 1\r\n", "", "x-c: 1\r\n"],
        ),
        (
            "GET /trailers?announced&x-a HTTP/1.1\r\nhost: x\r\nte: trailers\r\n\r\n\
             GET /status/200 HTTP/1.1\r\nhost: x\r\nte: trailers\r\n\r\n\
             GET /trailers?x-c HTTP/1.1\r\nhost: x\r\nte: trailers\r\nconnection: close\r\n\r\n",
            &[data, data, data],
            &["x-a: 1\r\n", "", "x-c: 1\r\n"],
        ),
        (
            "HEAD /trailers?x-a HTTP/1.1\r\nhost: x\r\nte: trailers\r\n\r\n\
             GET /trailers?x-b HTTP/1.1\r\nhost: x\r\nte: trailers\r\nconnection: close\r\n\r\n",
            &["", data],
            &["", "x-b: 1\r\n"],
        ),
        // HTTP/1.0 has no chunks.
        (
            "GET /trailers?x-a HTTP/1.0\r\nhost: x\r\nte: trailers\r\n\r\n",
            &[data],
            &[""],
        ),
        (
            "GET /trailers?announced&x-a HTTP/1.0\r\nhost: x\r\nte: trailers\r\n\r\n",
            &[data],
            &[""],
        ),
        (
            "GET /status/204 HTTP/1.1\r\nhost: x\r\nte: trailers\r\n\r\n\
             GET /trailers?x-b HTTP/1.1\r\nhost: x\r\nte: trailers\r\nconnection: close\r\n\r\n",
            &["", data],
            &["", "x-b: 1\r\n"],
        ),
    ];
    for (app, args) in APPS {
        let server = serve(app, args);
        for (requests, bodies, trailers) in cases {
            let text = Raw::send(server.address(), requests).await.rest().await;
            let mut answers: Vec<&str> = text.split("HTTP/1.").skip(1).collect();
            assert_eq!(answers.len(), bodies.len(), "{app} {text:?}");
            for ((answer, body), trailers) in answers.drain(..).zip(bodies).zip(trailers) {
                let (head, rest) = answer.split_once("\r\n\r\n").unwrap();
                let is_chunked = header(head, "transfer-encoding").is_some() && !body.is_empty();
                let received = if is_chunked {
                    let parsed = Answer::parse(answer);
                    assert_eq!(parsed.end, Whole, "{app} {answer:?}");
                    parsed.body
                } else {
                    rest.to_owned()
                };
                assert_eq!(received, [*body, *trailers].concat(), "{app} {text:?}");
            }
        }
        assert_eq!(server.stop().counter("faults"), 0, "{app} {args:?}");
    }
}

#[tokio::test]
async fn a_guest_cannot_set_headers_that_the_host_owns() {
    for (app, args) in APPS {
        let server = serve(app, args);
        let answer = get(&server, "/headers").await;
        assert_eq!(
            (header(&answer.head, "x-kept"), answer.end),
            (Some("guest"), Whole),
            "{app}"
        );
        for name in ["host", "keep-alive"] {
            assert_eq!(header(&answer.head, name), None, "{app} {name}");
        }
        assert!(
            !answer.head.contains("date: guest") && answer.head.matches("\r\ndate: ").count() == 1,
            "{app}: {}",
            answer.head
        );
    }
}

#[tokio::test]
async fn an_answer_to_head_or_304_may_declare_a_length_without_content() {
    for (app, args) in APPS {
        let server = serve(app, args);
        for path in [
            "/end/finish?length=5",
            "/end/finish",
            "/end/bodiless?length=5",
            "/end/finish?length=10",
        ] {
            let answer = Raw::send(
                server.address(),
                &format!("HEAD {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"),
            )
            .await
            .rest()
            .await;
            assert!(
                answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("\r\n\r\n"),
                "{app} {path}: {answer}"
            );
        }
        let stopped = server.stop();
        assert_eq!(
            stopped.counter("faults"),
            0,
            "{app} {args:?}\n{}",
            stopped.stderr
        );
    }
}

/// Each answer of the guest has five bytes and a Content-Length.
#[tokio::test]
async fn a_status_without_content_sends_none_and_keeps_its_connection() {
    for (app, args) in APPS {
        let server = serve(app, args);
        for (status, length, content) in [
            (200, Some("5"), "hello"),
            (404, Some("5"), "hello"),
            // RFC 9110 section 8.6: a 204 has no Content-Length, a 304 may have that of a 200.
            (204, None, ""),
            (205, Some("0"), ""),
            (304, Some("5"), ""),
        ] {
            let first = format!("GET /status/{status} HTTP/1.1\r\nhost: x\r\n\r\n");
            let last = "GET /last HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
            let mut answers = Raw::send(server.address(), &(first + last)).await;
            let answers = answers.rest().await;
            let (head, rest) = answers.split_once("\r\n\r\n").unwrap();
            assert_eq!(header(head, "content-length"), length, "{app} {head}");
            assert_eq!(header(head, "transfer-encoding"), None, "{app} {head}");
            assert!(
                rest.starts_with(&format!("{content}HTTP/1.1 200 OK\r\n")),
                "{app} {status}: {answers}"
            );
        }
        assert_eq!(server.stop().counter("faults"), 0, "{app} {args:?}");
    }
}

/// With `wasi:http` 0.3, a guest may answer with the unread body of the request.
#[tokio::test]
async fn a_forwarded_body_continues_without_its_guest() {
    for args in [&[][..], REUSE] {
        let server = serve("proxy03", args);
        let head = "POST /pass HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n";
        let mut raw = Raw::send(server.address(), head).await;
        raw.until("\r\n\r\n").await;
        for piece in ["first", "other"] {
            // The guest's call has ended when its answer begins.
            raw.write(format!("5\r\n{piece}\r\n")).await;
            raw.until(piece).await;
        }
        raw.write("0\r\n\r\n").await;
        raw.until("\r\n0\r\n\r\n").await;

        // The client's disconnect is no fault of the guest.
        let mut raw = Raw::send(server.address(), head).await;
        raw.until("\r\n\r\n").await;
        raw.write("5\r\nfirst\r\n").await;
        raw.until("first").await;
        drop(raw);
        assert_eq!(get(&server, "/end/finish").await.end, Whole);
        let stopped = server.stop();
        assert_eq!(stopped.counter("faults"), 0, "{args:?}\n{}", stopped.stderr);
    }
}
