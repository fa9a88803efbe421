//! Streamed answers that never begin, break off, never end, or come back as the request's own body.

use crate::misbehave::misbehave;
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

/// Ends when nobody reads any more.
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
    let mut body = reply.header("x-method", req.method()).start()?;
    while let Some(piece) = req.body().next().await? {
        body.write(piece).await?;
    }
    Ok(())
}
