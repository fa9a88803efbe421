//! Event streams: the heartbeats of each kind, npm's clients, and the browser's client under Node,
//! over a network that fails in every way.

use crate::support::{Tidegate, client::Raw, component, workspace};
use std::{env, process::Command};

#[tokio::test]
async fn every_kind_of_event_stream_announces_and_sends_heartbeats() {
    let server = Tidegate::serve(&component("rogue"), &["--limit", "comment_every=100ms"]);
    let form = "__action=linger";
    let action = format!(
        "POST /page HTTP/1.1\r\nhost: x\r\naccept: text/event-stream\r\n\
         content-type: application/x-www-form-urlencoded\r\ncontent-length: {}\r\n\r\n{form}",
        form.len()
    );
    let get = |path: &str, more: &str| format!("GET {path} HTTP/1.1\r\nhost: x\r\n{more}\r\n");
    let rows = [
        ("a feed", get("/feed?topic=a", ""), "id: ", "3\r\n:\n\n"),
        (
            "a stream of the app's own",
            get("/web/events?stay=1", ""),
            "id: 2\n",
            "3\r\n:\n\n",
        ),
        (
            "the same, for a client that takes trailers",
            get("/web/events?stay=1", "te: trailers\r\n"),
            "id: 2\n",
            "3\r\n:\n\n",
        ),
        (
            "the same in HTTP/1.0",
            "GET /web/events?stay=1 HTTP/1.0\r\n\r\n".into(),
            "id: 2\n",
            "\n\n:\n\n:\n\n",
        ),
        (
            "an action's progress",
            action,
            "event: progress\ndata: \"begun\"\n\n",
            "3\r\n:\n\n",
        ),
    ];
    for (name, request, event, beat) in rows {
        let mut raw = Raw::send(server.address(), &request).await;
        let head = raw.until("\r\n\r\n").await;
        assert!(
            head.contains("\r\ntidegate-heartbeat: 100\r\n"),
            "{name}: {head}"
        );
        raw.until(event).await;
        for _ in 0..2 {
            raw.until(beat).await;
        }
    }
    let mut raw = Raw::send(server.address(), &get("/stream/idle", "")).await;
    let head = raw.until("a first piece").await;
    assert!(!head.contains("tidegate-heartbeat"), "{head}");
}

/// Runs a script of this folder under Node; it prints its failures on stdout or stderr.
async fn node(script: &str, args: Vec<String>) {
    let mut node = Command::new("node");
    node.args(["--experimental-websocket", "--no-warnings"])
        .arg(workspace().join("host/tidegate/tests/web").join(script))
        .args(args);
    let ended = tokio::task::spawn_blocking(move || {
        node.output()
            .expect("node is installed: run scripts/setup tests")
    })
    .await
    .unwrap();
    let (counts, wrong) = (
        String::from_utf8_lossy(&ended.stdout),
        String::from_utf8_lossy(&ended.stderr),
    );
    println!("{counts}");
    assert!(ended.status.success(), "{counts}{wrong}");
}

#[tokio::test]
async fn event_source_clients_from_npm_work() {
    let limits = ["--limit", "ping_every=200ms"];
    let server = Tidegate::serve(&component("rogue"), &limits);
    node("clients.mjs", vec![server.url("")]).await;
    assert_eq!(server.stop().counter("faults"), 0);
}

/// Runs a few hundred cuts; `TIDEGATE_CUTS=2000 TIDEGATE_SEED=7` selects another number and seed.
#[tokio::test]
async fn cuts_silence_and_bursts_lose_no_event_without_a_notice() {
    let number = |name: &str, usual: u32| {
        env::var(name).map_or(usual, |text| text.parse().expect("a number"))
    };
    let (cuts, seed, history) = (number("TIDEGATE_CUTS", 400), number("TIDEGATE_SEED", 1), 50);
    let limits = [
        format!("history_messages_max={history}"),
        "comment_every=100ms".to_owned(),
    ];
    let args: Vec<&str> = limits.iter().flat_map(|limit| ["--limit", limit]).collect();
    let server = Tidegate::serve(&component("rogue"), &args);
    let numbers = [cuts, seed, history].map(|number| number.to_string());
    let args = [server.url("")].into_iter().chain(numbers).collect();
    node("cuts.mjs", args).await;
    assert_eq!(server.stop().counter("faults"), 0);
}
