//! WebSockets on the wire: raw frames against a served fake app.

mod support;

use http::StatusCode;
use std::{
    sync::{Arc, mpsc::Sender},
    time::Duration,
};
use support::{Raw, Served, guarded, handshake, masked, report_channel, usual};
use tidegate_edge::{Config, Origins};
use tidegate_hub::{
    Accept, CloseEvent, Conn, Decision, Fault, Limits, Message, Pass, Response, SendError, Verdict,
    testing::FakeApp,
};

/// Returns an app that echoes messages, and reports the end of each connection.
fn echo(report: Sender<String>) -> FakeApp {
    let close = move |(conn, info): (Arc<Conn>, CloseEvent)| {
        assert_eq!(
            conn.send(Message::text("late")),
            Err(SendError::Closed),
            "the connection is closed"
        );
        report.send(describe(&info)).unwrap();
        Ok(())
    };
    FakeApp {
        close: Box::new(close),
        ..FakeApp::default()
    }
}

fn describe(
    CloseEvent {
        code,
        reason,
        was_clean: clean,
        is_peer_initiated: by_peer,
    }: &CloseEvent,
) -> String {
    format!("{code} {reason:?} clean={clean} by_peer={by_peer}")
}

fn limited(app: FakeApp, limits: Limits) -> Served {
    Served::new(app, usual(), limits, Config::default())
}

#[test]
fn text_and_binary_messages_are_echoed_in_order() {
    let served = Served::usual(FakeApp::default());
    let mut raw = served.websocket();
    raw.send(
        &[
            masked(0x81, b"a"),
            masked(0x82, &[0xff; 300]),
            masked(0x89, b"ping"),
            masked(0x81, &[b'x'; 70_000]),
        ]
        .concat(),
    );
    let mut frames: Vec<(u8, usize)> = (0..4)
        .map(|_| raw.frame())
        .map(|(first, payload)| (first, payload.len()))
        .collect();
    frames.retain(|frame| *frame != (0x8a, 4));
    assert_eq!(frames, [(0x81, 1), (0x82, 300), (0x81, 70_000)]);
}

#[test]
fn frames_sent_together_with_the_handshake_are_handled() {
    let served = Served::usual(FakeApp::default());
    let mut raw = served.raw();
    raw.send(&[handshake("/ws", "").as_bytes(), &masked(0x81, b"early")].concat());
    assert!(raw.head().starts_with("HTTP/1.1 101"));
    assert_eq!(raw.frame(), (0x81, b"early".to_vec()));
}

#[test]
fn invalid_frames_are_answered_with_their_close_code() {
    let limits = Limits {
        message_bytes_max: 1000,
        frame_bytes_max: 800,
        fragments_max: 3,
        ..Limits::default()
    };
    let part = |first: u8| masked(first, b"x");
    let cases: [(&str, Vec<u8>, u16); 15] = [
        ("not masked", vec![0x81, 1, b'x'], 1002),
        ("reserved bit", part(0xc1), 1002),
        ("reserved data opcode", part(0x83), 1002),
        ("reserved control opcode", part(0x8b), 1002),
        ("fragmented ping", part(0x09), 1002),
        ("long ping", masked(0x89, &[0; 126]), 1002),
        ("continuation of nothing", part(0x80), 1002),
        ("text within text", [part(0x01), part(0x81)].concat(), 1002),
        ("close of one byte", masked(0x88, &[3]), 1002),
        (
            "close that is not UTF-8",
            masked(0x88, &[3, 0xe8, 0xff]),
            1007,
        ),
        ("text that is not UTF-8", masked(0x81, &[0xc3, 0x28]), 1007),
        ("large frame", masked(0x82, &[0; 801]), 1009),
        (
            "large message",
            [masked(0x02, &[0; 800]), masked(0x80, &[0; 201])].concat(),
            1009,
        ),
        (
            "frame of all memory",
            [&[0x82, 0xff][..], &u64::MAX.to_be_bytes()[..], &[0; 4]].concat(),
            1009,
        ),
        (
            "many fragments",
            [part(0x01), part(0x00), part(0x00), part(0x00)].concat(),
            1009,
        ),
    ];
    for (name, bytes, code) in cases {
        let (report, next_report) = report_channel();
        let served = limited(echo(report), limits.clone());
        let mut raw = served.websocket();
        raw.send(&[masked(0x81, b"before"), bytes].concat());
        assert_eq!(
            raw.frame(),
            (0x81, b"before".to_vec()),
            "{name}: the valid messages are answered"
        );
        assert_eq!(raw.close_frame().0, code, "{name}");
        assert_eq!(raw.rest_bytes(), b"", "{name}");
        drop(raw);
        assert!(next_report().starts_with(&code.to_string()), "{name}");
    }
}

#[test]
fn each_kind_of_end_is_reported_once_with_its_close_event() {
    type Scene = fn(&mut Raw);
    let cases: [(Scene, &str); 5] = [
        (|raw| raw.close(4001), r#"4001 "" clean=true by_peer=true"#),
        (
            |raw| raw.send(&masked(0x88, b"")),
            r#"1005 "" clean=true by_peer=true"#,
        ),
        (
            |raw| raw.send(&masked(0x88, b"\x03\xe8bye")),
            r#"1000 "bye" clean=true by_peer=true"#,
        ),
        (
            |raw| _ = raw.0.shutdown(std::net::Shutdown::Both),
            r#"1006 "" clean=false by_peer=true"#,
        ),
        (
            |raw| {
                raw.text("close 4002");
                assert_eq!(raw.close_frame().0, 4002);
                raw.close(4002);
            },
            r#"4002 "asked" clean=true by_peer=false"#,
        ),
    ];
    for (scene, expected) in cases {
        let (report, next_report) = report_channel();
        let closer = |(conn, messages): (Arc<Conn>, Vec<Message>)| {
            messages
                .iter()
                .for_each(|_| conn.close(4002, "asked").unwrap());
            Ok(())
        };
        let served = Served::usual(FakeApp {
            messages: Box::new(closer),
            ..echo(report.clone())
        });
        let mut raw = served.websocket();
        scene(&mut raw);
        assert_eq!(next_report(), expected);
        drop(raw);
        assert!(served.drained().in_time);
        report.send("nothing more".into()).unwrap();
        assert_eq!(next_report(), "nothing more");
    }
}

#[test]
fn a_close_is_echoed_and_the_server_closes_the_socket() {
    let served = Served::usual(FakeApp::default());
    let mut raw = served.websocket();
    raw.text("last");
    raw.close(4001);
    assert_eq!(
        raw.frame(),
        (0x81, b"last".to_vec()),
        "messages before the close are answered first"
    );
    assert_eq!(raw.close_frame().0, 4001);
    assert_eq!(raw.rest_bytes(), b"");
}

#[test]
fn messages_sent_during_a_large_answer_are_read_after_it() {
    let limits = Limits {
        message_bytes_max: 16 << 20,
        frame_bytes_max: 16 << 20,
        ..Limits::default()
    };
    let served = limited(FakeApp::default(), limits);
    let mut raw = served.websocket();
    raw.send(&masked(0x82, &vec![7; 16 << 20]));
    // The answer has begun and fills every buffer on the way; the close arrives while the rest
    // waits.
    assert!(raw.0.peek(&mut [0]).is_ok());
    raw.close(1000);
    assert_eq!(raw.frame().1.len(), 16 << 20);
    assert_eq!(raw.close_frame().0, 1000);
}

#[test]
fn a_fault_closes_one_connection_with_1011_and_no_other() {
    let messages = |(conn, messages): (Arc<Conn>, Vec<Message>)| match &messages[0] {
        Message::Text(text) if text == "trap" => Err(Fault::Trap("canary".into())),
        _ => {
            messages
                .into_iter()
                .for_each(|message| conn.send(message).unwrap());
            Ok(())
        }
    };
    let (report, next_report) = report_channel();
    let served = Served::usual(FakeApp {
        messages: Box::new(messages),
        ..echo(report)
    });
    let [mut ann, mut bob] = [served.websocket(), served.websocket()];
    ann.text("trap");
    let (code, reason) = ann.close_frame();
    assert!(
        code == 1011 && reason.contains("(id ") && !reason.contains("canary"),
        "{reason}"
    );
    ann.close(1011);
    assert!(next_report().ends_with("clean=true by_peer=false"));
    bob.text("fine");
    assert_eq!(bob.frame().1, b"fine");
}

#[test]
fn sends_to_a_slow_reader_fail_when_its_outbox_is_full() {
    let (report, next_report) = report_channel();
    let messages = move |(conn, _): (Arc<Conn>, Vec<Message>)| {
        // More than any socket buffers, so that the outbox finally refuses.
        let sent = (0..1000)
            .take_while(|_| conn.send(Message::binary(vec![0; 100_000])).is_ok())
            .count();
        report
            .send(format!("{sent} {}", conn.outbox().queued() <= 1 << 20))
            .unwrap();
        Ok(())
    };
    let served = Served::usual(FakeApp {
        messages: Box::new(messages),
        ..FakeApp::default()
    });
    let mut raw = served.websocket();
    raw.text("flood me");
    assert_eq!(next_report(), "10 true");
}

#[test]
fn a_follower_that_does_not_read_is_closed_with_1013_and_others_receive_everything() {
    let (report, next_report) = report_channel();
    let open = |(conn, _): (Arc<Conn>, tidegate_hub::Request)| {
        conn.follow("news", None).unwrap();
        Ok(())
    };
    let app = FakeApp {
        open: Box::new(open),
        ..echo(report)
    };
    let limits = Limits {
        close_within: Duration::from_millis(1),
        ..Limits::default()
    };
    let served = limited(app, limits);
    let slow = served.websocket();
    let mut quick = served.websocket();
    while served.hub.connections().count().0 < 2 {
        std::thread::yield_now();
    }
    quick.text("ready?");
    assert_eq!(quick.frame().1, b"ready?");
    let mut published = 0;
    while !is_closed(&served) {
        served
            .hub
            .publish(
                "news",
                tidegate_hub::Publication::new(Message::binary(vec![0; 60_000])),
            )
            .unwrap();
        published += 1;
        assert_eq!(quick.frame().1.len(), 60_000, "publication {published}");
    }
    assert!(next_report().starts_with("1013"));
    drop(slow);
}

/// Returns true if the slow connection has left the registry.
fn is_closed(served: &Served) -> bool {
    served.hub.connections().count().0 < 2
}

#[test]
fn an_app_decides_before_the_handshake() {
    let accept = || Accept {
        protocol: Some("b".into()),
        headers: vec![
            ("set-cookie".into(), "app=1".into()),
            ("sec-websocket-extensions".into(), "x".into()),
        ],
        ..Accept::default()
    };
    let upgrade =
        move |(request, offered): (tidegate_hub::Request, Vec<String>)| match request.query() {
            Some("reject") => Ok(Decision::Reject(Response {
                status: StatusCode::FORBIDDEN,
                headers: vec![("x-why".into(), "no".into())],
                body: "not you".into(),
            })),
            Some("late") => Ok(Decision::AcceptThenClose(4403, "not you".into())),
            Some("bad-code") => Ok(Decision::AcceptThenClose(1000, String::new())),
            Some("not-offered") => Ok(Decision::Accept(Accept {
                protocol: Some("c".into()),
                ..Accept::default()
            })),
            Some("trap") => Err(Fault::Trap("canary".into())),
            Some("attachment") => Ok(Decision::Accept(Accept {
                attachment: vec![0; 20_000].into(),
                ..Accept::default()
            })),
            _ => Ok(Decision::Accept(if offered == ["a", "b"] {
                accept()
            } else {
                Accept::default()
            })),
        };
    let check = |_| {
        Ok(Verdict::Pass(Pass {
            headers: vec![("set-cookie".into(), "guard=1".into())],
            context: vec![],
        }))
    };
    let app = FakeApp {
        upgrade: Box::new(upgrade),
        check: Box::new(check),
        ..FakeApp::default()
    };
    let served = Served::new(
        app,
        guarded(usual(), &["/*"]),
        Limits::default(),
        Config::default(),
    );

    let mut accepted = served.raw();
    accepted.send(handshake("/ws", "sec-websocket-protocol: a, b\r\n").as_bytes());
    let head = accepted.head();
    for header in [
        "101",
        "sec-websocket-protocol: b",
        "set-cookie: guard=1",
        "set-cookie: app=1",
        "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=",
    ] {
        assert!(head.contains(header), "{header} in {head}");
    }
    assert!(!head.contains("extensions"), "{head}");

    let mut plain = served.raw();
    plain.send(handshake("/ws", "sec-websocket-protocol: other\r\n").as_bytes());
    assert!(
        !plain.head().contains("sec-websocket-protocol"),
        "the app chose no subprotocol"
    );

    let refusals = [
        ("reject", "403", "not you"),
        ("bad-code", "500", "(id "),
        ("not-offered", "500", "(id "),
        ("trap", "500", "(id "),
        ("attachment", "500", "(id "),
    ];
    for (query, status, body) in refusals {
        let answer = served.ask(
            &handshake(&format!("/ws?{query}"), "sec-websocket-protocol: a\r\n")
                .replace("Upgrade\r\n", "Upgrade, close\r\n"),
        );
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status}"))
                && answer.contains(body)
                && !answer.contains("canary"),
            "{query}: {answer}"
        );
    }
    assert!(
        served.hub.connections().count().0 <= 2,
        "a refused upgrade leaves no connection"
    );

    let mut late = served.raw();
    late.send(handshake("/ws?late", "").as_bytes());
    assert!(late.head().starts_with("HTTP/1.1 101"));
    assert_eq!(late.close_frame(), (4403, "not you".into()));
}

#[test]
fn a_page_of_another_origin_is_refused_before_any_guest_code() {
    let panics = FakeApp {
        upgrade: Box::new(|_| panic!("guest code ran")),
        check: Box::new(|_| panic!("guest code ran")),
        ..FakeApp::default()
    };
    let config = Config {
        origins: Origins::SameOrigin,
        require_origin: true,
        ..Config::default()
    };
    let served = Served::new(panics, guarded(usual(), &["/*"]), Limits::default(), config);
    for origin in ["origin: http://evil.example\r\n", "origin: null\r\n", ""] {
        let answer = served.ask(&handshake("/ws", &format!("{origin}connection: close\r\n")));
        assert!(answer.starts_with("HTTP/1.1 403"), "{origin}: {answer}");
    }
}

#[test]
fn an_upgrade_without_a_decision_in_time_is_a_503() {
    let limits = Limits {
        upgrade_within: Duration::from_millis(1),
        ..Limits::default()
    };
    let served = limited(
        FakeApp {
            undecided: true,
            ..FakeApp::default()
        },
        limits,
    );
    let answer = served.ask(&handshake("/ws", "connection: close\r\n"));
    assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
}

#[test]
fn a_drain_closes_with_1001_and_delivers_the_on_close() {
    let (report, next_report) = report_channel();
    let served = Served::usual(echo(report));
    let mut raw = served.websocket();
    raw.text("hi");
    raw.frame();
    let waiting = std::thread::spawn(move || {
        let close = raw.close_frame();
        raw.close(1001);
        close
    });
    let mut served = served;
    served.stop();
    assert_eq!(waiting.join().unwrap().0, 1001);
    assert!(next_report().starts_with("1001"));
    assert!(served.drained().in_time);
}

#[test]
fn a_peer_that_does_not_answer_pings_is_dropped() {
    let (report, next_report) = report_channel();
    let limits = Limits {
        ping_every: Duration::from_millis(1),
        pong_within: Duration::from_millis(1),
        ..Limits::default()
    };
    let served = limited(echo(report), limits);
    let mut raw = served.websocket();
    assert_eq!(raw.frame(), (0x89, vec![]));
    assert_eq!(next_report(), r#"1006 "" clean=false by_peer=false"#);
}
