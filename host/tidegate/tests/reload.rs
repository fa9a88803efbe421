//! A reload replaces the version of an app, and no client loses anything.

mod support;

use futures_util::future::{join, join_all};
use reqwest::Client;
use rustix::process::Signal;
use std::{
    fs,
    path::PathBuf,
    sync::atomic::{AtomicBool, Ordering},
};
use support::{
    Tidegate,
    client::{Raw, Reader, Socket, soon},
    component,
};

/// A file that is served, and whose version a test may replace.
struct Release {
    dir: tempfile::TempDir,
    wasm: Vec<u8>,
    at: usize,
}

impl Release {
    fn new() -> Release {
        let wasm = fs::read(component("rogue")).unwrap();
        let marks: Vec<usize> = wasm
            .windows(10)
            .enumerate()
            .filter(|(_, text)| text == b"version 01")
            .map(|(at, _)| at)
            .collect();
        let [at] = marks[..] else {
            panic!("{} marks", marks.len())
        };
        let release = Release {
            dir: tempfile::tempdir().unwrap(),
            wasm,
            at,
        };
        release.put(1);
        release
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("app.wasm")
    }

    /// Replaces the file as a deployment does: it is never incomplete.
    fn put(&self, version: u8) {
        let mut wasm = self.wasm.clone();
        wasm[self.at..self.at + 10].copy_from_slice(format!("version {version:02}").as_bytes());
        self.put_file(&wasm);
    }

    fn put_file(&self, bytes: &[u8]) {
        let beside = self.dir.path().join("next");
        fs::write(&beside, bytes).unwrap();
        fs::rename(beside, self.path()).unwrap();
    }
}

async fn get(server: &Tidegate, path: &str) -> String {
    soon(path, Client::new().get(server.url(path)).send())
        .await
        .unwrap()
        .text()
        .await
        .unwrap()
}

async fn post(server: &Tidegate, path: &str, body: String) {
    soon(path, Client::new().post(server.url(path)).body(body).send())
        .await
        .unwrap()
        .error_for_status()
        .unwrap();
}

#[tokio::test]
async fn connections_and_rooms_use_the_new_version_without_a_break() {
    let release = Release::new();
    let server = Tidegate::serve(&release.path(), &[]);
    let (mut socket, mut room) = (
        Socket::connect(server.ws("/socket?tag=red")).await,
        Socket::connect(server.ws("/rooms/tea")).await,
    );
    socket.send("keep this").await;
    assert_eq!(
        (socket.ask("version").await, room.ask("version").await),
        ("version 01".into(), "version 01".into())
    );
    assert_eq!(room.ask("one").await, "one");
    let id = socket.ask("id").await;
    release.put(2);
    let report = server.reload(&[]).unwrap();
    assert!(
        report.starts_with("version 2 is served: ")
            && report.ends_with("; 2 WebSockets and 0 feeds go on\n"),
        "{report}"
    );
    assert_eq!(get(&server, "/version").await, "version 02");
    assert_eq!(
        (socket.ask("version").await, room.ask("version").await),
        ("version 02".into(), "version 02".into())
    );
    assert_eq!(
        (socket.ask("id").await, socket.ask("tagged red").await),
        (id.clone(), id)
    );
    assert_eq!(
        (room.ask("wake").await, room.ask("two").await),
        ("2".into(), "two".into())
    );
    assert_eq!(get(&server, "/rooms/tea").await, "2\none\ntwo");
    socket.close().await;
    server.wait_for("kept=this");
}

#[tokio::test]
async fn a_rollback_restores_the_previous_version_and_a_second_one_undoes_it() {
    let release = Release::new();
    let server = Tidegate::serve(&release.path(), &[]);
    let nowhere = server.reload(&["--rollback"]).unwrap_err();
    assert_eq!(nowhere, "error: there is no earlier version\n");
    release.put(2);
    server.signal(Signal::HUP);
    server.wait_for("version 2 is served");
    for version in ["version 01", "version 02"] {
        let report = server.reload(&["--rollback"]).unwrap();
        assert!(report.contains("is served again; 0 WebSockets"), "{report}");
        assert_eq!(get(&server, "/version").await, version);
    }
}

#[tokio::test]
async fn an_invalid_component_is_refused_and_changes_nothing() {
    let release = Release::new();
    let server = Tidegate::serve(&release.path(), &[]);
    let mut socket = Socket::connect(server.ws("/socket")).await;
    let older = support::fixture::built_for_0_1(release.wasm.clone());
    let cases: [(&[u8], &str); 4] = [
        (b"hello", "is not WebAssembly"),
        (
            &support::fixture::core_module(),
            "is a core module, not a component",
        ),
        (&release.wasm[..release.wasm.len() / 2], "can't be loaded"),
        (
            &older,
            "was built for tidegate:app 0.1.0, and this host implements 0.2.0: \
             build it again with version 0.2 of the SDK",
        ),
    ];
    for (bytes, why) in cases {
        release.put_file(bytes);
        let report = server.reload(&[]).unwrap_err();
        assert!(
            report.contains(why) && report.contains("app.wasm"),
            "{report}"
        );
        assert_eq!(
            (get(&server, "/version").await, socket.ask("version").await),
            ("version 01".into(), "version 01".into())
        );
    }
    fs::remove_file(release.path()).unwrap();
    assert!(server.reload(&[]).unwrap_err().contains("can't be read"));
    server.wait_for("the current version stays: ");
    assert_eq!(socket.ask("version").await, "version 01");
}

#[tokio::test]
async fn a_removed_route_closes_its_sockets_and_a_new_route_works() {
    let dir = tempfile::tempdir().unwrap();
    let app = dir.path().join("app.wasm");
    let put = |package: &str| _ = fs::copy(component(package), &app).unwrap();
    put("echo");
    let server = Tidegate::serve(&app, &[]);
    let mut socket = Socket::connect(server.ws("/echo")).await;
    put("counter");
    assert!(
        server
            .reload(&[])
            .unwrap()
            .contains("0 WebSockets and 0 feeds go on, 1 WebSockets were closed (1012)")
    );
    assert_eq!(socket.closed().await.0, 1012);
    // The rooms begin with a version that has some.
    let mut counter = Socket::connect(server.ws("/counters/tea")).await;
    assert_eq!(counter.text().await, "0");
    put("echo");
    server.reload(&[]).unwrap();
    assert_eq!(counter.closed().await.0, 1012);
    let mut socket = Socket::connect(server.ws("/echo")).await;
    assert_eq!(socket.ask("hi").await, "hi");
    socket.close().await;
    let stopped = server.stop();
    assert_eq!(stopped.counter("faults"), 0, "{}", stopped.stderr);
}

#[tokio::test]
async fn a_request_ends_on_the_version_on_which_it_began() {
    let release = Release::new();
    let server = Tidegate::serve(&release.path(), &[]);
    let head = format!(
        "PUT /version HTTP/1.1\r\nhost: {}\r\ncontent-length: 2\r\nconnection: close\r\nexpect: 100-continue\r\n\r\n",
        server.address()
    );
    let mut upload = Raw::send(server.address(), &head).await;
    // The host requests the body when it knows which version gets it.
    upload.until("100 Continue\r\n\r\n").await;
    release.put(2);
    server.reload(&[]).unwrap();
    assert_eq!(get(&server, "/version").await, "version 02");
    upload.write("ok").await;
    let answer = upload.rest().await;
    assert!(
        answer.starts_with("HTTP/1.1 200") && answer.ends_with("version 01"),
        "{answer}"
    );
}

const RELOADS: usize = 50;
const IDLE: usize = 1000;
const BUSY: usize = 200;
const ROOMS: usize = 20;
const FEEDS: usize = 200;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_reloads_under_load_keep_every_connection_and_message_order() {
    let release = Release::new();
    let server = Tidegate::serve(&release.path(), &[]);
    let mut idle = Vec::new();
    for _ in 0..IDLE / 50 {
        idle.extend(
            join_all((0..50).map(|_| Socket::connect(server.ws("/socket?follow=news")))).await,
        );
    }
    join_all(
        idle.iter_mut()
            .map(async |socket| assert_eq!(socket.ask("say here").await, "here")),
    )
    .await;
    let feeds = join_all((0..FEEDS).map(|_| Reader::follow(&server, "news"))).await;
    let over = AtomicBool::new(false);

    let busy = join_all((0..BUSY).map(async |number| {
        // Some of them write to rooms, where every answer is durable.
        let path = if number < ROOMS {
            format!("/rooms/{number}")
        } else {
            "/socket".into()
        };
        let mut socket = Socket::connect(server.ws(&path)).await;
        let mut sent = 0;
        while !over.load(Ordering::Relaxed) || sent == 0 {
            assert_eq!(
                socket.ask(&format!("number {sent}")).await,
                format!("number {sent}"),
                "{path}"
            );
            sent += 1;
        }
        (socket, sent)
    }));
    let publish = async {
        let mut published = 0;
        while !over.load(Ordering::Relaxed) || published == 0 {
            post(&server, "/publish/news", format!("news {published}.")).await;
            published += 1;
        }
        published
    };
    let reload = async {
        for number in 0..RELOADS {
            tokio::task::block_in_place(|| {
                release.put(2 - (number % 2) as u8);
                server
                    .reload(&[])
                    .unwrap_or_else(|why| panic!("reload {number}: {why}"));
            });
        }
        over.store(true, Ordering::Relaxed);
    };
    let ((), (busy, published)) = join(reload, join(busy, publish)).await;

    server.wait_for(&format!("version {} is served", RELOADS + 1));
    assert_eq!(get(&server, "/version").await, "version 01");
    for socket in &mut idle {
        for number in 0..published {
            assert_eq!(socket.text().await, format!("news {number}."));
        }
        assert_eq!(socket.ask("version").await, "version 01");
    }
    for mut feed in feeds {
        for number in 1..=published {
            assert!(
                feed.until("\n\n")
                    .await
                    .ends_with(&format!("-{number}\ndata: news {}.\n\n", number - 1))
            );
        }
    }
    for (number, (mut socket, sent)) in busy.into_iter().enumerate() {
        assert_eq!(socket.ask("version").await, "version 01");
        if number < ROOMS {
            let lines: String = (0..sent).map(|line| format!("\nnumber {line}")).collect();
            assert_eq!(
                get(&server, &format!("/rooms/{number}")).await,
                format!("{sent}{lines}")
            );
        }
    }
    drop(idle);
    let stopped = server.stop();
    assert_eq!(stopped.counter("faults"), 0, "{}", stopped.stderr);
}
