//! The answers of ordinary sites, for clients that close, pause or refuse to wait.

use crate::misbehave::misbehave;
use std::time::Duration;
use tidegate::{prelude::*, sse::Event};

/// Registers the routes under `/web/`.
pub(crate) fn register(app: App) -> App {
    app.guard("/web/vault/*", refuse)
        .post("/web/vault/upload", async |_| "never")
        .post("/web/upload", async |req: Request| {
            req.bytes().len().to_string()
        })
        .get("/web/reset", async |_| {
            Response::text("content that a 205 may not have").with_status(205)
        })
        .stream_on("", "/web/refuse", large)
        .stream("/web/slow", slow)
        .stream("/web/pause/{ms}", pause)
        .stream("/web/events", events)
        .page("/web/page", slow_page())
}

async fn refuse(_: Request) -> Result<Pass> {
    Err(Error::status(401, "not without a name"))
}

/// Refuses without reading the request's body; the answer is longer than a socket buffers.
async fn large(req: Request, reply: Reply) -> Result {
    drop(req);
    let mut body = reply.status(403).start()?;
    for _ in 0..64 {
        body.write([b'x'; 64 << 10]).await?;
    }
    Ok(())
}

/// Sends three pieces with pauses between them.
async fn slow(_: Request, reply: Reply) -> Result {
    let mut body = reply.start()?;
    for piece in ["one ", "two ", "three"] {
        body.write(piece).await?;
        sleep(Duration::from_millis(100)).await;
    }
    Ok(())
}

/// Sends two pieces with this pause between them.
async fn pause(req: Request, reply: Reply) -> Result {
    let mut body = reply.start()?;
    body.write("one ").await?;
    sleep(Duration::from_millis(req.param("ms")?)).await;
    body.write("two").await
}

/// Sends the two events after `Last-Event-ID`. Then the stream ends, or stays silent with `?stay=`.
async fn events(req: Request, reply: Reply) -> Result {
    let last = req.header("last-event-id").unwrap_or("0");
    let last: u32 = last.parse()?;
    let mut events = reply.events()?;
    for number in [last + 1, last + 2] {
        let event = Event::data(format!("first line of {number}\nsecond"));
        let event = event.event("tick").id(number.to_string());
        events.send(event.retry(Duration::from_millis(10))).await?;
    }
    match req.query_opt::<String>("stay")? {
        Some(_) => misbehave("sleep").await,
        None => Ok(()),
    }
}

/// A page whose loader takes longer than its shell.
fn slow_page() -> Page {
    Page::new(|_, _| Response::html("<!doctype html><body>a page<!--tidegate--></body>")).loader(
        Loader::new("slow"),
        async |_: &Request, sink: &mut Sink<str>| {
            sleep(Duration::from_millis(200)).await;
            sink.send("the slow value").await
        },
    )
}
