//! Components of other toolchains: an import that was not granted fails when it is called, and a
//! request has no access to the one before it.

use crate::support::{
    Tidegate,
    client::{get, soon},
    component,
    fixture::Fixture,
    tidegate,
};
use serde_json::Value;
use std::{fs, path::Path};
use tidegate_routing::Target;

#[tokio::test]
async fn outbound_access_without_a_grant_is_refused_with_the_wasi_error() {
    let cases_02 = [
        ("std-connect", "permissiondenied"),
        ("std-listen", "permissiondenied"),
        ("std-udp", "permissiondenied"),
        ("std-lookup", "refused"),
        ("std-read", "notfound"),
        ("std-write", "notfound"),
        ("std-list", "notfound"),
        ("tcp", "accessdenied"),
        ("udp", "accessdenied"),
        ("lookup", "permanentresolverfailure"),
        ("fetch", "httprequestdenied"),
        ("directories", "0"),
    ];
    let cases_03 = [
        ("tcp", "accessdenied"),
        ("udp", "accessdenied"),
        ("lookup", "permanentresolverfailure"),
        ("fetch", "httprequestdenied"),
        ("directories", "0"),
    ];
    for (app, cases) in [("proxy02", &cases_02[..]), ("proxy03", &cases_03)] {
        for args in [&[][..], &["--reuse-foreign"]] {
            let server = Tidegate::serve(&component(app), args);
            for (what, expected) in cases {
                let (status, outcome) = get(&server, &format!("/world/{what}")).await;
                // Bindings write WASI's names with hyphens or as one word.
                let name = outcome.to_lowercase().replace('-', "");
                assert!(
                    status == 200 && name.contains(expected),
                    "{app} {args:?} {what}: {status} {outcome}"
                );
            }
            // The operator learns at the start that the import is not granted, and how to grant it.
            server.wait_for("which is not granted: each request fails with the error HTTP-request-denied (TG016)");
            server.wait_for("grant it with --allow-outbound http://127.0.0.1:9");
            assert_eq!(server.stop().counter("faults"), 0, "{app} {args:?}");
        }
    }
}

fn check(app: &Path, args: &[&str]) -> (Option<i32>, String, String) {
    let output = tidegate()
        .arg("check")
        .arg(app)
        .args(args)
        .output()
        .unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (
        output.status.code(),
        text(output.stdout),
        text(output.stderr),
    )
}

#[test]
fn an_import_without_a_grant_causes_a_warning_that_names_the_grant() {
    let outbound = (
        "wasi:http/",
        "HTTP-request-denied",
        "name the hosts that the app may reach with --allow-outbound HOST",
    );
    let sockets = (
        "wasi:sockets/",
        "access-denied",
        "no app gets sockets; to send requests, use wasi:http with --allow-outbound HOST",
    );
    let grant = &["--allow-outbound", "example.com"][..];
    let cases = [
        ("errand", &[][..], vec![outbound]),
        ("errand", grant, vec![]),
        ("errand03", &[], vec![outbound]),
        ("errand03", grant, vec![]),
        ("proxy02", &[], vec![outbound, sockets]),
        ("proxy02", grant, vec![sockets]),
        ("proxy03", grant, vec![sockets]),
        ("hello", &[], vec![]),
    ];
    for (app, args, expected) in cases {
        let (code, stdout, stderr) = check(&component(app), args);
        assert_eq!(code, Some(0), "{app}: {stderr}");
        assert!(stdout.starts_with("OK: "), "{app}: {stdout}");
        assert_eq!(
            stderr.matches("warning[TG016]: ").count(),
            expected.len(),
            "{app} {args:?}: {stderr}"
        );
        for (import, refusal, help) in &expected {
            assert!(
                stderr.contains(&format!(" imports {import}")),
                "{app}: {stderr}"
            );
            assert!(
                stderr.contains(refusal) && stderr.contains(&format!("= help: {help}\n")),
                "{app}: {stderr}"
            );
        }
        let (code, json, stderr) = check(&component(app), &[args, &["--json"]].concat());
        let json: Value = serde_json::from_str(&json).unwrap();
        assert_eq!(
            (code, stderr.as_str(), &json["ok"]),
            (Some(0), "", &Value::Bool(true)),
            "{app}"
        );
        assert_eq!(
            json["warnings"].as_array().unwrap().len(),
            expected.len(),
            "{app}: {json}"
        );
    }
}

#[test]
fn an_unknown_interface_or_version_is_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let app = dir.path().join("app.wasm");
    let candidate = "a release candidate of WASI, and this host has WASI 0.2 and 0.3";
    for (import, code, expected) in [
        ("test:secret/door", "TG016", "which this host does not have"),
        ("wasi:nn/tensor@0.2.0-rc-2024-10-28", "TG015", candidate),
        (
            "wasi:keyvalue/store@0.2.0",
            "TG016",
            "which this host does not have",
        ),
        ("wasi:http/types@0.3.0-rc-2025-09-16", "TG015", candidate),
        (
            "wasi:cli/environment@0.3.0-rc-2026-01-06",
            "TG015",
            candidate,
        ),
        ("wasi:sockets/tcp@0.2.0-rc-2023-12-05", "TG015", candidate),
        (
            "wasi:http/types@0.4.0",
            "TG015",
            "and this host has WASI 0.2 and 0.3",
        ),
    ] {
        let routes = &[("GET", "/", Target::Http)];
        let fixture = Fixture {
            routes,
            handlers: &["http-handler"],
            import: Some(import),
            ..Fixture::default()
        };
        fs::write(&app, fixture.build()).unwrap();
        for command in ["check", "serve"] {
            let output = tidegate().arg(command).arg(&app).output().unwrap();
            let report = String::from_utf8_lossy(&output.stderr).into_owned();
            assert_eq!(
                output.status.code(),
                Some(1),
                "{command} {import}: {report}"
            );
            let line = report.lines().next().unwrap_or_default();
            assert!(
                line.contains(&format!("error[{code}]: "))
                    && line.contains(&format!(" imports {import}, {expected}")),
                "{report}"
            );
        }
    }
}

#[tokio::test]
async fn a_reused_instance_keeps_requests_apart() {
    let server = Tidegate::serve(
        &component("proxy02"),
        &["--reuse-foreign", "--workers", "1"],
    );
    // The app answers with the number of requests that its instance has received.
    let steps = [
        ("/count", "1"),
        ("/count", "2"),
        ("/keep-request", "3"), // a later request would find this one
        ("/count", "1"),
        ("/end/leak", "hello"), // it could continue an earlier answer
        ("/count", "1"),
        ("/end/drop", "hello"),
        ("/count", "1"),
        ("/end/finish-trap", "hello"), // it failed after a complete answer
        ("/count", "1"),
        ("/count", "2"),
    ];
    for (path, expected) in steps {
        let answer = soon(path, reqwest::get(server.url(path))).await.unwrap();
        // Some answers are truncated.
        if let Ok(body) = soon(path, answer.text()).await {
            assert_eq!(body, expected, "{path}");
        }
    }

    let server = Tidegate::serve(
        &component("proxy03"),
        &["--reuse-foreign", "--workers", "1"],
    );
    let broken = soon("keep", reqwest::get(server.url("/end/keep")))
        .await
        .unwrap();
    assert!(soon("keep", broken.text()).await.is_err());
    assert_eq!(
        get(&server, "/write-to-open").await,
        (200, "none is open".to_owned())
    );
    for (path, line) in [("/part", "a part"), ("/line", "a line")] {
        assert_eq!(get(&server, path).await.0, 200);
        let line = server.wait_for(line);
        assert!(
            line.ends_with("a part") || line.ends_with("a line"),
            "one line has the output of one request: {line}"
        );
    }
}
