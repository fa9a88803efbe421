//! `tidegate tail` beside a server: an operator sees the requested lines, and the server is not
//! affected.

mod support;

use serde_json::Value;
use std::{
    io::{BufRead as _, BufReader},
    process::{Child, ChildStdout, Stdio},
};
use support::{
    Tidegate,
    client::{Socket, soon},
    component, tidegate,
};

/// A running `tidegate tail`.
struct Tail {
    child: Child,
    lines: BufReader<ChildStdout>,
}

impl Tail {
    /// Starts the command. Every later line of the log is seen.
    fn begin(server: &Tidegate, args: &[&str]) -> Tail {
        let mut command = tidegate();
        command
            .arg("tail")
            .arg("--data")
            .arg(server.data())
            .args(args)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut begun = String::new();
        BufReader::new(child.stderr.as_mut().unwrap())
            .read_line(&mut begun)
            .unwrap();
        assert!(begun.starts_with("following the log"), "{begun}");
        let lines = BufReader::new(child.stdout.take().unwrap());
        Tail { child, lines }
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        assert_ne!(self.lines.read_line(&mut line).unwrap(), 0, "it ended");
        line.trim_end().to_owned()
    }

    fn json(&mut self) -> Value {
        serde_json::from_str(&self.line()).unwrap()
    }
}

impl Drop for Tail {
    fn drop(&mut self) {
        _ = self.child.kill();
        _ = self.child.wait();
    }
}

#[tokio::test]
async fn tail_shows_requests_connections_output_and_faults_with_their_ids() {
    let server = Tidegate::serve(&component("rogue"), &[]);
    let mut tail = Tail::begin(&server, &["--json"]);
    let mut socket = Socket::connect(server.ws("/socket?x=1")).await;
    let id = socket.ask("id").await;
    let request = tail.json();
    assert_eq!(
        [&request["message"], &request["route"], &request["level"]],
        ["GET /socket?x=1", "/socket", "DEBUG"]
    );
    assert_eq!(request["status"], 101);
    // The app prints while it handles the opening, which the host logs first.
    for (message, target) in [
        ("opened".to_owned(), "access"),
        (format!("opened {id}"), "app"),
    ] {
        let line = tail.json();
        assert_eq!(
            [
                &line["message"],
                &line["target"],
                &line["route"],
                &line["connection"]
            ],
            [&*message, target, "/socket", &*id]
        );
    }
    socket.send("do panic").await;
    assert_eq!(socket.closed().await.0, 1011);
    let lines: Vec<Value> = (0..5).map(|_| tail.json()).collect();
    assert!(
        lines
            .iter()
            .all(|line| line["connection"] == id && line["route"] == "/socket"),
        "{lines:#?}"
    );
    let fault = lines.iter().find(|line| line["level"] == "ERROR").unwrap();
    assert!(
        fault["message"]
            .as_str()
            .unwrap()
            .contains("the app trapped"),
        "{fault}"
    );
    let panic = lines.iter().find(|line| line["level"] == "WARN").unwrap();
    assert!(
        panic["message"].as_str().unwrap().contains("panic at"),
        "{panic}"
    );

    let client = reqwest::Client::new();
    assert_eq!(
        soon("an answer", client.get(server.url("/do/fail?why")).send())
            .await
            .unwrap()
            .status(),
        500
    );
    let lines: Vec<String> = (0..2)
        .map(|_| {
            loop {
                let line = tail.json();
                if line["route"] == "/do/{how}" {
                    return line["message"].as_str().unwrap().to_owned();
                }
            }
        })
        .collect();
    assert_eq!(lines[0], "about to fail");
}

#[tokio::test]
async fn tail_shows_only_lines_that_match_its_filter() {
    let server = Tidegate::serve(&component("rogue"), &[]);
    let (mut one, mut other) = (
        Socket::connect(server.ws("/socket")).await,
        Socket::connect(server.ws("/socket")).await,
    );
    let (first, second) = (one.ask("id").await, other.ask("id").await);
    let mut by_connection = Tail::begin(&server, &["--connection", &second]);
    let mut by_route = Tail::begin(&server, &["--route", "/do/{how}", "--level", "info"]);
    let mut by_room = Tail::begin(
        &server,
        &["--room", "rogue/tea", "--json", "--level", "info"],
    );
    assert_ne!(first, second);
    for socket in [&mut one, &mut other] {
        socket.send("do nothing-like-it").await;
        socket.closed().await;
    }
    let line = by_connection.line();
    assert!(
        line.contains("INFO app: about to nothing-like-it")
            && line.contains(&format!("connection={second} route=/socket")),
        "{line}"
    );

    let client = reqwest::Client::new();
    for path in ["/calm", "/do/fail"] {
        soon("an answer", client.get(server.url(path)).send())
            .await
            .unwrap();
    }
    assert!(by_route.line().ends_with("about to fail route=/do/{how}"));

    for room in ["milk", "tea"] {
        let mut socket = Socket::connect(server.ws(&format!("/rooms/{room}"))).await;
        socket.send("then nothing-like-it").await;
        assert_eq!(socket.closed().await.0, 1008);
    }
    let line = by_room.json();
    assert_eq!(
        [&line["room"], &line["target"], &line["message"]],
        ["rogue/tea", "app", "about to nothing-like-it"]
    );

    // Lines that only `tail` requested are not in the server's own log.
    let stopped = server.stop();
    assert!(!stopped.stderr.contains(" access:"), "{}", stopped.stderr);
    let mut rest = String::new();
    while by_route.lines.read_line(&mut rest).unwrap() > 0 {}
    assert!(
        by_route.child.wait().unwrap().success(),
        "a tail ends with its server"
    );
}

#[test]
fn tail_reports_a_missing_server_and_unknown_arguments() {
    let nowhere = tempfile::tempdir().unwrap();
    let data = nowhere.path().join("data");
    for (args, code, expected) in [
        (
            vec!["--data", data.to_str().unwrap()],
            1,
            "no server answers at",
        ),
        (
            vec!["--level", "loud"],
            2,
            "write error, warn, info or debug",
        ),
        (
            vec!["--level", "trace"],
            2,
            "write error, warn, info or debug",
        ),
        (vec!["--connection", "seven"], 2, "--connection"),
        (vec!["--room", "tea"], 2, "write CLASS/NAME"),
    ] {
        let output = support::run(&[&["tail"], &args[..]].concat());
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(
            (output.status.code(), stderr.contains(expected)),
            (Some(code), true),
            "{args:?}: {stderr}"
        );
    }
}
