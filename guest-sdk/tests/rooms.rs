//! Rooms under test: the promises of the host about rooms also hold in a test.

use std::time::Duration;
use tidegate::{StorageError, prelude::*, testing};

/// Appends each message to a log, and runs some messages as commands.
#[derive(Default)]
struct Chat {
    log: String,
}

impl Room for Chat {
    async fn wake(&mut self, cx: &Cx) -> Result {
        self.log = cx.get_json("log")?.unwrap_or_default();
        Ok(())
    }

    async fn open(&mut self, cx: &Cx, conn: &Conn, _: &Request) -> Result {
        cx.broadcast(format!("{} here", cx.connections().len()))?;
        conn.send(self.log.as_str())
    }

    async fn message(&mut self, cx: &Cx, conn: &Conn, msg: Message) -> Result {
        let text = msg.text()?;
        self.log += text;
        cx.put_json("log", &self.log)?;
        cx.broadcast_except(conn, text)?;
        match text {
            "panic" => panic!("as asked"),
            "refuse" => Err(Error::bad_request("not that")),
            "fault" => Err(Error::fault("as asked")),
            "too much" => cx.put("k", vec![0; 3 << 20]),
            "flush" => {
                cx.flush();
                panic!("as asked")
            }
            "save" => {
                cx.flush();
                Ok(())
            }
            "save and refuse" => {
                cx.flush();
                Err(Error::bad_request("not that"))
            }
            "alarm" => {
                cx.alarm_in(Duration::from_secs(60));
                Ok(())
            }
            _ => Ok(()),
        }
    }

    async fn close(&mut self, cx: &Cx, _: &Conn, _: &CloseEvent) -> Result {
        cx.broadcast(format!("{} left", cx.connections().len()))
    }

    async fn request(&mut self, cx: &Cx, req: Request) -> Result<Response> {
        if req.method() == "POST" {
            cx.put("posted", req.text()?)?;
            cx.broadcast("posted")?;
            if req.text()? == "panic" {
                panic!("as asked");
            }
        }
        Ok(Response::text(format!("{}:{}", cx.name(), self.log)))
    }

    async fn feed(&mut self, _: &Cx, _: Request) -> Result<Feed> {
        Ok(Feed::new().first(self.log.as_str()))
    }

    async fn alarm(&mut self, cx: &Cx) -> Result {
        let attempt = cx.attempt();
        cx.broadcast(format!("alarm {attempt}"))?;
        if attempt < 3 {
            Err(Error::fault("not yet"))
        } else {
            Ok(())
        }
    }
}

fn server() -> testing::Server {
    testing::serve(App::new().room::<Chat>("/rooms/{name}"))
}

#[test]
fn a_room_keeps_its_log_through_sleep_and_restart() {
    let mut server = server();
    let ann = server.connect("/rooms/tea");
    server.send(ann, "hi");
    server.sleep("/rooms/tea");
    let bob = server.connect("/rooms/tea");
    assert_eq!(server.received(bob), ["2 here", "hi"]);
    server.restart();
    assert_eq!(server.closed(ann), Some((1006, String::new())));
    let eve = server.connect("/rooms/tea");
    assert_eq!(
        (server.received(eve), server.get("/rooms/milk").text()),
        (vec!["1 here".into(), Message::from("hi")], "milk:")
    );
}

#[test]
fn an_event_that_fails_has_not_happened() {
    let cases = [
        ("panic", (1011, "internal error")),
        ("fault", (1011, "internal error")),
        ("refuse", (1008, "not that")),
        ("too much", (1011, "internal error")),
    ];
    for (text, (code, reason)) in cases {
        let mut server = server();
        let (ann, bob) = (server.connect("/rooms/tea"), server.connect("/rooms/tea"));
        server.send(ann, "a");
        server.received(bob);
        server.send(ann, text);
        assert_eq!(server.closed(ann), Some((code, reason.into())), "{text}");
        assert_eq!(server.received(bob), ["1 left"], "{text}");
        server.send(bob, "b");
        assert_eq!(
            server.get("/rooms/tea").text(),
            "tea:ab",
            "{text}: the room woke with its stored data"
        );
    }
}

#[test]
fn of_messages_that_come_together_those_before_a_failure_happen() {
    let cases: [(&[&str], &str, Option<u16>); 8] = [
        (&["a", "b"], "ab", None),
        (&["a", "b", "refuse", "c"], "ab", Some(1008)),
        (&["a", "fault", "refuse"], "a", Some(1011)),
        (&["refuse", "a"], "", Some(1008)),
        (&["a", "b", "panic", "c"], "ab", Some(1011)),
        (&["a", "save", "b", "refuse", "c"], "asaveb", Some(1008)),
        (
            &["a", "save", "save and refuse", "b"],
            "asavesave and refuse",
            Some(1008),
        ),
        (&["a", "flush", "b"], "aflush", Some(1011)),
    ];
    for (texts, log, code) in cases {
        let mut server = server();
        let (ann, bob) = (server.connect("/rooms/tea"), server.connect("/rooms/tea"));
        server.received(bob);
        server.send_all(ann, texts.iter().copied());
        let heard: String = server
            .received(bob)
            .iter()
            .map(|message| message.text().unwrap())
            .filter(|text| !text.contains(' '))
            .collect();
        assert_eq!(
            heard,
            log.replace("save and refuse", ""),
            "{texts:?}: each is received once"
        );
        assert_eq!(
            server.get("/rooms/tea").text(),
            format!("tea:{log}"),
            "{texts:?}"
        );
        assert_eq!(server.closed(ann).map(|(code, _)| code), code, "{texts:?}");
    }
}

#[test]
fn what_was_flushed_before_a_panic_stays() {
    let mut server = server();
    let (ann, bob) = (server.connect("/rooms/tea"), server.connect("/rooms/tea"));
    server.received(bob);
    server.send(ann, "flush");
    assert_eq!(
        (server.received(bob), server.get("/rooms/tea").text()),
        (vec!["flush".into(), Message::from("1 left")], "tea:flush")
    );
}

#[test]
fn an_event_whose_commit_fails_has_not_happened() {
    let mut server = server();
    let (ann, bob) = (server.connect("/rooms/tea"), server.connect("/rooms/tea"));
    server.received(bob);
    server.fail_next_commit();
    server.send(ann, "a");
    assert_eq!(
        (server.closed(ann).unwrap().0, server.received(bob)),
        (1011, vec![Message::from("1 left")])
    );
    server.fail_next_commit();
    assert_eq!(server.post("/rooms/tea", "x").status(), 500);
    assert_eq!(
        (
            server.stored("/rooms/tea", "posted"),
            server.post("/rooms/tea", "x").status()
        ),
        (None, 200)
    );
    assert_eq!(server.stored("/rooms/tea", "posted"), Some(b"x".to_vec()));
}

#[test]
fn requests_sockets_and_feeds_of_a_path_meet_in_one_room() {
    let mut server = server();
    let ann = server.connect("/rooms/a%20b");
    let feed = server.subscribe("/rooms/a b");
    server.send(ann, "x");
    assert_eq!(server.post("/rooms/a%20b", "y").text(), "a b:x");
    assert_eq!(server.post("/rooms/a%20b", "panic").status(), 500);
    assert_eq!(server.received(ann), ["1 here", "", "posted"]);
    let events: Vec<String> = server
        .events(feed)
        .iter()
        .map(|event| event.data().to_owned())
        .collect();
    assert_eq!(
        events,
        ["", "x", "posted"],
        "the text that panicked is not among them"
    );
}

#[test]
fn an_alarm_is_tried_until_it_succeeds() {
    let mut server = server();
    let ann = server.connect("/rooms/tea");
    server.send(ann, "alarm");
    server.sleep("/rooms/tea");
    server.received(ann);
    for (seconds, heard) in [(59, 0), (1, 0), (2, 0), (3, 0), (1, 1), (600, 0)] {
        server.advance(Duration::from_secs(seconds));
        assert_eq!(server.received(ann).len(), heard, "{seconds}");
    }
}

#[test]
fn an_alarm_whose_commit_fails_comes_again_at_its_first_attempt() {
    #[derive(Default)]
    struct Egg;
    impl Room for Egg {
        async fn open(&mut self, cx: &Cx, _: &Conn, _: &Request) -> Result {
            cx.alarm_in(Duration::from_secs(1));
            Ok(())
        }
        async fn alarm(&mut self, cx: &Cx) -> Result {
            cx.broadcast(format!("attempt {}", cx.attempt()))
        }
    }
    let mut server = testing::serve(App::new().room::<Egg>("/egg"));
    let ann = server.connect("/egg");
    server.fail_next_commit();
    for (seconds, heard) in [(1, &[][..]), (1, &[]), (1, &["attempt 1"]), (60, &[])] {
        server.advance(Duration::from_secs(seconds));
        assert_eq!(server.received(ann), heard, "{seconds}");
    }
}

#[test]
fn a_name_that_no_room_can_have_is_the_clients_error() {
    let mut server = server();
    let long = format!("/rooms/{}", "x".repeat(257));
    assert_eq!(
        [
            server.get(&long).status(),
            server.try_connect(&long).unwrap_err().status()
        ],
        [400, 400]
    );
    assert_eq!(server.try_subscribe(&long).unwrap_err().status(), 400);
}

#[test]
fn a_restart_ends_feeds_and_connections() {
    let mut server = server();
    let (ann, feed) = (server.connect("/rooms/tea"), server.subscribe("/rooms/tea"));
    server.restart();
    server.post("/rooms/tea", "x");
    assert!(server.ended(feed) && server.closed(ann).is_some() && server.events(feed).len() == 1);
}

#[test]
#[should_panic = "two types of rooms have the class \"chat\""]
fn two_types_of_one_class_are_refused() {
    mod other {
        use tidegate::prelude::*;
        #[derive(Default)]
        pub(super) struct Chat;
        impl Room for Chat {}
    }
    let _ = App::new()
        .room::<Chat>("/rooms/{name}")
        .room::<other::Chat>("/others/{name}");
}

#[test]
fn a_room_that_cannot_wake_again_is_a_fault_and_no_answer() {
    #[derive(Default)]
    struct Touchy;
    impl Room for Touchy {
        async fn wake(&mut self, cx: &Cx) -> Result {
            match cx.get("broken") {
                Some(_) => Err(Error::not_found("the operator reads this")),
                None => Ok(()),
            }
        }
        async fn request(&mut self, cx: &Cx, req: Request) -> Result<Response> {
            if req.method() == "POST" {
                cx.put("broken", "")?;
                cx.flush();
            }
            Err(Error::bad_request("undone"))
        }
    }
    let mut server = testing::serve(App::new().room::<Touchy>("/x"));
    assert_eq!(
        (
            server.get("/x").status(),
            server.post("/x", "").status(),
            server.get("/x").status()
        ),
        (400, 400, 500)
    );
}

#[test]
fn a_limit_is_told_by_its_name() {
    #[derive(Default)]
    struct Greedy;
    impl Room for Greedy {
        async fn request(&mut self, cx: &Cx, _: Request) -> Result<Response> {
            let told =
                |outcome: Result| outcome.unwrap_err().downcast_ref::<StorageError>().copied();
            assert_eq!(told(cx.put("", "x")), Some(StorageError::KeySize(2048)));
            assert_eq!(
                told(cx.put(&"k".repeat(2049), "x")),
                Some(StorageError::KeySize(2048))
            );
            assert_eq!(
                told(cx.put("k", vec![0; (2 << 20) + 1])),
                Some(StorageError::ValueSize(2 << 20))
            );
            // Without their records, eight values would fit.
            for key in 0..7 {
                cx.put(&format!("{key}"), vec![0; (2 << 20) - 1])?;
            }
            assert_eq!(
                told(cx.put("k", vec![0; 2 << 20])),
                Some(StorageError::EventSize(16 << 20))
            );
            assert_eq!(
                (
                    cx.range("").count(),
                    cx.range("").start("2").end("5").count()
                ),
                (7, 3)
            );
            Ok(Response::text("fine"))
        }
    }
    let mut server = testing::serve(App::new().room::<Greedy>("/{name}"));
    assert_eq!(server.get("/x").text(), "fine");
}

#[test]
fn another_version_wakes_the_same_rooms_for_the_same_connections() {
    let app = || App::new().room::<Chat>("/chat/{name}");
    let mut server = testing::serve(app());
    let (ann, feed) = (server.connect("/chat/tea"), server.subscribe("/chat/tea"));
    server.send(ann, "hi");
    server.received(ann);
    // The same room has another index.
    server.reload(
        App::new()
            .get("/new", async |_| "new")
            .room::<Chat>("/chat/{name}"),
    );
    let bob = server.connect("/chat/tea");
    assert_eq!(server.received(ann), ["2 here"]);
    server.send(bob, "x");
    assert_eq!(
        (server.get("/chat/tea").text(), server.received(ann)),
        ("tea:hix", vec!["x".into()])
    );
    assert!(!server.ended(feed) && server.get("/new").status() == 200);
}

/// The alarm of room `a-b` calls room `b`.
#[derive(Default)]
struct Chain;

impl Room for Chain {
    async fn request(&mut self, cx: &Cx, _: Request) -> Result<Response> {
        cx.alarm_in(Duration::from_secs(1));
        Ok(Response::text("set"))
    }
    async fn call(&mut self, cx: &Cx, _: Vec<u8>) -> Result<Vec<u8>> {
        cx.put("called", "yes")?;
        match cx.name().split_once('-') {
            Some((_, next)) => tidegate::room::<Chain>(next).call(""),
            None => Ok(Vec::new()),
        }
    }
    async fn alarm(&mut self, cx: &Cx) -> Result {
        let (_, next) = cx.name().split_once('-').unwrap_or_default();
        tidegate::room::<Chain>(next).call("").map(drop)
    }
}

#[test]
fn rooms_whose_alarms_come_together_may_call_each_other() {
    let mut server = testing::serve(App::new().room::<Chain>("/{name}"));
    let names = ["y-x", "z-y-x", "w-z-y-x", "v-y-x"];
    for name in names {
        server.get(&format!("/{name}"));
    }
    server.advance(Duration::from_secs(1));
    for name in ["x", "y-x", "z-y-x"] {
        let called = server.stored(&format!("/{name}"), "called");
        assert_eq!(called.as_deref(), Some(&b"yes"[..]), "{name}");
    }
}

#[test]
fn an_idle_room_sleeps_as_in_the_host() {
    #[derive(Default)]
    struct Forgetful(u32);
    impl Room for Forgetful {
        async fn request(&mut self, _: &Cx, _: Request) -> Result<Response> {
            self.0 += 1;
            Ok(Response::text(self.0.to_string()))
        }
    }
    let mut server = testing::serve(App::new().room::<Forgetful>("/"));
    let mut counts = Vec::new();
    for seconds in [0, 9, 9, 11] {
        server.advance(Duration::from_secs(seconds));
        counts.push(server.get("/").text().to_owned());
    }
    assert_eq!(counts, ["1", "2", "3", "1"]);
}

#[test]
fn the_last_event_of_a_connection_happens_though_a_commit_fails() {
    #[derive(Default)]
    struct Guests;
    impl Room for Guests {
        async fn close(&mut self, cx: &Cx, _: &Conn, info: &CloseEvent) -> Result {
            cx.put("last", info.code.to_string())
        }
    }
    let mut server = testing::serve(App::new().room::<Guests>("/"));
    let ann = server.connect("/");
    server.fail_next_commit();
    server.close(ann);
    assert_eq!(server.stored("/", "last"), Some(b"1000".to_vec()));
}

#[test]
fn a_connection_without_a_route_in_the_new_version_ends_in_the_old_one() {
    #[derive(Default)]
    struct Old;
    impl Room for Old {
        async fn close(&mut self, cx: &Cx, _: &Conn, info: &CloseEvent) -> Result {
            cx.put("last", info.code.to_string())
        }
    }
    let app = || App::new().room::<Old>("/old");
    let mut server = testing::serve(app());
    let ann = server.connect("/old");
    server.reload(App::new().get("/new", async |_| "new"));
    assert_eq!(server.closed(ann).map(|(code, _)| code), Some(1012));
    server.reload(app());
    assert_eq!(server.stored("/old", "last"), Some(b"1012".to_vec()));
}
