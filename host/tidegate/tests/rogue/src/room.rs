//! A room that obeys its messages, and counts its wakes in its storage.

use crate::{
    automatic::automatic, limits, misbehave::misbehave, ping::ping, print::print, version,
};
use std::time::Duration;
use tidegate::{CallError, prelude::*};

/// The number of this wake. If the storage has a later number, the room has two instances.
#[derive(Default)]
pub(crate) struct Rogue {
    wake: u64,
}

impl Rogue {
    /// Adds a line and increments the count in one event; returns the line's number.
    fn add(&self, cx: &Cx, text: &str) -> Result<u64> {
        let wakes: Option<u64> = cx.get_json("wakes")?;
        if wakes != Some(self.wake) {
            cx.broadcast("two instances")?;
        }
        let count: u64 = cx.get_json("count")?.unwrap_or(0);
        cx.put(&format!("line/{count:09}"), text)?;
        cx.put_json("count", &(count + 1))?;
        cx.broadcast(text)?;
        Ok(count)
    }
}

/// Calls the room in "NAME rest"; returns its answer, or the error.
pub(crate) fn via(with: &str) -> Result<Vec<u8>> {
    let (name, payload) = with.split_once(' ').unwrap_or((with, ""));
    let call = tidegate::room::<Rogue>(name).timeout(Duration::from_millis(300));
    match call.try_call(payload) {
        Err(CallError::Refused(status, text)) => Err(Error::status(status, text)),
        Err(error) => Ok(error.to_string().into()),
        answer => Ok(answer?),
    }
}

impl Room for Rogue {
    fn class() -> String {
        "rogue".into()
    }

    async fn wake(&mut self, cx: &Cx) -> Result {
        self.wake = cx.get_json("wakes")?.unwrap_or(0) + 1;
        cx.put_json("wakes", &self.wake)?;
        if cx.name().starts_with("never") {
            panic!("it never wakes");
        }
        Ok(())
    }

    async fn message(&mut self, cx: &Cx, conn: &Conn, msg: Message) -> Result {
        let text = msg.text()?;
        let (what, with) = text.split_once(' ').unwrap_or((text, ""));
        match what {
            "version" => conn.send(version()),
            "send-ping" => ping(conn, with.as_bytes()),
            "limit" => limits::of_room(cx, conn, with),
            "print" => print(with),
            "wake" => conn.send(self.wake.to_string()),
            "alarm" => {
                cx.alarm_in(Duration::from_millis(with.parse()?));
                Ok(())
            }
            "alarm-that-fails" => {
                cx.put("failing", with)?;
                cx.alarm_in(Duration::ZERO);
                Ok(())
            }
            "members" => conn.send(cx.connections().len().to_string()),
            "via" => conn.send(via(with)?),
            "keep" => conn.set_attachment(with.as_bytes()),
            "automatic" => automatic(with),
            "kept" => conn.send(String::from_utf8(conn.attachment())?),
            "then" => {
                self.add(cx, "half done")?;
                conn.send("half done")?;
                misbehave(with).await
            }
            _ => self.add(cx, text).map(drop),
        }
    }

    /// A POST adds the body; a GET returns the count and all lines.
    async fn request(&mut self, cx: &Cx, req: Request) -> Result<Response> {
        if req.method() == "POST" {
            return Ok(Response::text(self.add(cx, req.text()?)?.to_string()));
        }
        let lines = cx
            .range("line/")
            .entries()
            .into_iter()
            .map(|(_, line)| String::from_utf8(line))
            .collect::<Result<Vec<_>, _>>()?;
        let count: u64 = cx.get_json("count")?.unwrap_or(0);
        Ok(Response::text(format!("{count}\n{}", lines.join("\n"))))
    }

    /// "via NAME rest" calls that room with the rest; "then HOW" adds a line and misbehaves; "long N"
    /// answers with N bytes; any other text is added as a line.
    async fn call(&mut self, cx: &Cx, payload: Vec<u8>) -> Result<Vec<u8>> {
        let text = String::from_utf8(payload)?;
        let (what, with) = text.split_once(' ').unwrap_or((&text, ""));
        match what {
            "via" => via(with),
            "refuse" => Err(Error::status(409, with)),
            "long" => Ok(vec![b'x'; with.parse()?]),
            "then" => {
                self.add(cx, "half done")?;
                misbehave(with).await?;
                Ok(Vec::new())
            }
            _ => Ok(self.add(cx, &text)?.to_string().into()),
        }
    }

    async fn feed(&mut self, _: &Cx, _: Request) -> Result<Feed> {
        Ok(Feed::new().first("begun"))
    }

    /// Misbehaves as the attachment says, if that is "do HOW".
    async fn close(&mut self, _: &Cx, conn: &Conn, _: &CloseEvent) -> Result {
        let attachment = String::from_utf8(conn.attachment())?;
        match attachment.strip_prefix("do ") {
            Some(how) => misbehave(how).await,
            None => Ok(()),
        }
    }

    async fn alarm(&mut self, cx: &Cx) -> Result {
        if let Some(how) = cx.get("failing") {
            misbehave(&String::from_utf8(how)?).await?;
        }
        self.add(cx, &format!("alarm {}", cx.attempt())).map(drop)
    }
}
