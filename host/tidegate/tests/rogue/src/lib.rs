//! An app that does everything that an app should not do: it traps, spins, exhausts memory and
//! never returns, in every place where a test requests it.
//!
//! Each place that runs guest code takes a parameter for its misbehaviour (see `misbehave`); a
//! socket obeys its messages.

mod automatic;
mod events;
mod forms;
mod greedy;
mod limits;
mod misbehave;
mod pages;
mod paths;
mod ping;
mod print;
mod room;
mod socket;
mod streams;
mod web;

use misbehave::misbehave;
use std::{fs, path::PathBuf, time::Duration};
use tidegate::prelude::*;

tidegate::serve!(app);

fn app() -> App {
    web::register(forms::register(paths::register(App::new())))
        .guard("/guarded/*", guard)
        .get("/calm", async |_| "calm")
        .get("/version", async |_| version())
        .put("/version", async |_| version())
        .get("/guarded/calm", async |_| "calm")
        .get("/do/{how}", async |req: Request| {
            misbehave(&req.param::<String>("how")?).await
        })
        .get("/pause/{ms}", pause)
        .get("/grow/{mib}", grow)
        .get("/status/{code}", async |req: Request| {
            Ok::<_, Error>(Response::new(req.param("code")?))
        })
        .get("/header", async |_| {
            Response::text("x").header("not a name", "x")
        })
        .get("/bytes/{count}", async |req: Request| {
            Ok::<_, Error>(vec![b'x'; req.param("count")?])
        })
        .post("/publish/{topic}", publish)
        .get("/print/{what}", async |req: Request| {
            print::print(&req.param::<String>("what")?)
        })
        .get("/peer", async |req: Request| req.peer().to_owned())
        .get("/client", client)
        .get("/connections", async |_| ids(None, None, 1000).join("\n"))
        .get("/env", async |_| environment())
        .get("/read", async |req: Request| {
            fs::read_to_string(path(&req)?).map_err(io_error)
        })
        .put("/write", async |req: Request| {
            fs::write(path(&req)?, req.bytes()).map_err(io_error)
        })
        .feed("/feed", feed)
        .socket("/socket", socket::Rogue)
        .socket("/other", async |conn: Conn, message| conn.send(message))
        .post("/via", async |req: Request| room::via(req.text()?))
        .get("/hold/{ms}", events::hold)
        .socket("/account", events::Account)
        .room::<events::Guests>("/guests/{name}")
        .page("/parting", events::parting())
        .page("/page", pages::rogue())
        .page("/broken", pages::broken())
        .page("/flood", pages::flood())
        .room::<room::Rogue>("/rooms/{name}")
        .get("/greedy/grow", greedy::grow)
        .get("/greedy/small", greedy::small)
        .get("/greedy/answer", greedy::answer)
        .feed("/greedy/feed", greedy::feed)
        .get("/greedy/headers", greedy::headers)
        .get("/greedy/publish", greedy::publish)
        .post("/greedy/body", async |req: Request| {
            req.bytes().len().to_string()
        })
        .post("/greedy/storm", greedy::storm)
        .stream("/greedy/stream", greedy::stream)
        .page("/greedy/page", greedy::page())
        .room::<greedy::Greedy>("/greedy/rooms/{name}")
        .stream("/stream/{how}/before", streams::before)
        .stream("/stream/{how}/midway", streams::midway)
        .stream("/stream/ever", streams::ever)
        .stream_on("", "/stream/echo", streams::echo)
        .stream_on("", "/stream/wait", streams::wait)
        .stream_on("", "/stream/collect", streams::collect)
        .stream_on("", "/stream/idle", streams::idle)
        .stream_on("", "/stream/after", streams::after)
}

async fn pause(req: Request) -> Result {
    sleep(Duration::from_millis(req.param("ms")?)).await;
    Ok(())
}

/// Tests make other versions of this app by overwriting this text.
fn version() -> &'static str {
    std::hint::black_box("version 01")
}

async fn guard(req: Request) -> Result<Pass> {
    if let Some(how) = req.query_opt::<String>("how")? {
        misbehave(&how).await?;
    }
    let context: Option<usize> = req.query_opt("context")?;
    Ok(Pass::new()
        .header("x-guarded", "yes")
        .context("size", "x".repeat(context.unwrap_or_default())))
}

/// `?event=` names the event.
async fn publish(req: Request) -> Result<String> {
    let topic: String = req.param("topic")?;
    let publication = Publication::new(req.text()?);
    let publication = match req.query_opt::<String>("event")? {
        Some(event) => publication.event(event),
        None => publication,
    };
    Ok(publication.publish(&topic)?.to_string())
}

async fn feed(req: Request) -> Result<Feed> {
    if let Some(how) = req.query_opt::<String>("how")? {
        misbehave(&how).await?;
    }
    let feed = Feed::follow(req.query::<String>("topic")?).first_event("begun", "first\nsecond");
    Ok(req
        .query_opt::<String>("also")?
        .into_iter()
        .fold(feed, Feed::follow_also))
}

/// Touches this much memory, frees it, and waits a while, so that other requests need their own
/// instances.
async fn grow(req: Request) -> Result {
    drop(std::hint::black_box(vec![
        1_u8;
        req.param::<usize>("mib")? << 20
    ]));
    sleep(Duration::from_millis(300)).await;
    Ok(())
}

/// Returns all variables, one in a line.
fn environment() -> String {
    let mut lines: Vec<String> = std::env::vars()
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    lines.sort();
    lines.join("\n")
}

fn path(req: &Request) -> Result<PathBuf> {
    Ok(PathBuf::from(req.query::<String>("path")?))
}

/// Returns a refusal of the host as the answer, which the tests read.
fn io_error(error: std::io::Error) -> Error {
    Error::status(403, error.kind().to_string())
}

/// Returns the sender of the request, and its headers about proxies: "peer scheme authority host,
/// x-forwarded-for=..., forwarded=...".
async fn client(req: Request) -> String {
    let named = [
        "x-forwarded-for",
        "x-forwarded-proto",
        "x-forwarded-host",
        "forwarded",
    ]
    .iter()
    .filter_map(|name| Some((*name, req.header(name)?)));
    let named: String = named
        .map(|(name, value)| format!(", {name}={value}"))
        .collect();
    let host = req.header("host").unwrap_or("-");
    format!(
        "{} {} {} {host}{named}",
        req.peer(),
        req.scheme(),
        req.authority()
    )
}
