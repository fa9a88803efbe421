//! Clients that read too slowly under `tidegate::testing`: the bounds of their outboxes, and the
//! end of their connections.

use tidegate::{prelude::*, testing};

/// The value in `Limits::default` of the host.
const OUTBOX_MESSAGES_MAX: usize = 1024;

struct Follower;

impl Socket for Follower {
    async fn open(&self, conn: &Conn, _: &Request) -> Result {
        conn.follow("news")
    }

    async fn message(&self, conn: &Conn, msg: Message) -> Result {
        conn.send(msg)?;
        conn.send(conn.buffered_amount().to_string())
    }
}

#[test]
fn a_client_that_stalls_gets_what_waited_when_it_reads_on() {
    let mut server = testing::serve(App::new().socket("/", Follower));
    let ann = server.connect("/");
    server.pause_reading(ann);
    server.send(ann, "12345");
    assert!(server.received(ann).is_empty());
    server.resume_reading(ann);
    assert_eq!(server.received(ann), ["12345", "5"]);
}

#[test]
fn a_send_that_does_not_fit_closes_with_1013_unless_the_handler_sees_to_it() {
    let mut server = testing::serve(App::new().socket("/", Follower));
    let ann = server.connect("/");
    server.pause_reading(ann);
    for _ in 0..OUTBOX_MESSAGES_MAX {
        server.send(ann, "tick");
    }
    server.resume_reading(ann);
    assert_eq!(server.received(ann).len(), OUTBOX_MESSAGES_MAX);
    assert_eq!(server.closed(ann), Some((1013, "too slow".into())));
}

#[test]
fn a_follower_that_stalls_is_closed_and_the_others_hear_on() {
    let mut server = testing::serve(App::new().socket("/", Follower));
    let (ann, bob) = (server.connect("/"), server.connect("/"));
    server.pause_reading(ann);
    for _ in 0..=OUTBOX_MESSAGES_MAX {
        server.publish("news", "tick");
    }
    server.resume_reading(ann);
    assert_eq!(server.closed(ann).map(|(code, _)| code), Some(1013));
    assert!(server.received(ann).is_empty());
    assert_eq!(server.received(bob).len(), OUTBOX_MESSAGES_MAX + 1);
}

#[test]
fn a_feed_ends_when_one_event_publishes_more_than_it_holds() {
    let flood =
        async |_| (0..=OUTBOX_MESSAGES_MAX).try_for_each(|n| publish("news", n.to_string()));
    let mut server = testing::serve(
        App::new()
            .post("/flood", flood)
            .feed("/", |_| Feed::follow("news")),
    );
    let feed = server.subscribe("/");
    server.publish("news", "first");
    assert_eq!((server.events(feed).len(), server.ended(feed)), (1, false));
    server.post("/flood", "");
    assert_eq!((server.events(feed).len(), server.ended(feed)), (0, true));
}
