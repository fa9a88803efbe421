//! A board that many draw on at once: pointers come and go with their connections, strokes stay.

use serde::{Deserialize, Serialize};
use tidegate::prelude::*;

tidegate::serve!(app);

fn app() -> App {
    App::new().room::<Board>("/boards/{name}")
}

const COLOURS: [&str; 8] = [
    "#e5484d", "#3e84e8", "#30a46c", "#f2a20c", "#9a5cd0", "#12a5a0", "#e0579f", "#8a6d4b",
];
const STROKES_MAX: u64 = 2000;

/// Awake it knows the number of the next stroke. Strokes are in its storage, colours in the states
/// of its connections.
#[derive(Default)]
struct Board(u64);

/// An action of a client: `{"kind":"move","at":[10,20]}`. The others receive it with its author, as
/// an id or a colour.
#[derive(Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
enum Act {
    Move {
        at: (u16, u16),
        id: Option<String>,
    },
    Stroke {
        points: Vec<(u16, u16)>,
        colour: Option<String>,
    },
    Clear,
}

impl Room for Board {
    async fn wake(&mut self, cx: &Cx) -> Result {
        let last = cx.range("").reverse().limit(1).entries();
        self.0 = last.first().map_or(Ok(0), |(key, _)| key.parse::<u64>())? + 1;
        Ok(())
    }
    async fn open(&mut self, cx: &Cx, conn: &Conn, _: &Request) -> Result {
        let here = cx.presence().list::<String>()?;
        let free = COLOURS
            .iter()
            .find(|colour| here.iter().all(|member| member.meta != **colour));
        cx.presence()
            .join(conn, free.unwrap_or(&COLOURS[here.len() % COLOURS.len()]))
    }
    async fn message(&mut self, cx: &Cx, conn: &Conn, msg: Message) -> Result {
        let mut act: Act = msg.json()?;
        match &mut act {
            Act::Move { id, .. } => {
                *id = Some(conn.id());
                // It keeps nothing and is not kept, so it waits for no disk.
                return cx.broadcast(
                    Publication::new(Message::from_json(&act)?)
                        .except(conn)
                        .transient(),
                );
            }
            Act::Stroke { points, .. } if points.len() > 256 => {
                return Err(Error::bad_request("a shorter stroke, please"));
            }
            Act::Stroke { colour, .. } => {
                *colour = conn.state()?;
                cx.put_json(&format!("{:012}", self.0), &act)?;
                cx.delete(&format!("{:012}", self.0.saturating_sub(STROKES_MAX)));
                self.0 += 1;
            }
            Act::Clear => cx.clear(),
        }
        cx.broadcast_except(conn, Message::from_json(&act)?)
    }
    async fn request(&mut self, cx: &Cx, _: Request) -> Result<Response> {
        let strokes: Vec<_> = cx
            .range("")
            .entries()
            .into_iter()
            .map(|(_, stroke)| stroke)
            .collect();
        Ok(
            Response::bytes([b"[", &*strokes.join(&b','), b"]"].concat())
                .header("content-type", "application/json"),
        )
    }
}

#[cfg(test)]
mod test;
