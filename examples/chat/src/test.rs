//! What two people and a sleeping room see of each other.

use super::app;

#[test]
fn who_comes_later_reads_what_was_said_and_sees_who_is_there() {
    let mut server = tidegate::testing::serve(app());
    let ann = server.connect("/rooms/tea?name=Ann");
    server.say(ann, "hi");
    server.sleep("/rooms/tea");
    let bob = server.connect("/rooms/tea?name=Bob");
    let welcome = r#"{"kind":"welcome","names":["Ann","Bob"],"lines":[["000000001",{"kind":"say","name":"Ann","text":"hi"}]]}"#;
    assert_eq!(server.heard(bob), [welcome]);
    server.say(bob, "hello");
    server.vanish(bob);
    let kinds = ["welcome", "say", "join", "say", "leave"].map(|kind| format!(r#"{{"kind":"{kind}""#));
    let heard = server.heard(ann);
    assert!(heard.len() == 5 && heard.iter().zip(kinds).all(|(line, kind)| line.text().unwrap().starts_with(&kind)), "{heard:?}");
    server.restart();
    let eve = server.connect("/rooms/tea?name=Eve");
    assert!(server.heard(eve)[0].text().unwrap().contains("hello"));
}
