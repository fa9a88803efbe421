//! Only a trusted proxy may report the address of its client.

use crate::support::{Tidegate, assert_settings_refused, client::Raw, component};
use std::fs;

fn serve(trusted: &str, args: &[&str]) -> Tidegate {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("tidegate.toml");
    fs::write(
        &config,
        format!("[server]\ntrusted = {trusted}\nhosts = [\"a.example\", \"127.0.0.1\"]\n"),
    )
    .unwrap();
    Tidegate::serve(
        &component("rogue"),
        &[args, &["--config", config.to_str().unwrap()]].concat(),
    )
}

/// Returns the status and the body of the answer to a request with these headers, from an address
/// of this machine.
async fn ask_from(server: &Tidegate, address: &str, line: &str, headers: &[&str]) -> (u16, String) {
    let mut raw = Raw::connect_from(server.address(), address).await;
    let headers: String = headers
        .iter()
        .map(|header| format!("{header}\r\n"))
        .collect();
    raw.write(&format!(
        "{line} HTTP/1.1\r\nhost: a.example\r\nconnection: close\r\n{headers}\r\n"
    ))
    .await;
    let answer = raw.rest().await;
    let (head, body) = answer
        .split_once("\r\n\r\n")
        .unwrap_or_else(|| panic!("no answer: {answer:?}"));
    (head[9..12].parse().unwrap(), body.trim_end().to_owned())
}

#[tokio::test]
async fn forwarded_headers_of_untrusted_clients_are_ignored() {
    let claims = [
        "x-forwarded-for: 192.0.2.1",
        "X-Forwarded-For: 127.0.0.1",
        "x-forwarded-proto: https",
        "x-forwarded-proto: gopher",
        "x-forwarded-host: evil.example",
        "forwarded: for=192.0.2.1;proto=https;host=evil.example",
        "forwarded: for=\"",
    ];
    for (trusted, address) in [
        ("[]", "127.0.0.1"),
        ("[\"127.0.0.2\", \"10.0.0.0/8\", \"::1\"]", "127.0.0.1"),
    ] {
        let server = serve(trusted, &[]);
        for claim in claims
            .iter()
            .map(|claim| vec![*claim])
            .chain([claims.to_vec()])
        {
            let (status, body) = ask_from(&server, address, "GET /client", &claim).await;
            let rest = body
                .strip_prefix("127.0.0.1:")
                .and_then(|rest| rest.split_once(' '))
                .map(|(_, rest)| rest);
            assert_eq!(
                (status, rest),
                (200, Some("http a.example a.example")),
                "{trusted} {claim:?}: {body}"
            );
        }
    }
}

#[tokio::test]
async fn a_trusted_proxy_provides_client_address_scheme_and_host() {
    let server = serve(
        "[\"127.0.0.2\", \"10.0.0.0/8\"]",
        &["--log", "info,access=debug"],
    );
    let cases: [(&[&str], u16, &str); 12] = [
        (
            &["x-forwarded-for: 192.0.2.1"],
            200,
            "192.0.2.1:0 http a.example a.example",
        ),
        (
            &["x-forwarded-for: 8.8.8.8, 192.0.2.1, 10.0.0.1"],
            200,
            "192.0.2.1:0 http a.example a.example",
        ),
        (
            &[
                "x-forwarded-for: [2001:db8::1]:80",
                "x-forwarded-proto: https",
            ],
            200,
            "[2001:db8::1]:80 https a.example a.example",
        ),
        (
            &[
                "x-forwarded-for: 192.0.2.1",
                "x-forwarded-host: a.example:8443",
            ],
            200,
            "192.0.2.1:0 http a.example:8443 a.example:8443",
        ),
        (&["x-forwarded-host: evil.example"], 421, ""),
        (&["x-forwarded-host: user@a.example"], 400, ""),
        (&["x-forwarded-proto: gopher"], 400, ""),
        (
            &["forwarded: for=8.8.8.8, for=192.0.2.1;proto=https"],
            200,
            "192.0.2.1:0 https a.example a.example",
        ),
        (&["forwarded: for=\"192.0.2.1"], 400, ""),
        (
            &["forwarded: for=8.8.8.8", "x-forwarded-for: 192.0.2.1"],
            400,
            "",
        ),
        (
            &["forwarded: host=127.0.0.1", "x-forwarded-for: 192.0.2.1"],
            400,
            "",
        ),
        (
            &["forwarded: for=192.0.2.1", "x-forwarded-for: 192.0.2.1"],
            200,
            "192.0.2.1:0 http a.example a.example",
        ),
    ];
    for (headers, status, body) in cases {
        let answer = ask_from(&server, "127.0.0.2", "GET /client", headers).await;
        assert!(
            answer.0 == status && answer.1.starts_with(body),
            "{headers:?}: {answer:?}"
        );
    }
    // A proxy that forwards the target unchanged names its own host in it.
    let answer = ask_from(
        &server,
        "127.0.0.2",
        "GET http://127.0.0.1/client",
        &["x-forwarded-host: a.example"],
    )
    .await;
    assert!(
        answer.0 == 200 && answer.1.contains(" http a.example a.example"),
        "{answer:?}"
    );
    server.wait_for("peer=\"192.0.2.1:0\"");
}

#[tokio::test]
async fn an_origin_is_compared_with_the_host_that_the_proxy_received() {
    let server = serve("[\"127.0.0.2\"]", &[]);
    let upgrade = "upgrade: websocket\r\nconnection: upgrade\r\nsec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==";
    for (address, origin, headers, status) in [
        (
            "127.0.0.2",
            "https://a.example",
            "x-forwarded-proto: https",
            101,
        ),
        (
            "127.0.0.2",
            "http://a.example",
            "x-forwarded-proto: https",
            403,
        ),
        (
            "127.0.0.2",
            "https://a.example:8443",
            "x-forwarded-proto: https\r\nx-forwarded-host: a.example:8443",
            101,
        ),
        (
            "127.0.0.2",
            "https://a.example",
            "x-forwarded-proto: https\r\nx-forwarded-host: a.example:8443",
            403,
        ),
        // None of these headers is trusted.
        (
            "127.0.0.1",
            "http://a.example",
            "x-forwarded-proto: https",
            101,
        ),
        (
            "127.0.0.1",
            "https://a.example:8443",
            "x-forwarded-host: a.example:8443",
            403,
        ),
    ] {
        let mut raw = Raw::connect_from(server.address(), address).await;
        raw.write(&format!("GET /socket HTTP/1.1\r\nhost: a.example\r\norigin: {origin}\r\n{headers}\r\n{upgrade}\r\n\r\n")).await;
        let answer = raw.until("\r\n").await;
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status} ")),
            "{address} {origin} {headers}: {answer}"
        );
    }
}

#[tokio::test]
async fn the_address_cap_counts_clients_of_a_proxy_and_not_the_proxy() {
    let server = serve("[\"127.0.0.2\"]", &["--limit", "sockets_per_address_max=2"]);
    let hold = async |client: &str| {
        let mut raw = Raw::connect_from(server.address(), "127.0.0.2").await;
        raw.write(&format!(
            "GET /client HTTP/1.1\r\nhost: a.example\r\nx-forwarded-for: {client}\r\n\r\n"
        ))
        .await;
        let head = raw.until("\r\n\r\n").await;
        (
            head[9..12].parse::<u16>().unwrap(),
            head.contains("retry-after: "),
            raw,
        )
    };
    let mut held = Vec::new();
    for client in [
        "192.0.2.1",
        "192.0.2.1",
        "192.0.2.2",
        "192.0.2.2",
        "2001:db8::1",
        "2001:db8::2",
    ] {
        let (status, _, raw) = hold(client).await;
        assert_eq!(status, 200, "{client}");
        held.push(raw);
    }
    for client in ["192.0.2.1", "192.0.2.2", "2001:db8::3"] {
        let (status, is_later, _raw) = hold(client).await;
        assert!(status == 503 && is_later, "{client}: {status}");
    }
    // A connection that carries a request of another client counts for that client.
    held[0]
        .write("GET /client HTTP/1.1\r\nhost: a.example\r\nx-forwarded-for: 192.0.2.9\r\n\r\n")
        .await;
    assert!(held[0].until("192.0.2.9:0").await.contains("HTTP/1.1 200 "));
    let (status, _, _raw) = hold("192.0.2.1").await;
    assert_eq!(status, 200);
    assert!(server.stop().counter("refused_address") >= 3);
}

#[test]
fn an_invalid_proxy_network_is_refused_at_start() {
    for (trusted, expected) in [
        ("[\"proxy.example\"]", "is no network"),
        ("[\"10.1.0.0/8\"]", "has bits after"),
        ("[\"10.0.0.0/33\"]", "is no network"),
    ] {
        assert_settings_refused(&format!("[server]\ntrusted = {trusted}\n"), expected);
    }
}
