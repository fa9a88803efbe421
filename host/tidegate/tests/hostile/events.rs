//! Guaranteed events happen: `on-close`, presence leaves and alarms under overload.

use super::support::{
    PATIENCE, Tidegate,
    client::{Raw, Reader, Socket, get},
    component,
    machine::{Machine, Number},
};
use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};
use tokio::time::sleep;

/// Interval for polling state that sends no notification. It is longer than the idle time after
/// which a room sleeps.
const LOOK: Duration = Duration::from_millis(500);
const HOUR: i64 = 3_600_000;

fn serve(args: &[&str]) -> Tidegate {
    let args: Vec<&str> = ["--wall", "1h", "--limit", "room_idle_max=200ms"]
        .into_iter()
        .chain(args.iter().copied())
        .collect();
    Tidegate::serve(&component("rogue"), &args)
}

/// Opens requests that hold every instance until they are dropped.
async fn hold_all(server: &Tidegate, instances: usize, account: &mut Reader) -> Vec<Raw> {
    let mut holders = Vec::new();
    for _ in 0..instances {
        // A room that is not asleep yet may still hold the last instance. In that case the request
        // waits for it, and may have to be sent again.
        loop {
            let request = format!(
                "GET /hold/3600000 HTTP/1.1\r\nhost: {}\r\n\r\n",
                server.address()
            );
            let mut holder = Raw::send(server.address(), &request).await;
            tokio::select! {
                _ = account.until("held") => { holders.push(holder); break }
                answer = holder.until("\r\n\r\n") => assert!(answer.starts_with("HTTP/1.1 503"), "{answer}"),
            }
        }
    }
    holders
}

/// Repeats the request until the answer satisfies `is_it`.
async fn get_until(server: &Tidegate, path: &str, is_it: impl Fn(u16, &str) -> bool) -> String {
    let began = Instant::now();
    loop {
        let (status, text) = get(server, path).await;
        if is_it(status, &text) {
            return text;
        }
        assert!(began.elapsed() < PATIENCE, "{path}: {status} {text}");
        sleep(LOOK).await;
    }
}

/// Opens a connection, and returns it with its id.
async fn account(server: &Tidegate, query: &str, account: &mut Reader) -> (Socket, String) {
    let socket = Socket::connect(server.ws(&format!("/account{query}"))).await;
    let events = account.until("open ").await;
    assert!(!events.contains("close"), "{events}");
    let id = account.until("\n").await.trim().to_owned();
    (socket, id)
}

async fn guest(server: &Tidegate, room: &str, name: &str) -> Socket {
    let mut socket = Socket::connect(server.ws(&format!("/guests/{room}?name={name}"))).await;
    assert!(socket.text().await.contains("snapshot"));
    socket
}

fn leaves(message: &str, name: &str) -> bool {
    message.contains(r#""kind":"leave""#) && message.contains(name)
}

#[tokio::test]
async fn an_on_close_waits_for_an_instance_and_runs_once() {
    let server = serve(&["--instances", "4"]);
    let mut events = Reader::follow(&server, "account").await;
    let (ann, ann_id) = account(&server, "", &mut events).await;
    let (mut dan, _) = account(&server, "", &mut events).await;
    let mut cid = guest(&server, "tea", "cid").await;
    let bob = guest(&server, "tea", "bob").await;
    assert!(cid.text().await.contains("join"));
    let holders = hold_all(&server, 4, &mut events).await;
    drop((ann, bob));
    server.wait_for("its on-close has to wait: every instance of the app is busy");
    server.wait_for("1 on-close events have to wait");
    drop(holders);
    let until_close = events.until(&format!("close {ann_id};")).await;
    assert_eq!(until_close.matches("close ").count(), 1, "{until_close}");
    let leave = cid.text().await;
    assert!(leaves(&leave, "bob"), "{leave}");
    assert_eq!(
        get_until(&server, "/guests/tea", |status, _| status == 200).await,
        "close bob | cid"
    );
    // Neither event is repeated.
    assert_eq!(dan.ask("x").await, "x");
    let (_eve, _) = account(&server, "", &mut events).await;
    assert_eq!(cid.ask("x").await, "done x");
    assert_eq!(get(&server, "/guests/tea").await.1, "close bob | cid");
    drop((dan, cid));
    let stopped = server.stop();
    assert!(
        !stopped.stderr.contains("not delivered"),
        "{}",
        stopped.stderr
    );
}

#[tokio::test]
async fn the_log_counts_events_that_the_drain_dropped() {
    let server = serve(&["--instances", "2", "--drain", "1s"]);
    let mut events = Reader::follow(&server, "account").await;
    let (ann, _) = account(&server, "", &mut events).await;
    let (bob, _) = account(&server, "", &mut events).await;
    let holders = hold_all(&server, 2, &mut events).await;
    drop((ann, bob));
    server.wait_for("its on-close has to wait");
    let stopped = server.stop();
    assert!(
        stopped
            .stderr
            .contains("on-close events that were not delivered within --drain: 2"),
        "{}",
        stopped.stderr
    );
    drop(holders);
}

#[tokio::test]
async fn a_client_that_disconnects_during_on_open_has_one_on_close() {
    let server = serve(&[]);
    let mut events = Reader::follow(&server, "account").await;
    for query in ["?hold=500", "?trap=yes", ""] {
        let (ann, id) = account(&server, query, &mut events).await;
        drop(ann);
        let until_close = events.until(&format!("close {id};")).await;
        assert_eq!(
            until_close.matches("close ").count(),
            1,
            "{query}: {until_close}"
        );
    }
    let (_bob, _) = account(&server, "", &mut events).await;
}

#[tokio::test]
async fn a_connection_whose_on_open_was_not_called_has_no_on_close() {
    let server = serve(&["--instances", "2", "--limit", "half_close_within=200ms"]);
    let mut events = Reader::follow(&server, "account").await;
    let mut ann = Socket::connect(server.ws("/socket")).await;
    ann.ask("id").await;
    let holders = hold_all(&server, 1, &mut events).await;
    // The other instance decides this upgrade, and then runs its on-open.
    let _cid = Socket::connect(server.ws("/account?hold=3600000")).await;
    events.until("open ").await;
    // If no instance is free, the upgrade is refused and no on-close follows.
    let refused = Socket::try_connect(server.ws("/account"))
        .await
        .err()
        .map(|refusal| refusal.status().as_u16());
    assert_eq!(refused, Some(503));
    drop(holders);
    let (bob, id) = account(&server, "", &mut events).await;
    drop(bob);
    let until_close = events.until(&format!("close {id};")).await;
    assert_eq!(until_close.matches("close ").count(), 1, "{until_close}");
}

#[tokio::test]
async fn a_presence_leave_waits_for_a_version_that_wakes_its_room() {
    let component = component("rogue");
    let folder = tempfile::tempdir().unwrap();
    let app = folder.path().join("app.wasm");
    fs::copy(&component, &app).unwrap();
    let server = Tidegate::serve(&app, &["--limit", "room_idle_max=200ms"]);
    let mut ann = guest(&server, "tea", "ann").await;
    let bob = guest(&server, "tea", "bob").await;
    ann.text().await;
    assert_eq!(ann.ask("sleepy").await, "done sleepy");
    // The room sleeps, and is closed after five failed wakes.
    get_until(&server, "/guests/tea", |status, _| status == 503).await;
    drop(bob);
    write_version(&component, &app, b"version 02");
    server.reload(&[]).unwrap();
    let leave = ann.text().await;
    assert!(leaves(&leave, "bob"), "{leave}");
    assert_eq!(
        get(&server, "/guests/tea").await,
        (200, "close bob | ann".into())
    );
}

/// Writes the component as another version of itself.
fn write_version(component: &Path, app: &Path, version: &[u8; 10]) {
    let mut wasm = fs::read(component).unwrap();
    let marks: Vec<usize> = wasm
        .windows(10)
        .enumerate()
        .filter(|(_, text)| text == b"version 01")
        .map(|(at, _)| at)
        .collect();
    assert!(!marks.is_empty());
    marks
        .iter()
        .for_each(|at| wasm[*at..at + 10].copy_from_slice(version));
    fs::write(app, wasm).unwrap();
}

/// A server of one app after another.
struct Served {
    machine: Machine,
    folder: tempfile::TempDir,
}

impl Served {
    fn new(package: &str, args: &[&str]) -> Served {
        let folder = tempfile::tempdir().unwrap();
        let app = folder.path().join("app.wasm");
        fs::copy(component(package), &app).unwrap();
        let args: Vec<&str> = ["--wall", "1h", "--limit", "room_idle_max=200ms"]
            .into_iter()
            .chain(args.iter().copied())
            .collect();
        Served {
            machine: Machine::serve(&app, &args),
            folder,
        }
    }

    fn replace_by(&self, package: &str) {
        fs::copy(component(package), self.folder.path().join("app.wasm")).unwrap();
        self.server().reload(&[]).unwrap();
    }

    fn server(&self) -> &Tidegate {
        &self.machine.server
    }
}

#[tokio::test]
async fn an_on_close_without_a_route_runs_in_the_last_version_that_had_it() {
    let served = Served::new("rogue", &["--instances", "4"]);
    let server = served.server();
    // An open feed needs no route.
    let mut events = Reader::follow(server, "account").await;
    let (mut ann, ann_id) = account(server, "", &mut events).await;
    let mut bob = guest(server, "tea", "bob").await;
    let holders = hold_all(server, 4, &mut events).await;
    // Every instance is busy while the app is replaced by two versions without these routes.
    served.replace_by("echo");
    assert_eq!((ann.closed().await.0, bob.closed().await.0), (1012, 1012));
    server.wait_for("its on-close has to wait: every instance of the app is busy");
    server.wait_for("1 on-close events have to wait");
    served.replace_by("hello");
    drop(holders);
    let until_close = events.until(&format!("close {ann_id};")).await;
    assert_eq!(until_close.matches("close ").count(), 1, "{until_close}");
    served.replace_by("rogue");
    assert_eq!(
        get_until(server, "/guests/tea", |status, text| status == 200
            && text.contains("bob"))
        .await,
        "close bob | "
    );
    // Neither event is repeated.
    let (_cid, cid_id) = account(server, "", &mut events).await;
    assert_ne!(cid_id, ann_id);
    assert_eq!(get(server, "/guests/tea").await.1, "close bob | ");
}

#[tokio::test]
async fn a_handshake_whose_route_was_removed_is_closed_with_on_close() {
    let served = Served::new("echo", &[]);
    let server = served.server();
    served.replace_by("rogue");
    let mut events = Reader::follow(server, "account").await;
    let url = server.ws("/account?wait=2000");
    let connecting = tokio::spawn(Socket::connect(url));
    events.until("asked").await;
    // A rollback compiles nothing.
    server.reload(&["--rollback"]).unwrap();
    let mut ann = connecting.await.unwrap();
    assert_eq!(ann.closed().await.0, 1012);
    events.until("open ").await;
    let id = events.until("\n").await.trim().to_owned();
    let until_close = events.until(&format!("close {id};")).await;
    assert_eq!(until_close.matches("close ").count(), 1, "{until_close}");
}

#[tokio::test]
async fn an_alarm_without_a_class_waits_for_a_version_that_has_it() {
    let served = Served::new("rogue", &[]);
    let server = served.server();
    let mut ann = guest(server, "tea", "ann").await;
    assert_eq!(ann.ask("alarm 1800000").await, "done alarm 1800000");
    served.replace_by("echo");
    assert_eq!(ann.closed().await.0, 1012);
    // The alarm is due, and no version could be called.
    served.machine.set(Number::Clock, HOUR);
    sleep(LOOK).await;
    served.replace_by("rogue");
    let stored = get_until(server, "/guests/tea", |status, text| {
        status == 200 && text.contains("alarm")
    })
    .await;
    assert_eq!(stored, "close ann, alarm 1 | ");
}

#[tokio::test]
async fn an_alarm_fires_whichever_commit_made_it_durable() {
    let server = serve(&[]);
    for set in ["alarm 300", "alarm-flush 300"] {
        let room = set.replace(' ', "-");
        let mut ann = guest(&server, &room, "ann").await;
        assert_eq!(ann.ask(set).await, format!("done {set}"));
        assert_eq!(ann.text().await, "alarm 1", "{set}");
        assert_eq!(
            get(&server, &format!("/guests/{room}")).await.1,
            "alarm 1 | ann",
            "{set}"
        );
    }
}

#[tokio::test]
async fn an_alarm_without_a_free_instance_keeps_its_retries() {
    let server = serve(&["--instances", "4"]);
    let mut events = Reader::follow(&server, "account").await;
    let mut ann = guest(&server, "tea", "ann").await;
    assert_eq!(ann.ask("alarm 2000").await, "done alarm 2000");
    let holders = hold_all(&server, 4, &mut events).await;
    let began = Instant::now();
    while server.stderr().matches("its alarm has to wait").count() < 2 {
        assert!(began.elapsed() < PATIENCE, "{}", server.stderr());
        sleep(LOOK).await;
    }
    drop(holders);
    assert_eq!(ann.text().await, "alarm 1");
    assert!(
        !server.stderr().contains("its alarm failed"),
        "{}",
        server.stderr()
    );
}

#[tokio::test]
async fn a_waiting_loader_is_dropped_when_its_client_disconnects() {
    for (path, sign) in [("/parting", "still here"), ("/parting?call=1000", "a page")] {
        let server = serve(&["--instances", "8"]);
        let mut events = Reader::follow(&server, "account").await;
        let mut page = Raw::send(
            server.address(),
            &format!("GET {path} HTTP/1.1\r\nhost: {}\r\n\r\n", server.address()),
        )
        .await;
        page.until(sign).await;
        if path.contains("call") {
            server.wait_for("a call waits");
        }
        let busy = if path.contains("call") { 6 } else { 7 };
        let holders = hold_all(&server, busy, &mut events).await;
        drop(page);
        server.wait_for("the loader was dropped");
        drop(holders);
    }
}

#[tokio::test]
async fn a_changed_system_clock_moves_only_alarms() {
    let machine = Machine::serve(
        &component("rogue"),
        &[
            "--limit",
            "room_idle_max=300ms",
            "--limit",
            "ping_every=200ms",
        ],
    );
    let server = &machine.server;
    // An alarm is due by the clock.
    let mut ann = guest(server, "tea", "ann").await;
    ann.ask("alarm 1800000").await;
    machine.set(Number::Clock, -HOUR);
    let mut bob = guest(server, "milk", "bob").await;
    bob.ask("alarm 300").await;
    assert_eq!(bob.text().await, "alarm 1");
    machine.set(Number::Clock, HOUR);
    assert_eq!(ann.text().await, "alarm 1");
    // A room sleeps after its idle time, and connections stay open, in whichever direction the
    // clock is set.
    let mut cid = Socket::connect(server.ws("/rooms/rum")).await;
    for ahead in [0, HOUR, -HOUR, 0] {
        machine.set(Number::Clock, ahead);
        let woken: u64 = cid.ask("wake").await.parse().unwrap();
        let began = Instant::now();
        loop {
            sleep(LOOK).await;
            if cid.ask("wake").await.parse::<u64>().unwrap() > woken {
                break;
            }
            assert!(
                began.elapsed() < PATIENCE,
                "the room does not sleep, {ahead} ms ahead"
            );
        }
    }
    assert_eq!(ann.ask("x").await, "done x");
}
