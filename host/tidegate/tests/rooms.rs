//! Rooms in the real binary: their data over faults, sleep, kills and restarts, and the messages of
//! uncommitted events, which must not be sent.

mod support;

use futures_util::StreamExt as _;
use rustix::process::Signal;
use std::{
    collections::HashMap,
    env,
    io::{BufRead as _, BufReader, Write as _},
    os::unix::{fs::PermissionsExt as _, net::UnixStream},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};
use support::{
    Build, Tidegate,
    client::{Socket, soon},
    component, component_of, serve_to_its_end, tidegate,
};
use tempfile::TempDir;

/// A directory for a server's data, which outlives the server.
fn temp_dir() -> TempDir {
    tempfile::tempdir().expect("a directory")
}

fn serve(dir: &TempDir, app: &str, args: &[&str]) -> Tidegate {
    let data = dir.path().join("data");
    Tidegate::serve(
        &component(app),
        &[&["--data", data.to_str().unwrap()], args].concat(),
    )
}

async fn get(server: &Tidegate, path: &str) -> String {
    soon(path, async {
        reqwest::get(server.url(path))
            .await
            .unwrap()
            .text()
            .await
            .unwrap()
    })
    .await
}

async fn post(server: &Tidegate, path: &str, body: &str) -> String {
    let request = reqwest::Client::new()
        .post(server.url(path))
        .body(body.to_owned());
    soon(path, async {
        request.send().await.unwrap().text().await.unwrap()
    })
    .await
}

#[tokio::test]
async fn sockets_requests_and_feeds_of_a_path_share_one_room() {
    let dir = temp_dir();
    let server = serve(&dir, "rogue", &[]);
    let mut ann = Socket::connect(server.ws("/rooms/a%20b")).await;
    assert_eq!(ann.ask("hello").await, "hello");
    let request = reqwest::Client::new()
        .get(server.url("/rooms/a%20b"))
        .header("accept", "text/event-stream");
    let feed = request.send().await.unwrap();
    assert_eq!(feed.headers()["content-type"], "text/event-stream");
    assert_eq!(post(&server, "/rooms/a%20b", "posted").await, "1");
    assert_eq!(ann.text().await, "posted");
    assert_eq!(
        (
            get(&server, "/rooms/a%20b").await,
            get(&server, "/rooms/other").await
        ),
        ("2\nhello\nposted".into(), "0\n".into())
    );
    let mut events = String::new();
    let mut pieces = feed.bytes_stream();
    while !events.contains("posted") {
        events +=
            &String::from_utf8_lossy(&soon("the feed", pieces.next()).await.unwrap().unwrap());
    }
    assert!(
        events.contains("data: begun") && !events.contains("hello"),
        "{events}"
    );
    for (path, status) in [
        (format!("/rooms/{}", "x".repeat(257)), 400),
        ("/rooms/a%0Ab".into(), 400),
        ("/rooms/a/b".into(), 404),
    ] {
        assert_eq!(
            reqwest::get(server.url(&path)).await.unwrap().status(),
            status,
            "{path}"
        );
    }
}

#[tokio::test]
async fn a_failed_event_is_rolled_back_and_closes_only_its_sender() {
    let dir = temp_dir();
    let server = serve(
        &dir,
        "rogue",
        &["--cpu", "100ms", "--wall", "1s", "--memory", "16MiB"],
    );
    let mut bob = Socket::connect(server.ws("/rooms/tea")).await;
    assert_eq!(bob.ask("a").await, "a");
    for how in [
        "panic", "abort", "exit", "recurse", "spin", "eat", "sleep", "fail",
    ] {
        let mut ann = Socket::connect(server.ws("/rooms/tea")).await;
        assert_eq!(ann.ask("members").await, "2");
        ann.send(format!("then {how}")).await;
        assert_eq!(ann.closed().await.0, 1011, "{how}");
    }
    assert_eq!(
        (bob.ask("b").await, get(&server, "/rooms/tea").await),
        ("b".into(), "2\na\nb".into())
    );
    let stopped = server.stop();
    assert!(
        !stopped.stderr.contains("two instances"),
        "{}",
        stopped.stderr
    );
}

#[tokio::test]
async fn a_room_that_fails_to_wake_is_refused_for_a_pause() {
    let dir = temp_dir();
    let server = serve(&dir, "rogue", &[]);
    for _ in 0..5 {
        assert_eq!(
            reqwest::get(server.url("/rooms/never"))
                .await
                .unwrap()
                .status(),
            500
        );
    }
    let closed = reqwest::get(server.url("/rooms/never")).await.unwrap();
    let retry: u64 = closed.headers()["retry-after"]
        .to_str()
        .unwrap()
        .parse()
        .unwrap();
    assert!(
        closed.status() == 503 && (25..=31).contains(&retry),
        "{closed:?}"
    );
    assert_eq!(get(&server, "/rooms/other").await, "0\n");
}

#[tokio::test]
async fn a_room_sleeps_and_wakes_while_connections_stay_open() {
    let dir = temp_dir();
    let server = serve(&dir, "rogue", &["--limit", "room_idle_max=1ms"]);
    let mut ann = Socket::connect(server.ws("/rooms/tea")).await;
    ann.send("keep a cup").await;
    let mut wakes = Vec::new();
    while wakes.len() < 3 {
        let wake: u64 = ann.ask("wake").await.parse().unwrap();
        if wakes.last() != Some(&wake) {
            wakes.push(wake);
        }
    }
    assert!(wakes.is_sorted(), "{wakes:?}");
    assert_eq!(
        (ann.ask("kept").await, ann.ask("members").await),
        ("a cup".into(), "1".into())
    );
    ann.send("alarm 1").await;
    assert_eq!(ann.text().await, "alarm 1");
    ann.close().await;
    assert!(server.stop().counter("wakes") >= 3);
}

#[tokio::test]
async fn an_auto_response_calls_no_guest_and_wakes_no_room() {
    const BEATS: u64 = 200;
    let dir = temp_dir();
    for (path, args) in [
        ("/socket", &[][..]),
        ("/rooms/tea", &["--limit", "room_idle_max=1ms"]),
    ] {
        let server = serve(&dir, "rogue", args);
        let mut ann = Socket::connect(server.ws(path)).await;
        ann.send("automatic ping pong").await;
        assert_ne!(ann.ask("pin").await, "pong");
        for _ in 0..BEATS {
            assert_eq!(ann.ask("ping").await, "pong", "{path}");
        }
        assert_ne!(ann.ask("pin").await, "pong", "{path}");
        ann.send("automatic").await;
        assert_eq!(ann.ask("ping").await, "ping", "{path}: it was taken away");
        ann.close().await;
        let stopped = server.stop();
        assert_eq!(stopped.counter("auto_responses"), BEATS, "{path}");
        assert!(stopped.counter("guest_calls") < 20, "{path}");
    }
}

#[tokio::test]
async fn calls_of_rooms_return_answers_and_errors() {
    let dir = temp_dir();
    let server = serve(&dir, "rogue", &["--limit", "call_bytes_max=1000 B"]);
    let long = format!("tea {}", "x".repeat(1001));
    let calls = [
        ("tea one", "0"),
        ("tea two", "1"),
        ("tea via milk three", "0"),
        ("tea then panic", "the room's event failed"),
        (
            "tea via tea four",
            "the room waits for the one that calls it",
        ),
        (
            "tea via milk via tea five",
            "the room waits for the one that calls it",
        ),
        ("tea via milk then panic", "the room's event failed"),
        ("tea refuse not now", "not now"),
        (&long, "a call's payload has at most 1 MiB"),
        ("beer then sleep", "the room did not answer in time"),
        ("tea four", "2"),
    ];
    for (call, answer) in calls {
        assert_eq!(post(&server, "/via", call).await, answer, "{call}");
    }
    let mut ann = Socket::connect(server.ws("/rooms/rum")).await;
    ann.send("via tea six").await;
    assert_eq!(ann.receive().await.into_data(), "3");
    assert_eq!(get(&server, "/rooms/tea").await, "4\none\ntwo\nfour\nsix");
    assert_eq!(get(&server, "/rooms/milk").await, "1\nthree");
    ann.close().await;
}

#[tokio::test]
async fn a_room_never_has_two_instances() {
    let dir = temp_dir();
    let server = Arc::new(serve(
        &dir,
        "rogue",
        &[
            "--limit",
            "room_idle_max=1ms",
            "--limit",
            "rooms_awake_max=2",
        ],
    ));
    let mut bob = Socket::connect(server.ws("/rooms/0")).await;
    let tasks = (0..8).map(|client| {
        let server = server.clone();
        tokio::spawn(async move {
            for round in 0..60 {
                let room = (client + round) % 4;
                let mut socket = Socket::connect(server.ws(&format!("/rooms/{room}"))).await;
                socket
                    .send(if round % 7 == 0 { "then panic" } else { "x" })
                    .await;
                _ = reqwest::get(server.url(&format!("/rooms/{room}")))
                    .await
                    .unwrap()
                    .text()
                    .await;
            }
        })
    });
    for task in tasks.collect::<Vec<_>>() {
        soon("the churn", task).await.unwrap();
    }
    bob.send("last").await;
    loop {
        match &*bob.text().await {
            "last" => break,
            other => assert_eq!(other, "x"),
        }
    }
    for room in 0..4 {
        let log = get(&server, &format!("/rooms/{room}")).await;
        let (count, lines) = log.split_once('\n').unwrap();
        assert_eq!(
            count.parse::<usize>().unwrap(),
            lines
                .lines()
                .filter(|line| matches!(*line, "x" | "last"))
                .count(),
            "{log}"
        );
    }
}

#[tokio::test]
async fn an_alarm_survives_a_kill() {
    let dir = temp_dir();
    let mut server = serve(&dir, "rogue", &[]);
    let mut ann = Socket::connect(server.ws("/rooms/tea")).await;
    ann.send("alarm 300").await;
    assert_eq!(ann.ask("set").await, "set");
    server.signal(Signal::KILL);
    server.wait();
    server = serve(&dir, "rogue", &[]);
    let mut bob = Socket::connect(server.ws("/rooms/tea")).await;
    if !get(&server, "/rooms/tea").await.contains("alarm 1") {
        assert_eq!(bob.text().await, "alarm 1");
    }
    assert_eq!(get(&server, "/rooms/tea").await, "2\nset\nalarm 1");
}

#[test]
fn unusable_data_is_one_error_line_and_prevents_serving() {
    let dir = temp_dir();
    let _first = serve(&dir, "rogue", &[]);
    let file = dir.path().join("file");
    std::fs::write(&file, "").unwrap();
    let cases = [
        (dir.path().join("data"), "another process has"),
        (file.join("data"), "can't use"),
    ];
    for (data, expected) in cases {
        let output = serve_to_its_end(&data);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.code() == Some(1)
                && stderr.contains(expected)
                && stderr.trim().lines().count() == 1,
            "{stderr}"
        );
    }
}

fn data(dir: &TempDir, args: &[&str], stdin: &str) -> (bool, String) {
    use std::process::Stdio;
    let mut command = tidegate();
    command
        .arg("data")
        .args(args)
        .arg("--data")
        .arg(dir.path().join("data"));
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    _ = child.stdin.take().unwrap().write_all(stdin.as_bytes());
    let output = child.wait_with_output().unwrap();
    let bytes = if output.status.success() {
        output.stdout
    } else {
        output.stderr
    };
    (output.status.success(), String::from_utf8(bytes).unwrap())
}

#[tokio::test]
async fn an_operator_lists_exports_moves_and_verifies_rooms() {
    let dir = temp_dir();
    assert!(
        data(&dir, &["rooms"], "")
            .1
            .contains("there is no directory")
    );
    let server = serve(&dir, "rogue", &[]);
    for (room, body) in [("tea", "a"), ("tea", "b"), ("milk", "c")] {
        post(&server, &format!("/rooms/{room}"), body).await;
    }
    assert!(
        data(&dir, &["rooms"], "").1.contains("another process has"),
        "the server has it open"
    );
    server.stop();
    let (_, listed) = data(&dir, &["rooms"], "");
    assert!(
        listed.starts_with("rogue/milk  ") && listed.lines().count() == 2,
        "{listed}"
    );
    let (_, tea) = data(&dir, &["export", "rogue/tea"], "");
    assert_eq!(
        tea.lines().next(),
        Some(r#"{"alarm":null,"room":"rogue/tea"}"#)
    );
    assert!(
        tea.contains(r#"{"key":"line/000000001","text":"b"}"#),
        "{tea}"
    );
    let copy = dir.path().join("copy");
    assert!(data(&dir, &["backup", copy.to_str().unwrap()], "").0 && copy.is_dir());
    assert_eq!(
        data(&dir, &["delete", "rogue/tea"], ""),
        (true, "rogue/tea was deleted\n".into())
    );
    assert!(!data(&dir, &["delete", "rogue/tea"], "").0);
    let rum = tea.replace("rogue/tea", "rogue/rum") + r#"{"key":"binary","base64":"AP8="}"# + "\n";
    assert_eq!(
        data(&dir, &["import"], &rum),
        (true, "1 rooms were imported\n".into())
    );
    for (input, expected) in [
        ("x", "line 1 is not JSON"),
        (r#"{"key":"k","text":"v"}"#, "line 1 comes before"),
        (r#"{"room":"x"}"#, "line 1"),
    ] {
        let (imported, error) = data(&dir, &["import"], input);
        assert!(
            !imported && error.contains(expected) && error.trim().lines().count() == 1,
            "{error}"
        );
    }
    assert!(data(&dir, &["compact"], "").0);
    let (well, verified) = data(&dir, &["verify"], "");
    assert!(
        well && verified.starts_with("2 rooms, ") && verified.contains("no problems found"),
        "{verified}"
    );
    assert!(
        data(&dir, &["export", "rogue/rum"], "")
            .1
            .contains(r#"{"base64":"AP8=","key":"binary"}"#)
    );
    let server = serve(&dir, "rogue", &[]);
    assert_eq!(
        (
            get(&server, "/rooms/rum").await,
            get(&server, "/rooms/tea").await
        ),
        ("2\na\nb".into(), "0\n".into())
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_of_a_busy_server_is_consistent() {
    let dir = temp_dir();
    let server = Arc::new(serve(&dir, "rogue", &[]));
    let acknowledged = Arc::new(AtomicU64::new(0));
    let writers: Vec<_> = (0..4)
        .map(|room| {
            let (server, acknowledged) = (server.clone(), acknowledged.clone());
            tokio::spawn(async move {
                for line in 0..300 {
                    assert_eq!(
                        post(&server, &format!("/rooms/{room}"), "x").await,
                        line.to_string()
                    );
                    acknowledged.fetch_add(1, Ordering::SeqCst);
                }
            })
        })
        .collect();
    while acknowledged.load(Ordering::SeqCst) < 100 {
        tokio::task::yield_now().await;
    }
    let (before, copy) = (acknowledged.load(Ordering::SeqCst), dir.path().join("copy"));
    assert_eq!(
        data(&dir, &["backup", copy.to_str().unwrap()], ""),
        (true, String::new())
    );
    assert!(
        data(&dir, &["backup", copy.to_str().unwrap()], "")
            .1
            .contains("exists already")
    );
    for writer in writers {
        writer.await.unwrap();
    }
    let copied = tempfile::tempdir_in(dir.path()).unwrap();
    std::fs::rename(&copy, copied.path().join("data")).unwrap();
    assert!(
        data(&copied, &["verify"], "")
            .1
            .ends_with("no problems found\n")
    );
    let lines: u64 = (0..4)
        .map(|room| {
            data(&copied, &["export", &format!("rogue/{room}")], "")
                .1
                .matches("line/")
                .count() as u64
        })
        .sum();
    assert!(
        (before..1200).contains(&lines),
        "{before} lines were acknowledged before, and {lines} are stored"
    );

    let socket_path = dir.path().join("data.sock");
    assert_eq!(
        std::fs::metadata(&socket_path)
            .unwrap()
            .permissions()
            .mode()
            & 0o777,
        0o600
    );
    for (command, expected) in [
        ("nonsense", "one line of JSON"),
        (r#"{"backup":"relative"}"#, "unknown request"),
        ("{}", "unknown request"),
    ] {
        let mut stream = BufReader::new(UnixStream::connect(&socket_path).unwrap());
        stream
            .get_mut()
            .write_all(format!("{command}\n").as_bytes())
            .unwrap();
        let mut answer = String::new();
        stream.read_line(&mut answer).unwrap();
        assert!(answer.contains(expected), "{command}: {answer}");
    }
    Arc::into_inner(server).unwrap().stop();
    assert!(!socket_path.exists());
}

#[test]
fn an_app_without_rooms_stores_nothing() {
    let dir = temp_dir();
    serve(&dir, "echo", &[]).stop();
    assert!(!dir.path().join("data").exists());
}

/// Clients write numbered lines to 50 rooms while the host is killed repeatedly. Every write that
/// an answer or a broadcast acknowledged is stored afterwards, once and in order, and no event is
/// stored in part. `TIDEGATE_CRASH_SECONDS` is the duration of the test.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn acknowledged_events_survive_every_kill() {
    const ROOMS: usize = 50;
    let seconds = env::var("TIDEGATE_CRASH_SECONDS")
        .ok()
        .and_then(|seconds| seconds.parse().ok())
        .unwrap_or(10);
    let until = Instant::now() + Duration::from_secs(seconds);
    let dir = temp_dir();
    let mut all = vec![Vec::<u64>::new(); ROOMS];
    let mut next = vec![1_u64; ROOMS];
    let mut random = Random(Instant::now().elapsed().as_nanos() as u64 | 0x9E37_79B9);
    let mut kills = 0;
    while Instant::now() < until {
        let server = serve(&dir, "rogue", &["--limit", "room_idle_max=300ms"]);
        let url = server.url("");
        let stopped = Arc::new(AtomicBool::new(false));
        let writers = (0..ROOMS).map(|room| {
            let (url, first, stopped) = (url.clone(), next[room], stopped.clone());
            tokio::spawn(async move { write(&url, room, first, &stopped).await })
        });
        let writers: Vec<_> = writers.collect();
        tokio::time::sleep(Duration::from_millis(200 + random.below(1800))).await;
        server.signal(Signal::KILL);
        server.wait();
        stopped.store(true, Ordering::Relaxed);
        kills += 1;
        for (room, writer) in writers.into_iter().enumerate() {
            let (numbers, first_free) = soon("a writer", writer).await.unwrap();
            all[room].extend(numbers);
            next[room] = first_free;
        }
    }
    let server = serve(&dir, "rogue", &[]);
    let mut total = 0;
    for (room, acknowledged) in all.iter().enumerate() {
        let log = get(&server, &format!("/rooms/{room}")).await;
        let (count, lines) = log.split_once('\n').unwrap();
        let lines: Vec<u64> = lines.lines().map(|line| line.parse().unwrap()).collect();
        assert_eq!(
            count.parse::<usize>().unwrap(),
            lines.len(),
            "room {room}: a line and its count are one event"
        );
        assert!(
            lines.is_sorted_by(|one, other| one < other),
            "room {room}: in order, once: {lines:?}"
        );
        let positions: HashMap<u64, usize> = lines.iter().copied().zip(0..).collect();
        let lost: Vec<&u64> = acknowledged
            .iter()
            .filter(|number| !positions.contains_key(number))
            .collect();
        assert!(
            lost.is_empty(),
            "room {room} lost acknowledged lines: {lost:?}"
        );
        total += acknowledged.len();
    }
    assert!(total > ROOMS && kills > 1, "{total} lines, {kills} kills");
    println!("{total} acknowledgements in {ROOMS} rooms survived {kills} kills");
}

/// Posts lines to three rooms until one is refused. Returns the number of acknowledged lines of
/// each.
async fn write_until_it_fails(server: &Tidegate) -> [u64; 3] {
    let client = reqwest::Client::new();
    let mut acknowledged = [0; 3];
    for number in 0..600 {
        let room = number % 3;
        let request = client
            .post(server.url(&format!("/rooms/{room}")))
            .body(format!("line {}", acknowledged[room]));
        match soon("an answer", request.send())
            .await
            .unwrap()
            .status()
            .as_u16()
        {
            200 => acknowledged[room] += 1,
            // The write failed, or one did at the start already, and the storage is closed.
            500 | 503 => return acknowledged,
            other => panic!("{other} from a server whose disk fails"),
        }
    }
    panic!("nothing failed");
}

#[tokio::test]
async fn a_disk_failure_keeps_acknowledged_events_and_no_partial_event() {
    let library = component_of(Build::Library, "faulty");
    let (app, mut started) = (component("rogue"), 0);
    for (call, how) in [
        ("write", "io"),
        ("write", "full"),
        ("write", "short"),
        ("sync", "io"),
    ] {
        for at in [1, 12, 60, 100, 150, 200, 201, 300, 400] {
            let dir = temp_dir();
            let data_dir = dir.path().join("data");
            let mut command = tidegate();
            command
                .arg("serve")
                .arg(&app)
                .args(["--listen", "127.0.0.1:0", "--data"])
                .arg(&data_dir);
            command
                .env("LD_PRELOAD", &library)
                .env("FAULTY_DIR", &data_dir)
                .env("FAULTY_CALL", call)
                .env("FAULTY_HOW", how);
            command.env("FAULTY_AT", at.to_string());
            let case = format!("{call} {at} fails ({how})");
            let server = match Tidegate::try_spawn(command) {
                Ok(server) => server,
                Err(stderr) => {
                    assert!(
                        stderr.trim().lines().count() == 1 && stderr.contains("data"),
                        "{case}: {stderr}"
                    );
                    continue;
                }
            };
            started += 1;
            let acknowledged = write_until_it_fails(&server).await;
            assert_eq!(
                get(&server, "/calm").await,
                "calm",
                "{case}: the rest is served"
            );
            server.signal(Signal::KILL);
            assert!(!server.wait().stderr.contains("panicked"), "{case}");
            let server = serve(&dir, "rogue", &[]);
            for (room, acknowledged) in acknowledged.into_iter().enumerate() {
                let stored = get(&server, &format!("/rooms/{room}")).await;
                let (count, lines) = stored.split_once('\n').unwrap();
                let expected: Vec<String> = (0..count.parse().unwrap())
                    .map(|number| format!("line {number}"))
                    .collect();
                assert_eq!(lines, expected.join("\n"), "{case}, room {room}");
                // The event that failed was not acknowledged; it may still be stored, but only as a
                // whole.
                assert!(
                    (acknowledged..=acknowledged + 1).contains(&(expected.len() as u64)),
                    "{case}, room {room}: {acknowledged} of {count}"
                );
            }
            server.stop();
            assert!(
                data(&dir, &["verify"], "")
                    .1
                    .ends_with("no problems found\n"),
                "{case}"
            );
        }
    }
    assert!(started >= 16, "{started} servers came so far as to write");
}

async fn write(url: &str, room: usize, first: u64, stopped: &AtomicBool) -> (Vec<u64>, u64) {
    let (mut acknowledged, mut number) = (Vec::new(), first);
    let path = format!("{url}/rooms/{room}");
    if room.is_multiple_of(2) {
        let client = reqwest::Client::builder()
            .timeout(support::PATIENCE)
            .build()
            .unwrap();
        while !stopped.load(Ordering::Relaxed) {
            number += 1;
            match client
                .post(&path)
                .body((number - 1).to_string())
                .send()
                .await
            {
                Ok(answer) if answer.status() == 200 => acknowledged.push(number - 1),
                _ => break,
            }
        }
    } else if let Ok((mut socket, _)) =
        tokio_tungstenite::connect_async(path.replace("http://", "ws://")).await
    {
        use futures_util::SinkExt as _;
        use tokio_tungstenite::tungstenite::Message;
        loop {
            number += 1;
            if socket
                .send(Message::text((number - 1).to_string()))
                .await
                .is_err()
            {
                break;
            }
            match socket.next().await {
                Some(Ok(Message::Text(text))) => acknowledged.push(text.parse().unwrap()),
                _ => break,
            }
        }
    }
    (acknowledged, number)
}

/// A random generator (xorshift), good enough to choose the times of kills.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}
