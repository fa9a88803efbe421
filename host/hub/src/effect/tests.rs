//! Every kind of effect has the same checks in an event of the app and in an event of a room.

use super::*;
use crate::{
    event::Accept,
    realtime::{connections::ConnectionGuard, publication::TopicPolicy},
    rooms::transaction::Transaction,
    scope::Scope,
    testing::MemoryEngine,
};

/// Returns an event of the app and one of a room, each with a connection.
fn scopes() -> [(&'static str, Scope, ConnectionGuard); 2] {
    let room = RoomId::new("chat", "tea").unwrap();
    ["app", "room"].map(|name| {
        let limits = Limits {
            outbox_messages_max: 2,
            ..Limits::default()
        };
        let hub = Hub::new(limits, TopicPolicy::default(), 1);
        let accept = Accept {
            room: (name == "room").then(|| room.clone()),
            ..Accept::default()
        };
        let conn = hub.open(accept).unwrap();
        let scope = match name {
            "app" => Scope::App(hub),
            _ => Scope::Room(Transaction::new(
                hub,
                Arc::new(MemoryEngine::default()),
                room.clone(),
            )),
        };
        (name, scope, conn)
    })
}

fn close_with(conn: &Arc<Conn>, code: u16, reason: &str) -> Effect {
    Effect::Close(conn.clone(), Close::new(code, reason))
}

fn tags(conn: &Arc<Conn>, tags: &[&str]) -> Effect {
    Effect::SetTags(
        conn.clone(),
        tags.iter().map(|tag| (*tag).to_owned()).collect(),
    )
}

fn ping(conn: &Arc<Conn>, length: usize) -> Effect {
    Effect::Ping(conn.clone(), vec![0; length].into())
}

fn text(conn: &Arc<Conn>) -> Effect {
    Effect::Send(conn.clone(), Message::text("x"))
}

fn publication(event: &str) -> Publication {
    Publication {
        event: Some(event.to_owned()),
        ..Publication::new(Message::text("x"))
    }
}

type EffectCase = (
    &'static str,
    fn(&Arc<Conn>) -> Vec<Effect>,
    Result<(), EffectError>,
);

/// Effects of one event, and the result of the last one.
const CASES: &[EffectCase] = &[
    ("two sends", |conn| vec![text(conn), text(conn)], Ok(())),
    (
        "one more than fits",
        |conn| vec![text(conn), ping(conn, 0), text(conn)],
        Err(EffectError::Full),
    ),
    (
        "a ping more than fits",
        |conn| vec![text(conn), text(conn), ping(conn, 0)],
        Err(EffectError::Full),
    ),
    (
        "a message that is too large",
        |conn| {
            let length = Limits::default().message_bytes_max + 1;
            vec![Effect::Send(conn.clone(), Message::binary(vec![0; length]))]
        },
        Err(EffectError::TooLarge),
    ),
    ("a full ping", |conn| vec![ping(conn, 125)], Ok(())),
    (
        "a ping that is too large",
        |conn| vec![ping(conn, 126)],
        Err(EffectError::TooLarge),
    ),
    (
        "a send after a close",
        |conn| vec![close_with(conn, 1000, ""), text(conn)],
        Err(EffectError::Closed),
    ),
    (
        "a ping after a close",
        |conn| vec![close_with(conn, 1000, ""), ping(conn, 0)],
        Err(EffectError::Closed),
    ),
    (
        "a second close",
        |conn| vec![close_with(conn, 1000, ""), close_with(conn, 1001, "")],
        Ok(()),
    ),
    (
        "a code that no app may use",
        |conn| vec![close_with(conn, 1006, "")],
        Err(EffectError::NotValid),
    ),
    (
        "a reason that is too long",
        |conn| vec![close_with(conn, 1000, &"r".repeat(124))],
        Err(EffectError::TooLarge),
    ),
    (
        "an attachment that is too large",
        |conn| {
            let length = Limits::default().attachment_bytes_max + 1;
            vec![Effect::SetAttachment(conn.clone(), vec![0; length].into())]
        },
        Err(EffectError::TooLarge),
    ),
    (
        "an empty tag",
        |conn| vec![tags(conn, &[""])],
        Err(EffectError::NotValid),
    ),
    (
        "too many tags",
        |conn| vec![tags(conn, &["t"; 11])],
        Err(EffectError::TooMany),
    ),
    (
        "a topic without a name",
        |conn| vec![Effect::Follow(conn.clone(), String::new(), None)],
        Err(EffectError::NotValid),
    ),
    (
        "a topic without a name, unfollowed",
        |conn| vec![Effect::Unfollow(conn.clone(), String::new())],
        Ok(()),
    ),
    (
        "a publication to no topic",
        |_| vec![Effect::Publish(String::new(), publication("e"))],
        Err(EffectError::NotValid),
    ),
    (
        "an event's name with a line break",
        |_| vec![Effect::Publish("t".into(), publication("a\nb"))],
        Err(EffectError::NotValid),
    ),
    (
        "no auto-response",
        |_| vec![Effect::SetAutoResponse(None)],
        Ok(()),
    ),
];

#[test]
fn an_event_of_a_room_refuses_the_same_effects_as_an_event_of_the_app() {
    for (name, effects, expected) in CASES {
        for (actor, scope, conn) in scopes() {
            let last = effects(&conn)
                .into_iter()
                .map(|effect| scope.perform(effect))
                .last();
            let result = last.expect("there is an effect").map(drop);
            assert_eq!(result, *expected, "{name}: {actor}");
        }
    }
}

#[test]
fn a_subscription_reports_its_start_and_a_publication_its_number() {
    for (actor, scope, conn) in scopes() {
        let perform = |effect| scope.perform(effect).unwrap();
        let topic = || "t".to_owned();
        let published = perform(Effect::Publish(topic(), publication("e")));
        let expected = if actor == "app" { 1 } else { 0 };
        assert_eq!(published.sequence(), expected, "{actor}");
        let start = perform(Effect::Follow(conn.clone(), topic(), None)).start();
        assert_eq!(
            (start.position.sequence, start.has_gap),
            (expected, false),
            "{actor}"
        );
    }
}
