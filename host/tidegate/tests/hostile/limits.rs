//! Crosses each limit from outside: the value at the limit is accepted, and the client or the app
//! gets the documented error beyond it.

use crate::support::{
    PATIENCE, Tidegate,
    client::{Raw, Socket, soon},
    component,
};
use std::time::{Duration, Instant};
use tokio::{io::AsyncWriteExt as _, net::TcpStream, time::timeout};

fn serve(limits: &[&str]) -> Tidegate {
    let args: Vec<&str> = limits.iter().flat_map(|limit| ["--limit", limit]).collect();
    Tidegate::serve(&component("rogue"), &args)
}

/// Checks that the app's call succeeds with the first size and fails with the second.
async fn check_sizes(server: &Tidegate, path: &str, cases: &[(&str, usize, usize)]) {
    for (what, fine, beyond) in cases {
        let mut socket = Socket::connect(server.ws(path)).await;
        assert_eq!(
            socket.ask(&format!("limit {what} {fine}")).await,
            "ok",
            "{what} {fine}"
        );
        let answer = socket.ask(&format!("limit {what} {beyond}")).await;
        assert!(
            answer != "ok" && answer.len() < 500,
            "{what} {beyond}: {answer}"
        );
        // The connection stays open.
        assert!(socket.ask("version").await.starts_with("version"), "{what}");
    }
}

#[tokio::test]
async fn connection_tags_attachments_and_topics_are_bounded() {
    let limits = [
        "attachment_bytes_max=10B",
        "tags_max=3",
        "tag_bytes_max=8B",
        "follows_max=4",
        "topic_bytes_max=12B",
        "call_bytes_max=64B",
    ];
    let server = serve(&limits);
    let cases = [
        ("attachment", 10, 11),
        ("tags", 3, 4),
        ("tag", 8, 9),
        ("follows", 4, 5),
        ("topic", 12, 13),
        ("call", 64, 65),
        ("automatic", 2048, 2049),
        ("room-name", 256, 257),
    ];
    check_sizes(&server, "/socket", &cases).await;
    // A valid reason closes the socket, so only an error for a reason that is too long can be
    // reported.
    let mut socket = Socket::connect(server.ws("/socket")).await;
    let answer = socket.ask("limit reason 124").await;
    assert!(answer != "ok", "{answer}");
    socket.send("limit reason 123").await;
    assert_eq!(socket.closed().await, (4000, "x".repeat(123)));
}

#[tokio::test]
async fn storage_and_effects_of_a_room_are_bounded() {
    let limits = [
        "room_key_bytes_max=20B",
        "room_value_bytes_max=2KiB",
        "room_event_bytes_max=64KiB",
        "room_bytes_max=10KiB",
    ];
    let server = serve(&limits);
    let cases = [("key", 20, 21), ("value", 2048, 2049)];
    check_sizes(&server, "/rooms/tea", &cases).await;
    let mut socket = Socket::connect(server.ws("/rooms/milk")).await;
    for _ in 0..6 {
        assert_eq!(socket.ask("limit entry 1500").await, "ok");
    }
    assert_ne!(socket.ask("limit entry 2000").await, "ok");
    drop(server);
    let server = serve(&["room_event_bytes_max=64KiB"]);
    check_sizes(&server, "/rooms/tea", &[("event", 5, 20)]).await;
}

#[tokio::test]
async fn listings_of_entries_and_ids_are_paged() {
    let server = serve(&[]);
    let mut socket = Socket::connect(server.ws("/rooms/tea")).await;
    // One call of the host returns fewer entries, so the SDK calls again.
    assert_eq!(socket.ask("limit page 2500").await, "2500");
    let mut others = Vec::new();
    for _ in 0..1002 {
        others.push(Socket::connect(server.ws("/other")).await);
    }
    let mut socket = Socket::connect(server.ws("/socket")).await;
    assert_eq!(socket.ask("limit ids 5000").await, "1000");
}

#[tokio::test]
async fn an_oversized_message_is_closed_with_1009() {
    let server = serve(&[
        "message_bytes_max=100B",
        "frame_bytes_max=60B",
        "fragments_max=3",
    ]);
    let frame = |first: u8, bytes: usize| {
        [
            vec![first, 0x80 | bytes as u8, 0, 0, 0, 0],
            vec![b'x'; bytes],
        ]
        .concat()
    };
    let cases: [(&str, Vec<u8>, bool); 6] = [
        ("a frame", frame(0x81, 60), true),
        ("a larger frame", frame(0x81, 61), false),
        (
            "a message",
            [frame(0x01, 50), frame(0x80, 50)].concat(),
            true,
        ),
        (
            "a larger message",
            [frame(0x01, 51), frame(0x80, 50)].concat(),
            false,
        ),
        (
            "three frames",
            [frame(0x01, 1), frame(0x00, 1), frame(0x80, 1)].concat(),
            true,
        ),
        (
            "five frames",
            [
                frame(0x01, 1),
                frame(0x00, 1),
                frame(0x00, 1),
                frame(0x00, 1),
                frame(0x80, 1),
            ]
            .concat(),
            false,
        ),
    ];
    for (what, bytes, is_fine) in cases {
        let handshake = "GET /other HTTP/1.1\r\nhost: x\r\nupgrade: websocket\r\nconnection: upgrade\r\nsec-websocket-version: 13\r\n\
            sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
        let mut raw = Raw::send(server.address(), handshake).await;
        raw.until("\r\n\r\n").await;
        raw.write(&bytes).await;
        if is_fine {
            raw.until("x").await;
        } else {
            let end = raw.rest_bytes().await;
            assert_eq!(&end[..1], b"\x88", "{what}");
            assert_eq!(&end[2..4], 1009_u16.to_be_bytes(), "{what}");
        }
    }
}

#[tokio::test]
async fn a_message_from_the_app_is_bounded() {
    let server = serve(&["message_bytes_max=100B"]);
    let mut socket = Socket::connect(server.ws("/socket")).await;
    assert_ne!(socket.ask("limit message 101").await, "ok");
}

#[tokio::test]
async fn the_bytes_of_head_and_body_are_bounded() {
    let server = serve(&["body_bytes_max=1000B", "header_bytes_max=8KiB"]);
    let request = |path: &str, headers: &str, bytes: usize| {
        format!(
            "POST {path} HTTP/1.1\r\nhost: x\r\n{headers}content-length: {bytes}\r\nconnection: close\r\n\r\n{}",
            "b".repeat(bytes)
        )
    };
    let cases = [
        (request("/publish/tea", "", 1000), "200"),
        (request("/publish/tea", "", 1001), "413"),
        (
            request(
                "/publish/tea",
                &format!("x-long: {}\r\n", "h".repeat(7000)),
                1,
            ),
            "200",
        ),
        (
            request(
                "/publish/tea",
                &format!("x-long: {}\r\n", "h".repeat(9000)),
                1,
            ),
            "431",
        ),
    ];
    for (request, expected) in cases {
        // A refused request may be closed before all of it is sent.
        let mut raw = Raw::send(server.address(), &request).await;
        let answer = raw.rest().await;
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {expected} ")),
            "{expected} {answer}"
        );
    }
}

#[tokio::test]
async fn an_unfinished_head_or_body_times_out() {
    let server = serve(&[
        "header_within=300ms",
        "body_within=300ms",
        "idle_within=300ms",
    ]);
    let mut half = Raw::send(server.address(), "GET / HTT").await;
    let ended = half.rest().await;
    assert!(
        ended.is_empty() || ended.starts_with("HTTP/1.1 408 "),
        "{ended}"
    );
    let mut body = Raw::send(
        server.address(),
        "POST /publish/tea HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\n\r\nab",
    )
    .await;
    assert!(body.rest().await.starts_with("HTTP/1.1 408 "));
    let mut idle = Raw::send(server.address(), "GET /calm HTTP/1.1\r\nhost: x\r\n\r\n").await;
    idle.until("calm").await;
    assert_eq!(idle.rest().await, "");
}

#[tokio::test]
async fn a_websocket_has_a_lifetime_and_an_idle_timeout() {
    for limit in ["idle_max=300ms", "lifetime_max=300ms"] {
        let server = serve(&[limit]);
        let mut socket = Socket::connect(server.ws("/other")).await;
        assert_eq!(socket.closed().await.0, 1001, "{limit}");
    }
}

#[tokio::test]
async fn a_client_that_answers_no_ping_is_dropped() {
    let server = serve(&["ping_every=200ms", "pong_within=200ms"]);
    let handshake = "GET /socket HTTP/1.1\r\nhost: x\r\nupgrade: websocket\r\nconnection: upgrade\r\nsec-websocket-version: 13\r\n\
        sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    let mut raw = Raw::send(server.address(), handshake).await;
    raw.until("\r\n\r\n").await;
    assert_eq!(&raw.rest_bytes().await[..1], b"\x89", "a ping, and the end");
    server.wait_for("code=1006");
}

#[tokio::test]
async fn a_client_that_sends_faster_than_the_app_reads_waits() {
    let server = serve(&["inbox_messages_max=4", "inbox_bytes_max=4KiB"]);
    let mut raw = TcpStream::connect(server.address()).await.unwrap();
    let handshake = "GET /socket HTTP/1.1\r\nhost: x\r\nupgrade: websocket\r\nconnection: upgrade\r\nsec-websocket-version: 13\r\n\
        sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    raw.write_all(handshake.as_bytes()).await.unwrap();
    // The app sleeps in its first event; meanwhile the host stops reading.
    raw.write_all(b"\x81\x88\0\0\0\0do sleep").await.unwrap();
    let flood = [
        b"\x81\xfe".to_vec(),
        60_000_u16.to_be_bytes().to_vec(),
        vec![0; 4],
        vec![b'x'; 60_000],
    ]
    .concat();
    let mut sent = 0;
    // The buffers of the kernel hold some megabytes.
    while sent < 64 << 20 {
        match timeout(Duration::from_secs(2), raw.write_all(&flood)).await {
            Ok(Ok(())) => sent += flood.len(),
            Ok(Err(error)) => panic!("{error} after {sent}"),
            Err(_) => break,
        }
    }
    assert!(sent < 64 << 20, "the host reads on and on");
}

#[tokio::test]
async fn a_full_outbox_returns_an_error_to_the_app() {
    for limit in ["outbox_messages_max=5", "outbox_bytes_max=5KiB"] {
        let server = serve(&[limit]);
        let mut socket = Socket::connect(server.ws("/socket")).await;
        socket.send("flood 1000").await;
        for _ in 0..5 {
            socket.receive().await;
        }
        let (code, reason) = socket.closed().await;
        assert!(
            code == 4000 && reason.starts_with("5 sent"),
            "{limit}: {code} {reason}"
        );
    }
}

#[tokio::test]
async fn a_history_is_bounded_in_messages_and_bytes() {
    let cases = [
        (&["history_messages_max=2"][..], 3, 10),
        (&["history_message_bytes_max=100B"], 1, 101),
        (&["history_bytes_max=150B"], 2, 100),
    ];
    for (limits, messages, bytes) in cases {
        let server = serve(limits);
        let client = reqwest::Client::new();
        let publish = async || {
            let request = client
                .post(server.url("/publish/tea"))
                .body("m".repeat(bytes));
            assert_eq!(
                soon("to publish", request.send())
                    .await
                    .unwrap()
                    .status()
                    .as_u16(),
                200
            );
        };
        let mut socket = Socket::connect(server.ws("/socket")).await;
        let at = socket.ask("since tea").await;
        let position = at.split(' ').next().unwrap().to_owned();
        for _ in 0..messages {
            publish().await;
        }
        let mut other = Socket::connect(server.ws("/socket")).await;
        let answer = other.ask(&format!("since tea {position}")).await;
        assert!(answer.ends_with(" gap"), "{limits:?}: {answer}");
    }
}

#[tokio::test]
async fn a_history_expires() {
    let server = serve(&["history_age_max=200ms"]);
    let client = reqwest::Client::new();
    let mut socket = Socket::connect(server.ws("/socket")).await;
    let position = socket
        .ask("since tea")
        .await
        .split(' ')
        .next()
        .unwrap()
        .to_owned();
    soon(
        "to publish",
        client.post(server.url("/publish/tea")).body("old").send(),
    )
    .await
    .unwrap();
    let until = Instant::now() + PATIENCE;
    loop {
        let mut other = Socket::connect(server.ws("/socket")).await;
        other.send(format!("since tea {position}")).await;
        let mut answer = other.text().await;
        if answer == "old" {
            answer = other.text().await;
        }
        if answer.ends_with(" gap") {
            break;
        }
        assert!(Instant::now() < until, "{answer}");
    }
}

#[tokio::test]
async fn events_queued_for_a_room_are_bounded() {
    let server = serve(&["room_inbox_max=3"]);
    let mut socket = Socket::connect(server.ws("/rooms/tea")).await;
    socket.send("then sleep").await;
    let client = reqwest::Client::new();
    // A call beyond the number of waiting ones is refused, even if many calls before it had a
    // place.
    let calls = (0..20).map(|_| {
        let request = client
            .post(server.url("/rooms/tea"))
            .body("line")
            .timeout(Duration::from_secs(5))
            .send();
        tokio::spawn(request)
    });
    let mut refused = 0;
    for call in calls.collect::<Vec<_>>() {
        if let Ok(answer) = call.await.unwrap() {
            refused += u32::from(answer.status().as_u16() == 503);
        }
    }
    assert!(refused >= 10, "{refused}");
}

/// A multipart form for the action that counts its bytes, as a browser sends it, with this
/// Content-Length.
fn form(server: &Tidegate, parts: &str, bytes: usize) -> String {
    let address = server.address();
    let head = format!(
        "POST /page HTTP/1.1\r\nhost: {address}\r\norigin: http://{address}\r\naccept: application/json\r\nconnection: close\r\n\
        content-type: multipart/form-data; boundary=B\r\n"
    );
    format!("{head}content-length: {bytes}\r\n\r\n{parts}")
}

fn part(name: &str, value: &str) -> String {
    format!("--B\r\ncontent-disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n")
}

#[tokio::test]
async fn a_form_is_bounded_in_bytes_and_in_fields() {
    let server = serve(&["upload_bytes_max=200KiB"]);
    let action = part("__action", "weigh");
    let cases = [
        (
            action.clone() + &part("a", &"x".repeat(150 << 10)) + "--B--\r\n",
            "200",
        ),
        (
            action.clone() + &part("a", &"x".repeat(250 << 10)) + "--B--\r\n",
            "413",
        ),
        (part("a", "x").repeat(1000) + &action + "--B--\r\n", "200"),
        (part("a", "x").repeat(1001) + &action + "--B--\r\n", "413"),
    ];
    for (parts, expected) in cases {
        let mut raw = Raw::send(server.address(), &form(&server, &parts, parts.len())).await;
        let answer = raw.rest().await;
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {expected} ")),
            "{expected} {answer}"
        );
    }
}

#[tokio::test]
async fn a_form_without_a_complete_part_is_not_buffered() {
    let server = serve(&["upload_bytes_max=10MiB"]);
    for begun in [
        "--B\r\ncontent-disposition: form-data; name=\"",
        "no boundary at all ",
    ] {
        let parts = begun.to_owned() + &"n".repeat(128 << 10);
        let mut raw = Raw::send(server.address(), &form(&server, &parts, 5 << 20)).await;
        let answer = raw.until("\r\n").await;
        assert!(answer.starts_with("HTTP/1.1 413 "), "{begun}: {answer}");
    }
    assert_eq!(server.stop().counter("guest_calls"), 0);
}

#[tokio::test]
async fn headers_of_answers_and_guards_are_bounded_in_bytes() {
    let server = serve(&[]);
    for (path, status) in [
        ("/greedy/headers?count=4&bytes=60000", 200),
        ("/greedy/headers?count=4&bytes=70000", 500),
        ("/guarded/calm?context=262000", 200),
        ("/guarded/calm?context=263000", 500),
    ] {
        let mut raw = Raw::send(
            server.address(),
            &format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"),
        )
        .await;
        let answer = raw.rest().await;
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status} ")),
            "{path}: {answer:.200}"
        );
    }
    assert_eq!(server.stop().counter("faults"), 2);
}

#[tokio::test]
async fn an_action_has_a_timeout() {
    let server = serve(&["upload_within=500ms"]);
    let begun = part("__action", "weigh") + &part("a", &"x".repeat(100 << 10));
    let mut raw = Raw::send(server.address(), &form(&server, &begun, 200 << 10)).await;
    let answer = raw.until("\r\n").await;
    assert!(
        answer.starts_with("HTTP/1.1 504 ") || answer.starts_with("HTTP/1.1 408 "),
        "{answer}"
    );
}

#[tokio::test]
async fn an_event_is_bounded_in_time_cpu_and_memory() {
    let server = Tidegate::serve(
        &component("rogue"),
        &["--wall", "300ms", "--cpu", "100ms", "--memory", "8MiB"],
    );
    for (how, status) in [("sleep", 504), ("spin", 500), ("eat", 500)] {
        let answer = soon(how, reqwest::get(server.url(&format!("/do/{how}"))))
            .await
            .unwrap();
        assert_eq!(answer.status().as_u16(), status, "{how}");
    }
    server.wait_for("memory than an instance may have");
    assert_eq!(server.stop().counter("faults"), 3);
}

#[tokio::test]
async fn concurrent_requests_of_an_app_are_bounded() {
    let upstream = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = upstream.local_addr().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let settings = dir.path().join("tidegate.toml");
    std::fs::write(
        &settings,
        "[app]\noutbound_requests_max = 1\noutbound_silence_max = \"500ms\"\n",
    )
    .unwrap();
    let args = [
        "--config",
        settings.to_str().unwrap(),
        "--allow-outbound",
        &format!("http://{address}"),
    ];
    let server = Tidegate::serve(&component("errand"), &args);
    // Nothing answers there: the first request has the only place until it is given up, and the
    // second waits for less time than that.
    let fetch = async || {
        let answer = soon(
            "the answer",
            reqwest::get(server.url(&format!("/fetch?scheme=http&authority={address}"))),
        )
        .await
        .unwrap();
        answer.text().await.unwrap().to_lowercase()
    };
    let (one, other) = tokio::join!(fetch(), fetch());
    assert_eq!(
        one.contains("limit") as u8 + other.contains("limit") as u8,
        1,
        "{one} {other}"
    );
}
