//! Publications, followers and histories of topics.

use super::*;
use crate::{
    event::Accept,
    hub::Hub,
    message::Message,
    realtime::{connections::ConnectionGuard, outbox::Outgoing},
};
use std::collections::VecDeque;

fn hub(limits: Limits) -> Arc<Hub> {
    Hub::new(
        limits,
        TopicPolicy {
            drop_oldest: vec!["prices/*".into()],
        },
        7,
    )
}

fn heard(conn: &ConnectionGuard) -> Vec<String> {
    let mut batch = VecDeque::new();
    conn.outbox().take(&mut batch);
    let text = |outgoing: &Outgoing| match outgoing {
        Outgoing::Publication(p) => format!(
            "{} {}",
            p.sequence,
            String::from_utf8_lossy(p.message.bytes())
        ),
        other => format!("{other:?}"),
    };
    batch.iter().map(text).collect()
}

fn say(hub: &Arc<Hub>, topic: &str, text: &str) -> u64 {
    hub.publish(topic, Publication::new(Message::text(text.to_owned())))
        .unwrap()
}

#[test]
fn a_publication_reaches_all_followers_in_order_and_no_other_connection() {
    let hub = hub(Limits::default());
    let [ann, bob, eve] = [(); 3].map(|()| hub.open(Accept::default()).unwrap());
    ann.follow("tea", None).unwrap();
    bob.follow("tea", None).unwrap();
    eve.follow("milk", None).unwrap();
    assert_eq!((say(&hub, "tea", "a"), say(&hub, "tea", "b")), (1, 2));
    bob.unfollow("tea");
    assert_eq!(say(&hub, "tea", "c"), 3);
    assert_eq!(
        (heard(&ann), heard(&bob)),
        (
            vec!["1 a".into(), "2 b".into(), "3 c".into()],
            vec!["1 a".into(), "2 b".to_string()]
        )
    );
    assert!(heard(&eve).is_empty());
    assert_eq!(hub.counters().deliveries.get(), 5);
}

#[test]
fn an_excepted_connection_gets_no_publication() {
    let hub = hub(Limits::default());
    let [ann, bob] = [(); 2].map(|()| hub.open(Accept::default()).unwrap());
    ann.follow("tea", None).unwrap();
    bob.follow("tea", None).unwrap();
    let except = Some(ann.id());
    hub.publish(
        "tea",
        Publication {
            except,
            ..Publication::new(Message::text("psst"))
        },
    )
    .unwrap();
    assert_eq!((heard(&ann).len(), heard(&bob).len()), (0, 1));
}

#[test]
fn one_allocation_serves_all_followers() {
    let hub = hub(Limits::default());
    let conns: Vec<ConnectionGuard> = (0..3)
        .map(|_| hub.open(Accept::default()).unwrap())
        .collect();
    conns
        .iter()
        .for_each(|conn| _ = conn.follow("tea", None).unwrap());
    say(&hub, "tea", "once");
    let taken: Vec<Arc<Publication>> = conns
        .iter()
        .map(|conn| {
            let mut batch = VecDeque::new();
            conn.outbox().take(&mut batch);
            let Some(Outgoing::Publication(publication)) = batch.pop_front() else {
                panic!("nothing came")
            };
            publication
        })
        .collect();
    assert!(Arc::ptr_eq(&taken[0], &taken[1]) && Arc::ptr_eq(&taken[1], &taken[2]));
}

#[test]
fn a_line_break_in_an_event_name_is_refused() {
    let hub = hub(Limits::default());
    for event in ["a\nb", "a\rb", "a\0b"] {
        let publication = Publication {
            event: Some(event.into()),
            ..Publication::new(Message::text("x"))
        };
        assert_eq!(hub.publish("tea", publication), Err(LimitError::NotValid));
    }
}

#[test]
fn topics_without_followers_give_way_to_new_ones_and_followed_topics_stay() {
    let hub = hub(Limits {
        topics_max: 2,
        ..Limits::default()
    });
    let ann = hub.open(Accept::default()).unwrap();
    ann.follow("kept", None).unwrap();
    for topic in ["a", "b", "c"] {
        assert_eq!(say(&hub, topic, "x"), 1);
    }
    assert_eq!((say(&hub, "kept", "one"), say(&hub, "kept", "two")), (1, 2));
    ann.follow("also", None).unwrap();
    assert_eq!(ann.follow("too many", None), Err(LimitError::TooMany));
}

#[test]
fn one_new_topic_takes_the_place_of_one_and_all_others_keep_their_numbers() {
    let hub = hub(Limits {
        topics_max: 10,
        ..Limits::default()
    });
    for number in 0..10 {
        assert_eq!(say(&hub, &number.to_string(), "x"), 1);
    }
    say(&hub, "new", "x");
    // None was used since it was made, so the oldest one was removed.
    for number in 1..10 {
        assert_eq!(say(&hub, &number.to_string(), "x"), 2, "{number}");
    }
    // Names that come and go replace each other, and never one that gets publications all the
    // time.
    for number in 0..100_u64 {
        say(&hub, &format!("new/{number}"), "x");
        assert_eq!(say(&hub, "9", "x"), number + 3);
    }
}

#[test]
fn a_topic_that_is_followed_again_is_never_forgotten() {
    let hub = hub(Limits {
        topics_max: 2,
        ..Limits::default()
    });
    let ann = hub.open(Accept::default()).unwrap();
    for _ in 0..5 {
        ann.follow("kept", None).unwrap();
        ann.unfollow("kept");
    }
    ann.follow("kept", None).unwrap();
    assert_eq!(say(&hub, "kept", "x"), 1);
    for number in 0..20 {
        say(&hub, &number.to_string(), "x");
    }
    assert_eq!(say(&hub, "kept", "x"), 2);
}

#[test]
fn a_topic_has_the_policy_that_its_name_or_prefix_was_given() {
    let policy = TopicPolicy {
        drop_oldest: vec!["prices/*".into(), "clock".into()],
    };
    let cases = [
        ("prices/eur", Overflow::DropOldest),
        ("prices", Overflow::Close),
        ("clock", Overflow::DropOldest),
        ("clocks", Overflow::Close),
    ];
    for (topic, overflow) in cases {
        assert_eq!(policy.overflow(topic), overflow, "{topic}");
    }
}
