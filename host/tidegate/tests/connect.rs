//! `tidegate connect` as a user or a script runs it, against the real server.

mod support;

use std::{
    io::Write as _,
    process::{Output, Stdio},
};
use support::{Tidegate, component, tidegate};

/// Writes these lines to stdin, and waits for the end, or with `waits` for the server's end.
fn connect(url: &str, args: &[&str], lines: &str, waits: bool) -> Output {
    let mut command = tidegate();
    let command = command
        .arg("connect")
        .arg(url)
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    // The process may have ended before it read anything.
    let mut stdin = child.stdin.take();
    _ = stdin.as_mut().unwrap().write_all(lines.as_bytes());
    if !waits {
        stdin = None;
    }
    let output = child.wait_with_output().unwrap();
    drop(stdin);
    output
}

fn report(output: &Output) -> (Option<i32>, &str, &str) {
    let text = |bytes| std::str::from_utf8(bytes).unwrap();
    (
        output.status.code(),
        text(&output.stdout),
        text(&output.stderr),
    )
}

#[test]
fn each_line_is_a_message_and_end_of_input_closes_after_all_answers() {
    let server = Tidegate::serve(&component("echo"), &[]);
    let url = server.ws("/echo");
    let output = connect(&url, &["--protocol", "v1.echo"], "hi\n\nü\n", false);
    let (code, stdout, stderr) = report(&output);
    assert_eq!((code, stdout), (Some(0), "hi\n\nü\n"));
    assert_eq!(
        stderr,
        "connected, subprotocol v1.echo; Ctrl-D closes\nclosed with 1000\n"
    );
    assert_eq!(
        report(&connect(&url, &["--binary"], "00 ff\n", false)).1,
        "0x00ff\n"
    );
    let wrong = connect(&url, &["--binary"], "hi\n", false);
    assert_eq!(
        (
            report(&wrong).1,
            report(&wrong).2.contains("each line is hex")
        ),
        ("", true)
    );
}

#[test]
fn refusals_and_closes_are_reported_and_set_the_exit_code() {
    let server = Tidegate::serve(&component("rogue"), &[]);
    let nowhere = "ws://127.0.0.1:9/".to_owned();
    let cases: [(String, &str, Option<i32>, &str); 7] = [
        (
            server.ws("/socket"),
            "close 1000",
            Some(0),
            "closed with 1000: as asked",
        ),
        (
            server.ws("/socket"),
            "close 4000",
            Some(1),
            "error: closed with 4000: as asked",
        ),
        (
            server.ws("/socket"),
            "do panic",
            Some(1),
            "error: closed with 1011: internal error (id ",
        ),
        (
            server.ws("/socket?refuse=x"),
            "",
            Some(1),
            "refused with 418 I'm a teapot: only coffee",
        ),
        (
            nowhere,
            "",
            Some(1),
            "error: ws://127.0.0.1:9/: Connection refused",
        ),
        (
            "http://127.0.0.1".into(),
            "",
            Some(2),
            "is no URL of a WebSocket: write it as in ws://",
        ),
        (
            "wss://127.0.0.1".into(),
            "",
            Some(2),
            "error: wss needs TLS",
        ),
    ];
    for (url, line, code, expected) in cases {
        let output = connect(&url, &[], &format!("{line}\n"), true);
        let (ended, _, stderr) = report(&output);
        assert!(
            ended == code && stderr.contains(expected),
            "{url} {line:?}\n{ended:?} {stderr}"
        );
    }
}

#[test]
fn the_bench_reports_latencies() {
    let server = Tidegate::serve(&component("echo"), &[]);
    let output = connect(&server.ws("/echo"), &["--bench", "100"], "", false);
    let (code, stdout, _) = report(&output);
    assert!(
        code == Some(0)
            && stdout.starts_with("100 round trips of 64 bytes: ")
            && stdout.contains(" µs, p99 "),
        "{stdout}"
    );
}
