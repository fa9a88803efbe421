//! A WebSocket that sends back what it gets, text or binary, and speaks "echo" or "v1.echo" if
//! asked to.

use tidegate::prelude::*;

tidegate::serve!(app);

fn app() -> App {
    App::new().socket("/echo", Echo)
}

struct Echo;

impl Socket for Echo {
    async fn upgrade(&self, upgrade: &Upgrade) -> Result<Accept> {
        Ok(Accept::new().protocol(upgrade.pick(&["echo", "v1.echo"])))
    }

    async fn message(&self, conn: &Conn, msg: Message) -> Result {
        conn.send(msg)
    }
}

#[test]
fn echo_returns_the_message() {
    use tidegate::testing::{self, Connect};
    let mut server = testing::serve(app());
    let ann = server.connect(Connect::to("/echo").protocol("chat").protocol("v1.echo"));
    server.send(ann, "hi");
    server.send(ann, b"\x00\xff");
    assert_eq!(server.protocol(ann), Some("v1.echo"));
    assert_eq!(
        server.received(ann),
        ["hi".into(), Message::from(b"\x00\xff")]
    );
}
