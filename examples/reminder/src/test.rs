//! Reminders come when they are due, each once, whatever happens in between.

use super::app;
use std::time::Duration;
use tidegate::testing::serve;

const ANN: &str = "/reminders/ann";

#[test]
fn each_reminder_is_sent_once_when_it_is_due() {
    let mut server = serve(app());
    for (wait, text) in [
        ("60s", "second"),
        ("2s", "first"),
        ("2", "also first"),
        ("3600s", "last"),
    ] {
        assert_eq!(server.post(&format!("{ANN}?in={wait}"), text).status(), 201);
    }
    let pending = |text: &str| {
        text.lines()
            .map(|line| line[20..].to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(
        pending(server.get(ANN).text()),
        ["first", "also first", "second", "last"]
    );
    server.restart();
    let (socket, feed) = (server.connect(ANN), server.subscribe(ANN));
    for (seconds, due) in [
        (1, &[][..]),
        (1, &["first", "also first"]),
        (57, &[]),
        (1, &["second"]),
        (3540, &["last"]),
        (86_400, &[]),
    ] {
        server.advance(Duration::from_secs(seconds));
        server.sleep(ANN);
        assert_eq!(server.received(socket), due);
        let events = server.events(feed);
        assert!(events.iter().all(|event| event.name() == Some("reminder")));
        assert_eq!(events, due);
    }
    assert_eq!(server.get(ANN).text(), "");
}

#[test]
fn a_failed_reminder_is_sent_again() {
    let mut server = serve(app());
    server.post(&format!("{ANN}?in=1s"), "tea");
    let socket = server.connect(ANN);
    server.fail_next_commit();
    server.advance(Duration::from_secs(2));
    assert!(server.received(socket).is_empty());
    server.advance(Duration::from_secs(1));
    assert_eq!(server.received(socket), ["tea"]);
}

#[test]
fn an_invalid_time_is_refused() {
    let mut server = serve(app());
    for query in [
        "",
        "?in=",
        "?in=s",
        "?in=soon",
        "?in=-1s",
        "?in=2d",
        "?in=2é",
        "?in=4294967296s",
    ] {
        assert_eq!(
            server.post(&format!("{ANN}{query}"), "tea").status(),
            400,
            "{query}"
        );
    }
    assert_eq!(
        server
            .post(&format!("{ANN}?in=4294967295s"), "tea")
            .status(),
        201
    );
    for _ in 1..1000 {
        server.post(&format!("{ANN}?in=86400s"), "tea");
    }
    assert_eq!(
        server.post(&format!("{ANN}?in=86400s"), "tea").status(),
        429
    );
}
