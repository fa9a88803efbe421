//! Makes the host hold memory: in one event, in many events, and for clients that do not read.

use std::{
    hint::black_box,
    time::{Duration, SystemTime},
};
use tidegate::{CallError, prelude::*};

/// `?mb=&hold=`: touches `mb` MiB, and keeps them for `hold` milliseconds.
pub(crate) async fn grow(req: Request) -> Result<String> {
    let kept = black_box(vec![1u8; req.query::<usize>("mb")? << 20]);
    sleep(Duration::from_millis(req.query("hold")?)).await;
    Ok(kept.len().to_string())
}

/// `?hold=`: the same as [`grow`], with so little memory that no reservation is made.
pub(crate) async fn small(req: Request) -> Result<String> {
    let kept = black_box(vec![1u8; 700 << 10]);
    sleep(Duration::from_millis(req.query("hold")?)).await;
    Ok(kept.len().to_string())
}

/// `?bytes=`: a feed whose first events have this size in all.
pub(crate) async fn feed(req: Request) -> Result<Feed> {
    let event = "x".repeat(req.query::<usize>("bytes")? / 8);
    Ok((0..8).fold(Feed::follow("greedy"), |feed, _| {
        feed.first_event("first", event.as_str())
    }))
}

/// `?bytes=`: an answer of this size.
pub(crate) async fn answer(req: Request) -> Result<Vec<u8>> {
    Ok(vec![b'x'; req.query("bytes")?])
}

/// `?count=`: an answer with this number of headers; `&bytes=`: each has a value of this size.
pub(crate) async fn headers(req: Request) -> Result<Response> {
    let (count, bytes): (usize, Option<usize>) = (req.query("count")?, req.query_opt("bytes")?);
    let value = "x".repeat(bytes.unwrap_or(1));
    Ok((0..count).fold(Response::text("x"), |response, _| {
        response.header("x-more", &value)
    }))
}

/// Streams pieces of 1 MiB for as long as the client reads.
pub(crate) async fn stream(_: Request, reply: Reply) -> Result {
    let mut body = reply.start()?;
    loop {
        body.write(vec![b'x'; 1 << 20]).await?;
    }
}

/// A page with two loaders whose values are large, and that stop only when the client no longer
/// reads.
pub(crate) fn page() -> Page {
    Page::new(|_, _| Response::html("<!doctype html><body><!--tidegate--></body>"))
        .loader(Loader::new("first"), send_large_values)
        .loader(Loader::live("live"), send_large_values)
}

async fn send_large_values(_: &Request, sink: &mut Sink<str>) -> Result {
    let text = "v".repeat(900 << 10);
    loop {
        sink.send(&text).await?;
    }
}

/// `?topics=&each=&bytes=&from=`: publishes to topics with long names.
pub(crate) async fn publish(req: Request) -> Result<String> {
    let (from, topics, each): (u64, u64, u64) =
        (req.query("from")?, req.query("topics")?, req.query("each")?);
    let message = "m".repeat(req.query("bytes")?);
    let mut done = 0;
    for topic in from..from + topics {
        let name = format!("{topic:0250}");
        for _ in 0..each {
            match Publication::new(message.as_str()).publish(&name) {
                Ok(_) => done += 1,
                Err(error) => return Ok(format!("{done} {error}")),
            }
        }
    }
    Ok(done.to_string())
}

/// `?room=&count=&bytes=`: calls a room and waits for none of the answers.
pub(crate) async fn storm(req: Request) -> Result<String> {
    let (room, count): (String, u64) = (req.query("room")?, req.query("count")?);
    let payload = vec![b'x'; req.query("bytes")?];
    let mut given_up = 0;
    for _ in 0..count {
        let call = tidegate::room::<Greedy>(room.clone())
            .timeout(Duration::ZERO)
            .try_call(&payload);
        given_up += u64::from(matches!(call, Err(CallError::Timeout)));
    }
    Ok(given_up.to_string())
}

/// A room whose requests name an action, a number of repetitions, and a size in bytes.
#[derive(Default)]
pub(crate) struct Greedy;

impl Room for Greedy {
    fn class() -> String {
        "greedy".into()
    }

    async fn message(&mut self, _: &Cx, conn: &Conn, msg: Message) -> Result {
        conn.send(msg)
    }

    async fn call(&mut self, _: &Cx, _: Vec<u8>) -> Result<Vec<u8>> {
        Ok(Vec::new())
    }

    async fn request(&mut self, cx: &Cx, req: Request) -> Result<Response> {
        let mut words = req.text()?.split(' ');
        let what = words.next().unwrap_or_default().to_owned();
        let mut number = || words.next().unwrap_or("0").parse::<usize>();
        let (count, bytes) = (number()?, number()?);
        if what == "sleep" {
            sleep(Duration::from_millis(count as u64)).await;
            return Ok(Response::text("slept"));
        }
        for n in 0..count {
            if let Err(error) = act(cx, &what, n, bytes) {
                return Ok(Response::text(format!("{n} {error}")));
            }
        }
        Ok(Response::text(format!("{count} all")))
    }
}

fn act(cx: &Cx, what: &str, n: usize, bytes: usize) -> Result {
    let text = || "x".repeat(bytes);
    let conn = || {
        cx.connections()
            .into_iter()
            .next()
            .ok_or(Error::fault("the room has no connection"))
    };
    match what {
        "automatic" => tidegate::set_auto_response(&text(), &text()),
        "publish" => Publication::new("").publish(&text()).map(drop),
        "broadcast" => cx
            .broadcast(Publication::new(text().as_str()).transient())
            .map(drop),
        "close" => conn()?.close(4000, &text()),
        "send" => conn()?.send(text()),
        "follow" => conn()?.follow(&text()),
        "unfollow" => {
            conn()?.unfollow(&text());
            Ok(())
        }
        "attach" => conn()?.set_attachment(text().as_bytes()),
        "tag" => conn()?.set_tags([text()]),
        "put" => cx.put(&format!("{n:09}"), text()),
        "delete" => {
            cx.put(&format!("{n:09}"), "")?;
            cx.delete(&format!("{n:09}"));
            Ok(())
        }
        "alarm" => {
            cx.alarm_at(SystemTime::UNIX_EPOCH + Duration::from_secs(1 << 40));
            Ok(())
        }
        _ => Err(Error::fault("no such verb")),
    }
}
