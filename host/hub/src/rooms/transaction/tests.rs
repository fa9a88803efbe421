//! Every operation of an event has a weight, and the weights are those of the memory that it takes.

use super::*;
use crate::{
    effect::Effect,
    event::Accept,
    limits::Limits,
    message::Message,
    realtime::{
        auto_response::AutoResponse,
        connections::{Conn, ConnectionGuard},
        outgoing::Close,
        publication::{Publication, TopicPolicy},
    },
    testing::MemoryEngine,
};
use bytes::Bytes;

const MAX: usize = 64 << 10;

fn room(limits: Limits) -> (Arc<Hub>, Transaction, ConnectionGuard) {
    let hub = Hub::new(
        Limits {
            room_event_bytes_max: MAX,
            ..limits
        },
        TopicPolicy::default(),
        1,
    );
    let id = RoomId::new("chat", "tea").unwrap();
    let conn = hub
        .open(Accept {
            room: Some(id.clone()),
            ..Accept::default()
        })
        .unwrap();
    (
        hub.clone(),
        Transaction::new(hub, Arc::new(MemoryEngine::default()), id),
        conn,
    )
}

/// Runs the n-th call of an operation. Returns true if it was admitted.
type Verb = fn(&Transaction, &Arc<Conn>, usize) -> bool;

fn does(room: &Transaction, effect: Effect) -> bool {
    room.stage(effect).is_ok()
}

/// Every operation of an event. In the first list each one takes memory until the commit; in
/// the second only the last one counts.
const ADDED: &[(&str, Verb)] = &[
    ("send", |room, conn, _| {
        does(room, Effect::Send(conn.clone(), Message::text("")))
    }),
    ("ping", |room, conn, _| {
        does(room, Effect::Ping(conn.clone(), Bytes::new()))
    }),
    ("follow", |room, conn, _| {
        does(room, Effect::Follow(conn.clone(), "t".into(), None))
    }),
    ("unfollow", |room, conn, _| {
        does(room, Effect::Unfollow(conn.clone(), "t".into()))
    }),
    ("publish", |room, _, _| {
        let publication = Publication::new(Message::text(""));
        does(room, Effect::Publish("t".into(), publication))
    }),
    ("broadcast", |room, _, _| {
        room.broadcast(Publication::new(Message::text("")))
            .unwrap()
            .is_ok()
    }),
    ("broadcast, transient", |room, _, _| {
        room.broadcast(Publication {
            transient: true,
            ..Publication::new(Message::text(""))
        })
        .unwrap()
        .is_ok()
    }),
    ("put", |room, _, n| {
        room.put(&n.to_string(), Bytes::new()).is_ok()
    }),
    ("put and delete", |room, _, n| {
        room.put(&n.to_string(), Bytes::new()).is_ok() && room.delete(&n.to_string()).is_ok()
    }),
];
const REPLACED: &[(&str, Verb)] = &[
    ("close", |room, conn, n| {
        let close = Close::new(4000, &"r".repeat(n % 100));
        does(room, Effect::Close(conn.clone(), close))
    }),
    ("attachment", |room, conn, n| {
        let value = vec![0; 1000 + n % 3].into();
        does(room, Effect::SetAttachment(conn.clone(), value))
    }),
    ("tags", |room, conn, n| {
        let tags = vec!["t".repeat(100 + n % 3)];
        does(room, Effect::SetTags(conn.clone(), tags))
    }),
    ("auto-response", |room, _, n| {
        let response = AutoResponse::new("p".repeat(2000), n.to_string()).unwrap();
        does(room, Effect::SetAutoResponse(Some(response)))
    }),
    ("auto-response, none", |room, _, _| {
        does(room, Effect::SetAutoResponse(None))
    }),
    ("alarm", |room, _, n| {
        room.set_alarm(Some(n as u64));
        true
    }),
    ("put", |room, _, _| {
        room.put("same", vec![0; 1000].into()).is_ok()
    }),
    ("delete", |room, _, _| {
        room.put("same", Bytes::new()).is_ok() && room.delete("same").is_ok()
    }),
    ("clear", |room, _, n| {
        room.put(&n.to_string(), vec![0; 1000].into()).is_ok() && room.clear().is_ok()
    }),
];

#[test]
fn whatever_an_event_does_again_and_again_has_a_weight_or_replaces_itself() {
    let limits = Limits {
        outbox_messages_max: usize::MAX,
        ..Limits::default()
    };
    for (name, verb) in ADDED {
        let (_hub, room, conn) = room(limits.clone());
        let admitted = (0..MAX).take_while(|n| verb(&room, &conn, *n)).count();
        assert!(
            admitted > 50 && admitted < MAX / size_of::<(String, Option<Bytes>)>(),
            "{name}: {admitted}"
        );
        assert!(room.state().event.weight <= MAX, "{name}");
    }
    for (name, verb) in REPLACED {
        let (_hub, room, conn) = room(limits.clone());
        assert!((0..MAX).all(|n| verb(&room, &conn, n)), "{name}");
        let weight = room.state().event.weight;
        assert!(weight < 5000, "{name}: {weight}");
    }
}

#[test]
fn an_event_has_the_weight_of_what_it_holds_and_none_once_it_is_undone() {
    let (_hub, room, conn) = room(Limits::default());
    let verbs = [ADDED, REPLACED].concat();
    assert!(
        verbs
            .iter()
            .all(|(_, verb)| verb(&room, &conn, 1) || room.find(conn.id()).is_none())
    );
    let weight = || room.state().event.weight;
    let (all, of_effects) = (weight(), { room.state().event.effects.weight() });
    assert!(all > of_effects && of_effects > 0);
    room.keep();
    let kept = { room.state().kept.weight };
    assert_eq!((weight(), kept), (0, all));
    assert!(ADDED[4].1(&room, &conn, 1));
    room.rollback();
    assert_eq!(weight(), 0);
    room.join(conn.clone());
    let joined = weight();
    assert!(ADDED[4].1(&room, &conn, 1));
    room.rollback();
    assert_eq!(weight(), joined, "that it came is not undone");
}

#[test]
fn what_events_do_counts_in_the_budget_of_the_process_until_it_is_undone() {
    let (hub, room, _conn) = room(Limits {
        memory_max: 400 << 10,
        room_event_bytes_max: MAX,
        ..Limits::default()
    });
    let fill = |room: &Transaction| {
        (0..)
            .take_while(|n| room.put(&n.to_string(), vec![0; 10_000].into()).is_ok())
            .count()
    };
    let mut turns = 0;
    while fill(&room) > 0 {
        room.keep();
        turns += 1;
        assert!(turns < 100, "the budget refuses nothing");
    }
    let reserved = hub.budget().reserved();
    assert!(reserved > 200 << 10 && reserved <= 340 << 10, "{reserved}");
    drop(room);
    assert_eq!(hub.budget().reserved(), 0);
}
