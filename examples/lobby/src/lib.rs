//! A chat with one room for all: each message is published to a topic that everybody follows.

use serde::{Deserialize, Serialize};
use tidegate::prelude::*;

tidegate::serve!(app);

fn app() -> App {
    App::new().socket("/lobby", Lobby)
}

/// Remembers nothing: the name is in the connection's state, who is there is in the topic.
struct Lobby;

/// A message to all clients: `{"kind": "say", "name": "Ann", "text": "hi"}`.
#[derive(Serialize, Deserialize)]
struct Line<'a> {
    kind: &'a str,
    name: &'a str,
    text: &'a str,
}

impl Socket for Lobby {
    async fn upgrade(&self, upgrade: &Upgrade) -> Result<Accept> {
        let name: String = upgrade.query_opt("name")?.unwrap_or_default();
        let name = if name.trim().is_empty() {
            "somebody"
        } else {
            name.trim()
        };
        if name.chars().count() > 24 {
            return Err(Error::bad_request("a name of at most 24 letters, please"));
        }
        Accept::new().state(&name)
    }

    async fn open(&self, conn: &Conn, _: &Request) -> Result {
        conn.follow("lobby")?;
        publish_line("join", conn, "")
    }

    async fn message(&self, conn: &Conn, msg: Message) -> Result {
        publish_line("say", conn, msg.text()?)
    }

    async fn close(&self, conn: &Conn, _: &CloseEvent) -> Result {
        publish_line("leave", conn, "")
    }
}

fn publish_line(kind: &str, conn: &Conn, text: &str) -> Result {
    let name: String = conn.state()?.unwrap_or_default();
    publish(
        "lobby",
        Message::from_json(&Line {
            kind,
            name: &name,
            text,
        })?,
    )
}

#[test]
fn a_message_reaches_every_connection() {
    let mut server = tidegate::testing::serve(app());
    let (ann, bob) = (
        server.connect("/lobby?name=Ann"),
        server.connect("/lobby?name=Bob"),
    );
    server.send(ann, "hi");
    let line = r#"{"kind":"say","name":"Ann","text":"hi"}"#;
    assert!(
        server.received(ann).pop().unwrap() == line && server.received(bob).pop().unwrap() == line
    );
}
