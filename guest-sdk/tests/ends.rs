//! The end of a connection under `tidegate::testing` is the same as in the host.

use std::sync::{Arc, Mutex};
use tidegate::{prelude::*, testing};

/// Records the arguments of its hooks, and the result of a message that it sent too late.
struct Told(Arc<Mutex<Vec<String>>>);

impl Socket for Told {
    async fn message(&self, conn: &Conn, msg: Message) -> Result {
        match msg.text()? {
            "leave" => conn.close(4001, "as you wish"),
            "fail" => Err(Error::fault("out of ideas")),
            "panic" => panic!("on purpose"),
            _ => conn.send("go on"),
        }
    }

    async fn close(&self, conn: &Conn, info: &CloseEvent) -> Result {
        let late = conn.send("late").is_err();
        self.0.lock().unwrap().push(format!(
            "{} clean={} by_peer={} late refused={late}",
            info.code, info.was_clean, info.is_peer_initiated
        ));
        Ok(())
    }
}

#[test]
fn every_end_is_told_once_and_nothing_is_sent_behind_it() {
    type End = fn(&mut testing::Server, testing::ConnRef);
    let ends: [(&str, End, &str); 6] = [
        (
            "the client closes",
            |server, ann| server.close(ann),
            "1000 clean=true by_peer=true",
        ),
        (
            "the client says why",
            |server, ann| server.close_with(ann, 4000, "tired"),
            "4000 clean=true by_peer=true",
        ),
        (
            "the client disconnects",
            |server, ann| server.disconnect(ann),
            "1006 clean=false by_peer=true",
        ),
        (
            "the app closes",
            |server, ann| server.send(ann, "leave"),
            "4001 clean=true by_peer=false",
        ),
        (
            "the app fails",
            |server, ann| server.send(ann, "fail"),
            "1011 clean=true by_peer=false",
        ),
        (
            "the app panics",
            |server, ann| server.send(ann, "panic"),
            "1011 clean=true by_peer=false",
        ),
    ];
    for (how, end, expected) in ends {
        let told = Arc::new(Mutex::new(Vec::new()));
        let mut server = testing::serve(App::new().socket("/", Told(told.clone())));
        let (ann, bob) = (server.connect("/"), server.connect("/"));
        end(&mut server, ann);
        assert_eq!(
            *told.lock().unwrap(),
            [format!("{expected} late refused=true")],
            "{how}"
        );
        assert_eq!(
            server
                .closed(ann)
                .map(|(code, _)| code.to_string())
                .as_deref(),
            expected.split(' ').next(),
            "{how}"
        );
        server.send(bob, "and you?");
        assert_eq!(server.received(bob), ["go on"], "{how}");
    }
}

/// Panics in the hook that the client names.
struct Clumsy;

impl Clumsy {
    fn trip(at: &str, request: &Request) {
        assert!(request.query_string() != at, "on purpose");
    }
}

impl Socket for Clumsy {
    async fn upgrade(&self, upgrade: &Upgrade) -> Result<Accept> {
        Clumsy::trip("upgrade", upgrade);
        Ok(Accept::new())
    }

    async fn open(&self, conn: &Conn, request: &Request) -> Result {
        conn.send("welcome")?;
        Clumsy::trip("open", request);
        conn.follow("news")
    }

    async fn close(&self, _: &Conn, _: &CloseEvent) -> Result {
        panic!("on purpose")
    }
}

#[test]
fn a_panic_ends_its_event_and_nothing_else() {
    async fn trip(request: Request) -> Result<Pass> {
        Clumsy::trip("guard", &request);
        Ok(Pass::new())
    }
    let app = App::new()
        .guard("/*", trip)
        .get("/", async |_| -> String { panic!("on purpose") })
        .get("/calm", async |_| "calm")
        .feed("/feed", |_| -> Feed { panic!("on purpose") })
        .stream("/before", async |_, _| -> Result { panic!("on purpose") })
        .stream("/midway", async |_, reply: Reply| -> Result {
            reply.start()?.write("the first half, ").await?;
            panic!("on purpose")
        })
        .socket("/socket", Clumsy);
    let mut server = testing::serve(app);
    let bob = server.connect("/socket");

    for path in ["/", "/calm?guard", "/before", "/feed"] {
        let reply = server.get(path);
        assert_eq!(
            (reply.status(), reply.text()),
            (500, "internal error"),
            "{path}"
        );
    }
    let half = server.get("/midway");
    assert_eq!(
        (half.status(), half.text(), half.is_whole()),
        (200, "the first half, ", false)
    );
    assert_eq!(
        server.try_connect("/socket?upgrade").unwrap_err().status(),
        500
    );
    assert_eq!(server.try_subscribe("/feed").unwrap_err().status(), 500);

    let ann = server.connect("/socket?open");
    assert_eq!(
        server.received(ann),
        ["welcome"],
        "messages that were sent before arrive"
    );
    assert_eq!(server.closed(ann), Some((1011, "internal error".into())));

    server.publish("news", "still here");
    assert_eq!(server.received(bob), ["welcome", "still here"]);
    server.close(bob);
    assert_eq!(server.get("/calm").text(), "calm");
}
