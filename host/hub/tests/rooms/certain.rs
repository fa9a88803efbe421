//! Guaranteed events: an on-close for each on-open, and every alarm, even if the host cannot call
//! the app for a while.

use super::*;

/// Obstacle that keeps the host from delivering an event until the test removes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Obstacle {
    EveryInstanceIsBusy,
    NoInstanceCanBeMade,
    CommitsFail,
    StorageIsClosed,
    StorageIsFull,
    TheRoomDoesNotWake,
    ManyEventsWait,
}

use Obstacle::{
    CommitsFail, EveryInstanceIsBusy, ManyEventsWait, NoInstanceCanBeMade, StorageIsClosed,
    StorageIsFull, TheRoomDoesNotWake,
};

const OBSTACLES: [Obstacle; 7] = [
    EveryInstanceIsBusy,
    NoInstanceCanBeMade,
    CommitsFail,
    StorageIsClosed,
    StorageIsFull,
    TheRoomDoesNotWake,
    ManyEventsWait,
];

/// A world whose rooms write a line for each successful event, with an obstacle.
struct Course {
    world: World,
    obstacle: Arc<Mutex<Option<Obstacle>>>,
    memory: MemoryEngine,
}

impl Course {
    fn new() -> Course {
        let obstacle = Arc::<Mutex<Option<Obstacle>>>::default();
        let [in_wake, in_instance] = [obstacle.clone(), obstacle.clone()];
        let script = move |event: RoomEvent, transaction: &Transaction| {
            let line = match &event {
                RoomEvent::Wake if *in_wake.lock().unwrap() == Some(TheRoomDoesNotWake) => {
                    return Err(Fault::Trap("as asked".into()));
                }
                RoomEvent::Handle(..) => {
                    return Ok(RoomAnswer::Response(Response {
                        status: http::StatusCode::OK,
                        headers: vec![],
                        body: Bytes::new(),
                    }));
                }
                RoomEvent::Messages(_, messages) => {
                    transaction.set_alarm(Some(START + 60_000));
                    String::from_utf8_lossy(messages[0].bytes()).into_owned()
                }
                RoomEvent::Close(conn, _) => {
                    format!("close {}", conn.protocol().unwrap_or_default())
                }
                RoomEvent::Alarm(attempt) => format!("alarm {attempt}"),
                _ => return Ok(RoomAnswer::Done),
            };
            say(transaction, &Message::text(format!("{line};")));
            Ok(RoomAnswer::Done)
        };
        let instance = move |()| match *in_instance.lock().unwrap() {
            Some(EveryInstanceIsBusy) => Err(Fault::Busy),
            Some(NoInstanceCanBeMade) => Err(Fault::Host("as asked".into())),
            _ => Ok(()),
        };
        let app = FakeApp {
            room: Arc::new(script),
            instance: Box::new(instance),
            ..FakeApp::default()
        };
        let limits = Limits {
            room_inbox_max: 2,
            ..Limits::default()
        };
        let memory = MemoryEngine::default();
        let mut world = World::at(Now::at(START), limits, memory.clone(), Arc::new(fine));
        world.front = RoomRouter::new(world.rooms.clone(), Arc::new(app), manifest("chat"));
        world.front.serve();
        Course {
            world,
            obstacle,
            memory,
        }
    }

    fn join(&self, name: &str) -> ConnectionGuard {
        let accept = Accept {
            room: Some(room("tea")),
            protocol: Some(name.into()),
            ..Accept::default()
        };
        let conn = self.world.hub.open(accept).unwrap();
        self.world
            .run(self.world.front.clone().open(conn.clone(), request("tea")))
            .unwrap();
        conn
    }

    fn leave(&self, conn: &ConnectionGuard) -> tidegate_hub::Call<'static, ()> {
        let gone = CloseEvent {
            code: 1000,
            reason: String::new(),
            was_clean: true,
            is_peer_initiated: true,
        };
        let mut call = self.world.front.clone().close(Arc::clone(conn), gone);
        assert!(poll(&mut call).is_none());
        call
    }

    fn put(&self, obstacle: Obstacle) {
        *self.obstacle.lock().unwrap() = Some(obstacle);
        let fail = |error: fn(String) -> EngineError| {
            self.memory
                .fail_next((0..1000).map(|_| error("as asked".into())))
        };
        match obstacle {
            CommitsFail => fail(EngineError::Io),
            StorageIsClosed => fail(EngineError::Closed),
            StorageIsFull => fail(EngineError::Full),
            ManyEventsWait => self.memory.hold(),
            EveryInstanceIsBusy | NoInstanceCanBeMade | TheRoomDoesNotWake => {}
        }
    }

    fn take_away(&self) {
        *self.obstacle.lock().unwrap() = None;
        self.memory.fail_no_more();
        self.memory.release();
    }

    fn log(&self) -> String {
        let log = self
            .memory
            .get(&room("tea"), "log")
            .unwrap()
            .unwrap_or_default();
        String::from_utf8_lossy(&log).into_owned()
    }
}

#[test]
fn whatever_the_obstacle_each_on_close_happens_once_in_order_when_it_is_gone() {
    for obstacle in OBSTACLES {
        let course = Course::new();
        let conns = ["ann", "bob", "cid", "dan"].map(|name| course.join(name));
        course.world.rooms.sleep_all();
        course.put(obstacle);
        let mut calls: Vec<_> = conns[..3].iter().map(|conn| course.leave(conn)).collect();
        for _ in 0..600 {
            course.world.advance(Duration::from_millis(100));
            assert!(
                calls.iter_mut().all(|call| poll(call).is_none()),
                "{obstacle:?}"
            );
        }
        calls.push(course.leave(&conns[3]));
        course.world.settle();
        assert_eq!(course.log(), "", "{obstacle:?}");
        course.take_away();
        for _ in 0..350 {
            course.world.advance(Duration::from_millis(100));
        }
        assert_eq!(
            course.log(),
            "close ann;close bob;close cid;close dan;",
            "{obstacle:?}"
        );
        assert!(
            calls.iter_mut().all(|call| poll(call) == Some(Ok(()))),
            "{obstacle:?}"
        );
    }
}

#[test]
fn whatever_the_obstacle_an_alarm_happens_once_at_its_first_try_also_over_a_restart() {
    // An app that does not wake has been called, so the tries of its alarm fail.
    for obstacle in OBSTACLES
        .into_iter()
        .filter(|obstacle| *obstacle != TheRoomDoesNotWake)
    {
        for restarts in [false, true] {
            let mut course = Course::new();
            let ann = course.join("ann");
            course.world.say(&ann, &["set"]).unwrap();
            course.world.rooms.sleep_all();
            course.world.advance(Duration::from_secs(59));
            course.put(obstacle);
            for _ in 0..600 {
                course.world.advance(Duration::from_millis(100));
            }
            assert_eq!(course.log(), "set;", "{obstacle:?}");
            course.take_away();
            if restarts {
                assert_eq!(
                    course.memory.alarms().unwrap()[0].1.attempt,
                    1,
                    "{obstacle:?}"
                );
                drop(course.world);
                let script = |event: &RoomEvent, transaction: &Transaction| {
                    if let RoomEvent::Alarm(attempt) = event {
                        say(transaction, &Message::text(format!("alarm {attempt};")));
                    }
                    Ok(())
                };
                course.world = World::at(
                    Now::at(START + 600_000),
                    Limits::default(),
                    course.memory.clone(),
                    Arc::new(script),
                );
            }
            for _ in 0..60 {
                course.world.advance(Duration::from_millis(100));
            }
            assert_eq!(course.log(), "set;alarm 1;", "{obstacle:?}, {restarts}");
        }
    }
}

#[test]
fn no_obstacle_of_the_hosts_own_closes_a_room() {
    for obstacle in [EveryInstanceIsBusy, NoInstanceCanBeMade] {
        let course = Course::new();
        course.put(obstacle);
        for _ in 0..20 {
            let outcome = course.world.log("tea");
            assert!(
                outcome
                    .as_ref()
                    .is_err_and(|fault| fault.is_of_host() && !matches!(fault, Fault::Closed(_))),
                "{outcome:?}"
            );
        }
        course.take_away();
        assert_eq!(course.world.log("tea"), Ok(String::new()), "{obstacle:?}");
    }
}

#[test]
fn a_connection_whose_on_open_was_not_called_is_owed_no_on_close() {
    for obstacle in [EveryInstanceIsBusy, NoInstanceCanBeMade, TheRoomDoesNotWake] {
        let course = Course::new();
        course.put(obstacle);
        let conn = course
            .world
            .hub
            .open(Accept {
                room: Some(room("tea")),
                ..Accept::default()
            })
            .unwrap();
        let opened = course.world.run(
            course
                .world
                .front
                .clone()
                .open(conn.clone(), request("tea")),
        );
        assert!(opened.is_err() && !conn.has_opened(), "{obstacle:?}");
        assert_eq!(course.world.hub.connections().owed_closes(), 0);
        course.take_away();
        let ann = course.join("ann");
        assert!(ann.has_opened());
        assert_eq!(course.world.hub.connections().owed_closes(), 1);
    }
}

#[test]
fn an_on_open_that_has_not_happened_is_owed_no_on_close_and_one_of_which_a_part_has_is() {
    for (flushes, traps, fails, is_owed) in [
        (false, false, false, true),
        (false, true, false, true),
        (false, false, true, false),
        (true, false, true, false),
        (true, true, false, true),
    ] {
        let world = World::new(move |event, transaction| {
            if let RoomEvent::Open(..) = event {
                say(transaction, &Message::text("open"));
                if flushes {
                    poll(&mut pin!(transaction.flush())).unwrap()?;
                }
                if traps {
                    return Err(Fault::Trap("as asked".into()));
                }
            }
            Ok(())
        });
        let conn = world
            .hub
            .open(Accept {
                room: Some(room("tea")),
                ..Accept::default()
            })
            .unwrap();
        world
            .memory
            .fail_next(fails.then(|| EngineError::Io("as asked".into())));
        let opened = world.run(world.front.clone().open(conn.clone(), request("tea")));
        assert_eq!(
            (opened.is_ok(), conn.has_opened()),
            (!traps && !fails, is_owed),
            "{flushes} {traps} {fails}"
        );
    }
}

#[test]
fn an_on_close_that_traps_was_delivered() {
    let closes = Arc::<AtomicUsize>::default();
    let count = closes.clone();
    let world = World::new(move |event, _| match event {
        RoomEvent::Close(..) => {
            count.fetch_add(1, Ordering::Relaxed);
            Err(Fault::Trap("as asked".into()))
        }
        _ => Ok(()),
    });
    let ann = world.join("tea");
    let gone = CloseEvent {
        code: 1000,
        reason: String::new(),
        was_clean: true,
        is_peer_initiated: true,
    };
    assert!(matches!(
        world.run(world.front.clone().close(Arc::clone(&ann), gone)),
        Err(Fault::Trap(_))
    ));
    world.advance(Duration::from_secs(60));
    assert_eq!(closes.load(Ordering::Relaxed), 1);
}

#[test]
fn the_last_event_of_a_connection_whose_route_is_gone_goes_to_the_version_that_had_it() {
    let seen = Arc::<Mutex<Vec<&'static str>>>::default();
    let note = |name: &'static str| {
        let seen = seen.clone();
        move |event: &RoomEvent, _: &Transaction| {
            if let RoomEvent::Close(..) = event {
                seen.lock().unwrap().push(name);
            }
            Ok(())
        }
    };
    let world = World::new(note("old"));
    let (ann, bob) = (world.join("tea"), world.join("tea"));
    let close = |front: &Arc<RoomRouter>, conn: &ConnectionGuard| {
        let gone = CloseEvent {
            code: 1012,
            reason: String::new(),
            was_clean: true,
            is_peer_initiated: false,
        };
        world
            .run(front.clone().close(Arc::clone(conn), gone))
            .unwrap();
    };
    world.version("talk", note("without")).serve();
    close(&world.front, &ann);
    let again = world.version("chat", note("new"));
    again.serve();
    close(&again, &bob);
    assert_eq!(*seen.lock().unwrap(), ["old", "new"]);
}

/// Sets an alarm after ten seconds at each message, flushes if the message requests it, and reports
/// the alarm.
fn flushing(event: &RoomEvent, transaction: &Transaction) -> Result<(), Fault> {
    match event {
        RoomEvent::Messages(_, messages) => {
            if messages[0] != Message::text("only flush") {
                transaction.set_alarm(Some(START + 10_000));
            }
            if messages[0] != Message::text("set") {
                assert!(poll(&mut pin!(transaction.flush())).unwrap().is_ok());
            }
        }
        RoomEvent::Alarm(_) => say(transaction, &Message::text("!")),
        _ => {}
    }
    Ok(())
}

#[test]
fn an_alarm_rings_whichever_commit_made_it_durable() {
    for turn in [
        &["set and flush"][..],
        &["set", "only flush"],
        &["only flush", "set"],
        &["set", "set and flush", "only flush"],
    ] {
        let world = World::new(flushing);
        let conns: Vec<ConnectionGuard> = turn.iter().map(|_| world.join("tea")).collect();
        let call = |(conn, text): (&ConnectionGuard, &&'static str)| {
            world
                .front
                .clone()
                .messages(Arc::clone(conn), vec![Message::text(*text)])
        };
        let mut calls: Vec<_> = conns.iter().zip(turn).map(call).collect();
        calls
            .iter_mut()
            .for_each(|call| assert!(poll(call).is_none()));
        world.settle();
        conns.iter().for_each(|conn| _ = heard(conn));
        world.advance(Duration::from_secs(10));
        assert_eq!(heard(&conns[0]), ["!"], "{turn:?}");
        world.advance(Duration::from_secs(60));
        assert!(
            heard(&conns[0]).is_empty() && world.memory.alarms().unwrap().is_empty(),
            "{turn:?}"
        );
    }
}

#[test]
fn an_alarm_is_not_lost_when_the_clock_is_set_between_the_tick_and_the_turn() {
    for by in [-3_600_000, -1, 3_600_000] {
        let world = World::new(flushing);
        let ann = world.join("tea");
        world.say(&ann, &["set"]).unwrap();
        heard(&ann);
        world.now.fetch_add(10_000, Ordering::Relaxed);
        world.rooms.tick(world.time());
        world.set_clock(by);
        world.settle();
        assert_eq!(heard(&ann), ["!"], "{by}");
    }
}

#[test]
fn a_clock_that_is_set_changes_nothing_but_alarms_and_the_age_of_histories() {
    for by in [-3_600_000, 3_600_000] {
        let wakes_badly = Arc::new(Mutex::new(false));
        let in_wake = wakes_badly.clone();
        let world = World::new(move |event, _| match event {
            RoomEvent::Wake if *in_wake.lock().unwrap() => Err(Fault::Trap("as asked".into())),
            _ => Ok(()),
        });
        // An idle room sleeps after ten seconds.
        world.log("tea").unwrap();
        world.set_clock(by);
        world.advance(Duration::from_millis(9_900));
        assert_eq!(world.rooms.awake(), 1, "{by}");
        world.advance(Duration::from_millis(100));
        assert_eq!(world.rooms.awake(), 0, "{by}");
        // A room that does not wake is closed for thirty seconds.
        *wakes_badly.lock().unwrap() = true;
        (0..5).for_each(|_| assert!(world.log("tea").is_err()));
        world.set_clock(-by);
        let asked = request("tea");
        world.advance(Duration::from_millis(29_900));
        assert!(
            matches!(
                poll(&mut world.front.handle(&asked, Bytes::new())),
                Some(Err(Fault::Closed(_)))
            ),
            "{by}"
        );
        *wakes_badly.lock().unwrap() = false;
        world.advance(Duration::from_millis(100));
        assert!(world.log("tea").is_ok(), "{by}");
    }
}

#[test]
fn alarms_that_are_overdue_at_the_start_are_spread() {
    let memory = MemoryEngine::default();
    for n in 0..35 {
        let alarm = Some(Alarm {
            at: START - 60_000 + n,
            attempt: 1,
        });
        let batch = Batch::new(
            room(&format!("room{n:02}")),
            RoomRecord {
                alarm,
                ..RoomRecord::default()
            },
        );
        assert_eq!(poll(&mut memory.commit(batch)), Some(Ok(())));
    }
    let world = World::over(memory, Arc::new(fine));
    let left: Vec<usize> = (0..4)
        .map(|_| {
            world.advance(Duration::from_millis(100));
            world.memory.alarms().unwrap().len()
        })
        .collect();
    assert_eq!(left, [25, 15, 5, 0]);
}

#[test]
fn alarms_of_a_storage_that_is_closed_at_the_start_ring_once_when_it_has_opened() {
    let memory = MemoryEngine::default();
    for n in 0..3 {
        let stored = RoomRecord {
            alarm: Some(Alarm {
                at: START + 1000 * n,
                attempt: 1,
            }),
            ..RoomRecord::default()
        };
        let batch = Batch::new(room(&format!("room{n}")), stored);
        assert_eq!(poll(&mut memory.commit(batch)), Some(Ok(())));
    }
    memory.close();
    let rang = Arc::<AtomicUsize>::default();
    let counted = rang.clone();
    let world = World::over(
        memory,
        Arc::new(move |event: &RoomEvent, _: &Transaction| {
            if matches!(event, RoomEvent::Alarm(_)) {
                counted.fetch_add(1, Ordering::SeqCst);
            }
            Ok(())
        }),
    );
    world.advance(Duration::from_secs(60));
    assert_eq!(rang.load(Ordering::SeqCst), 0, "while it is closed");
    world.memory.open();
    for _ in 0..100 {
        world.advance(Duration::from_millis(100));
    }
    assert_eq!(
        (
            rang.load(Ordering::SeqCst),
            world.memory.alarms().unwrap().len()
        ),
        (3, 0)
    );
}

#[test]
fn a_flush_that_its_event_gave_up_is_over_before_the_next_event_runs() {
    let world = World::new(|event, transaction| {
        if let RoomEvent::Messages(_, messages) = event
            && messages[0] == Message::text("slow")
        {
            say(transaction, &Message::text("flushed "));
            transaction.set_alarm(Some(START + 1000));
            assert!(
                poll(&mut pin!(transaction.flush())).is_none(),
                "the disk is slow"
            );
            say(transaction, &Message::text("undone "));
            return Err(Fault::Wall);
        }
        Ok(())
    });
    let (ann, bob) = (world.join("tea"), world.join("tea"));
    world.memory.hold();
    let mut slow = world
        .front
        .clone()
        .messages(Arc::clone(&ann), vec![Message::text("slow")]);
    let mut next = world
        .front
        .clone()
        .messages(Arc::clone(&bob), vec![Message::text("next ")]);
    assert!(poll(&mut slow).is_none() && poll(&mut next).is_none());
    world.settle();
    world.memory.release();
    world.settle();
    assert_eq!(
        (poll(&mut slow), poll(&mut next)),
        (Some(Err(Fault::Wall)), Some(Ok(())))
    );
    assert_eq!(
        (heard(&bob), world.rooms.next_alarm()),
        (
            vec!["flushed ".to_owned(), "next ".into()],
            Some(START + 1000)
        )
    );
}

#[test]
fn events_before_a_flush_that_fails_have_not_happened_and_those_before_one_that_succeeds_have() {
    for (fails, expected) in [(0, [true, true, true]), (1, [false, false, true])] {
        let world = World::new(|event, transaction| match event {
            RoomEvent::Messages(_, messages) if messages[0] == Message::text("flush") => {
                poll(&mut pin!(transaction.flush()))
                    .unwrap()
                    .map_err(Fault::from)
            }
            _ => Ok(()),
        });
        let conns = [(); 3].map(|()| world.join("tea"));
        let says = ["a", "flush", "b"];
        let call = |(conn, text): (&ConnectionGuard, &'static str)| {
            world
                .front
                .clone()
                .messages(Arc::clone(conn), vec![Message::text(text)])
        };
        let mut calls: Vec<_> = conns.iter().zip(says).map(call).collect();
        calls
            .iter_mut()
            .for_each(|call| assert!(poll(call).is_none()));
        world
            .memory
            .fail_next((0..fails).map(|_| EngineError::Io("as asked".into())));
        world.settle();
        let outcomes: Vec<bool> = calls
            .iter_mut()
            .map(|call| poll(call).unwrap().is_ok())
            .collect();
        assert_eq!(outcomes, expected, "{fails}");
        let kept: String = says
            .into_iter()
            .zip(expected)
            .filter(|(_, happened)| *happened)
            .map(|(text, _)| text)
            .collect();
        assert_eq!(world.log("tea"), Ok(kept), "{fails}");
    }
}
