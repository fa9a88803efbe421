//! Features that exist only while an app is developed: the pages' channel, and full texts of
//! faults.

mod support;

use std::sync::Arc;
use support::{Served, usual};
use tidegate_edge::{Config, DevChannel, Hosts};
use tidegate_hub::{Fault, Limits, testing::FakeApp};

const SECRET: &str = "the canary is in the code";

fn faulty() -> FakeApp {
    FakeApp {
        handle: Box::new(|_| Err(Fault::Trap(SECRET.into()))),
        ..FakeApp::default()
    }
}

fn developed() -> (Served, Arc<DevChannel>) {
    let channel = Arc::<DevChannel>::default();
    let config = Config {
        dev: Some(channel.clone()),
        ..Config::default()
    };
    (
        Served::new(faulty(), usual(), Limits::default(), config),
        channel,
    )
}

#[test]
fn a_page_receives_the_latest_state_at_once_and_later_states_until_the_drain() {
    let (mut served, channel) = developed();
    channel.publish(r#"{"version":1}"#);
    channel.publish(r#"{"version":2}"#);
    let mut page = served.raw();
    page.send(b"GET /__tidegate/dev HTTP/1.1\r\nhost: test\r\n\r\n");
    let head = page.head();
    assert!(
        head.starts_with("HTTP/1.1 200")
            && head.contains("text/event-stream")
            && head.contains("no-store"),
        "{head}"
    );
    assert!(page.until("\n\n").ends_with("data: {\"version\":2}\n\n"));
    channel.publish(r#"{"version":3}"#);
    assert!(page.until("\n\n").ends_with("data: {\"version\":3}\n\n"));
    served.stop();
    assert!(
        page.rest().ends_with("0\r\n\r\n"),
        "the channel ends with its last chunk"
    );
    assert!(served.drained().in_time);
}

#[test]
fn a_fault_is_shown_whole_only_in_development() {
    let (developed, _) = developed();
    let served = Served::usual(faulty());
    let (shown, masked) = (developed.get("/hello"), served.get("/hello"));
    assert!(
        shown.starts_with("HTTP/1.1 500")
            && shown.contains(SECRET)
            && shown.contains("Only tidegate dev shows this"),
        "{shown}"
    );
    assert!(
        masked.starts_with("HTTP/1.1 500") && !masked.contains(SECRET) && masked.contains("(id "),
        "{masked}"
    );
}

#[test]
fn without_development_the_script_is_empty_and_the_channel_is_missing() {
    let (developed, _) = developed();
    let served = Served::usual(FakeApp::default());
    let script = developed.get("/__tidegate/dev.js");
    assert!(
        script.contains("text/javascript")
            && script.contains("new EventSource(\"/__tidegate/dev\")"),
        "{script}"
    );
    let empty = served.get("/__tidegate/dev.js");
    assert!(
        empty.starts_with("HTTP/1.1 200") && empty.ends_with("\r\n\r\n"),
        "{empty}"
    );
    assert!(served.get("/__tidegate/dev").starts_with("HTTP/1.1 404"));
    let post = developed.ask("POST /__tidegate/dev HTTP/1.1\r\nhost: test\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
    assert!(
        post.starts_with("HTTP/1.1 405") && post.contains("allow: GET, HEAD"),
        "{post}"
    );
    let (own, usual) = (
        developed.get("/__tidegate/client.js"),
        served.get("/__tidegate/client.js"),
    );
    assert!(
        own.contains("import \"/__tidegate/dev.js\";")
            && own.contains("cache-control: no-store")
            && !usual.contains("dev.js"),
        "{own}"
    );
    assert!(
        developed
            .get("/__tidegate/dev/more")
            .starts_with("HTTP/1.1 404")
    );
}

#[test]
fn a_host_that_is_not_served_has_only_the_health_check() {
    let config = Config {
        hosts: Hosts::Local,
        dev: Some(Arc::default()),
        ..Config::default()
    };
    let (report, reports) = std::sync::mpsc::channel();
    let check = move |(guard, _): (u32, tidegate_hub::Request)| {
        report.send(guard).unwrap();
        Ok(tidegate_hub::Verdict::Pass(Default::default()))
    };
    let served = Served::new(
        FakeApp {
            check: Box::new(check),
            ..FakeApp::default()
        },
        usual(),
        Limits::default(),
        config,
    );
    let ask = |target: &str, host: &str| {
        served.ask(&format!("GET {target} HTTP/1.1\r\nhost: {host}\r\nupgrade: websocket\r\nconnection: close, upgrade\r\n\r\n"))
    };
    for target in [
        "/hello",
        "/ws",
        "/feed",
        "/none",
        "/__tidegate/dev",
        "/__tidegate/dev.js",
        "/__loaders",
        "/__tidegate/health/x",
        "//",
    ] {
        assert!(
            ask(target, "evil.example").starts_with("HTTP/1.1 421"),
            "{target}"
        );
    }
    assert!(
        ask("http://evil.example/hello", "localhost").starts_with("HTTP/1.1 421"),
        "the target takes precedence over the header"
    );
    assert!(
        served
            .ask("OPTIONS * HTTP/1.1\r\nhost: evil.example\r\nconnection: close\r\n\r\n")
            .starts_with("HTTP/1.1 421")
    );
    assert!(reports.try_recv().is_err(), "no guard ran");
    assert!(ask("/__tidegate/health", "evil.example").starts_with("HTTP/1.1 200"));
    for host in ["localhost", "x.localhost:1", "127.0.0.1", "[::1]:8080"] {
        assert!(ask("/hello", host).starts_with("HTTP/1.1 200"), "{host}");
    }
    assert!(
        served
            .ask("GET /hello HTTP/1.0\r\n\r\n")
            .starts_with("HTTP/1.0 200"),
        "the listener has an address"
    );
}
