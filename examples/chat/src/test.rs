//! Two clients and a room that sleeps between their messages.

use super::app;
use serde_json::Value;

#[test]
fn a_new_member_gets_earlier_messages_and_the_member_list() {
    let mut server = tidegate::testing::serve(app());
    let ann = server.connect("/rooms/tea?name=Ann");
    server.send(ann, "hi");
    server.sleep("/rooms/tea");
    let bob = server.connect("/rooms/tea?name=Bob");
    let received = server.received(bob);
    assert_eq!(
        received[0],
        r#"{"kind":"history","lines":[["000000001",{"kind":"say","name":"Ann","text":"hi"}]]}"#
    );
    let snapshot: Value = received[1].json().unwrap();
    assert_eq!(
        [0, 1].map(|member: usize| &snapshot["members"][member]["meta"]),
        ["Ann", "Bob"]
    );
    server.send(bob, "hello");
    server.disconnect(bob);
    let kinds = ["history", "snapshot", "say", "join", "say", "leave"]
        .map(|kind| format!(r#"{{"kind":"{kind}""#));
    let received = server.received(ann);
    assert!(
        received.len() == 6
            && received
                .iter()
                .zip(kinds)
                .all(|(line, kind)| line.text().unwrap().starts_with(&kind)),
        "{received:?}"
    );
    server.restart();
    let eve = server.connect("/rooms/tea?name=Eve");
    assert!(server.received(eve)[0].text().unwrap().contains("hello"));
}
