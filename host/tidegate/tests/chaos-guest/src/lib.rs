//! An app that records each of its events, so that a checker outside can find lost and repeated
//! events.
//!
//! `/ledger/{name}` is a room that stores lines, alarms, and each open and close of its
//! connections. `/plain` is a socket without a room that publishes its open and its close to a
//! topic; `/watch` follows that topic. The other routes occupy instances.
//!
//! The variable `LIFE` numbers the processes: ids of connections are unique in one process.

mod ledger;

use std::time::Duration;
use tidegate::prelude::*;

tidegate::serve!(app);

/// Topic to which sockets without a room publish.
const ENDS: &str = "ends";

fn app() -> App {
    App::new()
        .get("/calm", async |_| "calm")
        .get("/sleep/{ms}", async |req: Request| -> Result<&str> {
            sleep(Duration::from_millis(req.param("ms")?)).await;
            Ok("slept")
        })
        .get("/bulk", async |_| "x".repeat(8_000_000))
        .get("/trap", async |_| -> &str { panic!("as the client asked") })
        .post("/sink", async |req: Request| req.bytes().len().to_string())
        .socket("/plain", Plain)
        .socket("/watch", Watch)
        .feed("/feed", |_: Request| Feed::follow(ENDS))
        .room::<ledger::Ledger>("/ledger/{name}")
}

/// Returns the number of the process.
fn life() -> String {
    std::env::var("LIFE").unwrap_or_default()
}

struct Plain;

impl Socket for Plain {
    async fn open(&self, conn: &Conn, _: &Request) -> Result {
        publish(ENDS, format!("open {}", conn.id()))?;
        conn.send(format!("you {}", conn.id()))
    }

    async fn message(&self, conn: &Conn, msg: Message) -> Result {
        match msg.text()? {
            "trap" => panic!("as the client asked"),
            "close" => conn.close(4000, "as the client asked"),
            "flood" => loop {
                conn.send(vec![b'x'; 10_000])?;
            },
            _ => conn.send(msg),
        }
    }

    async fn close(&self, conn: &Conn, _: &CloseEvent) -> Result {
        publish(ENDS, format!("close {}", conn.id())).map(drop)
    }
}

struct Watch;

impl Socket for Watch {
    async fn open(&self, conn: &Conn, _: &Request) -> Result {
        conn.follow(ENDS)?;
        conn.send("watching")
    }

    async fn message(&self, conn: &Conn, msg: Message) -> Result {
        conn.send(msg)
    }
}
