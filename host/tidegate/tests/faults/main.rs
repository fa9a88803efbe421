//! Guest code that fails, in every way and in every place where it is called: the fault affects
//! only its own call, and no client reads the secrets of the app.

mod reports;
#[path = "../support/mod.rs"]
mod support;

use futures_util::{StreamExt as _, future::join_all};
use reqwest::Client;
use support::{
    Stopped, Tidegate,
    client::{Raw, Socket, serve_sleeping_request, soon},
    component,
};
use tokio_tungstenite::tungstenite::client::IntoClientRequest;

/// Ways that end by a trap, and the cause in the log.
const TRAPS: [(&str, &str); 4] = [
    ("panic", "the app trapped: "),
    ("abort", "the app trapped: "),
    ("exit", "the app trapped: "),
    ("recurse", "the app trapped: "),
];
/// Ways that a limit ends, and the cause in the log.
const EXCESSES: [(&str, &str); 3] = [
    ("spin", "the app computed for longer than one event may"),
    (
        "eat",
        "the app asked for more memory than an instance may have",
    ),
    ("sleep", "the app took longer than one event may"),
];
/// Part of the text of every panic of the rogue app.
const SECRET: &str = "the app's own secret";

fn ways() -> impl Iterator<Item = (&'static str, &'static str)> {
    TRAPS.into_iter().chain(EXCESSES)
}

fn rogue(args: &[&str]) -> Tidegate {
    let limits = [["--cpu", "200ms"], ["--wall", "2s"], ["--memory", "16MiB"]];
    let limits = limits.into_iter().filter(|[flag, _]| !args.contains(flag));
    let args: Vec<&str> = limits.flatten().chain(args.iter().copied()).collect();
    Tidegate::serve(&component("rogue"), &args)
}

/// Checks that the client received only an id, under which the log has the cause.
fn assert_masked(server: &Tidegate, answer: &str, cause: &str) {
    let id = answer
        .split_once("(id ")
        .and_then(|(_, rest)| rest.split_once(')'))
        .map(|(id, _)| id);
    let id = id.unwrap_or_else(|| panic!("no id in {answer:?}"));
    assert!(
        !answer.contains(SECRET) && !answer.contains("trap"),
        "{answer:?}"
    );
    let line = server.wait_for(id);
    assert!(
        line.contains(cause) && line.contains("ERROR"),
        "{line:?} is not about {cause:?}"
    );
}

fn assert_counts(stopped: &Stopped, faults: usize) {
    assert_eq!(
        (stopped.counter("faults"), stopped.status.code()),
        (faults as u64, Some(0)),
        "{}",
        stopped.stderr
    );
}

async fn get(server: &Tidegate, path: &str) -> (u16, String) {
    let answer = soon(path, reqwest::get(server.url(path))).await.unwrap();
    let headers = format!("{:?}", answer.headers());
    assert!(!headers.contains(SECRET), "{headers}");
    (
        answer.status().as_u16(),
        soon(path, answer.text()).await.unwrap(),
    )
}

#[tokio::test]
async fn a_fault_in_a_message_closes_that_connection_and_no_other() {
    let server = rogue(&[]);
    let mut bob = Socket::connect(server.ws("/socket")).await;
    let bobs_id = bob.ask("id").await;
    for (how, cause) in ways() {
        let mut ann = Socket::connect(server.ws("/socket")).await;
        let id = ann.ask("id").await;
        ann.send(format!("do {how}")).await;
        let (code, reason) = ann.closed().await;
        assert_eq!(code, 1011, "{how}: {reason}");
        assert_masked(&server, &reason, cause);
        assert!(
            server
                .wait_for(&format!("closed {id}"))
                .contains("code=1011 clean=true by_peer=false"),
            "{how}"
        );
        assert_eq!(bob.ask("id").await, bobs_id, "{how}");
    }
    bob.close().await;
    assert_counts(&server.stop(), ways().count());
}

#[tokio::test]
async fn a_fault_in_an_http_route_is_a_500_with_an_id_and_keeps_the_connection() {
    let server = rogue(&[]);
    let client = Client::builder().pool_max_idle_per_host(1).build().unwrap();
    let get = async |path: &str| {
        let answer = soon(path, client.get(server.url(path)).send())
            .await
            .unwrap();
        (
            answer.status().as_u16(),
            format!("{:?}", answer.headers()),
            answer.text().await.unwrap(),
        )
    };
    for (how, cause) in ways() {
        let (status, headers, body) = get(&format!("/do/{how}")).await;
        assert_eq!(status, if how == "sleep" { 504 } else { 500 }, "{how}");
        assert!(!headers.contains(SECRET), "{headers}");
        assert_masked(&server, &body, cause);
        assert_eq!(get("/calm").await.2, "calm", "{how}");
    }
    // The app's own answer to its own error is masked by the SDK.
    let (status, _, body) = get("/do/fail").await;
    assert_eq!((status, body.as_str()), (500, "internal error"));
    server.wait_for(SECRET);
    assert_counts(&server.stop(), ways().count());
}

#[tokio::test]
async fn a_fault_in_on_upgrade_is_a_500_and_opens_no_connection() {
    let server = rogue(&[]);
    for (how, cause) in ways() {
        let refusal = Socket::try_connect(server.ws(&format!("/socket?upgrade={how}")))
            .await
            .err()
            .unwrap();
        let body =
            String::from_utf8_lossy(refusal.body().as_deref().unwrap_or_default()).into_owned();
        assert_eq!(
            refusal.status(),
            if how == "sleep" { 504 } else { 500 },
            "{how}"
        );
        assert_masked(&server, &body, cause);
    }
    assert_eq!(get(&server, "/connections").await.1, "");
    let stopped = server.stop();
    assert_eq!(stopped.counter("connections"), 0);
    assert_counts(&stopped, ways().count());
}

#[tokio::test]
async fn a_slow_on_upgrade_is_a_fault_and_a_503() {
    let server = rogue(&["--limit", "upgrade_within=100ms"]);
    let refusal = Socket::try_connect(server.ws("/socket?upgrade=sleep"))
        .await
        .err()
        .unwrap();
    assert_eq!(refusal.status(), 503);
    assert_masked(
        &server,
        &String::from_utf8_lossy(refusal.body().as_deref().unwrap_or_default()),
        "longer than one event may",
    );
    assert_counts(&server.stop(), 1);
}

#[tokio::test]
async fn a_fault_in_on_open_closes_the_connection_with_on_close() {
    let server = rogue(&[]);
    for (how, cause) in TRAPS {
        let mut ann = Socket::connect(server.ws(&format!("/socket?open={how}"))).await;
        let (code, reason) = ann.closed().await;
        assert_eq!(code, 1011, "{how}: {reason}");
        assert_masked(&server, &reason, cause);
    }
    let stopped = server.stop();
    let ids = |what: &str| {
        let mut ids: Vec<String> = stopped
            .stderr
            .lines()
            .filter_map(|line| Some(line.split_once(what)?.1.split(' ').next()?.to_owned()))
            .collect();
        ids.sort();
        ids
    };
    assert_eq!(ids(": opened ").len(), TRAPS.len(), "{}", stopped.stderr);
    assert_eq!(
        ids(": opened "),
        ids(": closed "),
        "each opened connection is closed once"
    );
    assert_counts(&stopped, TRAPS.len());
}

#[tokio::test]
async fn a_fault_in_on_close_is_logged_and_affects_no_other_connection() {
    let server = rogue(&[]);
    let mut bob = Socket::connect(server.ws("/socket")).await;
    for (how, cause) in ways() {
        let mut ann = Socket::connect(server.ws(&format!("/socket?close=do%20{how}"))).await;
        let id = ann.ask("id").await;
        ann.close().await;
        server.wait_for(&format!("closed {id} "));
        // The log names the connection in the line about its fault.
        let line = server.wait_for(&format!("route=\"/socket\" connection={id}"));
        assert!(line.contains(cause), "{how}: {line}");
        assert_eq!(bob.ask("say fine").await, "fine", "{how}");
    }
    assert_counts(&server.stop(), ways().count());
}

#[tokio::test]
async fn a_fault_in_a_guard_or_a_feed_handler_is_a_500_and_admits_no_request() {
    let server = rogue(&[]);
    for path in ["/guarded/calm", "/feed"] {
        for (how, cause) in TRAPS {
            let (status, body) = get(&server, &format!("{path}?topic=x&how={how}")).await;
            assert_eq!(status, 500, "{path} {how}");
            assert_masked(&server, &body, cause);
        }
    }
    assert_eq!(get(&server, "/guarded/calm").await, (200, "calm".into()));
    let stopped = server.stop();
    assert_eq!(stopped.counter("feeds"), 0);
    assert_counts(&stopped, 2 * TRAPS.len());
}

#[tokio::test]
async fn a_fault_before_a_streamed_answer_begins_is_a_500() {
    let server = rogue(&[]);
    for (how, cause) in ways() {
        let (status, body) = get(&server, &format!("/stream/{how}/before")).await;
        assert_eq!(status, if how == "sleep" { 504 } else { 500 }, "{how}");
        assert_masked(&server, &body, cause);
    }
    assert_counts(&server.stop(), ways().count());
}

#[tokio::test]
async fn a_fault_during_a_streamed_answer_is_visible_to_the_client() {
    let server = rogue(&[]);
    let ways = || ways().filter(|(how, _)| *how != "sleep"); // a stream may last as long as its client reads
    for (how, cause) in ways() {
        let answer = reqwest::get(server.url(&format!("/stream/{how}/midway")))
            .await
            .unwrap();
        assert_eq!(answer.status(), 200, "{how}");
        let mut pieces = answer.bytes_stream();
        let first = soon(how, pieces.next()).await.unwrap().unwrap();
        assert_eq!(first, "the first half, ", "{how}");
        let second = soon(how, pieces.next()).await;
        assert!(matches!(second, Some(Err(_))), "{how}: {second:?}");
        server.wait_for(&format!("a streamed answer broke off: {cause}"));
    }
    assert_counts(&server.stop(), ways().count());
}

#[tokio::test]
async fn an_endless_answer_ends_when_its_client_disconnects() {
    let server = rogue(&["--instances", "1"]);
    let mut raw = Raw::send(
        server.address(),
        "GET /stream/ever HTTP/1.1\r\nhost: x\r\n\r\n",
    )
    .await;
    raw.until("xxxx").await;
    drop(raw);
    server.wait_for("the endless answer ended");
    assert_eq!(
        get(&server, "/calm").await.0,
        200,
        "the instance is free again"
    );
    assert_counts(&server.stop(), 0);
}

#[tokio::test]
async fn a_client_that_disconnects_frees_its_instance() {
    for path in [
        "/do/sleep",
        "/stream/sleep/before",
        "/guarded/calm?how=sleep",
    ] {
        let (server, raw) = serve_sleeping_request(path, &[]).await;
        drop(raw);
        assert_eq!(get(&server, "/calm").await, (200, "calm".into()), "{path}");
    }
}

#[tokio::test]
async fn a_busy_loop_yields_its_thread() {
    let server = rogue(&[
        "--workers",
        "1",
        "--cpu",
        "1h",
        "--wall",
        "1h",
        "--drain",
        "0",
    ]);
    let mut ann = Socket::connect(server.ws("/socket")).await;
    let mut bob = Socket::connect(server.ws("/socket")).await;
    ann.send("do spin").await;
    server.wait_for("about to spin");
    for _ in 0..3 {
        assert_eq!(bob.ask("say fine").await, "fine");
        assert_eq!(get(&server, "/calm").await.1, "calm");
    }
    assert_counts(&server.stop(), 0);
}

#[tokio::test]
async fn thousands_of_faults_in_a_row_leave_every_instance_free() {
    let server = rogue(&["--instances", "4", "--log", "off"]);
    let client = Client::new();
    let statuses = async |path: &'static str| {
        let one = async |_| {
            client
                .get(server.url(path))
                .send()
                .await
                .unwrap()
                .status()
                .as_u16()
        };
        soon(path, join_all((0..4).map(one))).await
    };
    for _ in 0..300 {
        assert_eq!(statuses("/do/abort").await, [500; 4]);
    }
    assert_eq!(statuses("/calm").await, [200; 4]);
    assert_counts(&server.stop(), 1200);
}

#[tokio::test]
async fn events_beyond_the_instances_get_a_503_with_retry_after() {
    let server = rogue(&["--instances", "1", "--wall", "1h", "--drain", "0"]);
    let _sleeper = Raw::send(
        server.address(),
        "GET /do/sleep HTTP/1.1\r\nhost: x\r\n\r\n",
    )
    .await;
    server.wait_for("about to sleep");
    let answer = soon("busy", reqwest::get(server.url("/calm")))
        .await
        .unwrap();
    assert_eq!(
        (
            answer.status().as_u16(),
            answer.headers()["retry-after"].to_str().unwrap()
        ),
        (503, "1")
    );
    assert_masked(
        &server,
        &answer.text().await.unwrap(),
        "every instance of the app is busy",
    );
}

#[tokio::test]
async fn answers_before_a_trap_in_a_batch_arrive_and_later_messages_are_dropped() {
    let server = rogue(&[]);
    let mut bob = Socket::connect(server.ws("/socket?follow=news")).await;
    bob.ask("say ready").await;
    let handshake = server.ws("/socket").into_client_request().unwrap();
    let key = handshake.headers()["sec-websocket-key"].to_str().unwrap();
    let head = format!(
        "GET /socket HTTP/1.1\r\nhost: x\r\nupgrade: websocket\r\nconnection: upgrade\r\nsec-websocket-version: 13\r\nsec-websocket-key: {key}\r\n\r\n"
    );
    let mut ann = Raw::send(server.address(), &head).await;
    ann.until("\r\n\r\n").await;
    let batch = [
        "say one",
        "keep me",
        "publish news from ann",
        "say two",
        "do panic",
        "say three",
        "publish news of a ghost",
    ];
    ann.write(batch.map(frame).concat()).await;
    assert_eq!(
        ann.until("two").await,
        "\u{81}\u{3}one\u{81}\u{3}two".replace('\u{81}', "\u{fffd}")
    );
    assert!(ann.until(")").await.contains("internal error (id "));
    ann.write([0x88, 0x82, 0, 0, 0, 0, 0x03, 0xf3]).await;
    assert_eq!(ann.rest().await, "");
    assert!(
        server
            .wait_for("closed ")
            .contains("code=1011 clean=true by_peer=false kept=me connection=")
    );
    assert_eq!(bob.text().await, "from ann");
    assert_eq!(
        bob.ask("say still here").await,
        "still here",
        "nothing was published after the trap"
    );
    bob.close().await;
    assert_counts(&server.stop(), 1);
}

/// A client's text frame whose mask is zero.
fn frame(text: &str) -> Vec<u8> {
    [
        &[0x81, 0x80 | text.len() as u8, 0, 0, 0, 0],
        text.as_bytes(),
    ]
    .concat()
}

#[tokio::test]
async fn a_refusal_reaches_the_client_unchanged() {
    let server = rogue(&[]);
    let refusal = Socket::try_connect(server.ws("/socket?refuse=yes"))
        .await
        .err()
        .unwrap();
    assert_eq!(
        (
            refusal.status().as_u16(),
            refusal.headers()["x-why"].to_str().unwrap()
        ),
        (418, "teapot")
    );
    assert_eq!(refusal.body().as_deref(), Some(&b"only coffee\nhere"[..]));

    let mut late = Socket::connect(server.ws("/socket?accept-then-close=4403")).await;
    assert_eq!(late.closed().await, (4403, "not you".into()));

    let mut accepted = Socket::connect(server.ws("/socket")).await;
    assert_eq!(accepted.response.headers()["x-accepted"], "yes");
    accepted.send("close 4001").await;
    assert_eq!(accepted.closed().await, (4001, "as asked".into()));
    assert_counts(&server.stop(), 0);
}

#[tokio::test]
async fn an_answer_that_breaks_the_contract_is_an_app_fault() {
    let server = rogue(&[]);
    let cause = "the app broke the contract: ";
    for path in ["/status/101", "/status/600", "/status/0", "/header"] {
        let (status, body) = get(&server, path).await;
        assert_eq!(status, 500, "{path}");
        assert_masked(&server, &body, cause);
    }
    let offering = |protocol: &str| {
        let mut request = server
            .ws(&format!("/socket?protocol={protocol}"))
            .into_client_request()
            .unwrap();
        request
            .headers_mut()
            .insert("sec-websocket-protocol", "tea, coffee".parse().unwrap());
        request
    };
    for request in [
        offering("milk"),
        offering("Tea"),
        server
            .ws("/socket?accept-then-close=1000")
            .into_client_request()
            .unwrap(),
    ] {
        let refusal = Socket::try_connect(request).await.err().unwrap();
        assert_eq!(refusal.status(), 500);
        assert_masked(
            &server,
            &String::from_utf8_lossy(refusal.body().as_deref().unwrap_or_default()),
            cause,
        );
    }
    let chosen = Socket::connect(offering("coffee")).await;
    assert_eq!(
        chosen.response.headers()["sec-websocket-protocol"],
        "coffee"
    );
    drop(chosen);
    assert_counts(&server.stop(), 7);
}

#[tokio::test]
async fn an_endless_sender_gets_full_and_its_client_gets_all_accepted_messages() {
    let server = rogue(&[
        "--limit",
        "outbox_messages_max=10",
        "--limit",
        "message_bytes_max=1000",
    ]);
    let mut ann = Socket::connect(server.ws("/socket")).await;
    ann.send("flood 100").await;
    for _ in 0..10 {
        assert_eq!(ann.receive().await.len(), 100);
    }
    assert_eq!(
        ann.closed().await,
        (
            4000,
            "10 sent, 1000 queued: the connection's outbox is full".into()
        )
    );

    let mut bob = Socket::connect(server.ws("/socket")).await;
    bob.send("big 1000").await;
    assert_eq!(bob.receive().await.len(), 1000);
    assert_eq!(
        bob.ask("big 1001").await,
        "the message is larger than the host's limit"
    );
    assert_counts(&server.stop(), 0);
}
