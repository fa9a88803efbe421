//! A drain of the server: each kind of connection is brought to its end in its own way, and every
//! wait is bounded.

mod support;

use futures_util::StreamExt as _;
use rustix::process::Signal;
use support::{
    Tidegate,
    client::{Raw, Socket, soon},
    component,
};
use tokio::net::TcpStream;

fn rogue(args: &[&str]) -> Tidegate {
    Tidegate::serve(&component("rogue"), args)
}

const UPGRADE: &str = "GET /socket HTTP/1.1\r\nhost: x\r\nupgrade: websocket\r\nconnection: upgrade\r\n\
    sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

#[tokio::test]
async fn each_signal_drains_every_kind_of_connection() {
    for signal in [Signal::TERM, Signal::INT] {
        let server = rogue(&["--drain", "1h"]);
        let mut ann = Socket::connect(server.ws("/socket")).await;
        let id = ann.ask("id").await;
        let feed = reqwest::get(server.url("/feed?topic=news")).await.unwrap();
        let mut idle = Raw::send(server.address(), "GET /calm HTTP/1.1\r\nhost: x\r\n\r\n").await;
        idle.until("calm").await;
        // The 100 shows that the host waits for the body: the request has begun.
        let head = "POST /publish/news HTTP/1.1\r\nhost: x\r\ncontent-length: 10\r\nexpect: 100-continue\r\n\r\n";
        let mut upload = Raw::send(server.address(), head).await;
        upload.until("100 Continue\r\n\r\n").await;
        upload.write("first").await;
        let mut stream = Raw::send(
            server.address(),
            "POST /stream/echo HTTP/1.1\r\nhost: x\r\ncontent-length: 10\r\n\r\nfirst",
        )
        .await;
        stream.until("first").await;

        server.signal(signal);
        assert_eq!(
            ann.closed().await,
            (1001, "the server is going away".into()),
            "{signal:?}"
        );
        assert!(
            server
                .wait_for(&format!("closed {id}"))
                .contains("code=1001 clean=true by_peer=false")
        );
        assert!(
            TcpStream::connect(server.address()).await.is_err(),
            "no further connection is accepted"
        );
        assert_eq!(idle.rest().await, "", "a connection without a request ends");
        let events = soon(
            "the feed's end",
            feed.bytes_stream()
                .map(|piece| piece.expect("it ends well"))
                .collect::<Vec<_>>(),
        )
        .await;
        let events = String::from_utf8(events.concat()).unwrap();
        assert!(
            events.starts_with("event: begun\ndata: first\ndata: second\n\nid: ")
                && events.ends_with("\n\n"),
            "{events}"
        );

        // The request that has begun is finished: only the drain has waited for it so far.
        upload.write("-last").await;
        let answer = upload.rest().await;
        assert!(
            answer.starts_with("HTTP/1.1 200 OK") && answer.ends_with("\r\n\r\n1"),
            "{answer}"
        );
        stream.write("-last").await;
        let answer = stream.rest().await;
        assert!(
            answer.contains("-last") && answer.ends_with("\r\n0\r\n\r\n"),
            "{answer}"
        );

        let stopped = server.wait();
        assert_eq!(stopped.status.code(), Some(0), "{}", stopped.stderr);
        assert!(!stopped.stderr.contains("cut off"), "{}", stopped.stderr);
        assert_eq!(
            (
                stopped.counter("connections"),
                stopped.counter("feeds"),
                stopped.counter("faults")
            ),
            (1, 1, 0)
        );
    }
}

#[tokio::test]
async fn a_client_that_ignores_the_close_frame_is_dropped_and_on_close_reports_it() {
    let server = rogue(&["--drain", "1h", "--limit", "close_within=50ms"]);
    let mut silent = Raw::send(server.address(), UPGRADE).await;
    silent.until("\r\n\r\n").await;
    server.wait_for("opened ");
    let stopped = server.stop();
    assert!(
        stopped
            .stderr
            .contains("code=1001 clean=false by_peer=false"),
        "{}",
        stopped.stderr
    );
    assert_eq!(stopped.status.code(), Some(0));
    assert!(!stopped.stderr.contains("cut off"), "{}", stopped.stderr);
}

#[tokio::test]
async fn requests_that_do_not_end_are_cut_off_at_the_deadline() {
    for path in ["/do/sleep", "/stream/ever"] {
        let server = rogue(&["--drain", "100ms", "--wall", "1h"]);
        let mut raw = Raw::send(
            server.address(),
            &format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n"),
        )
        .await;
        match path {
            "/do/sleep" => _ = server.wait_for("about to sleep"),
            _ => _ = raw.until("xxxx").await,
        }
        server.signal(Signal::TERM);
        let rest = raw.rest().await;
        assert!(
            !rest.ends_with("0\r\n\r\n"),
            "{path}: the truncated answer looks complete"
        );
        let stopped = server.wait();
        assert!(
            stopped
                .stderr
                .contains("were cut off at the end of the drain"),
            "{path}: {}",
            stopped.stderr
        );
        assert_eq!(stopped.status.code(), Some(0), "{path}");
    }
}

#[tokio::test]
async fn a_second_signal_ends_a_busy_server_at_once() {
    for (second, code) in [(Signal::TERM, 143), (Signal::INT, 130)] {
        let server = rogue(&[
            "--drain",
            "1h",
            "--wall",
            "1h",
            "--cpu",
            "1h",
            "--workers",
            "1",
        ]);
        let _spinning =
            Raw::send(server.address(), "GET /do/spin HTTP/1.1\r\nhost: x\r\n\r\n").await;
        server.wait_for("about to spin");
        server.signal(Signal::TERM);
        server.wait_for("draining");
        server.signal(second);
        assert_eq!(server.wait().status.code(), Some(code), "{second:?}");
    }
}

#[tokio::test]
async fn a_fault_does_not_delay_the_drain() {
    let server = rogue(&["--drain", "1h"]);
    let mut ann = Socket::connect(server.ws("/socket?close=do%20panic")).await;
    ann.ask("say ready").await;
    let mut bob = Socket::connect(server.ws("/socket")).await;
    bob.ask("say ready").await;
    server.signal(Signal::TERM);
    assert_eq!((ann.closed().await.0, bob.closed().await.0), (1001, 1001));
    let stopped = server.wait();
    assert_eq!(
        stopped.stderr.matches("code=1001 clean=true").count(),
        2,
        "{}",
        stopped.stderr
    );
    assert_eq!(
        (stopped.counter("faults"), stopped.status.code()),
        (1, Some(0))
    );
}
