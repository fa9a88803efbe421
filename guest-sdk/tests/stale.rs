//! A connection that is used after its event: every method is a fault of the app, and the
//! connection of that later event is closed.

use std::cell::RefCell;
use tidegate::{prelude::*, testing};

thread_local! {
    /// The connection of an earlier event.
    static KEPT: RefCell<Option<Conn>> = const { RefCell::new(None) };
}

/// A call of a method of the kept connection.
type Use = fn(&Conn);

const USES: [(&str, Use); 15] = [
    ("id", |conn| _ = conn.id()),
    ("protocol", |conn| _ = conn.protocol()),
    ("send", |conn| _ = conn.send("x")),
    ("ping", |conn| _ = conn.ping(b"x")),
    ("buffered_amount", |conn| _ = conn.buffered_amount()),
    ("close", |conn| _ = conn.close(1000, "")),
    ("attachment", |conn| _ = conn.attachment()),
    ("set_attachment", |conn| _ = conn.set_attachment(b"x")),
    ("state", |conn| _ = conn.state::<u8>()),
    ("set_state", |conn| _ = conn.set_state(&1)),
    ("follow", |conn| _ = conn.follow("news")),
    ("follow_since", |conn| _ = conn.follow_since("news", None)),
    ("unfollow", |conn| conn.unfollow("news")),
    ("tags", |conn| _ = conn.tags()),
    ("set_tags", |conn| _ = conn.set_tags(["x"])),
];

#[test]
fn a_connection_is_not_used_after_its_event() {
    for (name, stale) in USES {
        let handler = async move |conn: Conn, msg: Message| -> Result {
            if msg == "keep" {
                KEPT.set(Some(conn));
                return Ok(());
            }
            KEPT.with_borrow(|kept| stale(kept.as_ref().expect("it was kept before")));
            conn.send("it was used")
        };
        let mut server = testing::serve(App::new().socket("/", handler));
        let (ann, bob) = (server.connect("/"), server.connect("/"));
        server.send(ann, "keep");
        server.send(bob, "use");
        let closed = server.closed(bob).map(|(code, _)| code);
        assert_eq!(
            (server.received(bob), closed),
            (vec![], Some(1011)),
            "{name}"
        );
        assert_eq!(server.closed(ann), None, "{name}");
        let kept = KEPT.take().expect("it was kept before");
        assert_eq!(format!("{kept:?}"), "Conn(its event has ended)");
    }
}
