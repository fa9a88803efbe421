//! A room whose storage records its events.
//!
//! | key | value |
//! |---|---|
//! | `line/NUMBER` | the id of a line, in the order of its event |
//! | `lines` | how many there are |
//! | `open/LIFE/CONNECTION`, `close/LIFE/CONNECTION` | how many such events were committed |
//! | `generation` | how often the alarm was set |
//! | `pending/ID` | an alarm that was set and has not rung |
//! | `rung/ID` | how many alarm events had it as pending |
//! | `rang/GENERATION` | how many alarm events were committed while the alarm had been set so often |

use crate::life;
use serde_json::{Map, Value, json};
use std::time::Duration;
use tidegate::prelude::*;

#[derive(Default)]
pub(crate) struct Ledger;

impl Ledger {
    /// "add ID": stores a line. "addflush ID": flushes in the middle, between the line and a second
    /// one, "ID+". "alarm ID MS HOW": sets the alarm; HOW is "plain", "flush" (flushes afterwards),
    /// "fail" (its first call fails), or "again" (its call sets it again, once). "fail ID": stores
    /// a line and fails, so the line must not be there.
    fn command(cx: &Cx, text: &str) -> Result<String> {
        let words: Vec<&str> = text.split(' ').collect();
        match words[..] {
            ["add", id] => Ledger::add(cx, id)?,
            ["addflush", id] => {
                Ledger::add(cx, id)?;
                cx.flush();
                Ledger::add(cx, &format!("{id}+"))?;
            }
            ["alarm", id, ms, how] => Ledger::set_alarm(cx, id, ms.parse()?, how)?,
            ["fail", id] => {
                Ledger::add(cx, id)?;
                return Err(Error::bad_request("as the client asked"));
            }
            ["trap", id] => {
                Ledger::add(cx, id)?;
                panic!("as the client asked");
            }
            _ => return Err(Error::bad_request("no such command")),
        }
        Ok(format!("ok {}", words[1]))
    }

    fn add(cx: &Cx, id: &str) -> Result {
        let lines: u64 = cx.get_json("lines")?.unwrap_or(0);
        cx.put(&format!("line/{lines:09}"), id)?;
        cx.put_json("lines", &(lines + 1))?;
        cx.broadcast(format!("line {id}"))
    }

    fn set_alarm(cx: &Cx, id: &str, ms: u64, how: &str) -> Result {
        count(cx, "generation")?;
        cx.put(&format!("pending/{id}"), how)?;
        cx.alarm_in(Duration::from_millis(ms));
        if how == "flush" {
            cx.flush();
        }
        Ok(())
    }
}

/// Increments the counter under this key.
fn count(cx: &Cx, key: &str) -> Result<u64> {
    let count = cx.get_json(key)?.unwrap_or(0) + 1;
    cx.put_json(key, &count)?;
    Ok(count)
}

/// Returns the entries below a prefix, with their values as JSON.
fn numbers(cx: &Cx, prefix: &str) -> Result<Map<String, Value>> {
    let entries = cx.range(prefix).json::<Value>()?.into_iter();
    Ok(entries
        .map(|(key, value)| (key[prefix.len()..].to_owned(), value))
        .collect())
}

fn texts(cx: &Cx, prefix: &str) -> Result<Vec<(String, String)>> {
    let entries = cx.range(prefix).entries().into_iter();
    entries
        .map(|(key, value)| Ok((key[prefix.len()..].to_owned(), String::from_utf8(value)?)))
        .collect()
}

impl Room for Ledger {
    async fn open(&mut self, cx: &Cx, conn: &Conn, req: &Request) -> Result {
        count(cx, &format!("open/{}/{}", life(), conn.id()))?;
        conn.send(format!("you {}", conn.id()))?;
        if req.query_opt::<String>("join")?.is_some() {
            cx.presence().join(conn, &json!({ "life": life() }))?;
        }
        Ok(())
    }

    async fn message(&mut self, cx: &Cx, conn: &Conn, msg: Message) -> Result {
        match msg.text()? {
            "join" => cx.presence().join(conn, &json!({ "life": life() })),
            "leave" => cx.presence().leave(conn),
            text => conn.send(Ledger::command(cx, text)?),
        }
    }

    async fn close(&mut self, cx: &Cx, conn: &Conn, _: &CloseEvent) -> Result {
        count(cx, &format!("close/{}/{}", life(), conn.id())).map(drop)
    }

    /// POST is a command. GET answers with the whole record.
    async fn request(&mut self, cx: &Cx, req: Request) -> Result<Response> {
        if req.method() == "POST" {
            return Ok(Response::text(Ledger::command(cx, req.text()?)?));
        }
        let lines: Vec<String> = texts(cx, "line/")?.into_iter().map(|(_, id)| id).collect();
        let members: Vec<String> = cx
            .presence()
            .list::<Value>()?
            .into_iter()
            .map(|member| member.id)
            .collect();
        let connections: Vec<String> = cx.connections().iter().map(Conn::id).collect();
        Response::json(&json!({
            "count": cx.get_json::<u64>("lines")?.unwrap_or(0),
            "lines": lines,
            "opens": numbers(cx, "open/")?,
            "closes": numbers(cx, "close/")?,
            "generation": cx.get_json::<u64>("generation")?.unwrap_or(0),
            "pending": texts(cx, "pending/")?,
            "rung": numbers(cx, "rung/")?,
            "rang": numbers(cx, "rang/")?,
            "members": members,
            "connections": connections,
            "alarm": cx.alarm().is_some(),
        }))
    }

    async fn feed(&mut self, _: &Cx, _: Request) -> Result<Feed> {
        Ok(Feed::new())
    }

    async fn alarm(&mut self, cx: &Cx) -> Result {
        let pending = texts(cx, "pending/")?;
        if cx.attempt() == 1 && pending.iter().any(|(_, how)| how == "fail") {
            return Err(Error::fault("as the client asked"));
        }
        let generation: u64 = cx.get_json("generation")?.unwrap_or(0);
        count(cx, &format!("rang/{generation:09}"))?;
        for (id, how) in pending {
            count(cx, &format!("rung/{id}"))?;
            cx.delete(&format!("pending/{id}"));
            if how == "again" {
                Ledger::set_alarm(cx, &format!("{id}+"), 5, "flush")?;
            }
        }
        Ok(())
    }
}
