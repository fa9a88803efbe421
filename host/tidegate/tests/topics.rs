//! Publications on their way to followers: no guest code runs for them, and a slow follower affects
//! only itself.

mod support;

use futures_util::future::join_all;
use reqwest::Client;
use rustix::process::Signal;
use std::fs;
use support::{
    Stopped, Tidegate,
    client::{Raw, Reader, Socket, soon},
    component,
};

fn rogue(args: &[&str]) -> Tidegate {
    Tidegate::serve(&component("rogue"), args)
}

/// Publishes a text; returns its number in the topic.
async fn publish(server: &Tidegate, topic: &str, text: impl Into<reqwest::Body>) -> String {
    let answer = Client::new()
        .post(server.url(&format!("/publish/{topic}")))
        .body(text)
        .send();
    let answer = soon("to publish", answer).await.unwrap();
    assert_eq!(answer.status(), 200);
    answer.text().await.unwrap()
}

/// Serves some followers, and publishes to them.
async fn broadcast(followers: usize, publications: usize) -> Stopped {
    let server = rogue(&[]);
    let mut sockets =
        join_all((0..followers).map(|_| Socket::connect(server.ws("/socket?follow=news")))).await;
    join_all(sockets.iter_mut().map(|socket| socket.ask("say following"))).await;
    let mut feeds = join_all((0..followers).map(|_| Reader::follow(&server, "news"))).await;
    for number in 1..=publications {
        assert_eq!(
            publish(&server, "news", format!("number {number}.")).await,
            number.to_string()
        );
    }
    for number in 1..=publications {
        let expected = format!("number {number}.");
        for socket in &mut sockets {
            assert_eq!(socket.text().await, expected);
        }
        for feed in &mut feeds {
            assert!(
                feed.until("\n\n")
                    .await
                    .ends_with(&format!("-{number}\ndata: {expected}\n\n"))
            );
        }
    }
    drop(feeds);
    for socket in sockets {
        socket.close().await;
    }
    server.stop()
}

#[tokio::test]
async fn a_publication_reaches_every_follower_in_order_without_a_guest_call() {
    let (few, many) = (broadcast(20, 1).await, broadcast(20, 10).await);
    let calls = |stopped: &Stopped| stopped.counter("guest_calls");
    assert_eq!(
        calls(&many) - calls(&few),
        9,
        "one for each request that publishes, none for a follower"
    );
    // Each socket has upgrade, open, one message and close; then come the feeds and the
    // publications.
    assert_eq!(calls(&many), 20 * 4 + 20 + 10);
    assert_eq!(
        (many.counter("publications"), many.counter("deliveries")),
        (10, 400)
    );
    assert_eq!(
        (
            many.counter("connections"),
            many.counter("feeds"),
            many.counter("faults")
        ),
        (20, 20, 0)
    );
}

#[tokio::test]
async fn a_feed_that_resumes_gets_missed_publications_or_a_gap_notice() {
    let dir = tempfile::tempdir().unwrap();
    let data = [
        "--data",
        dir.path().to_str().unwrap(),
        "--limit",
        "history_messages_max=3",
        "--limit",
        "room_idle_max=1ms",
    ];
    for (feed, publish) in [
        ("/feed?topic=news", "/publish/news"),
        ("/rooms/tea", "/rooms/tea"),
    ] {
        let mut server = rogue(&data);
        let post = async |server: &Tidegate, text: &str| {
            reqwest::Client::new()
                .post(server.url(publish))
                .body(text.to_owned())
                .send()
                .await
                .unwrap()
                .error_for_status()
                .unwrap();
        };
        post(&server, "before").await;
        let mut ann = Reader::open(&server, feed, None).await;
        let begun = ann.id_at("-1\n\n").await;
        assert!(begun.ends_with("-1"), "{feed}: {begun}");
        post(&server, "heard").await;
        let last = ann.id_at("data: heard\n\n").await;
        drop(ann);
        for text in ["one", "two"] {
            post(&server, text).await;
        }
        if feed.starts_with("/rooms") {
            server.signal(Signal::KILL);
            server.wait();
            server = rogue(&data);
        }
        let events =
            |epoch: &str| format!("id: {epoch}-3\ndata: one\n\nid: {epoch}-4\ndata: two\n\n");
        let epoch = last.strip_suffix("-2").unwrap();
        let mut again = Reader::open(&server, feed, Some(&last)).await;
        assert!(
            again.until("data: two\n\n").await.ends_with(&events(epoch)),
            "{feed}"
        );
        for lost in ["0-1", "neither ours", &begun] {
            post(&server, "more").await;
            let mut reader = Reader::open(&server, feed, Some(lost)).await;
            let received = reader
                .until("event: tidegate-gap\ndata: read the state anew\n\n")
                .await;
            assert!(
                !received.contains("data: one") && !received.contains("data: more"),
                "{feed} {lost}: {received}"
            );
            // The notice is one event with its id: a client that has the id has the notice,
            // wherever the connection breaks.
            assert!(
                received.contains("\n\nid: ") && received.matches("id: ").count() == 1,
                "{feed} {lost}: {received}"
            );
            post(&server, "new").await;
            reader.until("data: new\n\n").await;
        }
    }
}

#[tokio::test]
async fn a_feed_of_several_topics_resumes_at_its_position_in_each() {
    let server = rogue(&[]);
    let mut ann = Reader::open(&server, "/feed?topic=tea&also=milk", None).await;
    ann.until("begun").await;
    publish(&server, "tea", "hot").await;
    publish(&server, "milk", "cold").await;
    publish(&server, "milk", "fresh").await;
    let last = ann.id_at("data: fresh\n\n").await;
    drop(ann);
    publish(&server, "milk", "sour").await;
    publish(&server, "tea", "stale").await;
    let mut again = Reader::open(&server, "/feed?topic=tea&also=milk", Some(&last)).await;
    let received = again.until("data: sour\n\n").await;
    assert!(
        received.contains("data: stale\n")
            && !received.contains("hot")
            && !received.contains("fresh")
            && !received.contains("gap"),
        "{received}"
    );
    let sequences = |id: &str| {
        id.split(',')
            .map(|position| position.rsplit('-').next().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(sequences(&last), ["1", "2"]);
}

#[tokio::test]
async fn a_socket_that_resumes_gets_missed_publications_or_a_gap_notice() {
    let server = rogue(&[]);
    let mut ann = Socket::connect(server.ws("/socket")).await;
    let from = ann.ask("since news").await;
    let from = from
        .strip_suffix(" whole")
        .expect("nothing was missed")
        .to_owned();
    publish(&server, "news", "one").await;
    assert_eq!(ann.text().await, "one");
    let epoch = from.strip_suffix("-0").unwrap();
    for (since, texts) in [
        ("-0", vec!["one", "-0 whole"]),
        ("-1", vec!["-1 whole"]),
        ("-2", vec!["-1 gap"]),
    ] {
        let mut again = Socket::connect(server.ws("/socket")).await;
        again.send(format!("since news {epoch}{since}")).await;
        for expected in texts {
            assert_eq!(
                again.text().await.replace(epoch, ""),
                expected,
                "since {since}"
            );
        }
        publish(&server, "other", "x").await;
        again.close().await;
    }
}

#[tokio::test]
async fn excluded_connections_and_former_followers_get_no_publication() {
    let server = rogue(&[]);
    let mut ann = Socket::connect(server.ws("/socket?follow=news")).await;
    let mut bob = Socket::connect(server.ws("/socket?follow=news")).await;
    bob.ask("say ready").await;
    ann.send("tell-others news for the others").await;
    assert_eq!(bob.text().await, "for the others");
    assert_eq!(ann.ask("say mine").await, "mine", "nothing came before");

    bob.send("unfollow news").await;
    bob.ask("say done").await;
    ann.send("publish news for ann alone").await;
    assert_eq!(ann.text().await, "for ann alone");
    assert_eq!(bob.ask("say mine").await, "mine", "nothing came before");
    assert_eq!(server.stop().counter("deliveries"), 2);
}

#[tokio::test]
async fn connections_are_found_by_id_and_by_tag() {
    let server = rogue(&[]);
    let mut ann = Socket::connect(server.ws("/socket?tag=red")).await;
    let mut bob = Socket::connect(server.ws("/socket?tag=blue")).await;
    let (ann_id, bob_id) = (ann.ask("id").await, bob.ask("id").await);
    assert_ne!(ann_id, bob_id);
    assert_eq!(ann.ask("tagged blue").await, bob_id);
    assert_eq!(ann.ask("tagged green").await, "");
    ann.send(format!("poke {bob_id}")).await;
    assert_eq!(bob.text().await, format!("poked by {ann_id}"));
    bob.close().await;
    server.wait_for(&format!("closed {bob_id}"));
    assert_eq!(ann.ask("poke 0123").await, "no connection");
}

#[tokio::test]
async fn an_event_is_encoded_line_by_line_with_its_id_and_name() {
    let server = rogue(&[]);
    let mut feed = Reader::follow(&server, "news").await;
    publish(&server, "news?event=tick", "a\r\nb\rc\nd\n\nid: 7").await;
    let event = feed.until("\n\n").await;
    let (id, rest) = event.split_once('\n').unwrap();
    assert_eq!(
        rest,
        "event: tick\ndata: a\ndata: b\ndata: c\ndata: d\ndata: \ndata: id: 7\n\n"
    );
    let epoch = id
        .strip_prefix("id: ")
        .and_then(|id| id.strip_suffix("-1"))
        .unwrap_or_else(|| panic!("{id:?}"));
    publish(&server, "news", "ü").await;
    assert_eq!(
        feed.until("\n\n").await,
        format!("id: {epoch}-2\ndata: ü\n\n")
    );

    // A name with a line break is the app's error, and no follower receives it.
    let refused = Client::new()
        .post(server.url("/publish/news?event=a%0Adata:%20b"))
        .body("x")
        .send()
        .await
        .unwrap();
    assert_eq!(refused.status(), 500);
    publish(&server, "news", "next").await;
    assert_eq!(
        feed.until("\n\n").await,
        format!("id: {epoch}-3\ndata: next\n\n")
    );
}

#[tokio::test]
async fn comments_keep_a_silent_feed_open() {
    let server = rogue(&["--limit", "comment_every=20ms"]);
    let mut feed = Reader::follow(&server, "news").await;
    assert_eq!(feed.until(":\n\n:\n\n").await, ":\n\n:\n\n");
}

/// More than any socket buffers, in pieces of which two fit into an outbox.
const FLOOD: usize = 80;
const PIECE: usize = 400_000;

const UPGRADE: &str = "GET /socket?follow=prices/tea HTTP/1.1\r\nhost: x\r\nupgrade: websocket\r\nconnection: upgrade\r\n\
    sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

/// Opens a WebSocket and a feed that follow, and whose clients don't read.
async fn slow(server: &Tidegate) -> (Raw, Raw) {
    let mut socket = Raw::send(server.address(), UPGRADE).await;
    socket.until("\r\n\r\n").await;
    server.wait_for("opened ");
    let mut feed = Raw::send(
        server.address(),
        "GET /feed?topic=prices/tea HTTP/1.1\r\nhost: x\r\n\r\n",
    )
    .await;
    feed.until("second\n\n").await;
    (socket, feed)
}

/// Publishes more than slow followers can receive. A quick follower receives all of it.
async fn flood(server: &Tidegate) {
    let mut quick = Socket::connect(server.ws("/socket?follow=prices/tea")).await;
    quick.ask("say ready").await;
    for number in 1..=FLOOD {
        let text = format!("<{number}>{}", "x".repeat(PIECE));
        publish(server, "prices%2Ftea", text.clone()).await;
        assert!(quick.text().await == text, "publication {number}");
    }
    assert_eq!(quick.ask("say fine").await, "fine");
}

/// Returns the numbers of the publications in these bytes.
fn numbers(bytes: &str) -> Vec<usize> {
    bytes
        .split('<')
        .skip(1)
        .filter_map(|rest| rest.split_once('>')?.0.parse().ok())
        .collect()
}

#[tokio::test]
async fn a_slow_follower_is_closed_and_a_fast_one_gets_everything() {
    let server = rogue(&["--limit", "close_within=50ms"]);
    let (mut socket, mut feed) = slow(&server).await;
    flood(&server).await;
    let line = server.wait_for("code=1013");
    assert!(
        line.contains("clean=false by_peer=false kept= connection="),
        "{line}"
    );
    for (name, bytes) in [
        ("socket", socket.rest().await),
        ("feed", feed.until("\r\n0\r\n\r\n").await),
    ] {
        let received = numbers(&bytes);
        assert!(received.len() < FLOOD, "{name} lost nothing");
        assert!(
            received.iter().copied().eq(1..=received.len()),
            "{name}: the received messages have no gap: {received:?}"
        );
    }
    server.stop();
}

#[tokio::test]
async fn a_slow_follower_of_a_dropping_topic_loses_the_oldest_and_stays() {
    let dir = tempfile::tempdir().unwrap();
    let settings = dir.path().join("tidegate.toml");
    fs::write(&settings, "[topics]\ndrop_oldest = [\"prices/*\"]\n").unwrap();
    let server = rogue(&["--config", settings.to_str().unwrap()]);
    let (mut socket, mut feed) = slow(&server).await;
    flood(&server).await;

    let last = format!("<{FLOOD}>");
    for (name, raw) in [("socket", &mut socket), ("feed", &mut feed)] {
        let received = numbers(&raw.until(&last).await);
        assert!(received.len() < FLOOD, "{name} lost nothing");
        assert!(
            received.is_sorted_by(|one, other| one < other),
            "{name}: in order, each once: {received:?}"
        );
        assert_eq!(
            (received.first(), received.last()),
            (Some(&1), Some(&FLOOD)),
            "{name}"
        );
    }
    assert_eq!(
        publish(&server, "prices%2Ftea", "<end>").await,
        (FLOOD + 1).to_string()
    );
    socket.until("<end>").await;
    feed.until("<end>").await;
    assert!(!server.stop().stderr.contains("code=1013"));
}
