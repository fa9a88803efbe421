//! Order of events, deadlines and the close handshake of one WebSocket.

use super::*;

/// Returns a session whose `Open` has been handled, and the moment at which it began.
fn opened(limits: Limits) -> (Session, Instant) {
    let now = Instant::now();
    let mut session = Session::new(&limits, now);
    assert_eq!(session.next_call(), Some(ConnectionEvent::Open));
    session.handle_returned(true);
    (session, now)
}

fn text(text: &str) -> Message {
    Message::text(text.to_owned())
}

fn told(code: u16, clean: bool, by_peer: bool) -> Option<ConnectionEvent> {
    Some(ConnectionEvent::Close(CloseEvent {
        code,
        reason: String::new(),
        was_clean: clean,
        is_peer_initiated: by_peer,
    }))
}

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn messages_wait_for_open_and_come_together_in_order() {
    let now = Instant::now();
    let mut session = Session::new(&Limits::default(), now);
    session.handle_message(text("a"), now);
    assert_eq!(session.next_call(), Some(ConnectionEvent::Open));
    session.handle_message(text("b"), now);
    assert_eq!(session.next_call(), None, "one event at a time");
    session.handle_returned(true);
    assert_eq!(
        session.next_call(),
        Some(ConnectionEvent::Messages(vec![text("a"), text("b")]))
    );
}

#[test]
fn reading_stops_while_the_inbox_is_full_and_continues_after_a_call() {
    let limits = Limits {
        inbox_messages_max: 2,
        inbox_bytes_max: 10,
        ..Limits::default()
    };
    for messages in [&["a", "b"][..], &["one that is larger than all"]] {
        let (mut session, now) = opened(limits.clone());
        for message in messages {
            assert!(session.wants_read());
            session.handle_message(text(message), now);
        }
        assert!(!session.wants_read(), "{messages:?}");
        assert!(session.next_call().is_some());
        assert!(session.wants_read());
    }
}

#[test]
fn the_app_gets_one_close_event_after_the_last_message() {
    let (mut session, now) = opened(Limits::default());
    session.handle_message(text("last"), now);
    session.handle_peer_close(Some(Close::new(4001, "")), now);
    assert!(
        !session.ready_to_answer(),
        "what came before the close goes first"
    );
    assert_eq!(
        session.next_call(),
        Some(ConnectionEvent::Messages(vec![text("last")]))
    );
    session.handle_returned(true);
    assert!(session.ready_to_answer());
    session.handle_answered();
    session.handle_disconnect();
    assert_eq!(session.next_call(), told(4001, true, true));
    assert!(!session.is_over());
    session.handle_returned(true);
    assert_eq!(session.next_call(), None);
    assert!(session.is_over());
}

#[test]
fn a_close_event_describes_the_end_of_the_connection() {
    type Step = fn(&mut Session, Instant);
    let ours: Step = |session, now| session.handle_closing(Close::new(1001, ""), now);
    let cases: [(&[Step], Option<ConnectionEvent>); 7] = [
        (
            &[
                |session, now| session.handle_peer_close(None, now),
                |session, _| session.handle_answered(),
            ],
            told(1005, true, true),
        ),
        (
            &[
                |session, now| session.handle_peer_close(None, now),
                |session, _| session.handle_dropped(),
            ],
            told(1005, false, true),
        ),
        (
            &[|session, _| session.handle_disconnect()],
            told(1006, false, true),
        ),
        (
            &[|session, _| session.handle_dropped()],
            told(1006, false, false),
        ),
        (
            &[ours, |session, now| {
                session.handle_peer_close(Some(Close::new(1001, "")), now)
            }],
            told(1001, true, false),
        ),
        (
            &[ours, |session, _| session.handle_disconnect()],
            told(1001, false, false),
        ),
        (
            &[ours, |session, _| session.handle_dropped()],
            told(1001, false, false),
        ),
    ];
    for (index, (steps, expected)) in cases.into_iter().enumerate() {
        let (mut session, now) = opened(Limits::default());
        steps.iter().for_each(|step| step(&mut session, now));
        assert_eq!(session.next_call(), expected, "case {index}");
    }
}

#[test]
fn a_fault_drops_waiting_messages_and_a_close_ends_delivery() {
    let (mut session, now) = opened(Limits::default());
    session.handle_message(text("trap"), now);
    session.next_call().unwrap();
    session.handle_message(text("behind"), now);
    session.handle_returned(false);
    session.handle_closing(Close::new(1011, ""), now);
    session.handle_message(text("late"), now);
    assert_eq!(session.next_call(), None);
    session.handle_peer_close(Some(Close::new(1011, "")), now);
    assert_eq!(session.next_call(), told(1011, true, false));
}

#[test]
fn a_connection_that_is_accepted_to_be_closed_gives_the_app_no_event() {
    let now = Instant::now();
    let mut session = Session::silent(&Limits::default(), now);
    session.handle_message(text("hello?"), now);
    session.handle_closing(Close::new(4403, ""), now);
    session.handle_peer_close(None, now);
    assert_eq!(session.next_call(), None);
    assert!(session.is_over());
}

#[test]
fn a_silent_peer_is_pinged_and_then_dropped() {
    let (mut session, start) = opened(Limits::default());
    assert_eq!(
        session.poll_time(start),
        TimedAction::Until(Some(start + 30 * SECOND))
    );
    assert_eq!(session.poll_time(start + 30 * SECOND), TimedAction::Ping);
    session.handle_ping_left(start + 30 * SECOND);
    assert_eq!(
        session.poll_time(start + 31 * SECOND),
        TimedAction::Until(Some(start + 40 * SECOND))
    );
    assert!(session.is_pong_late(start + 40 * SECOND));
    assert_eq!(session.poll_time(start + 40 * SECOND), TimedAction::Drop);
    session.handle_dropped();
    assert_eq!(session.next_call(), told(1006, false, false));
}

#[test]
fn a_peer_that_answers_is_pinged_again_later() {
    type Step = fn(&mut Session, Instant);
    let answers: [(&str, Step); 3] = [
        ("a pong, or a ping of its own", |session, now| {
            assert!(session.handle_control(now))
        }),
        ("a part of a message", |session, now| {
            session.handle_part(now)
        }),
        ("a message", |session, now| {
            session.handle_answered_message(now)
        }),
    ];
    for (name, answer) in answers {
        let (mut session, start) = opened(Limits::default());
        assert_eq!(session.poll_time(start + 30 * SECOND), TimedAction::Ping);
        session.handle_ping_left(start + 30 * SECOND);
        answer(&mut session, start + 32 * SECOND);
        assert!(!session.is_pong_late(start + 40 * SECOND), "{name}");
        assert_eq!(
            session.poll_time(start + 40 * SECOND),
            TimedAction::Until(Some(start + 62 * SECOND)),
            "{name}"
        );
        assert_eq!(
            session.poll_time(start + 62 * SECOND),
            TimedAction::Ping,
            "{name}"
        );
    }
}

#[test]
fn the_time_for_a_pong_begins_when_the_ping_has_left_the_host() {
    let (mut session, start) = opened(Limits::default());
    assert_eq!(session.poll_time(start + 30 * SECOND), TimedAction::Ping);
    assert_eq!(
        session.poll_time(start + 90 * SECOND),
        TimedAction::Until(None),
        "it still waits for the socket"
    );
    session.handle_ping_left(start + 90 * SECOND);
    assert_eq!(
        session.poll_time(start + 90 * SECOND),
        TimedAction::Until(Some(start + 100 * SECOND))
    );
    session.handle_ping_left(start + 100 * SECOND);
    assert_eq!(
        session.poll_time(start + 100 * SECOND),
        TimedAction::Until(Some(start + 110 * SECOND)),
        "it had not left the machine"
    );
    assert_eq!(session.poll_time(start + 110 * SECOND), TimedAction::Drop);
}

#[test]
fn control_frames_have_a_rate() {
    let (mut session, start) = opened(Limits {
        control_frames_max: 3,
        ..Limits::default()
    });
    let mut admitted = |at: Duration| [(); 4].map(|()| session.handle_control(start + at));
    assert_eq!(admitted(Duration::ZERO), [true, true, true, false]);
    assert_eq!(admitted(SECOND / 2), [false; 4]);
    assert_eq!(
        admitted(SECOND),
        [true, true, true, false],
        "the next second"
    );
}

#[test]
fn a_peer_that_is_not_read_owes_no_pong() {
    let (mut session, start) = opened(Limits {
        inbox_messages_max: 1,
        ..Limits::default()
    });
    session.handle_message(text("waits"), start);
    assert_eq!(session.poll_time(start + 30 * SECOND), TimedAction::Ping);
    session.handle_ping_left(start + 30 * SECOND);
    assert!(!session.is_pong_late(start + 50 * SECOND));
    assert_eq!(
        session.poll_time(start + 50 * SECOND),
        TimedAction::Until(Some(start + 60 * SECOND))
    );
}

#[test]
fn idle_and_lifetime_limits_close_with_1001() {
    let off = Limits {
        ping_every: Duration::ZERO,
        ..Limits::default()
    };
    let idle = Limits {
        idle_max: 60 * SECOND,
        ..off.clone()
    };
    let (mut session, start) = opened(idle);
    session.handle_message(text("x"), start + 30 * SECOND);
    assert_eq!(
        session.poll_time(start + 60 * SECOND),
        TimedAction::Until(Some(start + 90 * SECOND))
    );
    session.handle_part(start + 80 * SECOND);
    assert_eq!(
        session.poll_time(start + 90 * SECOND),
        TimedAction::Until(Some(start + 140 * SECOND)),
        "a part of a message counts"
    );
    assert!(session.handle_control(start + 90 * SECOND));
    assert_eq!(
        session.poll_time(start + 140 * SECOND),
        TimedAction::Until(Some(start + 150 * SECOND)),
        "so do pings and pongs"
    );
    assert!(session.is_idle(start + 150 * SECOND));
    session.handle_sent(start + 150 * SECOND);
    assert_eq!(
        session.poll_time(start + 150 * SECOND),
        TimedAction::Until(Some(start + 210 * SECOND)),
        "and what is still on its way"
    );
    assert_eq!(
        session.poll_time(start + 210 * SECOND),
        TimedAction::Close(Close::new(1001, "idle"))
    );
    let lifetime = Limits {
        lifetime_max: 60 * SECOND,
        ..off.clone()
    };
    let (mut session, start) = opened(lifetime);
    session.handle_message(text("x"), start + 59 * SECOND);
    assert_eq!(
        session.poll_time(start + 60 * SECOND),
        TimedAction::Close(Close::new(1001, "its lifetime is over"))
    );
    assert_eq!(opened(off).0.poll_time(start), TimedAction::Until(None));
}

#[test]
fn a_peer_that_does_not_close_is_dropped_after_five_seconds() {
    let (mut session, start) = opened(Limits::default());
    session.handle_closing(Close::new(1000, ""), start);
    assert_eq!(
        session.poll_time(start),
        TimedAction::Until(Some(start + 5 * SECOND))
    );
    assert_eq!(session.poll_time(start + 5 * SECOND), TimedAction::Drop);
}
