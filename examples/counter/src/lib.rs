//! A counter for each name, over HTTP and WebSocket: `GET /counters/tea` reads it, `POST` adds what
//! the body says.

use tidegate::prelude::*;

tidegate::serve!(app);

fn app() -> App {
    App::new().room::<Counter>("/counters/{name}")
}

/// Awake it has the count in memory; what lasts is in its storage.
#[derive(Default)]
struct Counter(i64);

impl Counter {
    fn add(&mut self, cx: &Cx, count: i64) -> Result {
        self.0 = self.0.saturating_add(count);
        cx.put_json("count", &self.0)?;
        cx.broadcast(self.0.to_string()) // to all, when it is durable
    }
}

impl Room for Counter {
    async fn wake(&mut self, cx: &Cx) -> Result {
        self.0 = cx.get_json("count")?.unwrap_or(0);
        Ok(())
    }

    async fn open(&mut self, _: &Cx, conn: &Conn, _: &Request) -> Result {
        conn.send(self.0.to_string())
    }

    async fn message(&mut self, cx: &Cx, _: &Conn, msg: Message) -> Result {
        let count = msg
            .text()?
            .trim()
            .parse()
            .map_err(|_| Error::bad_request("a number, please"))?;
        self.add(cx, count)
    }

    async fn request(&mut self, cx: &Cx, req: Request) -> Result<Response> {
        match req.method() {
            "GET" | "HEAD" => {}
            "POST" => self.add(
                cx,
                req.text()?
                    .trim()
                    .parse()
                    .map_err(|_| Error::bad_request("a number, please"))?,
            )?,
            _ => {
                return Err(
                    Error::status(405, "GET reads, POST adds").header("allow", "GET, HEAD, POST")
                );
            }
        }
        Ok(Response::text(self.0.to_string()))
    }
}

#[test]
fn the_count_is_shared_and_survives_a_restart() {
    let mut server = tidegate::testing::serve(app());
    let ann = server.connect("/counters/tea");
    assert_eq!(server.post("/counters/tea", "2").text(), "2");
    server.send(ann, "40");
    assert_eq!(server.received(ann), ["0", "2", "42"]);
    server.restart();
    assert_eq!(
        (
            server.get("/counters/tea").text(),
            server.get("/counters/milk").text()
        ),
        ("42", "0")
    );
}
