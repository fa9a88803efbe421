//! Only requests that name an allowed host are served.

use crate::support::{Tidegate, assert_settings_refused, client::Raw, component};
use std::fs;

const SOCKET: &str = "upgrade: websocket\r\nsec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

/// Returns the status of one request.
async fn status(server: &Tidegate, request: &str) -> u16 {
    let answer = Raw::send(server.address(), request)
        .await
        .until("\r\n")
        .await;
    answer
        .get(9..12)
        .and_then(|status| status.parse().ok())
        .unwrap_or_else(|| panic!("no answer: {answer:?}"))
}

async fn get(server: &Tidegate, target: &str, host: &str) -> u16 {
    status(
        server,
        &format!("GET {target} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n"),
    )
    .await
}

fn serve(settings: &str, args: &[&str]) -> Tidegate {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("tidegate.toml");
    fs::write(&config, settings).unwrap();
    Tidegate::serve(
        &component("rogue"),
        &[args, &["--config", config.to_str().unwrap()]].concat(),
    )
}

#[tokio::test]
async fn a_host_that_is_not_listed_reaches_no_guest_code() {
    let assets = tempfile::tempdir().unwrap();
    fs::write(assets.path().join("a.txt"), "a file").unwrap();
    let settings = "[server]\nhosts = [\"a.example\", \"*.b.example\", \"192.0.2.1\"]\n";
    let server = serve(settings, &["--assets", assets.path().to_str().unwrap()]);
    for target in [
        "/calm",
        "/guarded/calm",
        "/a.txt",
        "/some/page",
        "/page",
        "/feed?topic=t",
        "/stream/calm/before",
        "/rooms/tea",
        "/__tidegate/client.js",
        "/__tidegate/dev",
        "/__tidegate/healthy",
    ] {
        for host in [
            "evil.example",
            "a.example.evil.example",
            "b.example",
            "127.0.0.1",
            "localhost",
        ] {
            assert_eq!(get(&server, target, host).await, 421, "{target} of {host}");
        }
    }
    for line in ["GET /socket", "GET /rooms/tea"] {
        let origin = "origin: http://evil.example\r\n";
        assert_eq!(
            status(&server, &format!("{line} HTTP/1.1\r\nhost: evil.example\r\nconnection: upgrade\r\n{origin}{SOCKET}\r\n")).await,
            421,
            "{line}"
        );
    }
    let form = "content-type: application/json\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{}";
    for line in [
        "POST /__loaders",
        "POST /page",
        "PUT /version",
        "OPTIONS *",
        "DELETE /calm",
    ] {
        assert_eq!(
            status(
                &server,
                &format!("{line} HTTP/1.1\r\nhost: evil.example\r\n{form}")
            )
            .await,
            421,
            "{line}"
        );
    }
    // An absolute target takes precedence over the `Host` header.
    assert_eq!(
        get(&server, "http://evil.example/calm", "a.example").await,
        421
    );
    assert_eq!(
        get(&server, "http://a.example/calm", "evil.example").await,
        200
    );
    // The app receives the same host from each of its interfaces.
    for request in [
        "GET http://a.example/client HTTP/1.1\r\nhost: evil.example\r\nconnection: close\r\n\r\n",
        "GET http://a.example/client HTTP/1.0\r\nhost: evil.example\r\n\r\n",
        "GET http://a.example/client HTTP/1.0\r\n\r\n",
    ] {
        let answer = Raw::send(server.address(), request).await.rest().await;
        assert!(
            answer.ends_with(" http a.example a.example"),
            "{request}\n{answer}"
        );
    }
    assert_eq!(
        status(&server, "GET /calm HTTP/1.0\r\n\r\n").await,
        421,
        "the listener's address is not listed"
    );
    assert_eq!(
        status(&server, "GET /calm HTTP/1.0\r\nhost: A.Example:80\r\n\r\n").await,
        200
    );
    for host in [
        "a.example",
        "A.EXAMPLE:8080",
        "a.example.",
        "x.b.example",
        "x.y.B.example:1",
        "192.0.2.1:80",
    ] {
        assert_eq!(get(&server, "/calm", host).await, 200, "{host}");
        assert_eq!(get(&server, "/a.txt", host).await, 200, "{host}");
    }
    for host in ["evil.example", "a.example", "127.0.0.1"] {
        assert_eq!(
            get(&server, "/__tidegate/health", host).await,
            200,
            "{host}"
        );
    }
    assert_eq!(
        status(&server, "GET /__tidegate/health HTTP/1.0\r\n\r\n").await,
        200
    );
    assert_eq!(
        get(&server, "/__tidegate/health", "evil@example").await,
        400,
        "no host at all"
    );
    let stopped = server.stop();
    assert_eq!(
        stopped.counter("guest_calls"),
        11,
        "those of the hosts that are listed"
    );
    assert!(!stopped.stderr.contains("any host"), "{}", stopped.stderr);
}

#[tokio::test]
async fn without_a_host_list_every_host_is_served_with_one_warning() {
    let server = Tidegate::serve(&component("rogue"), &[]);
    for host in ["evil.example", "localhost", "[::1]"] {
        assert_eq!(get(&server, "/calm", host).await, 200, "{host}");
    }
    server.reload(&[]).unwrap();
    let stderr = server.stop().stderr;
    assert_eq!(
        stderr.matches("requests may name any host").count(),
        1,
        "{stderr}"
    );
    let server = serve("[server]\nhosts = \"*\"\n", &[]);
    assert_eq!(get(&server, "/calm", "evil.example").await, 200);
    let stderr = server.stop().stderr;
    assert!(!stderr.contains("requests may name any host"), "{stderr}");
}

#[test]
fn an_invalid_host_list_is_refused_at_start() {
    for (hosts, expected) in [
        ("[]", "refuses every request"),
        ("[\"a.example:80\"]", "has a port"),
        ("[\"http://a.example\"]", "is no host"),
        ("[\"a.*\"]", "is no host"),
    ] {
        assert_settings_refused(&format!("[server]\nhosts = {hosts}\n"), expected);
    }
}
