//! What clients get of an app's answers under `tidegate::testing`: as the host writes them, or a 500 where it would not.

use tidegate::{
    prelude::*,
    testing::{self, Connect},
};

#[test]
fn an_answer_that_no_client_may_get_is_the_apps_fault() {
    let app = App::new()
        .get("/status/{code}", async |req: Request| Ok::<_, Error>(Response::new(req.param("code")?)))
        .get("/name", async |_| Response::text("x").header("not a name", "x"))
        .get("/value", async |_| Response::text("x").header("x", "two\nlines"))
        .guard("/guarded", async |_| Pass::new().header("", "x"))
        .get("/guarded", async |_| "x")
        .feed("/feed", |_| Feed::follow("").first("x"))
        .feed("/feed/first", |_| Feed::follow("x").first_event("two\nlines", "x"))
        .stream("/stream", async |_, reply: Reply| reply.status(99).start().map(drop))
        .socket("/socket", Choosy);
    let mut server = testing::serve(app);
    let paths = ["/status/101", "/status/600", "/name", "/value", "/guarded", "/feed", "/feed/first"];
    for path in paths {
        let reply = server.get(path);
        assert!(reply.status() == 500 && reply.text().contains("contract"), "{path}: {reply:?}");
    }
    assert_eq!(server.get("/stream").status(), 500);
    for ask in ["protocol=milk", "close=1000", "close=5000", "tag=", "header=a%20b"] {
        let refused = server.try_connect(Connect::to(&format!("/socket?{ask}")).protocol("tea")).unwrap_err();
        assert!(refused.status() == 500 && refused.text().contains("contract"), "{ask}: {refused:?}");
    }
}

/// Accepts as the client wants it.
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
            _ => Accept::new().protocol("tea").header("x-mine", "yes").header("connection", "close"),
        })
    }
}

#[test]
fn what_a_guard_adds_is_on_every_answer_and_the_hosts_headers_are_its_own() {
    let app = App::new()
        .guard("/*", async |_| Pass::new().header("x-guard", "yes").header("transfer-encoding", "no"))
        .get("/", async |_| Response::text("x").header("content-length", "99"))
        .stream("/stream", async |_, reply: Reply| reply.header("not a name", "x").header("x-kept", "yes").send("x").await)
        .feed("/feed", |_| Feed::follow("x"))
        .socket("/socket", Choosy);
    let mut server = testing::serve(app);
    for path in ["/", "/stream", "/feed", "/nothing"] {
        let reply = server.get(path);
        let names: Vec<&str> = reply.headers().map(|(name, _)| name).filter(|name| name.starts_with(['x', 'n', 'c', 't'])).collect();
        assert!(reply.header("x-guard") == Some("yes") && !names.contains(&"content-length"), "{path}: {names:?}");
        assert!(!names.contains(&"transfer-encoding") && !names.contains(&"not a name"), "{path}: {names:?}");
    }
    assert_eq!(server.get("/stream").header("x-kept"), Some("yes"));
    let ann = server.connect(Connect::to("/socket").protocol("tea"));
    let handshake: Vec<_> = server.handshake(ann).headers().collect();
    assert_eq!(handshake, [("x-mine", "yes"), ("sec-websocket-protocol", "tea"), ("x-guard", "yes")]);
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
            conn.send(format!("{:?} {:?}", request.context("user"), conn.state::<String>()?))
        }
    }
    let app = App::new()
        .guard("/*", async |_| Pass::new().context("user", "ann"))
        .get("/", user)
        .stream("/stream", async |req: Request, reply: Reply| reply.send(user(req).await).await)
        .feed("/feed", |req| Feed::follow(req.context("user").unwrap_or("nobody")))
        .socket("/socket", Greeter);
    let mut server = testing::serve(app);
    assert_eq!(server.get("/").text(), r#"Some("ann")"#);
    assert_eq!(server.get("/stream").text(), "None", "wasi:http has no place for it");
    let feed = server.subscribe("/feed");
    server.publish("ann", "hi");
    assert_eq!(server.events(feed), ["hi"]);
    let ann = server.connect("/socket");
    assert_eq!(server.heard(ann), [r#"Some("ann") Some("ann")"#]);
}
