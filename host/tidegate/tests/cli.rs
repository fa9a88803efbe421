//! The command line from outside: which arguments are refused with which line, what is listed, and
//! how a server starts and stops.

mod support;

use rustix::process::Signal;
use std::{fs, net::TcpListener, path::Path, process::Output};
use support::{
    Tidegate,
    fixture::{Fixture, core_module},
    tidegate,
};
use tempfile::TempDir;
use tidegate_routing::Target::{Feed, Http, Stream, WebSocket};

/// A directory with one of each file that the tests below name.
fn temp_dir() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, bytes: &[u8]| fs::write(dir.path().join(name), bytes).unwrap();
    write(
        "app.wasm",
        &Fixture {
            routes: &[("GET", "/", Http)],
            handlers: &["http-handler"],
            ..Fixture::default()
        }
        .build(),
    );
    write("empty.wasm", b"");
    write("text.wasm", b"not wasm at all");
    write("core.wasm", &core_module());
    write(
        "half.wasm",
        &Fixture {
            routes: &[("GET", "/", Http)],
            handlers: &["http-handler"],
            ..Fixture::default()
        }
        .build()[..200],
    );
    write(
        "world.wasm",
        &Fixture {
            handlers: &["http-handler"],
            ..Fixture::default()
        }
        .build(),
    );
    write(
        "door.wasm",
        &Fixture {
            routes: &[("GET", "/", Http)],
            handlers: &["http-handler"],
            import: Some("test:secret/door"),
            ..Fixture::default()
        }
        .build(),
    );
    write("many.wasm", &many().build());
    write("bad.toml", b"[server]\n\nlisen = \"127.0.0.1:0\"\n");
    write("broken.toml", b"[server\n");
    write(
        "good.toml",
        b"[server]\nlisten = \"127.0.0.1:0\"\n[limits]\ntags_max = 3\n",
    );
    fs::create_dir(dir.path().join("files")).unwrap();
    fs::write(dir.path().join("files/a.txt"), "a file").unwrap();
    dir
}

/// A component that violates five rules at once.
fn many() -> Fixture<'static> {
    let routes = &[
        ("GET", "/ok", Http),
        ("get", "/__a", Http),
        ("GET", "/{*rest}", Http),
        ("GET", "/ok/", Http),
        ("GET", "/feed", Feed),
    ];
    Fixture {
        routes,
        handlers: &["http-handler"],
        ..Fixture::default()
    }
}

fn run(dir: &TempDir, args: &[&str]) -> Output {
    tidegate().current_dir(dir).args(args).output().unwrap()
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

#[test]
fn every_usage_error_is_one_line_and_an_exit_code() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let next = format!(
        "127.0.0.1:{}",
        listener
            .local_addr()
            .unwrap()
            .port()
            .checked_add(1)
            .unwrap_or(8080)
    );
    let in_use = format!(
        "error: {address} is in use: choose another address, as in --listen {next} (port 0 for any free one)"
    );
    let cases: &[(&[&str], i32, &str)] = &[
        // problems of the app
        (
            &["serve", "nowhere.wasm"],
            1,
            "error[TG010]: nowhere.wasm can't be read: No such file or directory (os error 2)",
        ),
        (
            &["check", "nowhere.wasm"],
            1,
            "error[TG010]: nowhere.wasm can't be read: No such file or directory (os error 2)",
        ),
        (
            &["routes", "nowhere.wasm"],
            1,
            "error[TG010]: nowhere.wasm can't be read: No such file or directory (os error 2)",
        ),
        (
            &["check", "files"],
            1,
            "error[TG010]: files can't be read: Is a directory (os error 21)",
        ),
        (
            &["check", "empty.wasm"],
            1,
            "error[TG012]: empty.wasm is not WebAssembly",
        ),
        (
            &["check", "text.wasm"],
            1,
            "error[TG012]: text.wasm is not WebAssembly",
        ),
        (
            &["check", "half.wasm"],
            1,
            "error[TG017]: half.wasm can't be loaded: ",
        ),
        (
            &["check", "core.wasm"],
            1,
            "error[TG013]: core.wasm is a core module, not a component",
        ),
        (
            &["check", "world.wasm"],
            1,
            "error[TG014]: world.wasm is a component for another world: it exports neither tidegate:app/manifest@0.2.0 nor a wasi:http handler",
        ),
        (
            &["check", "door.wasm"],
            1,
            "error[TG016]: door.wasm imports test:secret/door, which this host does not have",
        ),
        (&["serve", "app.wasm", "--listen", &address], 1, &in_use),
        // problems of the arguments
        (
            &["serve"],
            2,
            "error: the following required arguments were not provided:",
        ),
        (
            &["serve", "app.wasm", "--port", "80"],
            2,
            "error: unexpected argument '--port' found",
        ),
        (
            &["run", "app.wasm"],
            2,
            "error: unrecognized subcommand 'run'",
        ),
        (
            &["serve", "app.wasm", "--listen", "8080"],
            2,
            "error: invalid value '8080' for '--listen <ADDRESS>': \"8080\" is not an address: write host and port, as in \"127.0.0.1:8080\" or \"[::1]:8080\"",
        ),
        (
            &["serve", "app.wasm", "--listen", "host.invalid:80"],
            2,
            "error: can't resolve host.invalid:80: ",
        ),
        (
            &["serve", "app.wasm", "--assets", "nowhere"],
            2,
            "error: invalid value 'nowhere' for '--assets <DIR>': can't read the directory nowhere: No such file or directory (os error 2)",
        ),
        (
            &["serve", "app.wasm", "--assets", "app.wasm"],
            2,
            "error: invalid value 'app.wasm' for '--assets <DIR>': app.wasm is not a directory",
        ),
        (
            &["serve", "app.wasm", "--memory", "much"],
            2,
            "error: invalid value 'much' for '--memory <SIZE>': \"much\" is not a size: write a number of bytes, or one with KiB, MiB or GiB, as in \"64 MiB\"",
        ),
        (
            &["serve", "app.wasm", "--workers", "0"],
            2,
            "error: invalid value '0' for '--workers <N>': 0 is not from 1 to 1024",
        ),
        (
            &["serve", "app.wasm", "--limit", "tags=3"],
            2,
            "error: --limit: unknown key \"tags\" in [limits]: did you mean \"tags_max\"?",
        ),
        (
            &["serve", "app.wasm", "--origin", "example.org"],
            2,
            "error: --origin: \"example.org\" is not an origin: write scheme and host, as in \"https://example.org\"",
        ),
        (
            &["serve", "app.wasm", "--log", "inof"],
            2,
            "error: invalid value 'inof' for '--log <LEVEL>': write error, warn, info, debug, trace or off, or a filter as in \"tidegate_edge=debug,info\"",
        ),
        (
            &["check", "app.wasm", "--dir", "files"],
            2,
            "error: invalid value 'files' for '--dir <HOST::GUEST[::rw]>': \"files\" is not a grant of a directory: write \"HOST::GUEST\", or \"HOST::GUEST::rw\" to let the app write",
        ),
        // problems of settings files
        (
            &["serve", "app.wasm", "--config", "none.toml"],
            2,
            "error: can't read the settings in none.toml: No such file or directory (os error 2)",
        ),
        (
            &["serve", "app.wasm", "--config", "files"],
            2,
            "error: can't read the settings in files: Is a directory (os error 21)",
        ),
        (
            &["check", "app.wasm", "--config", "bad.toml"],
            2,
            "error: bad.toml:3: unknown key \"lisen\" in [server]: did you mean \"listen\"?",
        ),
        (
            &["check", "app.wasm", "--config", "broken.toml"],
            2,
            "error: broken.toml:1: ",
        ),
    ];
    let dir = temp_dir();
    for (args, code, line) in cases {
        let output = run(&dir, args);
        let stderr = text(&output.stderr);
        let first = stderr.lines().next().unwrap_or_default();
        assert_eq!(output.status.code(), Some(*code), "{args:?}\n{stderr}");
        // A text that ends in a colon and a space is the beginning of a line; the system or a
        // library wrote the rest.
        let is_expected = if line.ends_with(": ") {
            first.starts_with(line) && first.len() > line.len()
        } else {
            first == *line
        };
        assert!(is_expected, "{args:?}\n{stderr}");
        // A problem of an app has a report, every other problem one line; clap also shows the
        // usage.
        assert!(
            *code == 2 || line.starts_with("error[") || stderr.lines().count() == 1,
            "the error has more than one line: {args:?}\n{stderr}"
        );
        assert_eq!(text(&output.stdout), "", "{args:?}");
    }
}

#[test]
fn every_broken_rule_is_listed_and_nothing_is_served() {
    let dir = temp_dir();
    let expected = [
        "error[TG006]: not a method of a route",
        "error[TG003]: a reserved path",
        "error[TG002]: matches every path",
        "error[TG004]: the same as an earlier route",
        "error[TG008]: its handler is not exported",
        "many.wasm can't be served: 5 problems. For details run tidegate explain TG002 TG003 TG004 TG006 TG008",
    ];
    for args in [
        &["check", "many.wasm"][..],
        &["serve", "many.wasm", "--listen", "127.0.0.1:0"],
        &["routes", "many.wasm"],
    ] {
        let output = run(&dir, args);
        let heads: Vec<&str> = text(&output.stderr)
            .lines()
            .filter(|line| !line.is_empty() && !line.starts_with(' '))
            .collect();
        assert_eq!(
            (output.status.code(), &heads[..]),
            (Some(1), &expected[..]),
            "{args:?}"
        );
    }
}

#[test]
fn a_valid_manifest_is_checked_and_listed() {
    let dir = temp_dir();
    let routes = &[
        ("GET,POST", "/users/{id}", Http),
        ("", "/any", Http),
        ("GET", "/ws", WebSocket),
        ("GET", "/feed", Feed),
    ];
    let handlers = &[
        "http-handler",
        "websocket-handler",
        "feed-handler",
        "guard-handler",
    ];
    let app = Fixture {
        routes,
        guards: &["/*", "/private/*"],
        handlers,
        ..Fixture::default()
    }
    .build();
    fs::write(dir.path().join("table.wasm"), app).unwrap();

    let check = run(&dir, &["check", "table.wasm"]);
    assert_eq!(
        (
            check.status.code(),
            text(&check.stdout),
            text(&check.stderr)
        ),
        (
            Some(0),
            "OK: 4 routes (2 http, 1 websocket, 1 feed), 2 guards\n",
            ""
        )
    );
    let routes = run(&dir, &["routes", "table.wasm"]);
    let expected = "\
GET,POST  /users/{id}  http
any       /any         http
GET       /ws          websocket
GET       /feed        feed

guards, in their order
/*
/private/*
";
    assert_eq!(
        (routes.status.code(), text(&routes.stdout)),
        (Some(0), expected)
    );
    let json = run(&dir, &["routes", "--json", "table.wasm"]);
    let json: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!(
        json["routes"][2],
        serde_json::json!({ "index": 2, "methods": ["GET"], "pattern": "/ws", "target": "websocket" })
    );
    assert_eq!(
        json["guards"][1],
        serde_json::json!({ "index": 1, "pattern": "/private/*" })
    );
}

#[test]
fn a_stream_route_needs_a_wasi_http_export() {
    let dir = temp_dir();
    let app = Fixture {
        routes: &[("GET", "/", Stream)],
        handlers: &["http-handler"],
        ..Fixture::default()
    }
    .build();
    fs::write(dir.path().join("stream.wasm"), app).unwrap();
    let output = run(&dir, &["check", "stream.wasm"]);
    assert!(
        text(&output.stderr).contains("export `wasi:http/incoming-handler`"),
        "{}",
        text(&output.stderr)
    );
}

#[test]
fn completions_and_man_page_list_every_command() {
    let dir = tempfile::tempdir().unwrap();
    for shell in ["bash", "zsh", "fish"] {
        let output = run(&dir, &["completions", shell]);
        let script = text(&output.stdout);
        assert!(
            output.status.success()
                && ["reload", "explain", "--rollback"]
                    .iter()
                    .all(|word| script.contains(word.trim_start_matches('-'))),
            "{shell}"
        );
    }
    assert!(run(&dir, &["man", "pages"]).status.success());
    for page in ["tidegate.1", "tidegate-serve.1", "tidegate-data-backup.1"] {
        assert!(
            fs::read_to_string(dir.path().join("pages").join(page))
                .unwrap()
                .contains(".SH"),
            "{page}"
        );
    }
}

#[test]
fn colours_appear_only_on_request() {
    let dir = temp_dir();
    let cases: [(&[&str], bool); 3] = [
        (&[], false),
        (&["--color", "always"], true),
        (&["--color", "never"], false),
    ];
    for (args, coloured) in cases {
        let output = run(&dir, &[&["check", "core.wasm"], args].concat());
        assert_eq!(
            text(&output.stderr).contains("\x1b[1;31merror[TG013]"),
            coloured,
            "{args:?}"
        );
    }
}

#[test]
fn help_and_version_are_on_stdout() {
    let dir = temp_dir();
    for (args, contains) in [
        (&["--help"][..], "Commands:"),
        (&["serve", "--help"], "--config"),
        (&["serve", "-h"], "Examples:"),
        (&["check", "--help"], "--allow-outbound"),
        (&["--version"], env!("CARGO_PKG_VERSION")),
    ] {
        let output = run(&dir, args);
        assert_eq!(output.status.code(), Some(0), "{args:?}");
        assert!(text(&output.stdout).contains(contains), "{args:?}");
        assert!(
            text(&output.stdout).lines().count() < 70,
            "the help of {args:?} is longer than two screens"
        );
    }
}

#[tokio::test]
async fn the_start_report_lists_routes_and_the_end_report_lists_counters() {
    let dir = temp_dir();
    let files = dir.path().join("files");
    let server = Tidegate::serve(
        &dir.path().join("app.wasm"),
        &[
            "--assets",
            files.to_str().unwrap(),
            "--limit",
            "tags_max=3",
            "--workers",
            "1",
        ],
    );
    let file = reqwest::get(server.url("/a.txt")).await.unwrap();
    assert_eq!(
        (file.status().as_u16(), file.text().await.unwrap()),
        (200, "a file".into())
    );
    assert_eq!(
        reqwest::get(server.url("/")).await.unwrap().status(),
        500,
        "the fixture's handlers trap"
    );

    let stopped = server.stop();
    assert_eq!(stopped.status.code(), Some(0));
    for line in [
        "  routes   GET  /  http\n",
        "(precede the routes)\n",
        "  limits   tags_max = 3 (default 10)\n",
        "Ctrl-C stops the server",
    ] {
        assert!(
            stopped.stderr.contains(line),
            "{line:?} is not in\n{}",
            stopped.stderr
        );
    }
    let last = stopped.stderr.lines().last().unwrap();
    assert_eq!(
        last,
        "stopped: requests=2 connections=0 feeds=0 guest_calls=1 faults=1 publications=0 deliveries=0 auto_responses=0 wakes=0 commits=0 late_heads=0 stalled_uploads=0 stalled_readers=0 control_floods=0 output_dropped=0 refused_sockets=0 refused_address=0 refused_descriptors=0 refused_memory=0 refused_websockets=0 refused_feeds=0 log_dropped=0"
    );
    assert_eq!(stopped.counter("faults"), 1);
}

#[test]
fn each_signal_drains_with_exit_code_zero() {
    let dir = temp_dir();
    for signal in [Signal::INT, Signal::TERM] {
        let server = Tidegate::serve(&dir.path().join("app.wasm"), &[]);
        server.signal(signal);
        assert_eq!(server.wait().status.code(), Some(0), "{signal:?}");
    }
}

#[test]
fn settings_are_read_only_from_the_named_file() {
    let dir = temp_dir();
    fs::copy(
        dir.path().join("bad.toml"),
        dir.path().join("tidegate.toml"),
    )
    .unwrap();
    let mut command = tidegate();
    command
        .current_dir(&dir)
        .args(["serve", "app.wasm", "--config", "good.toml"]);
    let stopped = Tidegate::spawn(command).stop();
    assert!(
        stopped.stderr.contains("tags_max = 3 (default 10)"),
        "{}",
        stopped.stderr
    );
}

#[test]
fn the_log_is_json_on_request() {
    let dir = temp_dir();
    let stopped = Tidegate::serve(&dir.path().join("app.wasm"), &["--log-format", "json"]).stop();
    let lines: Vec<serde_json::Value> = stopped
        .stderr
        .lines()
        .map(|line| serde_json::from_str(line).expect(line))
        .collect();
    assert_eq!(lines.first().unwrap()["message"], "serving");
    assert_eq!(lines.last().unwrap()["requests"], 0);
    assert!(
        !stopped.stderr.contains('\u{1b}'),
        "the output has no colours without a terminal"
    );
}

#[test]
fn compiled_code_is_cached_and_reused() {
    let dir = temp_dir();
    let cache = dir.path().join("cache");
    let app = dir.path().join("app.wasm");
    let start = |args: &[&str]| Tidegate::serve(&app, args).stop().stderr;
    let cached = ["--cache", cache.to_str().unwrap()];
    assert!(start(&cached).contains("app.wasm, compiled in "));
    assert!(start(&cached).contains("app.wasm, from the cache in "));
    assert!(start(&["--no-cache"]).contains("app.wasm, compiled in "));
    assert!(Path::new(&cache).is_dir());
}
