//! Components without Tidegate's interfaces: they export `wasi:http`, 0.2 or 0.3, and serve every
//! request.

mod support;

use futures_util::StreamExt as _;
use reqwest::{Client, Method};
use support::{
    Tidegate,
    client::{Raw, get, soon},
    component, tidegate,
};

/// A component of each version, and the version that it reports.
const PROXIES: [(&str, &str); 2] = [("proxy02", "0.2"), ("proxy03", "0.3")];

fn serve(proxy: &str, args: &[&str]) -> Tidegate {
    Tidegate::serve(&component(proxy), args)
}

/// Head of a request whose body the guest returns, piece by piece.
const ECHO: &str = "POST /echo HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n";

/// Checks that the answer has no text of the guest, and has an id that the log has, too.
fn assert_masked(server: &Tidegate, (status, body): (u16, String), cause: &str) {
    assert_eq!(status, 500, "{body}");
    let id = body
        .strip_prefix("internal error (id ")
        .and_then(|rest| rest.strip_suffix(")\n"));
    let line = server.wait_for(id.unwrap_or_else(|| panic!("{body:?}")));
    assert!(line.contains(cause), "{line:?} is not about {cause:?}");
}

#[tokio::test]
async fn a_wasi_http_component_gets_every_path_and_method_but_reserved_paths() {
    for (proxy, version) in PROXIES {
        let server = serve(proxy, &[]);
        for (method, name) in [
            (Method::GET, "Get"),
            (Method::POST, "Post"),
            (Method::DELETE, "Delete"),
            (Method::OPTIONS, "Options"),
        ] {
            let answer = soon(
                proxy,
                Client::new()
                    .request(method, server.url("/a/b%20c?d=e"))
                    .send(),
            )
            .await
            .unwrap();
            assert_eq!(
                (
                    answer.status().as_u16(),
                    answer.headers()["x-version"].to_str().unwrap()
                ),
                (200, version)
            );
            let text = answer.text().await.unwrap();
            assert_eq!(
                text,
                format!("Method::{name} /a/b%20c?d=e for {}", server.address()),
                "{proxy}"
            );
        }
        assert_eq!(
            get(&server, "/__tidegate/health").await,
            (200, "ok\n".into()),
            "{proxy}"
        );

        let mut raw = Raw::send(
            server.address(),
            "HEAD / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n",
        )
        .await;
        let head = raw.rest().await;
        let length = format!("content-length: {}\r\n", "Method::Head / for x".len());
        assert!(
            head.starts_with("HTTP/1.1 200 OK\r\n")
                && head.contains(&length)
                && head.ends_with("\r\n\r\n"),
            "{proxy}: {head}"
        );
        let stopped = server.stop();
        assert_eq!(
            (
                stopped.counter("requests"),
                stopped.counter("guest_calls"),
                stopped.counter("faults")
            ),
            (6, 5, 0),
            "{proxy}"
        );
    }
}

#[test]
fn check_reports_wasi_http_components() {
    for (proxy, _) in PROXIES {
        let output = tidegate()
            .arg("check")
            .arg(component(proxy))
            .output()
            .unwrap();
        let report = String::from_utf8_lossy(&output.stdout);
        assert_eq!(
            (output.status.code(), &*report),
            (
                Some(0),
                "OK: no manifest; its wasi:http export answers every path\n"
            ),
            "{proxy}"
        );
    }
}

#[tokio::test]
async fn request_and_response_bodies_are_streamed_at_the_same_time() {
    for (proxy, _) in PROXIES {
        let server = serve(proxy, &[]);
        let mut raw = Raw::send(server.address(), ECHO).await;
        for piece in ["first", "other", "third"] {
            raw.write(format!("5\r\n{piece}\r\n")).await;
            raw.until(piece).await; // the answer arrives before the next piece is sent
        }
        raw.write("0\r\n\r\n").await;
        assert_eq!(
            raw.until("0\r\n\r\n").await,
            "\r\n0\r\n\r\n",
            "{proxy}: a good end"
        );

        // The body is far beyond the limit of bounded bodies, and larger than any buffer on the
        // way.
        let large: Vec<u8> = (0..8_000_000_u32).map(|n| (n / 251) as u8).collect();
        let answer = soon(
            proxy,
            Client::new()
                .post(server.url("/echo"))
                .body(large.clone())
                .send(),
        )
        .await
        .unwrap();
        assert!(
            soon(proxy, answer.bytes()).await.unwrap() == large,
            "{proxy}: the echo differs"
        );
        assert_eq!(server.stop().counter("faults"), 0, "{proxy}");
    }
}

#[tokio::test]
async fn faults_are_masked_from_clients() {
    for (proxy, _) in PROXIES {
        let server = serve(proxy, &["--cpu", "200ms"]);
        assert_masked(
            &server,
            get(&server, "/error").await,
            "the app broke the contract: ",
        );
        assert_masked(&server, get(&server, "/trap").await, "the app trapped: ");
        if proxy == "proxy02" {
            assert_masked(
                &server,
                get(&server, "/silent").await,
                "without setting its response",
            );
        } else {
            assert_masked(
                &server,
                get(&server, "/ever").await,
                "the app computed for longer than one event may",
            );
        }
        assert_eq!(get(&server, "/fine").await.0, 200, "{proxy}");
        assert_eq!(server.stop().counter("faults"), 3, "{proxy}");
    }
}

#[tokio::test]
async fn a_trap_ends_no_concurrent_request() {
    for (proxy, _) in PROXIES {
        let server = serve(proxy, &[]);
        let mut raw = Raw::send(server.address(), ECHO).await;
        raw.write("5\r\nfirst\r\n").await;
        raw.until("first").await;
        assert_eq!(get(&server, "/trap").await.0, 500, "{proxy}");
        raw.write("5\r\nother\r\n0\r\n\r\n").await;
        raw.until("other\r\n0\r\n\r\n").await;
        assert_eq!(server.stop().counter("faults"), 1, "{proxy}");
    }
}

#[tokio::test]
async fn an_incomplete_answer_is_visible_as_incomplete() {
    for (proxy, _) in PROXIES {
        let server = serve(proxy, &[]);
        let answer = soon(proxy, reqwest::get(server.url("/half")))
            .await
            .unwrap();
        let mut pieces = answer.bytes_stream();
        assert_eq!(
            soon(proxy, pieces.next()).await.unwrap().unwrap(),
            "the first half",
            "{proxy}"
        );
        let end = soon(proxy, pieces.next()).await;
        assert!(matches!(end, Some(Err(_))), "{proxy}: {end:?}");
        server.wait_for("a streamed answer broke off");
        assert_eq!(get(&server, "/fine").await.0, 200, "{proxy}");
        assert_eq!(server.stop().counter("faults"), 1, "{proxy}");
    }
}

#[tokio::test]
async fn a_0_2_component_gets_an_instance_for_each_request_unless_reuse_is_allowed() {
    for (args, second) in [(&[][..], "1"), (&["--reuse-foreign"], "2")] {
        let server = serve("proxy02", &[&["--workers", "1"], args].concat());
        assert_eq!(get(&server, "/count").await.1, "1");
        assert_eq!(get(&server, "/count").await.1, second, "{args:?}");
    }
}

#[tokio::test]
async fn a_client_that_disconnects_affects_no_other() {
    for (proxy, _) in PROXIES {
        let server = serve(proxy, &["--instances", "1"]);
        for _ in 0..20 {
            let mut raw = Raw::send(
                server.address(),
                "POST /echo HTTP/1.1\r\nhost: x\r\ncontent-length: 99\r\n\r\nfirst",
            )
            .await;
            raw.until("first").await;
            drop(raw);
            assert_eq!(
                get(&server, "/fine").await.0,
                200,
                "{proxy}: its instance is free again"
            );
        }
    }
}
