//! Logging never blocks the server, and the output of two events is never joined.

use crate::support::{
    PATIENCE, Tidegate,
    client::{Socket, soon},
    component, tidegate,
};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    path::Path,
    process::{Child, ChildStderr, ExitStatus, Stdio},
    time::{Duration, Instant},
};
use tempfile::TempDir;

/// A server whose stderr is a pipe that is read only when the test reads it.
struct Unread {
    child: Child,
    stderr: BufReader<ChildStderr>,
    url: String,
    _data: TempDir,
}

impl Unread {
    fn serve(args: &[&str]) -> Unread {
        let data = tempfile::tempdir().unwrap();
        let config = data.path().join("tidegate.toml");
        // The pipe must receive more than the queue of the log holds.
        std::fs::write(
            &config,
            "[app]\noutput_rate = \"1 GiB\"\ninstance_output_rate = \"1 GiB\"\n",
        )
        .unwrap();
        let mut command = tidegate();
        command
            .arg("serve")
            .arg(component("rogue"))
            .args(["--listen", "127.0.0.1:0", "--config"])
            .arg(&config)
            .args(args);
        let mut child = command
            .arg("--data")
            .arg(data.path().join("data"))
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stderr = BufReader::new(child.stderr.take().unwrap());
        let mut line = String::new();
        while !line.contains("http://") {
            line.clear();
            assert_ne!(stderr.read_line(&mut line).unwrap(), 0, "it listens");
        }
        let url = line
            .split(['"', ' ', '\n'])
            .find(|word| word.starts_with("http://"))
            .unwrap()
            .to_owned();
        Unread {
            child,
            stderr,
            url,
            _data: data,
        }
    }

    async fn get(&self, path: &str) -> u16 {
        soon(path, reqwest::get(format!("{}{path}", self.url)))
            .await
            .unwrap()
            .status()
            .as_u16()
    }

    /// Requests 6 MB of lines: pipe and queue hold little more than 4 MiB.
    async fn flood(&self) {
        for _ in 0..24 {
            assert_eq!(self.get("/print/kilobyte-250").await, 204);
        }
    }

    fn terminate(&self) {
        kill_process(Pid::from_raw(self.child.id() as i32).unwrap(), Signal::TERM).unwrap();
    }

    fn wait(&mut self) -> ExitStatus {
        let until = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < until, "it does not end");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Unread {
    fn drop(&mut self) {
        _ = self.child.kill();
        _ = self.child.wait();
    }
}

#[tokio::test]
async fn a_log_without_a_reader_blocks_nothing_and_counts_its_gaps() {
    for format in ["text", "json"] {
        let mut server = Unread::serve(&["--log-format", format]);
        server.flood().await;
        assert_eq!(
            (
                server.get("/calm").await,
                server.get("/__tidegate/health").await
            ),
            (200, 200),
            "{format}"
        );
        // When it is read again, the log continues, and reports the missing lines.
        let mut dropped = 0;
        let mut line = String::new();
        while dropped == 0 {
            line.clear();
            assert_ne!(server.stderr.read_line(&mut line).unwrap(), 0);
            if line.contains("lines of the log were dropped") {
                dropped = number(
                    &line,
                    if format == "json" {
                        "\"lines\":"
                    } else {
                        "lines="
                    },
                );
            }
        }
        server.terminate();
        let mut rest = String::new();
        server.stderr.read_to_string(&mut rest).unwrap();
        assert!(server.wait().success());
        let stopped = rest.lines().find(|line| line.contains("stopped")).unwrap();
        let counted = number(
            stopped,
            if format == "json" {
                "\"log_dropped\":"
            } else {
                "log_dropped="
            },
        );
        assert!(dropped > 1000 && dropped == counted, "{dropped} {counted}");
    }
}

/// Returns the number that follows this text.
fn number(line: &str, before: &str) -> u64 {
    let rest = line
        .split(before)
        .nth(1)
        .unwrap_or_else(|| panic!("no {before:?} in {line}"));
    rest.split(|c: char| !c.is_ascii_digit())
        .next()
        .unwrap()
        .parse()
        .unwrap()
}

#[tokio::test]
async fn a_stalled_log_does_not_block_the_drain() {
    let mut server = Unread::serve(&[]);
    server.flood().await;
    server.terminate();
    assert!(server.wait().success());
}

#[tokio::test]
async fn a_closed_log_pipe_blocks_nothing() {
    let mut server = Unread::serve(&[]);
    drop(std::mem::replace(
        &mut server.stderr,
        BufReader::new(other_pipe()),
    ));
    server.flood().await;
    assert_eq!(server.get("/calm").await, 200);
    server.terminate();
    assert!(server.wait().success());
}

/// Returns the end of a pipe of a process that prints nothing.
fn other_pipe() -> ChildStderr {
    std::process::Command::new("true")
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
        .stderr
        .take()
        .unwrap()
}

/// Serves with these lines as settings file.
fn serve(component: &Path, settings: &str, args: &[&str]) -> (Tidegate, tempfile::NamedTempFile) {
    let mut config = tempfile::NamedTempFile::new().unwrap();
    config.write_all(settings.as_bytes()).unwrap();
    let path = config.path().to_str().unwrap().to_owned();
    (
        Tidegate::serve(component, &[&["--config", &path], args].concat()),
        config,
    )
}

#[tokio::test]
async fn output_without_a_newline_is_logged_with_its_own_event() {
    let server = Tidegate::serve(&component("rogue"), &["--workers", "1"]);
    let get = async |path: &str| {
        soon(path, reqwest::get(server.url(path)))
            .await
            .unwrap()
            .text()
            .await
            .unwrap()
    };
    let mut events = 0;
    for kind in ["part", "errors", "part"] {
        get(&format!("/print/{kind}")).await;
        get("/print/line").await;
        let mut socket = Socket::connect(server.ws("/socket")).await;
        let mut room = Socket::connect(server.ws("/rooms/tea")).await;
        for socket in [&mut socket, &mut room] {
            // There are two events of one connection, and each may run in an instance of any other
            // event.
            for what in [kind, "line"] {
                socket.send(format!("print {what}")).await;
                socket.ask("version").await;
            }
        }
        get(&format!("/stream/echo?print={kind}")).await;
        get("/stream/echo?print=line").await;
        events += 4;
    }
    let stopped = server.stop();
    let app = stopped
        .stderr
        .lines()
        .filter_map(|line| line.split_once(" app: "));
    let texts: Vec<&str> = app
        .map(|(_, text)| text)
        .filter(|text| text.contains("a part") || text.contains("a line"))
        .collect();
    let parts = texts
        .iter()
        .filter(|text| text.starts_with("a part"))
        .count();
    let lines = texts
        .iter()
        .filter(|text| text.starts_with("a line"))
        .count();
    assert_eq!(
        (parts, lines, texts.len()),
        (events, events, 2 * events),
        "{texts:#?}"
    );
    assert!(
        !texts
            .iter()
            .any(|text| text.contains("a part") && text.contains("a line")),
        "{texts:#?}"
    );
    for id in [
        "route=\"/print/{what}\"",
        "route=\"/socket\"",
        "room=rogue/tea",
        "route=\"/stream/echo\"",
    ] {
        for what in ["a part", "a part of errors", "a line"] {
            assert!(
                texts
                    .iter()
                    .any(|text| text.starts_with(&format!("{what} ")) && text.contains(id)),
                "{what} {id} {texts:#?}"
            );
        }
    }
}

#[tokio::test]
async fn reused_wasi_http_instances_keep_output_apart() {
    for name in ["proxy02", "proxy03"] {
        let server = Tidegate::serve(&component(name), &["--reuse-foreign", "--workers", "1"]);
        for _ in 0..3 {
            for path in ["/part", "/line"] {
                soon(path, reqwest::get(server.url(path)))
                    .await
                    .unwrap()
                    .text()
                    .await
                    .unwrap();
            }
        }
        let stopped = server.stop();
        let count = |text: &str| {
            stopped
                .stderr
                .lines()
                .filter(|line| line.trim_end().ends_with(text))
                .count()
        };
        assert_eq!(
            (count(" app: a part"), count(" app: a line")),
            (3, 3),
            "{name}\n{}",
            stopped.stderr
        );
    }
}

/// Text that `/print/forged` prints.
const FORGED: &str = "one\r2026-11-27T00:00:00.000000Z  INFO forged: line\u{1b}[2J\u{1b}[31mred\u{7}\u{9b}31m\u{202e}\u{2028}end";

#[tokio::test]
async fn control_characters_are_escaped_in_logs() {
    for (format, color) in [("text", "never"), ("text", "always"), ("json", "never")] {
        let server = Tidegate::serve(
            &component("rogue"),
            &[
                "--log-format",
                format,
                "--color",
                color,
                "--log",
                "info,access=debug",
            ],
        );
        for path in ["/print/forged", "/print/bytes", "/calm?x=%0d%1b%c2%9b"] {
            soon(path, reqwest::get(server.url(path))).await.unwrap();
        }
        let stopped = server.stop();
        let wild = |c: char| (c.is_control() && c != '\n') || ['\u{2028}', '\u{202e}'].contains(&c);
        let without_colours = match color {
            "always" => [
                "\x1b[0m", "\x1b[2m", "\x1b[3m", "\x1b[1m", "\x1b[32m", "\x1b[33m", "\x1b[34m",
            ]
            .iter()
            .fold(stopped.stderr.clone(), |text, colour| {
                text.replace(colour, "")
            }),
            _ => stopped.stderr.clone(),
        };
        assert!(
            !without_colours.contains(wild),
            "{format} {color} {without_colours:?}"
        );
        assert!(
            without_colours.contains("not\\xfftext\\xc3")
                || without_colours.contains("not\\\\xfftext\\\\xc3"),
            "{without_colours}"
        );
        if format == "json" {
            let messages = stopped
                .stderr
                .lines()
                .filter_map(|line| serde_json::from_str::<Value>(line).ok());
            assert!(
                messages.into_iter().any(|line| line["message"] == FORGED),
                "{}",
                stopped.stderr
            );
        } else {
            assert!(
                without_colours.contains("one\\r2026-11-27"),
                "{without_colours}"
            );
            assert!(
                !without_colours
                    .lines()
                    .any(|line| line.starts_with("2026-11-27T00:00:00")),
                "{without_colours}"
            );
        }
    }
}

#[tokio::test]
async fn a_long_line_is_split_between_characters() {
    let server = Tidegate::serve(&component("rogue"), &[]);
    soon("to print", reqwest::get(server.url("/print/long")))
        .await
        .unwrap();
    let stopped = server.stop();
    let pieces: Vec<&str> = stopped
        .stderr
        .lines()
        .filter_map(|line| line.split_once(" app: ")?.1.split(' ').next())
        .collect();
    let whole = format!("{}é{}", "x".repeat(8191), "y".repeat(20_000));
    assert!(pieces.len() >= 4 && pieces.iter().all(|piece| piece.len() <= 8192));
    assert_eq!(pieces.concat(), whole);
}

#[tokio::test]
async fn output_is_limited_per_instance_and_per_app() {
    for settings in [
        "[app]\ninstance_output_rate = \"20 KiB\"\n",
        "[app]\noutput_rate = \"20 KiB\"\n",
    ] {
        let (server, _config) = serve(&component("rogue"), settings, &["--workers", "1"]);
        let get = async |path: &str| {
            soon(path, reqwest::get(server.url(path)))
                .await
                .unwrap()
                .status()
                .as_u16()
        };
        assert_eq!(get("/print/kilobyte-100").await, 204);
        server.wait_for("lines of the app's output were left out");
        // The app's output is logged again in a later second.
        let until = Instant::now() + PATIENCE;
        let mut lines = 0;
        while !server.stderr().contains(" app: a line") {
            assert!(Instant::now() < until, "{}", server.stderr());
            assert_eq!(get("/print/line").await, 204);
            lines += 1;
        }
        let reported = |log: &str| -> u64 {
            log.lines()
                .filter(|line| line.contains("output were left out"))
                .map(|line| number(line, "lines="))
                .sum()
        };
        let printed =
            |log: &str, what: &str| log.lines().filter(|line| line.contains(what)).count() as u64;
        // All missing lines are reported, also when nothing more is printed.
        let missing =
            |log: &str| 100 + lines - printed(log, " app: kkkk") - printed(log, " app: a line");
        while reported(&server.stderr()) < missing(&server.stderr()) {
            assert!(Instant::now() < until, "{}", server.stderr());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let stopped = server.stop();
        let dropped = stopped.counter("output_dropped");
        assert!(dropped > 0 && printed(&stopped.stderr, " app: kkkk") < 100);
        assert_eq!(
            (reported(&stopped.stderr), missing(&stopped.stderr)),
            (dropped, dropped),
            "{}",
            stopped.stderr
        );
    }
}
