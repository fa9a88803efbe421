//! Fan-out through a topic: each connection follows it, and each message is published to it.

use tidegate::prelude::*;

tidegate::serve!(app);

fn app() -> App {
    App::new().socket("/all", Broadcast)
}

struct Broadcast;

impl Socket for Broadcast {
    async fn open(&self, conn: &Conn, _: &Request) -> Result {
        conn.follow("all")
    }

    async fn message(&self, _: &Conn, msg: Message) -> Result {
        publish("all", msg)
    }
}

#[test]
fn each_connection_gets_a_message_once() {
    let mut server = tidegate::testing::serve(app());
    let (ann, bob) = (server.connect("/all"), server.connect("/all"));
    server.send(ann, "hi");
    assert_eq!(
        (server.received(ann), server.received(bob)),
        (vec!["hi".into()], vec!["hi".into()])
    );
}
