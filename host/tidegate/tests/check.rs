//! Each problem that prevents an app from being served: every code has an app that triggers it, and
//! a report that is compared byte by byte.

mod support;

use serde_json::Value;
use sha2::{Digest as _, Sha256};
use std::{env, fs, os::unix::fs::PermissionsExt as _, path::Path};
use support::{
    Tidegate, component,
    fixture::{Fixture, built_for_0_1, core_module},
    tidegate,
};
use tidegate_routing::Target::{Feed, Http, WebSocket};

type Routes = &'static [(&'static str, &'static str, tidegate_routing::Target)];

/// An app with these routes that exports every handler.
fn app(routes: Routes) -> Fixture<'static> {
    let handlers = &[
        "http-handler",
        "websocket-handler",
        "feed-handler",
        "room-handler",
    ];
    Fixture {
        routes,
        handlers,
        ..Fixture::default()
    }
}

/// A code, and an app that has its problem.
fn cases() -> Vec<(&'static str, Vec<u8>)> {
    let fine = || app(&[("GET", "/", Http)]).build();
    vec![
        ("TG001", app(&[("GET", "/users/{id}.json", Http)]).build()),
        ("TG002", app(&[("GET", "/{*rest}", Http)]).build()),
        ("TG003", app(&[("POST", "/__loaders", Http)]).build()),
        (
            "TG004",
            app(&[("GET", "/users/{id}", Http), ("GET", "/users/{name}", Http)]).build(),
        ),
        (
            "TG005",
            app(&[("", "/users", Http), ("GET", "/users", Http)]).build(),
        ),
        (
            "TG006",
            app(&[("get", "/users", Http), ("FETCH", "/", Http)]).build(),
        ),
        ("TG007", app(&[("GET,POST", "/echo", WebSocket)]).build()),
        (
            "TG008",
            Fixture {
                handlers: &["http-handler"],
                ..app(&[("GET", "/feed", Feed)])
            }
            .build(),
        ),
        (
            "TG009",
            Fixture {
                room: Some("Chat Room"),
                ..app(&[("GET", "/rooms/{name}", Http)])
            }
            .build(),
        ),
        ("TG010", Vec::new()), // the file does not exist
        ("TG011", fine()),     // the settings allow less
        ("TG012", b"(component)".to_vec()),
        ("TG013", core_module()),
        (
            "TG014",
            Fixture {
                handlers: &["http-handler"],
                ..Fixture::default()
            }
            .build(),
        ),
        ("TG015", built_for_0_1(fine())),
        (
            "TG016",
            Fixture {
                import: Some("test:secret/door"),
                ..app(&[("GET", "/", Http)])
            }
            .build(),
        ),
        ("TG017", fine()[..200].to_vec()),
        (
            "TG023",
            Fixture {
                pages: &[("/shop", &["buy"])],
                ..app(&[("POST", "/shop", Http)])
            }
            .build(),
        ),
        (
            "TG024",
            Fixture {
                pages: &[("/shop", &["buy now"])],
                ..app(&[("GET", "/", Http)])
            }
            .build(),
        ),
        (
            "TG025",
            app(&[("GET", "/users/:id", Http), ("GET", "/files/*", Http)]).build(),
        ),
        (
            "TG018",
            Fixture {
                speechless: true,
                ..app(&[("GET", "/", Http)])
            }
            .build(),
        ),
    ]
}

/// Runs a command in the directory, which must fail with this code; returns its report.
fn report(dir: &Path, code: &str, args: &[&str]) -> String {
    let output = tidegate().current_dir(dir).args(args).output().unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(
        text.starts_with(&format!("error[{code}]: ")) && output.stdout.is_empty(),
        "{code}\n{text}"
    );
    assert_eq!(output.status.code(), Some(1), "{code}");
    if args[0] == "check" {
        let json = tidegate()
            .current_dir(dir)
            .args(args)
            .arg("--json")
            .output()
            .unwrap();
        assert_eq!(
            (json.status.code(), &json.stderr[..]),
            (Some(1), &b""[..]),
            "{code}"
        );
        let json: Value = serde_json::from_slice(&json.stdout).unwrap();
        assert_eq!(
            (&json["ok"], &json["problems"][0]["code"]),
            (&Value::Bool(false), &Value::from(code))
        );
    }
    text + "\n"
}

/// Makes files of `tidegate compile` that are no longer valid.
fn spoil(dir: &Path) {
    fs::write(dir.join("fine.wasm"), app(&[("GET", "/", Http)]).build()).unwrap();
    let compiled = tidegate()
        .current_dir(dir)
        .args(["compile", "fine.wasm"])
        .output()
        .unwrap();
    assert!(
        compiled.status.success(),
        "{}",
        String::from_utf8_lossy(&compiled.stderr)
    );
    let bytes = fs::read(dir.join("fine.tide")).unwrap();
    let mut altered = bytes.clone();
    *altered.last_mut().unwrap() ^= 1;
    fs::write(dir.join("tg019.tide"), altered).unwrap();
    // The engine's fingerprint follows magic and digest; the digest is adjusted to it.
    let mut other_engine = bytes.clone();
    other_engine[40] ^= 1;
    let digest = Sha256::digest(&other_engine[40..]);
    other_engine[8..40].copy_from_slice(&digest);
    fs::write(dir.join("tg020.tide"), other_engine).unwrap();
    fs::write(dir.join("tg021.tide"), bytes).unwrap();
    fs::set_permissions(dir.join("tg021.tide"), fs::Permissions::from_mode(0o666)).unwrap();
}

#[test]
fn every_code_is_triggered_and_reported() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    fs::write(dir.join("small.toml"), "[app]\nfile = \"1 KiB\"\n").unwrap();
    let mut reports = String::new();
    for (code, wasm) in cases() {
        let file = format!("{}.wasm", code.to_lowercase());
        if code != "TG010" {
            fs::write(dir.join(&file), wasm).unwrap();
        }
        let settings: &[&str] = if code == "TG011" {
            &["--config", "small.toml"]
        } else {
            &[]
        };
        reports += &report(dir, code, &[&["check", &file], settings].concat());
    }
    spoil(dir);
    for code in ["TG019", "TG020", "TG021"] {
        reports += &report(
            dir,
            code,
            &["check", &format!("{}.tide", code.to_lowercase())],
        );
    }
    reports += &report(
        dir,
        "TG022",
        &["compile", "fine.wasm", "-o", "nowhere/fine.tide"],
    );

    // The compiler decides the places in a trap's code.
    let stable = |text: &str| {
        text.lines()
            .filter(|line| !line.contains("offset 0x"))
            .collect::<Vec<_>>()
            .join("\n")
    };
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/reports.txt");
    if env::var_os("TIDEGATE_GOLDEN").is_some() {
        fs::write(&golden, &reports).unwrap();
    }
    let expected = fs::read_to_string(&golden).unwrap();
    assert_eq!(
        stable(&reports),
        stable(&expected),
        "with TIDEGATE_GOLDEN=1 this test writes {}",
        golden.display()
    );
}

#[tokio::test]
async fn a_precompiled_app_is_served() {
    let dir = tempfile::tempdir().unwrap();
    let tide = dir.path().join("hello.tide");
    let compiled = tidegate()
        .arg("compile")
        .arg(component("hello"))
        .arg("-o")
        .arg(&tide)
        .output()
        .unwrap();
    let report = String::from_utf8(compiled.stdout).unwrap();
    assert!(
        report.contains("hello.tide: ") && report.contains(" MiB, compiled in "),
        "{report}"
    );
    let server = Tidegate::serve(&tide, &[]);
    server.wait_for("hello.tide, compiled ahead of time, read in ");
    assert_eq!(
        reqwest::get(server.url("/"))
            .await
            .unwrap()
            .text()
            .await
            .unwrap(),
        "hello"
    );
}

#[test]
fn explain_describes_every_code_and_refuses_others() {
    let explain = |codes: &[&str]| tidegate().arg("explain").args(codes).output().unwrap();
    let one = explain(&["TG003"]);
    assert!(
        String::from_utf8(one.stdout)
            .unwrap()
            .starts_with("TG003: a reserved path\n\n")
    );
    let all = String::from_utf8(explain(&[]).stdout).unwrap();
    assert_eq!(
        (all.lines().count(), all.lines().next()),
        (25, Some("TG001: not a valid pattern"))
    );
    let none = explain(&["TG999"]);
    assert_eq!(
        (none.status.code(), none.stderr),
        (
            Some(2),
            b"error: there is no code TG999: `tidegate explain` lists all codes\n".to_vec()
        )
    );
}

#[test]
fn a_valid_app_is_ok_as_text_and_json() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(
        dir.path().join("app.wasm"),
        app(&[("GET", "/", Http)]).build(),
    )
    .unwrap();
    let output = tidegate()
        .current_dir(&dir)
        .args(["check", "app.wasm", "--json"])
        .output()
        .unwrap();
    let json: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(
        (output.status.code(), &json["ok"], &json["routes"]),
        (Some(0), &Value::Bool(true), &Value::from(1))
    );
}
