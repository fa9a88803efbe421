//! Reminders: `curl -d 'the tea' 'localhost:8080/reminders/ann?in=90s'` sends "the tea" to Ann's
//! sockets and feeds after 90 seconds, also if the server restarts meanwhile.

use std::time::{Duration, SystemTime};
use tidegate::prelude::*;

tidegate::serve!(app);

fn app() -> App {
    App::new().room::<Reminders>("/reminders/{name}")
}

/// Remembers nothing: what is pending is in its storage, by the time when it is due.
#[derive(Default)]
struct Reminders;

impl Room for Reminders {
    async fn feed(&mut self, _: &Cx, _: Request) -> Result<Feed> {
        Ok(Feed::new())
    }
    async fn request(&mut self, cx: &Cx, req: Request) -> Result<Response> {
        let pending = cx.range("").entries();
        if req.method() != "POST" {
            let lines = pending
                .iter()
                .map(|(due, text)| format!("{due} {}\n", String::from_utf8_lossy(text)));
            return Ok(Response::text(lines.collect::<String>()));
        }
        if pending.len() >= 1000 {
            return Err(Error::status(429, "enough is pending"));
        }
        let wait = req
            .query::<String>("in")?
            .trim_end_matches('s')
            .parse::<u32>();
        let wait = wait.map_err(|_| Error::bad_request("in how many seconds? `in=90s`"))?;
        let due = key(cx.now() + Duration::from_secs(wait.into()))?;
        cx.put(&format!("{due}-{:03}", cx.range(&due).count()), req.text()?)?; // those of one time go together
        set_alarm(cx)?;
        Ok(Response::text(format!("{due}\n")).with_status(201))
    }
    async fn alarm(&mut self, cx: &Cx) -> Result {
        for (due, text) in cx
            .range("")
            .end(&key(cx.now() + Duration::from_millis(1))?)
            .entries()
        {
            cx.broadcast(Publication::new(String::from_utf8(text)?).event("reminder"))?;
            cx.delete(&due);
        }
        set_alarm(cx)
    }
}

/// A room has one alarm: it is that of the earliest.
fn set_alarm(cx: &Cx) -> Result {
    let Some((due, _)) = cx.range("").limit(1).entries().pop() else {
        cx.cancel_alarm();
        return Ok(());
    };
    cx.alarm_at(SystemTime::UNIX_EPOCH + Duration::from_millis(due[..15].parse()?));
    Ok(())
}

/// Unix milliseconds, in the order of time.
fn key(time: SystemTime) -> Result<String> {
    Ok(format!(
        "{:015}",
        time.duration_since(SystemTime::UNIX_EPOCH)?.as_millis()
    ))
}

#[cfg(test)]
mod test;
