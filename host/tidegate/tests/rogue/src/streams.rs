//! Streamed answers that never begin, break off, never end, or come back as the request's own body.

use crate::{misbehave::misbehave, print::print};
use tidegate::prelude::*;

pub(crate) async fn before(req: Request, reply: Reply) -> Result {
    misbehave(&req.param::<String>("how")?).await?;
    reply.send("calm").await
}

pub(crate) async fn midway(req: Request, reply: Reply) -> Result {
    let mut body = reply.start()?;
    body.write("the first half, ").await?;
    misbehave(&req.param::<String>("how")?).await?;
    body.write("and the second").await
}

/// Streams until the client no longer reads.
pub(crate) async fn ever(_: Request, reply: Reply) -> Result {
    let mut body = reply.start()?;
    let gone = loop {
        if let Err(gone) = body.write([b'x'; 4096]).await {
            break gone;
        }
    };
    println!("the endless answer ended");
    Err(gone)
}

pub(crate) async fn echo(mut req: Request, reply: Reply) -> Result {
    if let Some(what) = req.query_opt::<String>("print")? {
        print(&what)?;
    }
    let mut body = reply.header("x-method", req.method()).start()?;
    while let Some(piece) = req.body().next().await? {
        body.write(piece).await?;
    }
    Ok(())
}

/// Never answers.
pub(crate) async fn wait(_: Request, _: Reply) -> Result {
    misbehave("sleep").await
}

/// Answers when the request's body has ended.
pub(crate) async fn collect(mut req: Request, reply: Reply) -> Result {
    while req.body().next().await?.is_some() {}
    reply.send("collected").await
}

/// Sends a first piece, and then nothing for as long as the host allows it. It does not read the
/// request's body.
pub(crate) async fn idle(_: Request, reply: Reply) -> Result {
    let mut body = reply.start()?;
    body.write("a first piece").await?;
    misbehave("sleep").await
}

/// Continues for as long as the host allows it after an answer with a Content-Length.
pub(crate) async fn after(_: Request, reply: Reply) -> Result {
    let mut body = reply.header("content-length", "8").start()?;
    body.write("answered").await?;
    misbehave("sleep").await
}
