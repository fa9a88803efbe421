//! Chat rooms that remember: each keeps what was said, and knows who is there.

use serde::{Deserialize, Serialize};
use tidegate::prelude::*;

tidegate::serve!(app);

fn app() -> App {
    App::new().room::<Chat>("/rooms/{name}")
}

/// Awake it knows the number of the next line. Lines are in its storage, names in the states of its
/// connections.
#[derive(Default)]
struct Chat(u64);

/// A message to the clients: `{"kind":"say","name":"Ann","text":"hi"}`. [`Presence`] sends the
/// others: members that join and leave.
#[derive(Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
enum Line {
    History { lines: Vec<(String, Line)> },
    Say { name: String, text: String },
}

impl Room for Chat {
    async fn wake(&mut self, cx: &Cx) -> Result {
        let last = cx.range("").reverse().limit(1).entries();
        self.0 = last.first().map_or(Ok(0), |(key, _)| key.parse::<u64>())? + 1;
        Ok(())
    }
    async fn upgrade(&mut self, _: &Cx, upgrade: &Upgrade) -> Result<Accept> {
        match upgrade.query::<String>("name")?.len() {
            ..=40 => Ok(Accept::new()),
            _ => Err(Error::bad_request("a shorter name, please")),
        }
    }
    async fn open(&mut self, cx: &Cx, conn: &Conn, req: &Request) -> Result {
        let lines = cx.range("").reverse().limit(50).json()?; // the last first
        conn.send(Message::from_json(&Line::History { lines })?)?;
        cx.presence().join(conn, &req.query::<String>("name")?)
    }
    async fn message(&mut self, cx: &Cx, conn: &Conn, msg: Message) -> Result {
        let name = conn.state()?.unwrap_or_default();
        let line = Line::Say {
            name,
            text: msg.text()?.to_owned(),
        };
        cx.put_json(&format!("{:09}", self.0), &line)?;
        self.0 += 1;
        cx.broadcast(Message::from_json(&line)?) // when it is durable
    }
}

#[cfg(test)]
mod test;
