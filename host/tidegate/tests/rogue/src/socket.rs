//! A socket that obeys its messages: the first word is the command, the rest is its argument.

use crate::{
    automatic::automatic, limits, misbehave::misbehave, ping::ping, print::print, room, version,
};
use tidegate::prelude::*;

/// The query selects the misbehaviour in `upgrade`, `open` or `close`, and the status of a refusal.
pub(crate) struct Rogue;

impl Socket for Rogue {
    async fn upgrade(&self, upgrade: &Upgrade) -> Result<Accept> {
        if let Some(how) = upgrade.query_opt::<String>("upgrade")? {
            misbehave(&how).await?;
        }
        if upgrade.query_opt::<String>("refuse")?.is_some() {
            return Err(Error::status(418, "only coffee\nhere")
                .header("x-why", "teapot")
                .header("connection", "x-why"));
        }
        if let Some(code) = upgrade.query_opt("accept-then-close")? {
            return Ok(Accept::then_close(code, "not you"));
        }
        let accept = match upgrade.query_opt::<String>("tag")? {
            Some(tag) => Accept::new().tag(tag),
            None => Accept::new(),
        };
        let protocol = upgrade.query_opt::<String>("protocol")?;
        let close = upgrade.query_opt::<String>("close")?.unwrap_or_default();
        Ok(accept
            .protocol(protocol.as_deref())
            .attachment(close)
            .header("x-accepted", "yes"))
    }

    async fn open(&self, conn: &Conn, request: &Request) -> Result {
        println!("opened {}", conn.id());
        if let Some(topic) = request.query_opt::<String>("follow")? {
            conn.follow(&topic)?;
        }
        // A browser's client reconnects in this way, with its position in the query.
        if let Some(topic) = request.query_opt::<String>("resume")? {
            let since = request
                .query_opt::<String>("since")?
                .map_or(String::new(), |since| format!(" {since}"));
            follow_since(conn, &format!("{topic}{since}"))?;
        }
        match request.query_opt::<String>("open")? {
            Some(how) => misbehave(&how).await,
            None => Ok(()),
        }
    }

    async fn message(&self, conn: &Conn, message: Message) -> Result {
        let Message::Text(text) = &message else {
            return conn.send(message);
        };
        let (what, with) = text.split_once(' ').unwrap_or((text, ""));
        match what {
            "do" => misbehave(with).await,
            "limit" => limits::of_connection::<room::Rogue>(conn, with),
            "print" => print(with),
            "say" => conn.send(with),
            "send-ping" => ping(conn, with.as_bytes()),
            "id" => conn.send(conn.id()),
            "version" => conn.send(version()),
            "keep" => conn.set_attachment(with.as_bytes()),
            "follow" => conn.follow(with),
            "since" => follow_since(conn, with),
            "unfollow" => {
                conn.unfollow(with);
                Ok(())
            }
            "publish" => with
                .split_once(' ')
                .map_or(Ok(()), |(topic, text)| publish(topic, text)),
            "tell-others" => with.split_once(' ').map_or(Ok(()), |(topic, text)| {
                tidegate::publish_except(conn, topic, text)
            }),
            "poke" => find(with).map_or_else(
                || conn.send("no connection"),
                |other| other.send(format!("poked by {}", conn.id())),
            ),
            "tagged" => conn.send(ids(Some(with), None, 1000).join(" ")),
            "automatic" => automatic(with),
            "close" => conn.close(with.parse()?, "as asked"),
            "big" => big(conn, with.parse()?),
            "flood" => flood(conn, with.parse()?),
            _ => conn.send(message),
        }
    }

    async fn close(&self, conn: &Conn, info: &CloseEvent) -> Result {
        let kept = String::from_utf8(conn.attachment())?;
        println!(
            "closed {} code={} clean={} by_peer={} kept={kept}",
            conn.id(),
            info.code,
            info.was_clean,
            info.is_peer_initiated
        );
        match kept.strip_prefix("do ") {
            Some(how) => misbehave(how).await,
            None => Ok(()),
        }
    }
}

/// Follows "TOPIC POSITION" from the position; sends the position, and whether there is a gap.
fn follow_since(conn: &Conn, with: &str) -> Result {
    let (topic, since) = with
        .split_once(' ')
        .map_or((with, None), |(topic, since)| (topic, Some(since)));
    let followed = conn.follow_since(topic, since.map(str::parse).transpose()?)?;
    conn.send(format!(
        "{} {}",
        followed.position,
        if followed.has_gap { "gap" } else { "whole" }
    ))
}

/// Sends one message of this size, or the error.
fn big(conn: &Conn, bytes: usize) -> Result {
    match conn.send(vec![b'x'; bytes]) {
        Ok(()) => Ok(()),
        Err(error) => conn.send(error.to_string()),
    }
}

/// Sends messages of this size until one is refused, then closes with their number.
fn flood(conn: &Conn, bytes: usize) -> Result {
    let message = vec![b'x'; bytes];
    let mut sent = 0;
    let why = loop {
        match conn.send(message.as_slice()) {
            Ok(()) => sent += 1,
            Err(error) => break error,
        }
    };
    conn.close(
        4000,
        &format!("{sent} sent, {} queued: {why}", conn.buffered_amount()),
    )
}
