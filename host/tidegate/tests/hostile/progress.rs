//! Every wait that a client can hold has a deadline or a minimum rate, and connections are capped.

use crate::support::{
    Tidegate,
    client::{Raw, Socket, soon},
    component,
};
use std::{fs, time::Duration};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpSocket, TcpStream},
    time::sleep,
};

// --- Deadlines and minimum rates for slow clients.

/// Longer than any of these tests.
const NEVER: &str = "1h";

/// Serves the rogue with waits of one second for the limits in `short`, and practically no other
/// limit of a wait.
fn server(short: &[&str], more: &[&str]) -> Tidegate {
    let waits = [
        "header_within",
        "idle_within",
        "body_within",
        "read_within",
        "write_within",
        "upload_within",
        "ping_every",
    ];
    let limits: Vec<String> = waits
        .iter()
        .map(|wait| format!("{wait}={}", if short.contains(wait) { "1s" } else { NEVER }))
        .collect();
    let args = limits.iter().flat_map(|limit| ["--limit", limit.as_str()]);
    Tidegate::serve(
        &component("rogue"),
        &args.chain(more.iter().copied()).collect::<Vec<_>>(),
    )
}

/// Number of sockets that the server has.
fn sockets(server: &Tidegate) -> usize {
    let files = fs::read_dir(format!("/proc/{}/fd", server.pid())).unwrap();
    files
        .filter(|file| {
            fs::read_link(file.as_ref().unwrap().path())
                .is_ok_and(|link| link.to_string_lossy().starts_with("socket:"))
        })
        .count()
}

/// Waits until the server has at most this number of sockets: a client that does not read does not
/// notice the end of its connection.
async fn until_sockets(server: &Tidegate, count: usize) {
    let gone = async {
        while sockets(server) > count {
            sleep(Duration::from_millis(50)).await;
        }
    };
    soon("the end of the connections", gone).await;
}

/// Connects with a receive buffer of a few kilobytes.
async fn narrow(server: &Tidegate, bytes: &[u8]) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let mut stream = soon(
        "to connect",
        socket.connect(server.address().parse().unwrap()),
    )
    .await
    .unwrap();
    stream.write_all(bytes).await.unwrap();
    stream
}

async fn assert_serves(server: &Tidegate) {
    let answer = soon("a good client", reqwest::get(server.url("/calm")))
        .await
        .unwrap();
    assert_eq!(
        (
            answer.status().as_u16(),
            answer.text().await.unwrap().as_str()
        ),
        (200, "calm")
    );
}

fn upgrade(path: &str) -> String {
    format!(
        "GET {path} HTTP/1.1\r\nhost: x\r\nupgrade: websocket\r\nconnection: upgrade\r\n\
         sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
}

fn form(length: usize) -> String {
    format!(
        "POST /page HTTP/1.1\r\nhost: x\r\ncontent-type: multipart/form-data; boundary=B\r\naccept: application/json\r\n\
         content-length: {length}\r\n\r\n--B\r\ncontent-disposition: form-data; name=\"__action\"\r\n\r\nweigh\r\n\
         --B\r\ncontent-disposition: form-data; name=\"a\"\r\n\r\n"
    )
}

const CHUNKED: &str = "POST /stream/echo HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n";
const UPLOAD: &str = "POST /publish/news HTTP/1.1\r\nhost: x\r\ncontent-length: 100000\r\n\r\n";
const CALM: &str = "GET /calm HTTP/1.1\r\nhost: x\r\n\r\n";

/// A client that keeps the host waiting: it sends `first` once, then `again` repeatedly.
struct Slow {
    name: &'static str,
    counter: &'static str,
    first: String,
    again: &'static [u8],
    /// The answer contains this text.
    reply: &'static str,
}

fn slow_senders() -> Vec<Slow> {
    let head = |name, first: String, again| Slow {
        name,
        counter: "late_heads",
        first,
        again,
        reply: "HTTP/1.1 408",
    };
    let body = |name, first: String, again, reply| Slow {
        name,
        counter: "stalled_uploads",
        first,
        again,
        reply,
    };
    vec![
        head("a byte of a head", "G".into(), b""),
        head(
            "a head that drips",
            "GET / HTTP/1.1\r\nhost: x\r\n".into(),
            b"a: b\r\n",
        ),
        head(
            "half a head after a whole request",
            format!("{CALM}GET /ca"),
            b"",
        ),
        head(
            "an upgrade that drips",
            upgrade("/socket").trim_end().into(),
            b"a",
        ),
        body("a body of nothing", UPLOAD.into(), b"", "HTTP/1.1 408"),
        body("a body that drips", UPLOAD.into(), b"x", "HTTP/1.1 408"),
        body(
            "a stream of one byte",
            format!("{CHUNKED}1\r\nx\r\n"),
            b"",
            "HTTP/1.1 200",
        ),
        body(
            "a stream that drips",
            CHUNKED.into(),
            b"1\r\nx\r\n",
            "HTTP/1.1 200",
        ),
        body(
            "the size of a chunk drips",
            format!("{CHUNKED}1;"),
            b"a",
            "HTTP/1.1 200",
        ),
        body(
            "trailers that drip",
            format!("{CHUNKED}1\r\nx\r\n0\r\n"),
            b"a: b\r\n",
            "HTTP/1.1 200",
        ),
        body("a form that has begun", form(1 << 20), b"", "HTTP/1.1 408"),
        body("a form that drips", form(1 << 20), b"x", "HTTP/1.1 408"),
        body(
            "a form whose action runs",
            format!("{}{}", form(1 << 20), "x".repeat(70 << 10)),
            b"",
            "HTTP/1.1 408",
        ),
        body(
            "a message that has begun",
            upgrade("/socket") + "\x01",
            b"",
            "HTTP/1.1 101",
        ),
        body(
            "a message that drips",
            upgrade("/socket") + "\x02\x7f\0\0\0\0\0\x01\0\0\0\0\0\0",
            b"x",
            "HTTP/1.1 101",
        ),
    ]
}

impl Slow {
    /// Sends both texts until the connection ends; returns the answer.
    async fn run(&self, address: &str) -> String {
        let upgrade = upgrade("/socket");
        let first = match self.first.as_bytes().strip_prefix(upgrade.as_bytes()) {
            // The mask bit of a frame is set here, because that byte cannot be written in a string.
            Some(frame) if !frame.is_empty() => [upgrade.as_bytes(), &masked(frame)].concat(),
            _ => self.first.clone().into_bytes(),
        };
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(&first).await.unwrap();
        let (mut reader, mut writer) = stream.into_split();
        let mut answer = Vec::new();
        let drip = async {
            while !self.again.is_empty() && writer.write_all(self.again).await.is_ok() {
                sleep(Duration::from_millis(20)).await;
            }
            std::future::pending::<()>().await;
        };
        // A connection that is reset ends as well.
        let ended = async {
            tokio::select! { _ = reader.read_to_end(&mut answer) => {}, () = drip => {} }
        };
        soon(self.name, ended).await;
        String::from_utf8_lossy(&answer).into_owned()
    }
}

#[tokio::test]
async fn a_client_that_sends_slowly_is_refused_or_closed_and_counted() {
    let server = server(
        &["header_within", "read_within"],
        &["--limit", "bytes_per_second_min=2000"],
    );
    let slow = slow_senders();
    let answers =
        futures_util::future::join_all(slow.iter().map(|slow| slow.run(server.address()))).await;
    for (slow, answer) in slow.iter().zip(answers) {
        assert!(answer.contains(slow.reply), "{}: {answer}", slow.name);
    }
    assert_serves(&server).await;
    let stopped = server.stop();
    for counter in ["late_heads", "stalled_uploads"] {
        let expected = slow.iter().filter(|slow| slow.counter == counter).count();
        assert_eq!(stopped.counter(counter), expected as u64, "{counter}");
    }
}

/// Sets the mask bit in the head of a frame.
fn masked(frame: &[u8]) -> Vec<u8> {
    let mut frame = frame.to_vec();
    if let Some(length) = frame.get_mut(1) {
        *length |= 0x80;
    }
    frame
}

#[tokio::test]
async fn a_client_that_reads_too_slowly_is_closed_and_counted() {
    let feed = "GET /feed?topic=news HTTP/1.1\r\nhost: x\r\naccept: text/event-stream\r\n\r\n";
    let requests = [
        "GET /stream/ever HTTP/1.1\r\nhost: x\r\n\r\n".to_owned(),
        "GET /bytes/15000000 HTTP/1.1\r\nhost: x\r\n\r\n".to_owned(),
        // The kernel buffers all of it: for the host, the connection is idle.
        "GET /bytes/100000 HTTP/1.1\r\nhost: x\r\n\r\n".to_owned(),
        "GET /flood HTTP/1.1\r\nhost: x\r\n\r\n".to_owned(),
        feed.to_owned(),
        upgrade("/socket?follow=news"),
    ];
    // With the default limits, an overflow of the outbox would end the last two first.
    let limits = [
        "feeds_max=2",
        "bytes_per_second_min=100000",
        "outbox_bytes_max=1GiB",
        "outbox_messages_max=1000000",
    ];
    let server = server(
        &["write_within"],
        &limits.map(|limit| ["--limit", limit]).concat(),
    );
    let before = sockets(&server);
    let (mut silent, mut drips) = (Vec::new(), Vec::new());
    for requests in &requests {
        silent.push(narrow(&server, requests.as_bytes()).await);
        drips.push(narrow(&server, requests.as_bytes()).await);
    }
    for stream in silent.iter().chain(&drips) {
        soon("the answer", stream.readable()).await.unwrap();
    }
    let publish = async {
        let client = reqwest::Client::new();
        loop {
            let publish = client
                .post(server.url("/publish/news"))
                .body("x".repeat(500_000));
            soon("to publish", publish.send()).await.unwrap();
        }
    };
    // These clients read far below the minimum rate.
    let read = futures_util::future::join_all(drips.iter_mut().map(async |stream| {
        while let Ok(1..) = stream.read(&mut [0]).await {
            sleep(Duration::from_millis(20)).await;
        }
    }));
    let clients = async { tokio::join!(publish, read) };
    // The publisher has a socket.
    tokio::select! { () = until_sockets(&server, before + 1) => {}, _ = clients => unreachable!("the publisher never ends") }
    let another = Raw::send(server.address(), feed)
        .await
        .until("\r\n\r\n")
        .await;
    assert!(
        another.starts_with("HTTP/1.1 200"),
        "the places of the feeds are free again: {another}"
    );
    assert_serves(&server).await;
    drop((silent, drips));
    assert_eq!(
        server.stop().counter("stalled_readers"),
        2 * requests.len() as u64
    );
}

/// Reads until `size` bytes have come and returns how many came. Some 12 KB a second: the window is
/// closed for longer than the kernel waits before it probes it, and over and over.
async fn read_steadily(stream: &mut TcpStream, size: usize) -> usize {
    let (mut count, mut bytes) = (0, [0; 4096]);
    while count < size {
        match soon("more", stream.read(&mut bytes)).await {
            Ok(read @ 1..) => count += read,
            _ => break,
        }
        sleep(Duration::from_millis(300)).await;
    }
    count
}

#[tokio::test]
async fn a_steady_reader_with_a_small_window_gets_the_whole_answer() {
    let message = |size: usize| {
        let ask = format!("big {size}");
        let head = [0x81, 0x80 | ask.len() as u8, 0, 0, 0, 0];
        [upgrade("/socket").as_bytes(), &head, ask.as_bytes()].concat()
    };
    let get = |path: &str| format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n").into_bytes();
    // The kernel takes the smaller ones whole: for the host, the connection is idle then.
    let cases = [
        ("an answer in the kernel", get("/bytes/90000")),
        ("a large answer", get("/bytes/15000000")),
        ("a stream", get("/stream/ever")),
        ("a message in the kernel", message(90_000)),
        ("a large message", message(900_000)),
    ];
    let limits = ["write_within=3s", "outbox_bytes_max=10MiB"];
    let server = server(&[], &limits.map(|limit| ["--limit", limit]).concat());
    let reads = cases.map(async |(name, request)| {
        let mut stream = narrow(&server, &request).await;
        let count = read_steadily(&mut stream, 90_000).await;
        assert!(count >= 90_000, "{name}: cut after {count} bytes");
    });
    futures_util::future::join_all(reads).await;
    assert_eq!(server.stop().counter("stalled_readers"), 0);
}

#[tokio::test]
async fn idle_and_unread_clients_are_not_closed() {
    let server = server(&["header_within", "read_within", "write_within"], &[]);
    let mut feed = Raw::send(
        server.address(),
        "GET /feed?topic=news HTTP/1.1\r\nhost: x\r\naccept: text/event-stream\r\n\r\n",
    )
    .await;
    feed.until("second\n\n").await;
    let mut socket = Socket::connect(server.ws("/socket")).await;
    let mut idle = Raw::send(server.address(), CALM).await;
    idle.until("calm").await;
    // Its body is never read: the app waits for another event.
    let mut deaf = Raw::send(
        server.address(),
        "POST /stream/sleep/midway HTTP/1.1\r\nhost: x\r\ncontent-length: 10\r\n\r\n1",
    )
    .await;
    deaf.until("\r\n\r\n").await;
    sleep(Duration::from_secs(3)).await;
    soon(
        "to publish",
        reqwest::Client::new()
            .post(server.url("/publish/news"))
            .body("still here")
            .send(),
    )
    .await
    .unwrap();
    feed.until("data: still here").await;
    assert_eq!(socket.ask("say still here").await, "still here");
    idle.write(CALM).await;
    idle.until("calm").await;
    drop((feed, socket, idle, deaf));
    let stopped = server.stop();
    for counter in ["late_heads", "stalled_uploads", "stalled_readers"] {
        assert_eq!(stopped.counter(counter), 0, "{counter}");
    }
}

#[tokio::test]
async fn no_action_starts_for_a_stalled_form() {
    let server = server(&["read_within"], &[]);
    let forms = (0..20).map(|_| async {
        let answer = Raw::send(server.address(), &form(1 << 20))
            .await
            .rest()
            .await;
        assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");
    });
    futures_util::future::join_all(forms).await;
    let stopped = server.stop();
    assert_eq!(
        (
            stopped.counter("stalled_uploads"),
            stopped.counter("guest_calls")
        ),
        (20, 0)
    );
}

#[tokio::test]
async fn slow_clients_do_not_delay_the_drain() {
    let server = server(&[], &["--drain", "4s"]);
    let heads = ["", "GET /calm HT", CALM];
    let bodies = [
        UPLOAD.to_owned(),
        format!("{CHUNKED}1\r\nx\r\n"),
        form(1 << 20),
    ];
    let mut raws = Vec::new();
    for request in heads.iter().map(|head| head.to_string()).chain(bodies) {
        raws.push(Raw::send(server.address(), &request).await);
    }
    raws[2].until("calm").await;
    raws[4].until("\r\n\r\n").await;
    let reader = narrow(&server, b"GET /stream/ever HTTP/1.1\r\nhost: x\r\n\r\n").await;
    soon("the answer", reader.readable()).await.unwrap();
    // This request is answered after all of them, so the server has accepted them.
    assert_serves(&server).await;
    let stopped = server.stop();
    assert!(!stopped.stderr.contains("cut off"), "{}", stopped.stderr);
    assert_eq!(stopped.counter("late_heads"), 0);
}

#[tokio::test]
async fn a_flood_of_pings_or_pongs_is_closed_with_1008() {
    let server = server(&[], &["--limit", "control_frames_max=50"]);
    for first in [0x89, 0x8a] {
        let mut raw = Raw::send(server.address(), &upgrade("/socket")).await;
        raw.until("\r\n\r\n").await;
        let frame = [&[first, 0x80 | 125, 0, 0, 0, 0][..], &[b'x'; 125]].concat();
        raw.write(frame.repeat(200)).await;
        let rest = raw.rest().await;
        assert!(rest.contains("too many pings and pongs"), "{rest}");
    }
    assert_serves(&server).await;
    assert_eq!(server.stop().counter("control_floods"), 2);
}

#[tokio::test]
async fn a_message_slower_than_the_pong_timeout_is_not_cut_off() {
    let limits = [
        "--limit",
        "pong_within=1s",
        "--limit",
        "idle_max=3s",
        "--limit",
        "outbox_bytes_max=10MiB",
    ];
    let limits = [&limits[..], &["--limit", "ping_every=1s"]].concat();
    // Upload: a frame of 400 KB in small pieces, over some seconds, without a pong in between.
    let server = server(&[], &limits);
    let mut raw = Raw::send(server.address(), &upgrade("/other")).await;
    raw.until("\r\n\r\n").await;
    let size = 400_000_u64;
    raw.write([&[0x82, 0xff][..], &size.to_be_bytes(), &[0; 4]].concat())
        .await;
    for _ in 0..100 {
        raw.write(vec![b'u'; size as usize / 100]).await;
        sleep(Duration::from_millis(50)).await;
    }
    raw.until(&"u".repeat(size as usize)).await;
    drop(raw);
    // Download: a message larger than the kernel buffers at once, read in small pieces. The ping is
    // queued after it.
    let mut stream = narrow(&server, upgrade("/socket").as_bytes()).await;
    take_slowly(&mut stream, 900_000).await;
    // The kernel delivers buffered bytes also after a cut: only an answer shows that there was
    // none.
    stream
        .write_all(&[&[0x81, 0x8e, 0, 0, 0, 0][..], b"say still here"].concat())
        .await
        .unwrap();
    let mut rest = Vec::new();
    while !rest.ends_with(b"still here") {
        let read = soon("an answer after the message", stream.read_buf(&mut rest)).await;
        assert!(read.unwrap() > 0, "cut after the message: {rest:?}");
    }
    drop(stream);
    let stopped = server.stop();
    assert_eq!(
        (
            stopped.counter("stalled_readers"),
            stopped.counter("stalled_uploads")
        ),
        (0, 0)
    );
}

/// Requests a message of `size` bytes, and reads it in small pieces.
async fn take_slowly(stream: &mut TcpStream, size: usize) {
    let ask = format!("big {size}");
    stream
        .write_all(
            &[
                &[0x81, 0x80 | ask.len() as u8, 0, 0, 0, 0][..],
                ask.as_bytes(),
            ]
            .concat(),
        )
        .await
        .unwrap();
    let (mut read, mut bytes) = (0, vec![0; 16 << 10]);
    while read < size {
        let n = soon("more of the message", stream.read(&mut bytes))
            .await
            .unwrap();
        assert!(n > 0, "cut after {read} bytes");
        read += n;
        sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn a_websocket_is_idle_only_while_no_byte_moves_either_way() {
    let server = server(
        &[],
        &[
            "--limit",
            "idle_max=1s",
            "--limit",
            "ping_every=250ms",
            "--limit",
            "pong_within=1h",
        ],
    );
    // The client answers pings, and sends nothing else.
    let mut socket = Socket::connect(server.ws("/socket")).await;
    let closed = tokio::time::timeout(Duration::from_secs(3), socket.closed()).await;
    assert!(closed.is_err(), "{closed:?}");
    assert_eq!(socket.ask("say still here").await, "still here");
    // The client answers no ping, and reads one message slowly, which is in the kernel for most of
    // the time.
    let mut stream = narrow(&server, upgrade("/socket").as_bytes()).await;
    take_slowly(&mut stream, 300_000).await;
    // From now on, the host sends only pings.
    let mut rest = Vec::new();
    soon("the end", stream.read_to_end(&mut rest))
        .await
        .unwrap();
    assert!(String::from_utf8_lossy(&rest).contains("idle"), "{rest:?}");
}
