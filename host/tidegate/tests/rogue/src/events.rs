//! First and last events, and alarms. Each is reported: to a topic, or to the room.

use crate::version;
use std::time::{Duration, SystemTime};
use tidegate::prelude::*;

/// Topic for messages about sockets and about requests that hold an instance.
const TOPIC: &str = "account";

/// Holds its instance for this time.
pub(crate) async fn hold(req: Request) -> Result<String> {
    publish(TOPIC, "held")?;
    sleep(Duration::from_millis(req.param("ms")?)).await;
    Ok("over".into())
}

/// With `?hold=MS`, on-open takes this time; with `?trap=`, it traps.
pub(crate) struct Account;

impl Socket for Account {
    /// With `?wait=MS`, the decision takes this time.
    async fn upgrade(&self, upgrade: &Upgrade) -> Result<Accept> {
        if let Some(ms) = upgrade.query_opt("wait")? {
            publish(TOPIC, "asked")?;
            sleep(Duration::from_millis(ms)).await;
        }
        Ok(Accept::new())
    }

    async fn open(&self, conn: &Conn, request: &Request) -> Result {
        publish(TOPIC, format!("open {}", conn.id()))?;
        if let Some(ms) = request.query_opt("hold")? {
            sleep(Duration::from_millis(ms)).await;
        }
        if request.query_opt::<String>("trap")?.is_some() {
            panic!("as asked");
        }
        Ok(())
    }

    async fn message(&self, conn: &Conn, message: Message) -> Result {
        conn.send(message)
    }

    async fn close(&self, conn: &Conn, _: &CloseEvent) -> Result {
        publish(TOPIC, format!("close {};", conn.id()))
    }
}

/// A room that tracks its members, and stores a line for each last event and each alarm.
#[derive(Default)]
pub(crate) struct Guests;

impl Guests {
    fn add(&self, cx: &Cx, text: &str) -> Result {
        let count: u64 = cx.get_json("count")?.unwrap_or(0);
        cx.put_json("count", &(count + 1))?;
        cx.put(&format!("line/{count:09}"), text)
    }
}

impl Room for Guests {
    fn class() -> String {
        "guests".into()
    }

    /// A room that has stored `sleepy` fails to wake in the first version.
    async fn wake(&mut self, cx: &Cx) -> Result {
        if cx.get("sleepy").is_some() && version().ends_with("01") {
            panic!("it does not wake");
        }
        Ok(())
    }

    async fn open(&mut self, cx: &Cx, conn: &Conn, req: &Request) -> Result {
        cx.presence().join(conn, &req.query::<String>("name")?)
    }

    async fn message(&mut self, cx: &Cx, conn: &Conn, msg: Message) -> Result {
        let text = msg.text()?;
        let (what, with) = text.split_once(' ').unwrap_or((text, ""));
        match what {
            "alarm" => cx.alarm_in(Duration::from_millis(with.parse()?)),
            "alarm-flush" => {
                cx.alarm_in(Duration::from_millis(with.parse()?));
                cx.flush();
            }
            "sleepy" => cx.put("sleepy", "")?,
            _ => {}
        }
        conn.send(format!("done {text}"))
    }

    async fn close(&mut self, cx: &Cx, conn: &Conn, _: &CloseEvent) -> Result {
        self.add(
            cx,
            &format!("close {}", conn.state::<String>()?.unwrap_or_default()),
        )
    }

    /// Waits for the number of milliseconds in the payload.
    async fn call(&mut self, _: &Cx, payload: Vec<u8>) -> Result<Vec<u8>> {
        println!("a call waits");
        sleep(Duration::from_millis(String::from_utf8(payload)?.parse()?)).await;
        Ok(Vec::new())
    }

    /// A POST with a number of milliseconds sets an alarm that was due so long ago; a GET returns
    /// all lines and the members.
    async fn request(&mut self, cx: &Cx, req: Request) -> Result<Response> {
        if req.method() == "POST" {
            cx.alarm_at(SystemTime::now() - Duration::from_millis(req.text()?.parse()?));
            return Ok(Response::text("set"));
        }
        let lines = cx
            .range("line/")
            .entries()
            .into_iter()
            .map(|(_, line)| String::from_utf8(line))
            .collect::<Result<Vec<_>, _>>()?;
        let members = cx
            .presence()
            .list::<String>()?
            .into_iter()
            .map(|member| member.meta)
            .collect::<Vec<_>>();
        Ok(Response::text(format!(
            "{} | {}",
            lines.join(", "),
            members.join(", ")
        )))
    }

    /// In the room "fails-5" the first five tries fail.
    async fn alarm(&mut self, cx: &Cx) -> Result {
        println!("an alarm of {}", cx.name());
        let failures = cx.name().strip_prefix("fails-").unwrap_or("0").parse()?;
        if cx.attempt() <= failures {
            return Err(Error::fault("as asked"));
        }
        let line = format!("alarm {}", cx.attempt());
        cx.broadcast(line.as_str())?;
        self.add(cx, &line)
    }
}

/// A page whose loader reports when it is dropped, and waits for a room before its first value.
/// With `?render=MS`, its render waits for a room for this time.
pub(crate) fn parting() -> Page {
    Page::new(render_parting).loader(Loader::live("parting"), wait)
}

fn render_parting(req: &Request, _: &View) -> Result<Response> {
    if let Some(ms) = req.query_opt::<String>("render")? {
        let slow = tidegate::room::<Guests>("slow").timeout(Duration::from_secs(60));
        slow.call(ms)?;
    }
    Ok(Response::html(
        "<!doctype html><body>a page<!--tidegate--></body>",
    ))
}

struct Guard;

impl Drop for Guard {
    fn drop(&mut self) {
        println!("the loader was dropped");
    }
}

async fn wait(req: &Request, sink: &mut Sink<str>) -> Result {
    let _guard = Guard;
    if let Some(ms) = req.query_opt::<String>("call")? {
        tidegate::room::<Guests>("slow").call(ms)?;
    }
    loop {
        sink.send("still here").await?;
        sleep(Duration::from_secs(3600)).await;
    }
}
