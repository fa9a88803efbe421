//! The registry of connections: its bounds, its indexes, and the memory of a connection.

use super::*;
use crate::hub::Hub;
use bytes::Bytes;

fn hub() -> Arc<Hub> {
    Hub::new(
        Limits {
            connections_max: 3,
            ..Limits::default()
        },
        Default::default(),
        7,
    )
}

fn tagged(tags: &[&str]) -> Accept {
    Accept {
        tags: tags.iter().map(|tag| tag.to_string()).collect(),
        ..Accept::default()
    }
}

#[test]
fn an_id_is_found_until_its_connection_is_dropped() {
    let hub = hub();
    let conn = hub.open(Accept::default()).unwrap();
    let id = conn.id().to_string().parse().unwrap();
    assert!(hub.connections().find(id).is_some());
    drop(conn);
    assert!(hub.connections().find(id).is_none());
}

#[test]
fn ids_come_by_tag_in_order_and_in_pages() {
    let hub = hub();
    let conns = [&["red"][..], &["blue", "red"], &[]].map(|tags| hub.open(tagged(tags)).unwrap());
    let ids: Vec<ConnId> = conns.iter().map(|conn| conn.id()).collect();
    let connections = hub.connections();
    assert_eq!(connections.ids(None, None, 9), ids);
    assert_eq!(connections.ids(None, Some(ids[0]), 1), ids[1..2]);
    assert_eq!(connections.ids(Some("red"), None, 9), ids[..2]);
    conns[0].set_tags(vec!["blue".into()]).unwrap();
    assert_eq!(connections.ids(Some("red"), None, 9), ids[1..2]);
    assert_eq!(connections.ids(Some("none"), None, 9), []);
}

#[test]
fn every_exceeded_bound_of_a_connection_is_named() {
    let hub = hub();
    let conn = hub.open(Accept::default()).unwrap();
    let long = "x".repeat(257);
    let many: Vec<String> = (0..11).map(|n| n.to_string()).collect();
    let checks = [
        (
            conn.set_attachment(Bytes::from(vec![0; 16385])),
            LimitError::TooLarge,
        ),
        (conn.set_tags(many), LimitError::TooMany),
        (conn.set_tags(vec![long.clone()]), LimitError::TooLarge),
        (conn.set_tags(vec![String::new()]), LimitError::NotValid),
        (conn.follow(&long, None).map(drop), LimitError::TooLarge),
        (conn.follow("", None).map(drop), LimitError::NotValid),
        (conn.close(1000, &"x".repeat(124)), LimitError::TooLarge),
        (conn.close(1005, ""), LimitError::NotValid),
        (conn.close(1006, ""), LimitError::NotValid),
        (conn.close(1015, ""), LimitError::NotValid),
        (conn.close(2999, ""), LimitError::NotValid),
        (conn.close(5000, ""), LimitError::NotValid),
    ];
    for (index, (outcome, expected)) in checks.into_iter().enumerate() {
        assert_eq!(outcome, Err(expected), "check {index}");
    }
    for topic in 0..128 {
        conn.follow(&topic.to_string(), None).unwrap();
    }
    assert_eq!(conn.follow("one more", None), Err(LimitError::TooMany));
    assert!(conn.follow("5", None).is_ok(), "twice is once");
}

#[test]
fn a_connection_beyond_the_maximum_is_refused_until_another_leaves() {
    let hub = hub();
    let mut conns: Vec<ConnectionGuard> = (0..3)
        .map(|_| hub.open(Accept::default()).unwrap())
        .collect();
    assert_eq!(hub.open(Accept::default()).err(), Some(LimitError::TooMany));
    conns.pop();
    assert!(hub.open(Accept::default()).is_ok());
}

#[test]
fn a_drain_closes_open_connections_and_later_ones() {
    let hub = hub();
    let early = hub.open(Accept::default()).unwrap();
    hub.connections().close_all(&Close::new(1001, ""));
    let late = hub.open(Accept::default()).unwrap();
    assert!(early.outbox().is_closed() && late.outbox().is_closed());
}
