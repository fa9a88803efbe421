//! The app for which the SDK was designed, as it was written before the SDK existed.

use std::time::Duration;
use tidegate::prelude::*;

tidegate::serve!(app);

fn app() -> App {
    App::new()
        .get("/", async |_| "hello")
        .get("/users/{id}", show_user)
        .socket("/echo", async |conn: Conn, msg| conn.send(msg))
        .socket("/lobby", Lobby)
        .feed("/lobby/feed", |_| Feed::follow("lobby").first("welcome"))
        .room::<Chat>("/rooms/{name}")
}

async fn show_user(req: Request) -> Result<String> {
    let id: u64 = req.param("id")?; // a bad id is the client's error (400), not the app's (500)
    Ok(format!("user {id}"))
}

/// A socket has no state (`&self`), so any instance serves it; topics connect it to the others.
struct Lobby;

impl Socket for Lobby {
    async fn open(&self, conn: &Conn, _: &Request) -> Result {
        conn.follow("lobby")
    }
    async fn message(&self, _: &Conn, msg: Message) -> Result {
        publish("lobby", msg)
    }
}

/// A room has state (`&mut self`): it has one instance for each name, runs one event at a time, and
/// sleeps when idle.
#[derive(Default)]
struct Chat {
    log: String,
}

impl Room for Chat {
    async fn wake(&mut self, cx: &Cx) -> Result {
        self.log = String::from_utf8(cx.get("log").unwrap_or_default())?;
        Ok(())
    }
    async fn open(&mut self, _: &Cx, conn: &Conn, _: &Request) -> Result {
        conn.send(self.log.as_str())
    }
    async fn message(&mut self, cx: &Cx, conn: &Conn, msg: Message) -> Result {
        self.log += msg.text()?;
        cx.put("log", self.log.as_str())?;
        cx.alarm_in(Duration::from_secs(3600));
        cx.broadcast_except(conn, msg)
    }
    async fn alarm(&mut self, cx: &Cx) -> Result {
        self.log.clear();
        cx.clear();
        Ok(())
    }
}

#[test]
fn a_room_keeps_its_log_through_sleep() {
    let mut server = tidegate::testing::serve(app());
    let ann = server.connect("/rooms/tea");
    server.send(ann, "hi");
    server.sleep("/rooms/tea");
    let bob = server.connect("/rooms/tea");
    assert_eq!(server.received(bob), ["hi"]);
}

#[test]
fn an_hour_after_the_last_message_the_log_is_gone() {
    let mut server = tidegate::testing::serve(app());
    let ann = server.connect("/rooms/tea");
    server.send(ann, "hi");
    server.advance(Duration::from_secs(3599));
    assert_eq!(server.stored("/rooms/tea", "log"), Some(b"hi".to_vec()));
    server.advance(Duration::from_secs(1));
    assert_eq!(server.stored("/rooms/tea", "log"), None);
}

#[test]
fn a_bad_id_is_the_clients_mistake() {
    let mut server = tidegate::testing::serve(app());
    assert_eq!(
        (
            server.get("/users/7").text(),
            server.get("/users/x").status()
        ),
        ("user 7", 400)
    );
}
