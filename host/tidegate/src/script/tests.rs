//! Tests of the parser of scripts: each step, and each error with its line.

use super::*;
use serde_json::json;

fn action(step: &str) -> Result<Action, String> {
    let text = format!("[[test]]\nname = \"x\"\nsteps = [\n{{ {step} }},\n]\n");
    parse(&text, Path::new("/base"))
        .map(|mut tests| tests.remove(0).steps.remove(0).action)
        .map_err(|wrong| wrong.to_string())
}

#[test]
fn every_step_is_read() {
    let client = || "ann".to_owned();
    let cases = [
        (
            "disconnect = \"ann\"",
            Action::Disconnect { client: client() },
        ),
        (
            "close = \"ann\"",
            Action::Close {
                client: client(),
                code: 1000,
                reason: String::new(),
            },
        ),
        (
            "send = \"ann\", json = { a = [1, 2.5, true] }",
            Action::Send {
                client: client(),
                payload: Payload::Text(r#"{"a":[1,2.5,true]}"#.into()),
            },
        ),
        (
            "send = \"ann\", hex = \"00 ff\"",
            Action::Send {
                client: client(),
                payload: Payload::Binary(vec![0, 255]),
            },
        ),
        (
            "expect = \"ann\", closed = 1011",
            Action::Expect {
                client: client(),
                what: Expected::Closed(1011, None),
            },
        ),
        (
            "expect = \"ann\", event = \"tick\", json = { a = 1 }",
            Action::Expect {
                client: client(),
                what: Expected::Message(vec![
                    Assertion::Event("tick".into()),
                    Assertion::Json(json!({ "a": 1 })),
                ]),
            },
        ),
        (
            "sleep = \"/rooms/tea\"",
            Action::Sleep {
                path: "/rooms/tea".into(),
            },
        ),
        (
            "advance = \"90s\"",
            Action::Advance {
                time: Duration::from_secs(90),
            },
        ),
        ("reload = true", Action::Reload { file: None }),
        (
            "reload = \"next.wasm\"",
            Action::Reload {
                file: Some("/base/next.wasm".into()),
            },
        ),
        ("restart = true", Action::Restart),
        ("fail_next_commit = true", Action::FailNextCommit),
    ];
    for (step, expected) in cases {
        assert_eq!(action(step), Ok(expected), "{step}");
    }
}

#[test]
fn every_error_has_its_line_and_a_correction() {
    let steps = [
        (
            "conect = \"ann\"",
            "4: unknown key \"conect\": did you mean \"connect\"?",
        ),
        ("connect = \"ann\"", "4: to is missing"),
        ("send = \"ann\"", "4: text, json or hex is missing"),
        ("send = \"ann\"", "4: text, json or hex is missing"),
        (
            "send = \"ann\", txt = \"x\", text = \"y\"",
            "4: unknown key \"txt\": did you mean \"text\"?",
        ),
        ("send = 1, text = \"x\"", "4: send: write a string"),
        (
            "send = \"ann\", hex = \"0\"",
            "4: hex: write bytes in hex, as in \"00ff2a\"",
        ),
        (
            "expect = \"ann\"",
            "4: text, contains, json, hex, event, closed, ended or nothing is missing",
        ),
        (
            "expect = \"ann\", nothing = false",
            "4: nothing: write true, or leave it out",
        ),
        (
            "advance = \"soon\"",
            "4: advance: \"soon\" is not a duration: write a number with ms, s, m, h or d, as in \"30s\"",
        ),
        (
            "request = \"/\"",
            "4: request: write method and path, as in \"GET /users/7\"",
        ),
        (
            "request = \"GET /\", status = 70000",
            "4: status: write a number below 65536",
        ),
        (
            "reload = 7",
            "4: reload: write true, or the file of another version",
        ),
        (
            "connect = \"ann\", to = \"/\", headers = [1]",
            "4: headers: write { name = \"value\" }",
        ),
    ];
    for (step, expected) in steps {
        assert_eq!(action(step), Err(expected.to_owned()), "{step}");
    }
    assert!(
        action("")
            .unwrap_err()
            .starts_with("4: a step is one of connect, subscribe, send, expect, ")
    );
    let files = [
        ("", "1: the script has no test: begin one with [[test]]"),
        (
            "\ntests = 1",
            "2: unknown key \"tests\": did you mean \"test\"?",
        ),
        ("[[test]]\nsteps = []", "1: name is missing"),
        (
            "test = 1",
            "1: test: write a list of tables, as in [[test]]",
        ),
    ];
    for (file, expected) in files {
        assert_eq!(
            parse(file, Path::new("")).unwrap_err().to_string(),
            expected,
            "{file:?}"
        );
    }
}
