//! Publications on their way to followers: no guest code runs for them, and a slow follower costs itself alone.

mod support;

use futures_util::{StreamExt as _, future::join_all, stream::BoxStream};
use reqwest::Client;
use std::fs;
use support::{
    Stopped, Tidegate,
    client::{Raw, Socket, soon},
    component,
};

fn rogue(args: &[&str]) -> Tidegate {
    Tidegate::serve(&component("rogue"), args)
}

/// Its number in the topic.
async fn publish(server: &Tidegate, topic: &str, text: impl Into<reqwest::Body>) -> String {
    let answer = Client::new().post(server.url(&format!("/publish/{topic}"))).body(text).send();
    let answer = soon("to publish", answer).await.unwrap();
    assert_eq!(answer.status(), 200);
    answer.text().await.unwrap()
}

/// A feed's client: reads until it has seen a text.
struct Reader {
    pieces: BoxStream<'static, reqwest::Result<Vec<u8>>>,
    heard: String,
}

impl Reader {
    async fn follow(server: &Tidegate, topic: &str) -> Reader {
        let answer = soon("the feed", reqwest::get(server.url(&format!("/feed?topic={topic}")))).await.unwrap();
        let header = |name: &str| answer.headers()[name].to_str().unwrap().to_owned();
        assert_eq!((answer.status().as_u16(), header("content-type").as_str()), (200, "text/event-stream"));
        assert_eq!((header("cache-control").as_str(), header("x-accel-buffering").as_str()), ("no-cache, no-transform", "no"));
        let mut reader = Reader { pieces: answer.bytes_stream().map(|piece| piece.map(Into::into)).boxed(), heard: String::new() };
        assert_eq!(reader.until("second\n\n").await, "event: begun\ndata: first\ndata: second\n\n");
        reader
    }

    /// All up to and with this text, which is forgotten.
    async fn until(&mut self, end: &str) -> String {
        while !self.heard.contains(end) {
            let piece = soon(end, self.pieces.next()).await.unwrap_or_else(|| panic!("no {end:?} after {:?}", self.heard)).unwrap();
            self.heard += std::str::from_utf8(&piece).unwrap();
        }
        let rest = self.heard.split_off(self.heard.find(end).unwrap() + end.len());
        std::mem::replace(&mut self.heard, rest)
    }
}

/// Serves some followers some publications.
async fn broadcast(followers: usize, publications: usize) -> Stopped {
    let server = rogue(&[]);
    let mut sockets = join_all((0..followers).map(|_| Socket::connect(server.ws("/socket?follow=news")))).await;
    join_all(sockets.iter_mut().map(|socket| socket.ask("say following"))).await;
    let mut feeds = join_all((0..followers).map(|_| Reader::follow(&server, "news"))).await;
    for number in 1..=publications {
        assert_eq!(publish(&server, "news", format!("number {number}.")).await, number.to_string());
    }
    for number in 1..=publications {
        let expected = format!("number {number}.");
        for socket in &mut sockets {
            assert_eq!(socket.text().await, expected);
        }
        for feed in &mut feeds {
            assert!(feed.until("\n\n").await.ends_with(&format!("-{number}\ndata: {expected}\n\n")));
        }
    }
    drop(feeds);
    for socket in sockets {
        socket.close().await;
    }
    server.stop()
}

#[tokio::test]
async fn a_publication_reaches_every_follower_in_order_and_costs_no_guest_call() {
    let (few, many) = (broadcast(20, 1).await, broadcast(20, 10).await);
    let calls = |stopped: &Stopped| stopped.counter("guest_calls");
    assert_eq!(calls(&many) - calls(&few), 9, "one for each request that publishes, none for who follows");
    // Upgrade, open, one message, close; subscribe; publish.
    assert_eq!(calls(&many), 20 * 4 + 20 + 10);
    assert_eq!((many.counter("publications"), many.counter("deliveries")), (10, 400));
    assert_eq!((many.counter("connections"), many.counter("feeds"), many.counter("faults")), (20, 20, 0));
}

#[tokio::test]
async fn who_is_left_out_and_who_follows_no_more_hears_nothing() {
    let server = rogue(&[]);
    let mut ann = Socket::connect(server.ws("/socket?follow=news")).await;
    let mut bob = Socket::connect(server.ws("/socket?follow=news")).await;
    bob.ask("say ready").await;
    ann.say("tell-others news for the others").await;
    assert_eq!(bob.text().await, "for the others");
    assert_eq!(ann.ask("say mine").await, "mine", "nothing came before");

    bob.say("unfollow news").await;
    bob.ask("say done").await;
    ann.say("publish news for ann alone").await;
    assert_eq!(ann.text().await, "for ann alone");
    assert_eq!(bob.ask("say mine").await, "mine", "nothing came before");
    assert_eq!(server.stop().counter("deliveries"), 2);
}

#[tokio::test]
async fn connections_find_each_other_by_id_and_by_tag() {
    let server = rogue(&[]);
    let mut ann = Socket::connect(server.ws("/socket?tag=red")).await;
    let mut bob = Socket::connect(server.ws("/socket?tag=blue")).await;
    let (ann_id, bob_id) = (ann.ask("id").await, bob.ask("id").await);
    assert_ne!(ann_id, bob_id);
    assert_eq!(ann.ask("tagged blue").await, bob_id);
    assert_eq!(ann.ask("tagged green").await, "");
    ann.say(format!("poke {bob_id}")).await;
    assert_eq!(bob.text().await, format!("poked by {ann_id}"));
    bob.close().await;
    server.wait_for(&format!("closed {bob_id}"));
    assert_eq!(ann.ask("poke 0123").await, "nobody");
}

#[tokio::test]
async fn an_event_is_framed_line_by_line_with_its_id_and_its_name() {
    let server = rogue(&[]);
    let mut feed = Reader::follow(&server, "news").await;
    publish(&server, "news?event=tick", "a\r\nb\rc\nd\n\nid: 7").await;
    let event = feed.until("\n\n").await;
    let (id, rest) = event.split_once('\n').unwrap();
    assert_eq!(rest, "event: tick\ndata: a\ndata: b\ndata: c\ndata: d\ndata: \ndata: id: 7\n\n");
    let epoch = id.strip_prefix("id: ").and_then(|id| id.strip_suffix("-1")).unwrap_or_else(|| panic!("{id:?}"));
    publish(&server, "news", "ü").await;
    assert_eq!(feed.until("\n\n").await, format!("id: {epoch}-2\ndata: ü\n\n"));

    // A name that would be read as another event is the app's error, and nobody hears of it.
    let refused = Client::new().post(server.url("/publish/news?event=a%0Adata:%20b")).body("x").send().await.unwrap();
    assert_eq!(refused.status(), 500);
    publish(&server, "news", "next").await;
    assert_eq!(feed.until("\n\n").await, format!("id: {epoch}-3\ndata: next\n\n"));
}

#[tokio::test]
async fn a_silent_feed_is_kept_open_by_comments() {
    let server = rogue(&["--limit", "comment_every=20ms"]);
    let mut feed = Reader::follow(&server, "news").await;
    assert_eq!(feed.until(":\n\n:\n\n").await, ":\n\n:\n\n");
}

/// More than any socket buffers, in pieces of which two fit into an outbox.
const FLOOD: usize = 80;
const PIECE: usize = 400_000;

const UPGRADE: &str = "GET /socket?follow=prices/tea HTTP/1.1\r\nhost: x\r\nupgrade: websocket\r\nconnection: upgrade\r\n\
    sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

/// A WebSocket and a feed that follow, and whose clients don't read.
async fn slow(server: &Tidegate) -> (Raw, Raw) {
    let mut socket = Raw::send(server.address(), UPGRADE).await;
    socket.until("\r\n\r\n").await;
    server.wait_for("opened ");
    let mut feed = Raw::send(server.address(), "GET /feed?topic=prices/tea HTTP/1.1\r\nhost: x\r\n\r\n").await;
    feed.until("second\n\n").await;
    (socket, feed)
}

/// Publishes more than slow followers can take, to a quick one as well, which gets all of it.
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

/// The numbers of the publications that stand in these bytes.
fn numbers(bytes: &str) -> Vec<usize> {
    bytes.split('<').skip(1).filter_map(|rest| rest.split_once('>')?.0.parse().ok()).collect()
}

#[tokio::test]
async fn a_slow_follower_is_closed_and_the_quick_one_hears_all() {
    let server = rogue(&["--limit", "close_within=50ms"]);
    let (mut socket, mut feed) = slow(&server).await;
    flood(&server).await;
    let told = server.wait_for("code=1013");
    assert!(told.ends_with("clean=false by_peer=false kept="), "{told}");
    for (name, bytes) in [("socket", socket.rest().await), ("feed", feed.until("\r\n0\r\n\r\n").await)] {
        let heard = numbers(&bytes);
        assert!(heard.len() < FLOOD, "{name} lost nothing");
        assert!(heard.iter().copied().eq(1..=heard.len()), "{name}: what came was without a gap: {heard:?}");
    }
    server.stop();
}

#[tokio::test]
async fn a_slow_follower_of_a_topic_that_drops_loses_the_oldest_and_stays() {
    let dir = tempfile::tempdir().unwrap();
    let settings = dir.path().join("tidegate.toml");
    fs::write(&settings, "[topics]\ndrop_oldest = [\"prices/*\"]\n").unwrap();
    let server = rogue(&["--config", settings.to_str().unwrap()]);
    let (mut socket, mut feed) = slow(&server).await;
    flood(&server).await;

    let last = format!("<{FLOOD}>");
    for (name, raw) in [("socket", &mut socket), ("feed", &mut feed)] {
        let heard = numbers(&raw.until(&last).await);
        assert!(heard.len() < FLOOD, "{name} lost nothing");
        assert!(heard.is_sorted_by(|one, other| one < other), "{name}: in order, each once: {heard:?}");
        assert_eq!((heard.first(), heard.last()), (Some(&1), Some(&FLOOD)), "{name}");
    }
    assert_eq!(publish(&server, "prices%2Ftea", "<end>").await, (FLOOD + 1).to_string());
    socket.until("<end>").await;
    feed.until("<end>").await;
    assert!(!server.stop().stderr.contains("code=1013"));
}
