//! `tidegate test`: conversations with real components, without a network.

mod support;

use std::{fs, path::Path};
use support::{component, run};

/// Plays one test with these steps against the app `rogue`. Returns the exit code and the output.
fn play(steps: &str) -> (Option<i32>, String) {
    let dir = tempfile::tempdir().unwrap();
    let script = dir.path().join("script.toml");
    fs::write(
        &script,
        format!("[[test]]\nname = \"it\"\nsteps = [\n{steps}\n]\n"),
    )
    .unwrap();
    fs::write(dir.path().join("bad.wasm"), "no component").unwrap();
    let app = component("rogue");
    let output = run(&[
        "test",
        app.to_str().unwrap(),
        script.to_str().unwrap(),
        "--log",
        "off",
    ]);
    let all =
        String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap();
    (
        output.status.code(),
        all.replace(dir.path().to_str().unwrap(), "PLACE"),
    )
}

#[test]
fn the_scripts_of_every_example_pass() {
    let examples =
        fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples")).unwrap();
    let mut played = 0;
    for example in examples.map(|entry| entry.unwrap()) {
        let script = example.path().join("conversations.toml");
        if script.is_file() {
            let app = component(example.file_name().to_str().unwrap());
            let output = run(&["test", app.to_str().unwrap(), script.to_str().unwrap()]);
            assert!(
                output.status.success(),
                "{}\n{}",
                script.display(),
                String::from_utf8_lossy(&output.stdout)
            );
            played += 1;
        }
    }
    assert!(played >= 5, "only {played} examples have conversations");
}

#[test]
fn every_kind_of_step_has_its_effect() {
    for steps in [
        // A trap closes only its own connection.
        r#"{ connect = "ann", to = "/socket" }, { connect = "bob", to = "/socket" },
           { send = "ann", text = "do panic" }, { expect = "ann", closed = 1011, reason = "internal error" },
           { send = "bob", text = "say fine" }, { expect = "bob", text = "fine" }"#,
        // A client that disconnects is closed with 1006.
        r#"{ connect = "ann", to = "/socket?tag=x" }, { connect = "bob", to = "/socket" }, { disconnect = "ann" },
           { send = "bob", text = "tagged x" }, { expect = "bob", text = "" }"#,
        // A feed receives publications from outside.
        r#"{ subscribe = "ann", to = "/feed?topic=news" }, { expect = "ann", event = "begun" },
           { publish = "news", text = "high water", event = "alert" }, { expect = "ann", event = "alert", text = "high water" }"#,
        // Events that can't be made durable have no effect.
        r#"{ request = "POST /rooms/tea", body = "one", text = "0" }, { fail_next_commit = true },
           { request = "POST /rooms/tea", body = "two", status = 500 }, { request = "GET /rooms/tea", text = "1\none" }"#,
        // A room that was asleep wakes as a new instance; a room after a restart has its stored
        // data.
        r#"{ connect = "ann", to = "/rooms/tea" }, { send = "ann", text = "wake" }, { expect = "ann", text = "1" }, { sleep = "/rooms/tea" },
           { send = "ann", text = "wake" }, { expect = "ann", text = "2" }, { restart = true }, { expect = "ann", closed = 1006 },
           { connect = "ann", to = "/rooms/tea" }, { send = "ann", text = "wake" }, { expect = "ann", text = "3" }"#,
        // The next steps check guards, headers of answers, and refusals.
        r#"{ request = "GET /guarded/calm", header = { x-guarded = "yes" }, contains = "calm" }, { request = "GET /status/204", status = 204 },
           { connect = "ann", to = "/socket?refuse=1", status = 418 }, { connect = "ann", to = "/nowhere", status = 404 },
           { request = "GET /socket", status = 426 }"#,
        // The server closes a connection whose message is too large.
        r#"{ connect = "ann", to = "/socket" }, { send = "ann", text = "close 4001" }, { expect = "ann", closed = 4001, reason = "asked" }"#,
    ] {
        assert_eq!(
            play(steps),
            (
                Some(0),
                "PLACE/script.toml\n  ok     it\n\n1 test passed, 0 failed\n".to_owned()
            ),
            "{steps}"
        );
    }
}

#[test]
fn a_failed_expectation_is_reported_with_its_line() {
    for (steps, error) in [
        (
            r#"{ request = "GET /calm", text = "storm" }"#,
            "4: answered \"calm\" instead of \"storm\"",
        ),
        (
            r#"{ request = "GET /calm", status = 404 }"#,
            "4: answered 200 OK instead of 404: \"calm\"",
        ),
        (
            "\n{ request = \"GET /status/500\" }",
            "5: answered 500 Internal Server Error: \"\"",
        ),
        (
            r#"{ request = "GET /calm", header = { x-no = "1" } }"#,
            "4: the header x-no is None instead of \"1\"",
        ),
        (
            r#"{ send = "ann", text = "x" }"#,
            "4: there is no client ann: add a step that connects or subscribes it",
        ),
        (
            r#"{ connect = "ann", to = "/socket?refuse=1" }"#,
            "4: ann has no WebSocket: refused with 418 I'm a teapot: only coffee\nhere",
        ),
        (
            r#"{ connect = "ann", to = "/socket", status = 403 }"#,
            "4: ann has a WebSocket, but 403 was expected",
        ),
        (
            r#"{ connect = "ann", to = "/socket" }, { send = "ann", text = "say x" }, { expect = "ann", nothing = true }"#,
            "4: ann received \"x\", but nothing was expected",
        ),
        (
            r#"{ connect = "ann", to = "/socket" }, { send = "ann", text = "close 4001" }, { expect = "ann", text = "x" }"#,
            "4: ann received the close 4001 (as asked) instead of \"x\"",
        ),
        (r#"{ sleep = "/calm" }"#, "4: no room has the path /calm"),
        (
            r#"{ reload = "bad.wasm" }"#,
            "4: PLACE/bad.wasm is not WebAssembly",
        ),
    ] {
        let (code, all) = play(steps);
        assert!(
            code == Some(1) && all.contains(&format!("PLACE/script.toml:{error}")),
            "{steps}\n{error}\n{all}"
        );
        assert!(
            all.contains("  FAILED it\n") && all.ends_with("\n0 tests passed, 1 failed\n"),
            "{all}"
        );
    }
}

#[test]
fn a_script_with_an_error_is_not_started() {
    for (steps, error) in [
        (
            r#"{ snd = "ann" }"#,
            "PLACE/script.toml:4: unknown key \"snd\": did you mean \"send\"?",
        ),
        ("{ send = ", "PLACE/script.toml:5: missing array opening"),
    ] {
        let (code, all) = play(steps);
        assert!(
            code == Some(2) && all.starts_with(&format!("error: {error}")),
            "{all}"
        );
    }
    let output = run(&["test", "app.wasm", "/nowhere.toml"]);
    assert_eq!((output.status.code(), output.stdout.len()), (Some(2), 0));
}
