//! Chat rooms that remember: each keeps what was said, and knows who is there.

use serde::{Deserialize, Serialize};
use tidegate::prelude::*;

tidegate::serve!(app);

fn app() -> App {
    App::new().room::<Chat>("/rooms/{name}")
}

/// What a client gets: `{"kind": "say", "name": "Ann", "text": "hi"}`, or "join" or "leave"; first the last lines, and who is there.
#[derive(Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
enum Line {
    Join { name: String },
    Leave { name: String },
    Say { name: String, text: String },
    Welcome { names: Vec<String>, lines: Vec<Line> },
}

/// The number of the next line; the lines are in the storage, names in the connections' states.
struct Chat(u64);

impl Room for Chat {
    async fn wake(cx: &Cx) -> Result<Self> {
        let last = cx.range("line/").reverse().limit(1).entries()?.pop();
        Ok(Chat(last.map_or(0, |(key, _)| key["line/".len()..].parse::<u64>().map_or(0, |last| last + 1))))
    }

    async fn upgrade(&mut self, _: &Cx, upgrade: &Upgrade) -> Result<Accept> {
        let name: String = upgrade.query_opt("name")?.unwrap_or_default();
        match name.trim().chars().count() {
            0 => Accept::new().state(&"somebody"),
            1..=24 => Accept::new().state(&name.trim()),
            _ => Err(Error::bad_request("a name of at most 24 letters, please")),
        }
    }

    async fn open(&mut self, cx: &Cx, conn: &Conn, _: &Request) -> Result {
        let names = cx.connections().iter().map(name_of).collect::<Result<_>>()?;
        let mut lines: Vec<Line> = cx.range("line/").reverse().limit(50).json()?.into_iter().map(|(_, line)| line).collect();
        lines.reverse();
        conn.send(Message::from_json(&Line::Welcome { names, lines })?)?;
        cx.broadcast_except(conn, Message::from_json(&Line::Join { name: name_of(conn)? })?)
    }

    async fn message(&mut self, cx: &Cx, conn: &Conn, msg: Message) -> Result {
        let line = Line::Say { name: name_of(conn)?, text: msg.text()?.to_owned() };
        cx.put_json(&format!("line/{:012}", self.0), &line)?;
        self.0 += 1;
        cx.broadcast(Message::from_json(&line)?)
    }

    async fn close(&mut self, cx: &Cx, conn: &Conn, _: &CloseInfo) -> Result {
        cx.broadcast(Message::from_json(&Line::Leave { name: name_of(conn)? })?)
    }
}

fn name_of(conn: &Conn) -> Result<String> {
    Ok(conn.state()?.unwrap_or_default())
}

#[test]
fn who_comes_later_reads_what_was_said_and_sees_who_is_there() {
    let mut server = tidegate::testing::serve(app());
    let ann = server.connect("/rooms/tea?name=Ann");
    server.say(ann, "hi");
    server.sleep("/rooms/tea");
    let bob = server.connect("/rooms/tea?name=Bob");
    let welcome = r#"{"kind":"welcome","names":["Ann","Bob"],"lines":[{"kind":"say","name":"Ann","text":"hi"}]}"#;
    assert_eq!(server.heard(bob), [welcome]);
}
