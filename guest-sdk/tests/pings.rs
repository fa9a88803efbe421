//! Pings of an app under `tidegate::testing`: they take their place in the outbox and are refused
//! as messages are, in a socket and in a room.

use std::cell::RefCell;
use tidegate::{SendError, prelude::*, testing};

/// The value in `Limits::default` of the host.
const OUTBOX_MESSAGES_MAX: usize = 1024;

thread_local! {
    /// Reports of the handlers, which run on the thread of their test.
    static REPORTS: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

/// Obeys "LENGTH TIMES", after a close if the message begins with "close ". Reports the result of
/// the last ping and the bytes in the outbox.
fn obey(conn: &Conn, message: &Message) -> Result {
    let text = message.text()?;
    let (length, times) = match text.strip_prefix("close ") {
        Some(rest) => {
            conn.close(4000, "")?;
            rest
        }
        None => text,
    }
    .split_once(' ')
    .expect("LENGTH TIMES");
    let (payload, mut last) = (vec![b'x'; length.parse()?], Ok(()));
    for _ in 0..times.parse::<usize>()? {
        last = conn.ping(&payload);
    }
    let result = match &last {
        Ok(()) => "ok".to_owned(),
        Err(error) => format!("{:?}", error.downcast_ref::<SendError>()),
    };
    let report = format!("{result}, {} queued", conn.buffered_amount());
    REPORTS.with_borrow_mut(|reports| reports.push(report));
    Ok(())
}

#[derive(Default)]
struct Tea;

impl Room for Tea {
    async fn message(&mut self, _: &Cx, conn: &Conn, message: Message) -> Result {
        obey(conn, &message)
    }
}

#[test]
fn a_ping_is_admitted_and_refused_as_a_message_is() {
    let app = App::new()
        .socket("/socket", async |conn: Conn, message: Message| {
            obey(&conn, &message)
        })
        .room::<Tea>("/rooms/{name}");
    let mut server = testing::serve(app);
    for path in ["/socket", "/rooms/tea"] {
        for (orders, expected) in [
            ("0 1", "ok, 0 queued"),
            ("125 1", "ok, 125 queued"),
            ("125 3", "ok, 375 queued"),
            ("126 1", "Some(TooLarge), 0 queued"),
            (
                &format!("1 {}", OUTBOX_MESSAGES_MAX + 1),
                "Some(Full), 1024 queued",
            ),
            ("close 1 1", "Some(Closed), 0 queued"),
        ] {
            let ann = server.connect(path);
            server.send(ann, orders);
            let reports = REPORTS.take();
            assert_eq!(reports, [expected], "{orders:?} at {path}");
            assert!(server.received(ann).is_empty(), "a ping is no message");
        }
    }
}
