//! An app's answers under `tidegate::testing` are those that the host would write. An answer that
//! the host would refuse fails the test.

use std::panic::{AssertUnwindSafe, catch_unwind};
use tidegate::{
    prelude::*,
    testing::{self, Connect},
};

/// Returns the text with which the test fails.
fn failure(act: impl FnOnce()) -> String {
    let panic = catch_unwind(AssertUnwindSafe(act)).expect_err("the app breaks the contract");
    *panic.downcast::<String>().expect("a text")
}

const LONG: Loader<String> = Loader::new("long");

/// A loader that the page does not have.
const WATER: Loader<String> = Loader::new("water");

/// A page whose loaders and actions break the contract, each in its own way.
fn sloppy() -> Page {
    Page::new(|_, _| Response::html("x"))
        .loader(LONG, async |_: &Request, sink: &mut Sink<String>| {
            sink.send(&"x".repeat(2 << 20)).await
        })
        .action("scheme", async |_: &Request, _: &mut Form| {
            Ok(Done::redirect("javascript:alert(1)"))
        })
        .action("skip", async |_: &Request, _: &mut Form| {
            Ok(Done::redirect("\\\\evil"))
        })
        .action("deny", async |_: &Request, _: &mut Form| {
            Ok(Done::deny(200, "no"))
        })
        .action("stale", async |_: &Request, _: &mut Form| {
            Ok(Done::success(&1)?.stale(WATER))
        })
        .action("long", async |_: &Request, _: &mut Form| {
            Done::success(&"x".repeat(2 << 20))
        })
}

#[test]
fn an_answer_that_no_client_may_get_fails_the_test_with_the_hosts_text() {
    #[derive(Default)]
    struct Verbose;
    impl Room for Verbose {
        async fn call(&mut self, _: &Cx, _: Vec<u8>) -> Result<Vec<u8>> {
            Ok(vec![0; 2 << 20])
        }
    }
    let app = App::new()
        .get("/status/{code}", async |req: Request| {
            Ok::<_, Error>(Response::new(req.param("code")?))
        })
        .get("/name", async |_| {
            Response::text("x").header("not a name", "x")
        })
        .get("/value", async |_| {
            Response::text("x").header("x", "two\nlines")
        })
        .get("/many", async |_| {
            (0..1001).fold(Response::text("x"), |answer, _| answer.header("x", "x"))
        })
        .guard("/guarded", async |_| Pass::new().header("", "x"))
        .get("/guarded", async |_| "x")
        .guard("/context", async |_| {
            Pass::new().context("x", "x".repeat(300_000))
        })
        .get("/context", async |_| "x")
        .feed("/feed", |_| Feed::follow("").first("x"))
        .feed("/feed/first", |_| {
            Feed::follow("x").first_event("two\nlines", "x")
        })
        .feed("/feed/long", |_| {
            Feed::follow("x").first("x".repeat(2 << 20))
        })
        .get("/call", async |_| {
            tidegate::room::<Verbose>("x").call("").map(drop)
        })
        .room::<Verbose>("/rooms/{name}")
        .page("/page", sloppy())
        .socket("/socket", Choosy);
    let mut server = testing::serve(app);
    let cases = [
        ("/call", "2097152 bytes to a call: at most 1048576"),
        ("/page", "a value of 2097154 bytes: at most 1048576"),
        ("/status/101", "101 is no status of an answer: 200 to 599"),
        ("/status/600", "600 is no status of an answer: 200 to 599"),
        ("/name", "\"not a name\" is no header name"),
        (
            "/value",
            "the value of the header \"x\" has a byte that no header may have",
        ),
        (
            "/many",
            "1002 headers of 2039 bytes: at most 1000 of 262144 bytes",
        ),
        ("/guarded", "\"\" is no header name"),
        (
            "/context",
            "a guard's context of 300001 bytes: at most 262144",
        ),
        (
            "/feed",
            "the topics of a feed: of a form that the protocol does not allow",
        ),
        (
            "/feed/first",
            "the name of a feed's first event has a line break",
        ),
        (
            "/feed/long",
            "the first events of a feed have 2097152 bytes: at most 1048576",
        ),
    ];
    for (path, text) in cases {
        assert_eq!(
            failure(|| _ = server.get(path)),
            format!("the app broke the contract: {text}"),
            "{path}"
        );
    }
    let cases = [
        (
            "scheme",
            "\"javascript:alert(1)\" is no path and no http or https URL, so no client is sent there",
        ),
        (
            "skip",
            "\"\\\\\\\\evil\" is no path and no http or https URL, so no client is sent there",
        ),
        ("deny", "200 is no status of a denial: 400 to 499"),
        (
            "stale",
            "the page has no loader \"water\" that could be stale",
        ),
        ("long", "a value of 2097154 bytes: at most 1048576"),
    ];
    for (action, text) in cases {
        assert_eq!(
            failure(|| _ = server.submit("/page", action, &[])),
            format!("the app broke the contract: {text}"),
            "{action}"
        );
    }
    let cases = [
        (
            "protocol=milk",
            "the subprotocol \"milk\" was not offered; offered: [\"tea\"]",
        ),
        (
            "close=1000",
            "accept-then-close with code 1000 and 7 bytes: 3000 to 4999, at most 123 bytes",
        ),
        (
            "close=5000",
            "accept-then-close with code 5000 and 7 bytes: 3000 to 4999, at most 123 bytes",
        ),
        (
            "tag=",
            "the attachment or the tags of the accepted connection: of a form that the protocol does not allow",
        ),
        ("header=a%20b", "\"a b\" is no header name"),
    ];
    for (ask, text) in cases {
        let connect = Connect::to(&format!("/socket?{ask}")).protocol("tea");
        assert_eq!(
            failure(|| _ = server.try_connect(connect)),
            format!("the app broke the contract: {text}"),
            "{ask}"
        );
    }
}

#[test]
fn the_status_that_a_reply_was_given_is_the_one_that_is_sent() {
    let app = App::new()
        .stream("/set", async |_, reply: Reply| {
            reply.status(403).send("no").await
        })
        .stream("/own", async |_, reply: Reply| {
            reply.send((201, "made")).await
        })
        .stream("/both", async |_, reply: Reply| {
            reply.status(403).send((201, "made")).await
        })
        .stream("/nothing", async |_, reply: Reply| {
            reply.status(404).send(()).await
        })
        .stream("/pieces", async |_, reply: Reply| {
            reply.status(202).start()?.write("x").await
        })
        .stream("/failed", async |_, reply: Reply| {
            let _reply = reply.status(202);
            Err::<(), _>(Error::status(409, "no"))
        })
        .stream("/wrong", async |_, reply: Reply| {
            reply.status(99).start().map(drop)
        });
    let mut server = testing::serve(app);
    let cases = [
        ("/set", 403),
        ("/own", 201),
        ("/both", 403),
        ("/nothing", 404),
        ("/pieces", 202),
        ("/failed", 409),
        ("/wrong", 500),
    ];
    for (path, status) in cases {
        assert_eq!(server.get(path).status(), status, "{path}");
    }
}

/// Accepts with the value that the client's query names.
struct Choosy;

impl Socket for Choosy {
    async fn upgrade(&self, upgrade: &Upgrade) -> Result<Accept> {
        let (name, value) = upgrade.query_string().split_once('=').unwrap_or_default();
        let value = value.replace("%20", " ");
        Ok(match name {
            "protocol" => Accept::new().protocol(&*value),
            "close" => Accept::then_close(value.parse()?, "not you"),
            "tag" => Accept::new().tag(value),
            "header" => Accept::new().header(&value, "x"),
            _ => Accept::new()
                .protocol("tea")
                .header("x-mine", "yes")
                .header("connection", "close"),
        })
    }
}

#[test]
fn what_a_guard_adds_is_on_every_answer_and_the_hosts_headers_are_its_own() {
    let app = App::new()
        .guard("/*", async |_| {
            Pass::new()
                .header("x-guard", "yes")
                .header("transfer-encoding", "no")
        })
        .get("/", async |_| {
            Response::text("x").header("content-length", "99")
        })
        .stream("/stream", async |_, reply: Reply| {
            reply
                .header("not a name", "x")
                .header("x-kept", "yes")
                .send("x")
                .await
        })
        .feed("/feed", |_| Feed::follow("x"))
        .socket("/socket", Choosy);
    let mut server = testing::serve(app);
    for path in ["/", "/stream", "/feed", "/nothing"] {
        let reply = server.get(path);
        let names: Vec<&str> = reply
            .headers()
            .map(|(name, _)| name)
            .filter(|name| name.starts_with(['x', 'n', 'c', 't']))
            .collect();
        assert!(
            reply.header("x-guard") == Some("yes") && !names.contains(&"content-length"),
            "{path}: {names:?}"
        );
        assert!(
            !names.contains(&"transfer-encoding") && !names.contains(&"not a name"),
            "{path}: {names:?}"
        );
    }
    assert_eq!(server.get("/stream").header("x-kept"), Some("yes"));
    let ann = server.connect(Connect::to("/socket").protocol("tea"));
    let handshake: Vec<_> = server.handshake(ann).headers().collect();
    assert_eq!(
        handshake,
        [
            ("x-mine", "yes"),
            ("sec-websocket-protocol", "tea"),
            ("x-guard", "yes")
        ]
    );
    assert_eq!(server.get("/socket").status(), 426);
    let shown_out = server.connect("/socket?close=4403");
    assert_eq!(server.closed(shown_out), Some((4403, "not you".into())));
}

#[test]
fn context_comes_to_every_handler_but_a_streams() {
    async fn user(req: Request) -> String {
        format!("{:?}", req.context("user"))
    }
    struct Greeter;
    impl Socket for Greeter {
        async fn upgrade(&self, upgrade: &Upgrade) -> Result<Accept> {
            Accept::new().state(&upgrade.context("user"))
        }
        async fn open(&self, conn: &Conn, request: &Request) -> Result {
            conn.send(format!(
                "{:?} {:?}",
                request.context("user"),
                conn.state::<String>()?
            ))
        }
    }
    let app = App::new()
        .guard("/*", async |_| Pass::new().context("user", "ann"))
        .get("/", user)
        .stream("/stream", async |req: Request, reply: Reply| {
            reply.send(user(req).await).await
        })
        .feed("/feed", |req| {
            Feed::follow(req.context("user").unwrap_or("no user"))
        })
        .socket("/socket", Greeter);
    let mut server = testing::serve(app);
    assert_eq!(server.get("/").text(), r#"Some("ann")"#);
    assert_eq!(
        server.get("/stream").text(),
        "None",
        "wasi:http cannot carry it"
    );
    let feed = server.subscribe("/feed");
    server.publish("ann", "hi");
    assert_eq!(server.events(feed), ["hi"]);
    let ann = server.connect("/socket");
    assert_eq!(server.received(ann), [r#"Some("ann") Some("ann")"#]);
}
