//! What keeps an app from being served: every code has an app that triggers it, and a report that is the same to the letter.

mod support;

use serde_json::Value;
use std::{env, fs, path::Path};
use support::{
    fixture::{Fixture, core_module},
    tidegate,
};
use tidegate_hub::Target::{Events, Http, WebSocket};

type Routes = &'static [(&'static str, &'static str, tidegate_hub::Target)];

/// An app of these routes that exports every handler.
fn app(routes: Routes) -> Fixture<'static> {
    let handlers = &["http-handler", "websocket-handler", "events-handler", "room-handler"];
    Fixture { routes, handlers, ..Fixture::default() }
}

/// A code, and an app that has that problem.
fn cases() -> Vec<(&'static str, Vec<u8>)> {
    let fine = || app(&[("GET", "/", Http)]).build();
    vec![
        ("TG001", app(&[("GET", "/users/{id}.json", Http)]).build()),
        ("TG002", app(&[("GET", "/{*rest}", Http)]).build()),
        ("TG003", app(&[("POST", "/__loaders", Http)]).build()),
        ("TG004", app(&[("GET", "/users/{id}", Http), ("GET", "/users/{name}", Http)]).build()),
        ("TG005", app(&[("", "/users", Http), ("GET", "/users", Http)]).build()),
        ("TG006", app(&[("get", "/users", Http), ("FETCH", "/", Http)]).build()),
        ("TG007", app(&[("GET,POST", "/echo", WebSocket)]).build()),
        ("TG008", Fixture { handlers: &["http-handler"], ..app(&[("GET", "/feed", Events)]) }.build()),
        ("TG009", Fixture { room: Some("Chat Room"), ..app(&[("GET", "/rooms/{name}", Http)]) }.build()),
        ("TG010", Vec::new()), // there is no such file
        ("TG011", fine()),     // its settings allow less
        ("TG012", b"(component)".to_vec()),
        ("TG013", core_module()),
        ("TG014", Fixture { handlers: &["http-handler"], ..Fixture::default() }.build()),
        ("TG015", replace(fine(), b"@0.1.0", b"@0.2.0")),
        ("TG016", Fixture { import: Some("test:secret/door"), ..app(&[("GET", "/", Http)]) }.build()),
        ("TG017", fine()[..200].to_vec()),
        ("TG018", Fixture { speechless: true, ..app(&[("GET", "/", Http)]) }.build()),
    ]
}

fn replace(mut bytes: Vec<u8>, text: &[u8], with: &[u8]) -> Vec<u8> {
    let places: Vec<usize> = bytes.windows(text.len()).enumerate().filter(|(_, window)| *window == text).map(|(at, _)| at).collect();
    places.into_iter().for_each(|at| bytes[at..at + with.len()].copy_from_slice(with));
    bytes
}

#[test]
fn every_code_is_triggered_reported_and_explained() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("small.toml"), "[app]\nfile = \"1 KiB\"\n").unwrap();
    let mut reports = String::new();
    for (code, wasm) in cases() {
        let (file, mut arguments) = (format!("{}.wasm", code.to_lowercase()), vec![]);
        match code {
            "TG010" => {}
            _ => fs::write(dir.path().join(&file), wasm).unwrap(),
        }
        if code == "TG011" {
            arguments = vec!["--config", "small.toml"];
        }
        let run = |more: &[&str]| tidegate().current_dir(&dir).arg("check").arg(&file).args(&arguments).args(more).output().unwrap();
        let (told, json) = (run(&[]), run(&["--json"]));
        let text = String::from_utf8(told.stderr).unwrap();
        assert!(text.starts_with(&format!("error[{code}]: ")) && told.stdout.is_empty(), "{code}\n{text}");
        assert_eq!((told.status.code(), json.status.code()), (Some(1), Some(1)), "{code}");
        let json: Value = serde_json::from_slice(&json.stdout).unwrap();
        assert_eq!((&json["ok"], &json["problems"][0]["code"]), (&Value::Bool(false), &Value::from(code)));
        reports += &text;
        reports += "\n";
    }
    // Places in a trap's code are the compiler's.
    let stable = |text: &str| text.lines().filter(|line| !line.contains("offset 0x")).collect::<Vec<_>>().join("\n");
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/reports.txt");
    if env::var_os("TIDEGATE_GOLDEN").is_some() {
        fs::write(&golden, &reports).unwrap();
    }
    let expected = fs::read_to_string(&golden).unwrap();
    assert_eq!(stable(&reports), stable(&expected), "with TIDEGATE_GOLDEN=1 this test writes {}", golden.display());
}

#[test]
fn what_a_code_means_is_told_and_what_is_no_code_is_refused() {
    let explain = |codes: &[&str]| tidegate().arg("explain").args(codes).output().unwrap();
    let one = explain(&["TG003"]);
    assert!(String::from_utf8(one.stdout).unwrap().starts_with("TG003: a reserved path\n\n"));
    let all = String::from_utf8(explain(&[]).stdout).unwrap();
    assert_eq!((all.lines().count(), all.lines().next()), (18, Some("TG001: not a valid pattern")));
    let none = explain(&["TG999"]);
    assert_eq!((none.status.code(), none.stderr), (Some(2), b"error: there is no code TG999: `tidegate explain` lists all\n".to_vec()));
}

#[test]
fn an_app_that_can_be_served_is_ok_in_json_as_well() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("app.wasm"), app(&[("GET", "/", Http)]).build()).unwrap();
    let output = tidegate().current_dir(&dir).args(["check", "app.wasm", "--json"]).output().unwrap();
    let json: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((output.status.code(), &json["ok"], &json["routes"]), (Some(0), &Value::Bool(true), &Value::from(1)));
}
