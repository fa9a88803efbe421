//! Requests and answers as bytes: limits of heads, refusals that close, statuses without content,
//! and deviations of hyper.

use crate::support::{Tidegate, client::Raw, component};

fn rogue(limits: &[&str]) -> Tidegate {
    let args = limits.iter().flat_map(|limit| ["--limit", limit]);
    Tidegate::serve(&component("rogue"), &args.collect::<Vec<_>>())
}

/// Returns the whole answer to these bytes.
async fn ask(server: &Tidegate, bytes: &str) -> String {
    Raw::send(server.address(), bytes).await.rest().await
}

/// Returns a request whose head has `bytes` bytes.
fn head_of(bytes: usize) -> String {
    let head = "GET /calm HTTP/1.1\r\nhost: x\r\nconnection: close\r\nx-long: \r\n\r\n";
    head.replacen(
        "x-long: ",
        &format!("x-long: {}", "x".repeat(bytes - head.len())),
        1,
    )
}

/// Returns a request with `count` header fields.
fn fields(count: usize) -> String {
    let more: String = (2..count)
        .map(|number| format!("x-{number}: x\r\n"))
        .collect();
    format!("GET /calm HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{more}\r\n")
}

#[tokio::test]
async fn the_limits_of_a_head_hold_at_their_exact_value() {
    for (limit, bytes) in [
        ("header_bytes_max=9000B", 9000),
        ("header_bytes_max=2KiB", 2048),
        ("header_bytes_max=64KiB", 64 << 10),
    ] {
        let server = rogue(&[limit]);
        for (bytes, status) in [
            (bytes - 1, 200),
            (bytes, 200),
            (bytes + 1, 431),
            (bytes + 1000, 431),
            (8 * bytes, 431),
        ] {
            let answer = ask(&server, &head_of(bytes)).await;
            assert!(
                answer.starts_with(&format!("HTTP/1.1 {status} ")),
                "{limit}: {bytes} bytes: {answer}"
            );
            assert!(answer.contains("\r\nconnection: close\r\n"), "{answer}");
        }
    }
    let server = rogue(&[]);
    for (count, status) in [(99, 200), (100, 200), (101, 431), (1000, 431)] {
        let answer = ask(&server, &fields(count)).await;
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status} ")),
            "{count} fields: {answer}"
        );
    }
}

#[tokio::test]
async fn a_refusal_that_closes_sends_connection_close() {
    let server = rogue(&[
        "header_bytes_max=8KiB",
        "body_bytes_max=100B",
        "header_within=300ms",
        "read_within=300ms",
    ]);
    let get = |line: &str, more: &str| format!("GET {line}\r\nhost: x\r\n{more}\r\n");
    let post = |more: &str, body: &str| {
        format!("POST /web/upload HTTP/1.1\r\nhost: x\r\n{more}\r\n{body}")
    };
    let rows = [
        ("no version", "GET /calm\r\n\r\n".to_owned(), 400),
        ("another version", get("/calm HTTP/1.2", ""), 400),
        (
            "a control character in the target",
            get("/ca\x01lm HTTP/1.1", ""),
            400,
        ),
        ("a space in the target", get("/ca lm HTTP/1.1", ""), 400),
        (
            "a space before the colon",
            get("/calm HTTP/1.1", "x : y\r\n"),
            400,
        ),
        (
            "a folded field",
            get("/calm HTTP/1.1", "x: y\r\n z\r\n"),
            400,
        ),
        (
            "a field without a name",
            get("/calm HTTP/1.1", ": y\r\n"),
            400,
        ),
        ("a head that is too large", head_of(9 << 10), 431),
        ("too many fields", fields(101), 431),
        ("a head that does not end", "GET /calm HT".into(), 408),
        (
            "lengths that differ",
            post("content-length: 1\r\ncontent-length: 2\r\n", "x"),
            400,
        ),
        (
            "a negative length",
            post("content-length: -1\r\n", "x"),
            400,
        ),
        (
            "a coding that is not chunked",
            post("transfer-encoding: gzip\r\n", "x"),
            400,
        ),
        (
            "chunked, but not at last",
            post("transfer-encoding: chunked, gzip\r\n", "x"),
            400,
        ),
        (
            "a body that is announced too large",
            post("content-length: 101\r\n", ""),
            413,
        ),
        (
            "a body that becomes too large",
            post(
                "transfer-encoding: chunked\r\n",
                &format!("c8\r\n{}\r\n", "x".repeat(200)),
            ),
            413,
        ),
        (
            "a chunk of no size",
            post("transfer-encoding: chunked\r\n", "z\r\n"),
            400,
        ),
        (
            "a body that does not come",
            post("content-length: 10\r\n", "x"),
            408,
        ),
        (
            "a length and a coding, by the coding",
            post(
                "content-length: 3\r\ntransfer-encoding: chunked\r\n",
                "0\r\n\r\n",
            ),
            200,
        ),
    ];
    for (name, request, status) in rows {
        let answer = ask(&server, &request).await;
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

#[tokio::test]
async fn a_426_names_the_protocol_to_change_to() {
    let server = rogue(&[]);
    let handshake = "connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    let rows = [
        ("no handshake", String::new()),
        (
            "another protocol",
            handshake.replace("websocket\r", "h2c\r"),
        ),
        ("no version", handshake.to_owned()),
        (
            "another version",
            format!("{handshake}sec-websocket-version: 12\r\n"),
        ),
    ];
    for (name, fields) in rows {
        let request = format!("GET /socket HTTP/1.1\r\nhost: x\r\n{fields}\r\n");
        let mut raw = Raw::send(server.address(), &request).await;
        let head = raw.until("\r\n\r\n").await;
        assert!(head.starts_with("HTTP/1.1 426 "), "{name}: {head}");
        for field in ["\r\nupgrade: websocket\r\n", "\r\nconnection: upgrade\r\n"] {
            assert!(head.contains(field), "{name}: {head}");
        }
    }
}

#[tokio::test]
async fn a_205_has_no_content_and_keeps_the_connection() {
    let server = rogue(&[]);
    let mut raw = Raw::send(
        server.address(),
        "GET /web/reset HTTP/1.1\r\nhost: x\r\n\r\n",
    )
    .await;
    let head = raw.until("\r\n\r\n").await;
    assert!(
        head.starts_with("HTTP/1.1 205 ") && head.contains("content-length: 0\r\n"),
        "{head}"
    );
    raw.write("GET /calm HTTP/1.1\r\nhost: x\r\n\r\n").await;
    assert!(raw.until("calm").await.starts_with("HTTP/1.1 200 "));
}

#[tokio::test]
async fn options_for_the_whole_server_is_answered() {
    let server = rogue(&[]);
    for (line, status) in [
        ("OPTIONS *", 204),
        ("GET *", 400),
        ("POST *", 400),
        ("OPTIONS x", 400),
    ] {
        let answer = ask(
            &server,
            &format!("{line} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"),
        )
        .await;
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status} ")),
            "{line}: {answer}"
        );
    }
}

/// hyper's parser is more tolerant than RFC 9112 in these cases. The guide lists them, and says why
/// they are harmless.
#[tokio::test]
async fn the_guide_lists_every_deviation_of_the_parser() {
    let server = rogue(&["read_within=300ms"]);
    let post = |coding: &str, body: &str| {
        format!("POST /web/upload HTTP/1.1\r\nhost: x\r\n{coding}\r\n{body}")
    };
    let chunked = "transfer-encoding: chunked\r\nconnection: close\r\n";
    let rows = [
        (
            "bare LF",
            "GET /calm HTTP/1.1\nhost: x\nconnection: close\n\n".to_owned(),
            "\r\n\r\ncalm",
        ),
        (
            "an extension of a chunk without a name",
            post(chunked, "5;\r\nhello\r\n0\r\n\r\n"),
            "\r\n\r\n5",
        ),
        (
            "an extension of a chunk with control characters",
            post(chunked, "5;\x00x\r\nhello\r\n0\r\n\r\n"),
            "\r\n\r\n5",
        ),
        (
            "a length and a coding",
            post(
                "content-length: 3\r\ntransfer-encoding: chunked\r\n",
                "0\r\n\r\nGET /calm HTTP/1.1\r\nhost: x\r\n\r\n",
            ),
            "\r\n\r\n0",
        ),
        (
            "trailers that end with LF",
            post(chunked, "5\r\nhello\r\n0\r\n\n"),
            "the body took too long\n",
        ),
    ];
    for (name, request, end) in rows {
        let answer = ask(&server, &request).await;
        assert!(
            answer.ends_with(end) && answer.matches("HTTP/1.1 ").count() == 1,
            "{name}: {answer:?}"
        );
    }
}
