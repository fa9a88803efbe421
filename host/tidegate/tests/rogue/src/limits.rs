//! Crosses limits on purpose: makes calls of a requested size and reports their results.

use tidegate::prelude::*;

/// Runs "WHAT SIZE" on a connection, or on a call to a room of class `R`. Sends "ok" or the error.
pub(crate) fn of_connection<R: Room>(conn: &Conn, with: &str) -> Result {
    let (what, size) = read(with)?;
    let text = "x".repeat(size);
    let outcome = match what {
        "attachment" => conn.set_attachment(text.as_bytes()),
        "tags" => conn.set_tags((0..size).map(|number| number.to_string())),
        "tag" => conn.set_tags([text]),
        "follows" => (0..size).try_for_each(|number| conn.follow(&number.to_string())),
        "topic" => conn.follow(&text),
        "message" => conn.send(text),
        "reason" => conn.close(4000, &text),
        "automatic" => tidegate::set_auto_response(&text, "x"),
        "ids" => return conn.send(ids(None, None, size as u32).len().to_string()),
        "call" => tidegate::room::<R>("called")
            .try_call(text)
            .map(drop)
            .map_err(|error| Error::fault(error.to_string())),
        "room-name" => tidegate::room::<R>(text)
            .try_call("x")
            .map(drop)
            .map_err(|error| Error::fault(error.to_string())),
        what => return Err(Error::bad_request(format!("no limit is called {what:?}"))),
    };
    conn.send(describe(outcome))
}

/// Runs "WHAT SIZE" on a room's storage and on the effects of its event.
pub(crate) fn of_room(cx: &Cx, conn: &Conn, with: &str) -> Result {
    let (what, size) = read(with)?;
    let text = "x".repeat(size);
    let outcome = match what {
        "key" => cx.put(&text, "x"),
        "value" => cx.put("value", &text),
        // No piece is a value that is too large, and no event has too many bytes.
        "entry" => cx.put(&format!("entry/{}", cx.range("entry/").count()), &text),
        // The pieces are so large that an answer still fits when the next piece does not.
        "event" => {
            (0..size).try_for_each(|number| cx.put(&format!("event/{number}"), "x".repeat(4096)))
        }
        "broadcast" => cx.broadcast(text),
        "page" => {
            (0..size).try_for_each(|number| cx.put(&format!("page/{number}"), "x"))?;
            return conn.send(cx.range("page/").count().to_string());
        }
        what => return Err(Error::bad_request(format!("no limit is called {what:?}"))),
    };
    conn.send(describe(outcome))
}

fn read(with: &str) -> Result<(&str, usize)> {
    let (what, size) = with.split_once(' ').unwrap_or((with, "0"));
    Ok((what, size.parse()?))
}

fn describe(outcome: Result) -> String {
    outcome.map_or_else(|error| error.to_string(), |()| "ok".to_owned())
}
