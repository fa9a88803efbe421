//! The examples over HTTP and WebSockets, built in both ways that the README shows.

mod support;

use futures_util::StreamExt as _;
use reqwest::{Client, redirect::Policy};
use serde_json::{Value, json};
use support::{
    BUILDS, Tidegate,
    client::{Message, Socket, soon},
    component_of,
};
use tokio_tungstenite::tungstenite::client::IntoClientRequest;

/// Serves an example of each build in turn, and checks at the end that nothing failed.
async fn visit(example: &str, visitor: impl AsyncFn(&Tidegate)) {
    for build in BUILDS {
        let data = tempfile::tempdir().unwrap();
        let server = Tidegate::serve(
            &component_of(build, example),
            &["--data", data.path().to_str().unwrap()],
        );
        visitor(&server).await;
        let stopped = server.stop();
        let log = &stopped.stderr;
        assert_eq!(
            (stopped.status.code(), stopped.counter("faults")),
            (Some(0), 0),
            "{example} by {build:?}\n{log}"
        );
        // A request may name any host here, and the start warns about that.
        let is_expected = |line: &str| line.contains("requests may name any host");
        let mut wrong = log
            .lines()
            .filter(|line| (line.contains("ERROR") || line.contains("WARN")) && !is_expected(line));
        assert_eq!(wrong.next(), None, "{example} by {build:?}\n{log}");
    }
}

async fn ask(request: reqwest::RequestBuilder) -> (u16, String) {
    let answer = soon("the answer", request.send()).await.unwrap();
    (
        answer.status().as_u16(),
        soon("the body", answer.text()).await.unwrap(),
    )
}

#[tokio::test]
async fn hello_greets_and_adds() {
    visit("hello", async |server| {
        let client = Client::new();
        assert_eq!(
            ask(client.get(server.url("/"))).await,
            (200, "hello".into())
        );
        assert_eq!(
            ask(client.get(server.url("/users/7"))).await,
            (200, "user 7".into())
        );
        assert_eq!(ask(client.get(server.url("/users/seven"))).await.0, 400);
        assert_eq!(
            ask(client.post(server.url("/sum")).body("[1, 2.5]")).await,
            (200, r#"{"sum":3.5}"#.into())
        );
        assert_eq!(
            ask(client.post(server.url("/sum")).body("one")).await.0,
            400
        );
        assert_eq!(ask(client.post(server.url("/"))).await.0, 405);
        assert_eq!(ask(client.get(server.url("/nowhere"))).await.0, 404);
    })
    .await;
}

#[tokio::test]
async fn echo_returns_each_message() {
    visit("echo", async |server| {
        let mut request = server.ws("/echo").into_client_request().unwrap();
        request
            .headers_mut()
            .insert("sec-websocket-protocol", "chat, v1.echo".parse().unwrap());
        let mut ann = Socket::connect(request).await;
        assert_eq!(ann.response.headers()["sec-websocket-protocol"], "v1.echo");
        for message in [
            Message::text("hi"),
            Message::text(""),
            Message::binary(vec![0, 255]),
            Message::binary(vec![7; 1 << 20]),
        ] {
            ann.send(message.clone()).await;
            assert!(ann.receive().await == message);
        }
        ann.close().await;
        assert_eq!(ask(Client::new().get(server.url("/echo"))).await.0, 426);
    })
    .await;
}

#[tokio::test]
async fn lobby_sends_each_message_to_all() {
    visit("lobby", async |server| {
        let mut ann = Socket::connect(server.ws("/lobby?name=Ann")).await;
        assert_eq!(
            ann.text().await,
            r#"{"kind":"join","name":"Ann","text":""}"#
        );
        let mut bob = Socket::connect(server.ws("/lobby")).await;
        let joined = r#"{"kind":"join","name":"somebody","text":""}"#;
        assert_eq!(
            (ann.text().await.as_str(), bob.text().await.as_str()),
            (joined, joined)
        );
        bob.send("hi \"all\"").await;
        let line = r#"{"kind":"say","name":"somebody","text":"hi \"all\""}"#;
        assert_eq!(
            (ann.text().await.as_str(), bob.text().await.as_str()),
            (line, line)
        );
        bob.close().await;
        assert_eq!(
            ann.text().await,
            r#"{"kind":"leave","name":"somebody","text":""}"#
        );
        let refused = Socket::try_connect(server.ws(&format!("/lobby?name={}", "n".repeat(25))))
            .await
            .err()
            .unwrap();
        assert_eq!(refused.status(), 400);
        ann.close().await;
    })
    .await;
}

// The runtime has several threads, so that the client's side of a dropped stream is closed while
// the test waits for the server.
#[tokio::test(flavor = "multi_thread")]
async fn ticker_sends_prices_and_counts_on() {
    visit("ticker", async |server| {
        let client = Client::new();
        let mut feed = client
            .get(server.url("/prices"))
            .send()
            .await
            .unwrap()
            .bytes_stream();
        let first = soon("the first event", feed.next()).await.unwrap().unwrap();
        assert_eq!(first, "event: open\ndata: the market is open\n\n");
        let position = soon("where it begins", feed.next()).await.unwrap().unwrap();
        assert!(
            position.starts_with(b"id: ") && position.ends_with(b"-0\n\n"),
            "{position:?}"
        );
        let price = r#"{"name":"tea","price":12.5}"#;
        assert_eq!(
            ask(client.post(server.url("/prices")).body(price)).await,
            (201, "1".into())
        );
        assert_eq!(
            ask(client.post(server.url("/prices")).body("tea for two"))
                .await
                .0,
            400
        );
        let second = soon("the price", feed.next()).await.unwrap().unwrap();
        assert!(
            second.starts_with(b"id: ")
                && second.ends_with(format!("-1\nevent: price\ndata: {price}\n\n").as_bytes()),
            "{second:?}"
        );

        let ticks = client
            .get(server.url("/ticks"))
            .header("last-event-id", "41")
            .send()
            .await
            .unwrap();
        assert_eq!(ticks.headers()["content-type"], "text/event-stream");
        let tick = soon("a tick", ticks.bytes_stream().next())
            .await
            .unwrap()
            .unwrap();
        assert_eq!(tick, "event: tick\nid: 42\ndata: tick 42\n\n");
    })
    .await;
}

#[tokio::test]
async fn guarded_admits_only_known_users() {
    visit("guarded", async |server| {
        let client = Client::new();
        let open = client.get(server.url("/")).send().await.unwrap();
        assert_eq!(
            (
                open.status().as_u16(),
                open.headers()["x-served-by"].to_str().unwrap()
            ),
            (200, "guarded")
        );
        let refused = client
            .get(server.url("/private/name"))
            .send()
            .await
            .unwrap();
        assert_eq!(
            (
                refused.status().as_u16(),
                refused.headers()["www-authenticate"].to_str().unwrap()
            ),
            (401, "Bearer")
        );
        for spelling in [
            "/private/../private/name",
            "/%70rivate/name",
            "//private//name",
            "/private/./name",
        ] {
            let path = spelling.to_owned();
            let mut raw = support::client::Raw::send(
                server.address(),
                &format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"),
            )
            .await;
            let answer = raw.rest().await;
            assert!(answer.starts_with("HTTP/1.1 401 "), "{spelling}: {answer}");
        }
        let known = client
            .get(server.url("/private/name"))
            .header("authorization", "Bearer tide-ann");
        assert_eq!(ask(known).await, (200, "you are ann".into()));

        let refused = Socket::try_connect(server.ws("/socket"))
            .await
            .err()
            .unwrap();
        assert_eq!(refused.status(), 401);
        let mut bob = Socket::connect(server.ws("/socket?token=tide-bob")).await;
        assert_eq!(bob.response.headers()["x-served-by"], "guarded");
        assert_eq!(bob.text().await, "hello bob");
        bob.close().await;
    })
    .await;
}

#[tokio::test]
async fn counter_counts_requests_and_messages() {
    visit("counter", async |server| {
        let client = Client::new();
        let mut ann = Socket::connect(server.ws("/counters/tea")).await;
        assert_eq!(ann.text().await, "0");
        assert_eq!(
            ask(client.post(server.url("/counters/tea")).body("2")).await,
            (200, "2".into())
        );
        assert_eq!(
            (ann.text().await, ann.ask("40").await),
            ("2".into(), "42".into())
        );
        assert_eq!(
            ask(client.get(server.url("/counters/tea"))).await,
            (200, "42".into())
        );
        assert_eq!(
            ask(client.get(server.url("/counters/milk"))).await,
            (200, "0".into())
        );
        assert_eq!(ask(client.delete(server.url("/counters/tea"))).await.0, 405);
        assert_eq!(
            ask(client.post(server.url("/counters/tea")).body("many"))
                .await
                .0,
            400
        );
        ann.send("many").await;
        assert_eq!(ann.closed().await, (1008, "a number, please".into()));
    })
    .await;
}

#[tokio::test]
async fn chat_keeps_messages_and_lists_members() {
    visit("chat", async |server| {
        let mut ann = Socket::connect(server.ws("/rooms/tea?name=Ann")).await;
        assert_eq!(ann.text().await, r#"{"kind":"history","lines":[]}"#);
        let snapshot: Value = serde_json::from_str(&ann.text().await).unwrap();
        let member = json!({ "id": snapshot["self"], "meta": "Ann" });
        assert_eq!(
            snapshot,
            json!({ "kind": "snapshot", "self": member["id"], "members": [member] })
        );
        let line = r#"{"kind":"say","name":"Ann","text":"hi"}"#;
        assert_eq!(ann.ask("hi").await, line);
        let mut bob = Socket::connect(server.ws("/rooms/tea?name=Bob")).await;
        assert_eq!(
            bob.text().await,
            format!(r#"{{"kind":"history","lines":[["000000001",{line}]]}}"#)
        );
        let snapshot: Value = serde_json::from_str(&bob.text().await).unwrap();
        assert_eq!(
            (&snapshot["members"][0], &snapshot["members"][1]["meta"]),
            (&member, &json!("Bob"))
        );
        let bobs = snapshot["self"].as_str().unwrap();
        assert_eq!(
            ann.text().await,
            format!(r#"{{"kind":"join","id":"{bobs}","meta":"Bob"}}"#)
        );
        bob.close().await;
        assert_eq!(
            ann.text().await,
            format!(r#"{{"kind":"leave","id":"{bobs}","meta":"Bob"}}"#)
        );
        assert_eq!(
            Socket::try_connect(server.ws("/rooms/tea"))
                .await
                .err()
                .unwrap()
                .status(),
            400
        );
    })
    .await;
}

#[tokio::test]
async fn board_shares_pointers_and_keeps_strokes() {
    visit("board", async |server| {
        let mut ann = Socket::connect(server.ws("/boards/sea")).await;
        let anns: Value = serde_json::from_str(&ann.text().await).unwrap(); // the handshake completes before the room receives the open
        let mut bob = Socket::connect(server.ws("/boards/sea")).await;
        let bobs: Value = serde_json::from_str(&bob.text().await).unwrap();
        assert_eq!(bobs["members"][0], anns["members"][0]);
        ann.send(r#"{"kind":"move","at":[1,2]}"#).await;
        let moved: Value = serde_json::from_str(&bob.text().await).unwrap();
        assert_eq!(
            moved,
            json!({ "kind": "move", "at": [1, 2], "id": anns["self"] })
        );
        ann.send(r#"{"kind":"stroke","points":[[1,2],[3,4]]}"#)
            .await;
        let stroke = bob.text().await;
        assert_eq!(
            ask(Client::new().get(server.url("/boards/sea"))).await,
            (200, format!("[{stroke}]"))
        );
        assert!(ann.text().await.starts_with(r#"{"kind":"join""#));
        ann.send(r#"{"kind":"scribble"}"#).await;
        assert_eq!(ann.closed().await.0, 1008);
        bob.close().await;
    })
    .await;
}

#[tokio::test]
async fn reminder_sends_each_reminder_when_it_is_due() {
    visit("reminder", async |server| {
        let client = Client::new();
        let mut ann = Socket::connect(server.ws("/reminders/ann")).await;
        assert_eq!(
            ask(client
                .post(server.url("/reminders/ann?in=3600s"))
                .body("later"))
            .await
            .0,
            201
        );
        assert_eq!(
            ask(client.post(server.url("/reminders/ann?in=0s")).body("tea"))
                .await
                .0,
            201
        );
        assert_eq!(ann.text().await, "tea");
        assert!(
            ask(client.get(server.url("/reminders/ann")))
                .await
                .1
                .ends_with(" later\n")
        );
        assert_eq!(
            ask(client
                .post(server.url("/reminders/ann?in=soon"))
                .body("tea"))
            .await
            .0,
            400
        );
    })
    .await;
}

#[tokio::test]
async fn shop_sells_with_and_without_scripts() {
    visit("shop", async |server| {
        let client = Client::builder().redirect(Policy::none()).build().unwrap();
        let shelf = ask(client.get(server.url("/"))).await;
        assert!(
            shelf.0 == 200 && shelf.1.contains("Ten metres of rope"),
            "{shelf:?}"
        );
        let form = |body: &str| {
            let request = client
                .post(server.url("/products/rope"))
                .header("content-type", "application/x-www-form-urlencoded");
            request.header("accept", "text/html").body(body.to_owned())
        };
        let bought = form("__action=buy&amount=2&email=ann@example.org")
            .send()
            .await
            .unwrap();
        assert_eq!(
            (
                bought.status().as_u16(),
                bought.headers()["location"].to_str().unwrap()
            ),
            (303, "/products/rope")
        );
        // The refused form shows the page again; its stock streams for as long as the client reads.
        let denied = form("__action=buy&amount=99&email=ann")
            .send()
            .await
            .unwrap();
        assert_eq!(
            (
                denied.status().as_u16(),
                denied.headers()["content-type"].to_str().unwrap()
            ),
            (422, "text/html; charset=utf-8")
        );
        let mut page = denied.bytes_stream();
        let shell = soon("the page", page.next()).await.unwrap().unwrap();
        let shell = String::from_utf8_lossy(&shell);
        assert!(
            shell.contains("from 1 to 10")
                && shell.contains("value=\"99\"")
                && shell.contains("Ten metres of rope"),
            "{shell}"
        );
    })
    .await;
}

#[tokio::test]
async fn dash_streams_readings_and_accepts_notes() {
    visit("dash", async |server| {
        let query = r#"{"page":"/","loader":"load"}"#;
        let request = Client::new()
            .post(server.url("/__loaders"))
            .header("content-type", "application/json")
            .body(query);
        let readings = request
            .header("accept", "application/x-ndjson")
            .send()
            .await
            .unwrap();
        let first = soon("a reading", readings.bytes_stream().next())
            .await
            .unwrap()
            .unwrap();
        assert_eq!(first, "{\"value\":{\"second\":0,\"percent\":20}}\n");
        let mut ann = Socket::connect(server.ws("/notes")).await;
        // A socket that receives its own note follows the topic.
        assert_eq!(ann.ask("the fan is loud").await, "the fan is loud");
        let mut bob = Socket::connect(server.ws("/notes")).await;
        bob.send("so it is").await;
        assert_eq!(
            (ann.text().await.as_str(), bob.text().await.as_str()),
            ("so it is", "so it is")
        );
        ann.close().await;
        bob.close().await;
    })
    .await;
}
