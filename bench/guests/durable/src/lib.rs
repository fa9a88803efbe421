//! Rooms with and without storage: `/kept/{name}` stores each message and sends it back,
//! `/quiet/{name}` only sends it back.

use tidegate::prelude::*;

tidegate::serve!(app);

fn app() -> App {
    App::new()
        .room::<Kept>("/kept/{name}")
        .room::<Quiet>("/quiet/{name}")
}

#[derive(Default)]
struct Kept;

impl Room for Kept {
    async fn message(&mut self, cx: &Cx, conn: &Conn, msg: Message) -> Result {
        cx.put("last", msg.bytes())?;
        conn.send(msg)
    }
}

#[derive(Default)]
struct Quiet;

impl Room for Quiet {
    async fn message(&mut self, _: &Cx, conn: &Conn, msg: Message) -> Result {
        conn.send(msg)
    }
}

#[test]
fn a_returned_message_is_stored() {
    let mut server = tidegate::testing::serve(app());
    let (kept, quiet) = (server.connect("/kept/a"), server.connect("/quiet/a"));
    for conn in [kept, quiet] {
        server.send(conn, "hi");
        assert_eq!(server.received(conn), ["hi"]);
    }
    assert_eq!(
        (
            server.stored("/kept/a", "last"),
            server.stored("/quiet/a", "last")
        ),
        (Some(b"hi".to_vec()), None)
    );
}
