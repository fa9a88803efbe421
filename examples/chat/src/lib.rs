//! Chat rooms that remember: each keeps what was said, and knows who is there.

use serde::{Deserialize, Serialize};
use tidegate::prelude::*;

tidegate::serve!(app);

fn app() -> App {
    App::new().room::<Chat>("/rooms/{name}")
}

/// Awake it knows the number of the next line. Lines are in its storage, names in the states of its connections.
struct Chat(u64);

/// What a client gets: `{"kind":"say","name":"Ann","text":"hi"}`; first of all a welcome.
#[derive(Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
enum Line {
    Welcome { names: Vec<String>, lines: Vec<(String, Line)> },
    Join { name: String },
    Say { name: String, text: String },
    Leave { name: String },
}

impl Room for Chat {
    async fn wake(cx: &Cx) -> Result<Self> {
        let last = cx.range("").reverse().limit(1).entries()?;
        Ok(Chat(last.first().map_or(Ok(0), |(key, _)| key.parse::<u64>())? + 1))
    }
    async fn upgrade(&mut self, _: &Cx, upgrade: &Upgrade) -> Result<Accept> {
        let name: String = upgrade.query("name")?;
        if name.len() > 40 {
            return Err(Error::bad_request("a shorter name, please"));
        }
        Accept::new().state(&name)
    }
    async fn open(&mut self, cx: &Cx, conn: &Conn, _: &Request) -> Result {
        let names = cx.connections().iter().map(name).collect::<Result<_>>()?;
        let lines = cx.range("").reverse().limit(50).json()?; // the last first
        conn.send(Message::from_json(&Line::Welcome { names, lines })?)?;
        cx.broadcast_except(conn, Message::from_json(&Line::Join { name: name(conn)? })?)
    }
    async fn message(&mut self, cx: &Cx, conn: &Conn, msg: Message) -> Result {
        let line = Line::Say { name: name(conn)?, text: msg.text()?.to_owned() };
        cx.put_json(&format!("{:09}", self.0), &line)?;
        self.0 += 1;
        cx.broadcast(Message::from_json(&line)?) // when it is durable
    }
    async fn close(&mut self, cx: &Cx, conn: &Conn, _: &CloseInfo) -> Result {
        cx.broadcast(Message::from_json(&Line::Leave { name: name(conn)? })?)
    }
}

fn name(conn: &Conn) -> Result<String> {
    Ok(conn.state()?.unwrap_or_default())
}

#[cfg(test)]
mod test;
