//! Connections are capped, in all and for each address, and names that clients choose are bounded.

use crate::support::{
    PATIENCE, Tidegate,
    client::{Raw, Socket, soon},
    component,
    machine::{Machine, Number},
    tidegate,
};
use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit};
use std::{
    fs,
    process::Command,
    time::{Duration, Instant},
};
use tidegate_edge::SOCKETS_PER_ADDRESS_MAX;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpSocket, TcpStream},
};

const CALM: &str = "GET /calm HTTP/1.1\r\nhost: x\r\n\r\n";

/// Connects from this address. If the connection is served, it stays open; otherwise the answer is
/// returned.
async fn served_from(server: &Tidegate, from: &str) -> Result<TcpStream, String> {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(format!("{from}:0").parse().unwrap()).unwrap();
    let mut stream = soon(
        "to connect",
        socket.connect(server.address().parse().unwrap()),
    )
    .await
    .expect("it is accepted");
    // A refused connection may be closed already.
    _ = stream.write_all(CALM.as_bytes()).await;
    let mut answer = Vec::new();
    while !answer.ends_with(b"calm") {
        let read = soon("the answer", stream.read_buf(&mut answer)).await;
        if !matches!(read, Ok(1..)) {
            return Err(String::from_utf8_lossy(&answer).into_owned());
        }
    }
    Ok(stream)
}

/// Repeats [`served_from`] until a place is free.
async fn served_again(server: &Tidegate, from: &str) -> TcpStream {
    served_after_refusals(server, from).await.0
}

/// Repeats [`served_from`] until a place is free. Returns the number of refusals too: a server on a
/// busy machine may need some time to notice that a connection has ended.
async fn served_after_refusals(server: &Tidegate, from: &str) -> (TcpStream, u64) {
    let until = Instant::now() + PATIENCE;
    let mut refusals = 0;
    loop {
        match served_from(server, from).await {
            Ok(stream) => return (stream, refusals),
            Err(refusal) => assert!(Instant::now() < until, "{refusal}"),
        }
        refusals += 1;
    }
}

fn assert_is_refusal(answer: &str) {
    assert!(
        answer.starts_with("HTTP/1.1 503 ") && answer.contains("\r\nretry-after: "),
        "{answer:?}"
    );
    assert!(
        answer.ends_with("too many connections, try again later\n"),
        "{answer:?}"
    );
}

#[tokio::test]
async fn the_socket_cap_counts_every_kind_of_socket() {
    let server = Tidegate::serve(&component("rogue"), &["--limit", "sockets_max=4"]);
    let kept_alive = served_from(&server, "127.0.0.1").await.unwrap();
    let idle = Raw::connect(server.address()).await;
    let _half = Raw::send(server.address(), "GET /calm HT").await;
    let socket = Socket::connect(server.ws("/socket")).await;
    for _ in 0..3 {
        assert_is_refusal(&served_from(&server, "127.0.0.2").await.unwrap_err());
    }
    // Each kind of connection frees its place when it ends.
    let again = {
        drop(kept_alive);
        served_again(&server, "127.0.0.1").await
    };
    socket.close().await;
    let _other = served_again(&server, "127.0.0.1").await;
    assert_is_refusal(&served_from(&server, "127.0.0.1").await.unwrap_err());
    drop((again, idle));
    let warning = server.wait_for("refused connections: 4 sockets are open");
    assert!(warning.contains("raise sockets_max"), "{warning}");
    let stopped = server.stop();
    assert!(stopped.counter("refused_sockets") >= 4);
    assert_eq!(
        (
            stopped.counter("refused_address"),
            stopped.counter("refused_descriptors")
        ),
        (0, 0)
    );
    assert_eq!(
        stopped.stderr.matches("refused connections").count(),
        1,
        "{}",
        stopped.stderr
    );
}

#[tokio::test]
async fn feeds_and_held_answers_count_as_sockets() {
    let server = Tidegate::serve(&component("rogue"), &["--limit", "sockets_max=2"]);
    let mut feed = Raw::send(
        server.address(),
        "GET /feed?topic=tea HTTP/1.1\r\nhost: x\r\naccept: text/event-stream\r\n\r\n",
    )
    .await;
    feed.until("second\n\n").await;
    let mut page = Raw::send(server.address(), "GET /flood HTTP/1.1\r\nhost: x\r\n\r\n").await;
    page.until("a flood").await;
    assert_is_refusal(&served_from(&server, "127.0.0.1").await.unwrap_err());
    drop(feed);
    let _one = served_again(&server, "127.0.0.1").await;
    drop(page);
    let _other = served_again(&server, "127.0.0.1").await;
}

#[tokio::test]
async fn a_file_being_sent_counts_against_a_cap_of_its_own() {
    let assets = tempfile::tempdir().unwrap();
    std::fs::write(assets.path().join("big.bin"), vec![b'b'; 32 << 20]).unwrap();
    let args = [
        "--limit",
        "sockets_max=3",
        "--assets",
        assets.path().to_str().unwrap(),
    ];
    let server = Tidegate::serve(&component("rogue"), &args);
    let mut slow = Raw::send(server.address(), "GET /big.bin HTTP/1.1\r\nhost: x\r\n\r\n").await;
    slow.until("\r\n\r\n").await;
    let mut other = Raw::send(server.address(), "GET /big.bin HTTP/1.1\r\nhost: x\r\n\r\n").await;
    let head = other.until("\r\n\r\n").await;
    assert!(
        head.starts_with("HTTP/1.1 503 ") && head.contains("retry-after: "),
        "{head}"
    );
    drop((slow, other));
    let _again = served_again(&server, "127.0.0.1").await;
    let mut whole = Raw::send(
        server.address(),
        "GET /big.bin HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n",
    )
    .await;
    assert!(whole.rest().await.len() > 32 << 20);
}

#[tokio::test]
async fn a_configured_cap_for_each_address_holds() {
    let server = Tidegate::serve(
        &component("rogue"),
        &[
            "--limit",
            "sockets_per_address_max=2",
            "--log",
            "info,access=debug",
        ],
    );
    let first = served_from(&server, "127.0.0.1").await.unwrap();
    let _second = served_from(&server, "127.0.0.1").await.unwrap();
    for _ in 0..5 {
        assert_is_refusal(&served_from(&server, "127.0.0.1").await.unwrap_err());
    }
    // Clients of other addresses are served.
    let _others = [
        served_from(&server, "127.0.0.2").await.unwrap(),
        served_from(&server, "127.0.0.3").await.unwrap(),
    ];
    drop(first);
    let _third = served_again(&server, "127.0.0.1").await;
    let warning = server.wait_for("refused connections: 127.0.0.1 has 2 open");
    assert!(
        warning.contains("raise sockets_per_address_max"),
        "{warning}"
    );
    let stopped = server.stop();
    assert!(stopped.counter("refused_address") >= 5);
    assert_eq!(stopped.counter("refused_sockets"), 0);
}

#[tokio::test]
async fn a_local_proxy_has_no_address_cap() {
    let server = Tidegate::serve(&component("rogue"), &[]);
    let mut connections = Vec::new();
    for _ in 0..SOCKETS_PER_ADDRESS_MAX + 10 {
        connections.push(Raw::connect(server.address()).await);
    }
    connections[SOCKETS_PER_ADDRESS_MAX + 9].write(CALM).await;
    assert!(
        connections[SOCKETS_PER_ADDRESS_MAX + 9]
            .until("calm")
            .await
            .starts_with("HTTP/1.1 200 ")
    );
    drop(connections);
    assert_eq!(server.stop().counter("refused_address"), 0);
}

#[tokio::test]
async fn a_mapped_address_counts_as_ipv4_in_cap_app_and_log() {
    let args = [
        "--limit",
        "sockets_per_address_max=1",
        "--log",
        "info,access=debug",
    ];
    let server = Tidegate::serve_at("[::]:0", &component("rogue"), &args);
    let port = server.address().rsplit_once(':').unwrap().1.to_owned();
    let peer = "GET /peer HTTP/1.1\r\nhost: x\r\n\r\n";
    let mut v4 = Raw::send(&format!("127.0.0.1:{port}"), peer).await;
    let answer = v4.until("127.0.0.1:").await;
    assert!(!answer.contains("ffff"), "{answer}");
    let mut refused = Raw::send(&format!("127.0.0.1:{port}"), "").await;
    assert_is_refusal(&refused.rest().await);
    let mut v6 = Raw::send(&format!("[::1]:{port}"), peer).await;
    v6.until("[::1]:").await;
    let warning = server.wait_for("refused connections");
    assert!(warning.contains(" 127.0.0.1 has 1 open"), "{warning}");
    drop((v4, v6));
    let stopped = server.stop();
    assert!(
        stopped.stderr.contains("peer=\"127.0.0.1:") && stopped.stderr.contains("peer=\"[::1]:"),
        "{}",
        stopped.stderr
    );
    assert!(!stopped.stderr.contains("::ffff:"), "{}", stopped.stderr);
}

/// Serves with this limit of open files.
fn with_files(files: u32, args: &[&str]) -> (Tidegate, tempfile::TempDir) {
    let data = tempfile::tempdir().unwrap();
    let mut shell = Command::new("sh");
    shell.args(["-c", &format!("ulimit -n {files} && exec \"$@\""), "sh"]);
    let binary = tidegate();
    shell.arg(binary.get_program());
    for (name, value) in binary.get_envs() {
        match value {
            Some(value) => shell.env(name, value),
            None => shell.env_remove(name),
        };
    }
    shell
        .arg("serve")
        .arg(component("rogue"))
        .args(["--listen", "127.0.0.1:0", "--data"])
        .arg(data.path().join("data"))
        .args(args);
    (Tidegate::spawn(shell), data)
}

#[tokio::test]
async fn a_connection_flood_leaves_descriptors_for_storage() {
    let (server, _data) = with_files(300, &[]);
    let warning = server.wait_for("sockets_max is 150: the process");
    assert!(warning.contains("raise RLIMIT_NOFILE"), "{warning}");
    let write = "POST /rooms/tea HTTP/1.1\r\nhost: x\r\ncontent-length: 1000\r\n\r\n".to_owned()
        + &"w".repeat(1000);
    let mut good = Raw::send(server.address(), &write).await;
    good.until("\r\n\r\n").await;
    let mut flood = Vec::new();
    for _ in 0..400 {
        flood.push(Raw::connect(server.address()).await);
    }
    for _ in 0..50 {
        good.write(&write).await;
        let answer = good.until("\r\n\r\n").await;
        assert!(answer.contains("HTTP/1.1 200 "), "{answer}");
    }
    // Connections beyond the cap were refused, and each received an answer.
    let refused = flood.split_off(200);
    for mut raw in refused {
        assert_is_refusal(&raw.rest().await);
    }
    drop(flood);
    let _again = served_again(&server, "127.0.0.1").await;
    drop(good);
    let stopped = server.stop();
    assert!(stopped.counter("refused_sockets") >= 200);
    assert_eq!(stopped.counter("refused_descriptors"), 0);
}

/// Sets the number of files that the process may open.
fn limit_files(server: &Tidegate, files: u64) {
    let maximum = getrlimit(Resource::Nofile).maximum;
    prlimit(
        Pid::from_raw(server.pid() as i32),
        Resource::Nofile,
        Rlimit {
            current: Some(files),
            maximum,
        },
    )
    .unwrap();
}

/// Returns the highest descriptor of the process.
fn highest_file(server: &Tidegate) -> u64 {
    let files = fs::read_dir(format!("/proc/{}/fd", server.pid())).unwrap();
    files
        .map(|file| file.unwrap().file_name().to_str().unwrap().parse().unwrap())
        .max()
        .unwrap()
}

#[tokio::test]
async fn without_descriptors_new_connections_are_refused_and_open_ones_continue() {
    let server = Tidegate::serve(&component("rogue"), &[]);
    let mut kept_alive = Raw::send(server.address(), CALM).await;
    kept_alive.until("calm").await;
    limit_files(&server, highest_file(&server) + 3);
    let mut served = Vec::new();
    let refusal = loop {
        match served_from(&server, "127.0.0.1").await {
            Ok(stream) => served.push(stream),
            Err(refusal) => break refusal,
        }
    };
    assert_is_refusal(&refusal);
    const MORE: u64 = 20;
    for _ in 0..MORE {
        assert_is_refusal(&served_from(&server, "127.0.0.1").await.unwrap_err());
        kept_alive.write(CALM).await;
        assert!(kept_alive.until("calm").await.starts_with("HTTP/1.1 200 "));
    }
    let warning = server.wait_for("refused connections: no file descriptor is left");
    assert!(
        warning.contains("raise the open files of the process (RLIMIT_NOFILE)"),
        "{warning}"
    );
    // A connection that ends frees its descriptor for the next one, and the reserve is available
    // again.
    drop(served.pop());
    let (again, mut refusals) = served_after_refusals(&server, "127.0.0.1").await;
    served.push(again);
    assert_is_refusal(&served_from(&server, "127.0.0.1").await.unwrap_err());
    limit_files(&server, highest_file(&server) + 100);
    for _ in 0..10 {
        let (another, refused) = served_after_refusals(&server, "127.0.0.1").await;
        served.push(another);
        refusals += refused;
    }
    refusals += MORE + 2;
    drop((served, kept_alive));
    let stopped = server.stop();
    // Each refusal was counted once: the acceptor did not retry in a loop.
    let refused = stopped.counter("refused_descriptors");
    assert!(
        (refusals..2 * refusals).contains(&refused),
        "{refused} refusals were counted, and clients saw {refusals}"
    );
    assert_eq!(
        stopped.stderr.matches("no file descriptor is left").count(),
        1,
        "{}",
        stopped.stderr
    );
}

/// Errors of accept(2): the first two mean that no descriptor is left, the last three that one
/// connection has failed.
const ACCEPT_ERRORS: [(&str, i64); 7] = [
    ("EMFILE", 24),
    ("ENFILE", 23),
    ("ENOBUFS", 105),
    ("ENOMEM", 12),
    ("ECONNABORTED", 103),
    ("EPERM", 1),
    ("EINTR", 4),
];

#[tokio::test]
async fn a_connection_that_cannot_be_refused_is_accepted_later() {
    let machine = Machine::serve(&component("rogue"), &[]);
    let server = &machine.server;
    let mut kept_alive = Raw::send(server.address(), CALM).await;
    kept_alive.until("calm").await;
    for (name, error) in ACCEPT_ERRORS {
        let before = machine.injected(Number::Accept);
        machine.set(Number::Accept, error);
        let mut waiting = Raw::send(server.address(), CALM).await;
        let began = Instant::now();
        while machine.injected(Number::Accept) < before + 3 {
            assert!(began.elapsed() < PATIENCE, "{name}: it does not try again");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        kept_alive.write(CALM).await;
        assert!(
            kept_alive.until("calm").await.starts_with("HTTP/1.1 200 "),
            "{name}"
        );
        machine.set(Number::Accept, 0);
        assert!(
            waiting.until("calm").await.starts_with("HTTP/1.1 200 "),
            "{name}"
        );
    }
    assert_eq!(
        server
            .stderr()
            .matches("no file descriptor is left")
            .count(),
        1,
        "{}",
        server.stderr()
    );
}

#[tokio::test]
async fn the_socket_cap_stays_below_the_descriptor_limit() {
    let (server, _data) = with_files(700, &["--limit", "sockets_max=5000"]);
    let warning = server.wait_for("sockets_max is 350 instead of 5000");
    assert!(warning.contains("may open 700 files"), "{warning}");
    drop(server);
    let (server, _data) = with_files(300, &["--limit", "sockets_max=10"]);
    assert!(!server.stop().stderr.contains("RLIMIT_NOFILE"));
}

#[tokio::test]
async fn websockets_and_feeds_beyond_their_limits_are_refused_and_counted() {
    let server = Tidegate::serve(
        &component("rogue"),
        &["--limit", "connections_max=1", "--limit", "feeds_max=1"],
    );
    let _socket = Socket::connect(server.ws("/socket")).await;
    let refusal = Socket::try_connect(server.ws("/socket"))
        .await
        .err()
        .unwrap();
    assert_eq!(
        (refusal.status().as_u16(), &refusal.headers()["retry-after"]),
        (503, &"5".parse().unwrap())
    );
    let feed = "GET /feed?topic=tea HTTP/1.1\r\nhost: x\r\naccept: text/event-stream\r\n\r\n";
    let mut first = Raw::send(server.address(), feed).await;
    first.until("second\n\n").await;
    let mut second = Raw::send(server.address(), feed).await;
    let head = second.until("\r\n\r\n").await;
    assert!(
        head.starts_with("HTTP/1.1 503 ") && head.contains("retry-after: 5\r\n"),
        "{head}"
    );
    drop((first, second));
    let stopped = server.stop();
    assert_eq!(
        (
            stopped.counter("refused_websockets"),
            stopped.counter("refused_feeds")
        ),
        (1, 1)
    );
}

#[tokio::test]
async fn a_new_topic_evicts_one_unused_topic() {
    let server = Tidegate::serve(&component("rogue"), &["--limit", "topics_max=20"]);
    let client = reqwest::Client::new();
    let publish = async |topic: &str| -> u64 {
        let answer = soon(
            topic,
            client
                .post(server.url(&format!("/publish/{topic}")))
                .body("x")
                .send(),
        )
        .await
        .unwrap();
        answer.text().await.unwrap().parse().unwrap()
    };
    let mut follower = Socket::connect(server.ws("/socket?follow=followed")).await;
    // It follows as soon as its on-open has run, which precedes the answer to its first message.
    assert_eq!(follower.ask("say here").await, "here");
    assert_eq!(publish("followed").await, 1);
    for round in 1..=30 {
        // The numbers of the topic continue although many times more names are used than there may
        // be topics.
        assert_eq!(publish("in-use").await, round);
        for number in 0..5 {
            publish(&format!("made-up-{round}-{number}")).await;
        }
    }
    assert_eq!(publish("followed").await, 2);
    assert_eq!(
        (
            follower.text().await.as_str(),
            follower.text().await.as_str()
        ),
        ("x", "x")
    );
}
