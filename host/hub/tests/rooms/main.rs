//! Rooms on a test's own clock and executor: tasks run only when the test polls them, and time
//! advances only when the test advances it.

mod certain;
mod model;

use bytes::Bytes;
use std::{
    collections::{BTreeMap, VecDeque},
    future::Future,
    pin::{Pin, pin},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    task::{Context, Poll, Waker},
    time::Duration,
};
use tidegate_hub::{
    Accept, Alarm, App, AutoResponse, Batch, CallError, Close, CloseEvent, Conn, ConnectionGuard,
    Decision, Effect, Engine, EngineError, Fault, Hub, LimitError, Limits, Message, Now, Outgoing,
    Position, Publication, Request, Response, RoomId, RoomRecord, RoomRouter, Rooms, Scope,
    Transaction,
    app::{RoomAnswer, RoomEvent},
    limits::ROOMS_FAILING_MAX,
    rooms::{calls, storage::Range},
    testing::{FakeApp, MemoryEngine},
};
use tidegate_routing::{Manifest, Route, Target};

type Task = Pin<Box<dyn Future<Output = ()> + Send>>;
type Script = dyn Fn(&RoomEvent, &Transaction) -> Result<(), Fault> + Send + Sync;

/// A host of one app with one class of rooms, `chat`, at `/rooms/{name}`. Its instances append
/// messages to `log`, and broadcast them; `script` runs first.
struct World {
    hub: Arc<Hub>,
    memory: MemoryEngine,
    rooms: Arc<Rooms>,
    front: Arc<RoomRouter>,
    tasks: Arc<Mutex<VecDeque<Task>>>,
    /// Monotonic milliseconds.
    now: AtomicU64,
    /// Milliseconds by which the wall clock was set forward or back, modulo 2^64.
    set: AtomicU64,
    wakes: Arc<AtomicUsize>,
}

const START: u64 = 1_000_000;

impl World {
    fn new(
        script: impl Fn(&RoomEvent, &Transaction) -> Result<(), Fault> + Send + Sync + 'static,
    ) -> World {
        World::over(MemoryEngine::default(), Arc::new(script))
    }

    fn over(memory: MemoryEngine, script: Arc<Script>) -> World {
        World::at(
            Now::at(START),
            Limits {
                rooms_awake_max: 3,
                ..Limits::default()
            },
            memory,
            script,
        )
    }

    fn at(now: Now, limits: Limits, memory: MemoryEngine, script: Arc<Script>) -> World {
        let hub = Hub::new(limits, Default::default(), 1);
        let wakes = Arc::<AtomicUsize>::default();
        let tasks = Arc::<Mutex<VecDeque<Task>>>::default();
        let queue = tasks.clone();
        let spawn = Box::new(move |_: &RoomId, task| queue.lock().unwrap().push_back(task));
        let rooms = Rooms::new(hub.clone(), Arc::new(memory.clone()), spawn, now).unwrap();
        let front = RoomRouter::new(rooms.clone(), app(script, wakes.clone()), manifest("chat"));
        // The first tick may precede the first version: no alarm may be late because of it.
        rooms.tick(now);
        front.serve();
        let set = AtomicU64::new(now.wall.wrapping_sub(now.monotonic));
        World {
            hub,
            memory,
            rooms,
            front,
            tasks,
            now: AtomicU64::new(now.monotonic),
            set,
            wakes,
        }
    }

    /// Makes another version of the app, which is not served yet.
    fn version(
        &self,
        class: &str,
        script: impl Fn(&RoomEvent, &Transaction) -> Result<(), Fault> + Send + Sync + 'static,
    ) -> Arc<RoomRouter> {
        // Its routes have other indexes than those of the first.
        let mut manifest = manifest(class);
        manifest
            .routes
            .insert(0, Route::new("GET", "/", Target::Http));
        RoomRouter::new(
            self.rooms.clone(),
            app(Arc::new(script), self.wakes.clone()),
            manifest,
        )
    }

    /// Polls every task until none makes progress.
    fn settle(&self) {
        for _ in 0..6 {
            let tasks = std::mem::take(&mut *self.tasks.lock().unwrap());
            for mut task in tasks {
                if poll(&mut task).is_none() {
                    self.tasks.lock().unwrap().push_back(task);
                }
            }
        }
    }

    fn run<T>(&self, call: impl Future<Output = T>) -> T {
        let mut call = pin!(call);
        assert!(
            poll(&mut call).is_none(),
            "a room's event goes through its room's task"
        );
        self.settle();
        poll(&mut call).expect("it ends when the rooms have settled")
    }

    fn advance(&self, time: Duration) {
        self.now
            .fetch_add(time.as_millis() as u64, Ordering::Relaxed);
        self.rooms.tick(self.time());
        self.settle();
    }

    fn time(&self) -> Now {
        let monotonic = self.now.load(Ordering::Relaxed);
        Now {
            monotonic,
            wall: monotonic.wrapping_add(self.set.load(Ordering::Relaxed)),
        }
    }

    /// Sets the wall clock by `by` milliseconds.
    fn set_clock(&self, by: i64) {
        self.set.fetch_add(by as u64, Ordering::Relaxed);
        self.rooms.tick(self.time());
    }

    fn join(&self, name: &str) -> ConnectionGuard {
        let conn = self
            .hub
            .open(Accept {
                room: Some(room(name)),
                ..Accept::default()
            })
            .unwrap();
        self.run(self.front.clone().open(conn.clone(), request(name)))
            .unwrap();
        conn
    }

    fn say(&self, conn: &Arc<Conn>, texts: &[&'static str]) -> Result<(), Fault> {
        self.run(self.front.clone().messages(
            conn.clone(),
            texts.iter().map(|text| Message::text(*text)).collect(),
        ))
    }

    fn log(&self, name: &str) -> Result<String, Fault> {
        let request = request(name);
        let response = self.run(self.front.handle(&request, Bytes::new()))?;
        Ok(String::from_utf8(response.body.to_vec()).unwrap())
    }

    fn wakes(&self) -> usize {
        self.wakes.load(Ordering::Relaxed)
    }
}

fn poll<F: Future + Unpin>(future: &mut F) -> Option<F::Output> {
    match Pin::new(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => Some(value),
        Poll::Pending => None,
    }
}

fn manifest(class: &str) -> Manifest {
    let route = |target| Route {
        room: Some(class.into()),
        ..Route::new("GET", "/rooms/{name}", target)
    };
    Manifest {
        routes: vec![route(Target::WebSocket), route(Target::Http)],
        guards: vec![],
        pages: vec![],
    }
}

fn app(script: Arc<Script>, woken: Arc<AtomicUsize>) -> Arc<FakeApp> {
    let room = move |event: RoomEvent, transaction: &Transaction| {
        script(&event, transaction)?;
        Ok(match event {
            RoomEvent::Wake => {
                woken.fetch_add(1, Ordering::Relaxed);
                RoomAnswer::Done
            }
            RoomEvent::Handle(..) => {
                let log = transaction.get("log").unwrap().unwrap_or_default();
                RoomAnswer::Response(Response {
                    status: http::StatusCode::OK,
                    headers: vec![],
                    body: log,
                })
            }
            RoomEvent::Call(payload) => RoomAnswer::Called(match &payload[..] {
                b"refuse" => Err((409, "as asked".into())),
                b"long" => Ok(vec![0; (1 << 20) + 1].into()),
                _ => Ok(payload),
            }),
            RoomEvent::Upgrade(..) => RoomAnswer::Decision(Decision::Accept(Accept::default())),
            RoomEvent::Messages(_, messages) => {
                messages
                    .iter()
                    .for_each(|message| say(transaction, message));
                RoomAnswer::Done
            }
            _ => RoomAnswer::Done,
        })
    };
    Arc::new(FakeApp {
        room: Arc::new(room),
        ..FakeApp::default()
    })
}

fn room(name: &str) -> RoomId {
    RoomId::new("chat", name).unwrap()
}

fn request(name: &str) -> Request {
    Request {
        params: vec![("name".into(), name.into())],
        ..Request::get(format!("/rooms/{name}"))
    }
}

fn say(transaction: &Transaction, message: &Message) {
    let mut log = transaction.get("log").unwrap().unwrap_or_default().to_vec();
    log.extend_from_slice(message.bytes());
    transaction.put("log", log.into()).unwrap();
    transaction
        .broadcast(Publication::new(message.clone()))
        .unwrap()
        .unwrap();
}

fn heard(conn: &Conn) -> Vec<String> {
    let mut batch = VecDeque::new();
    conn.outbox().take(&mut batch);
    conn.outbox().written();
    let text = |bytes: &Bytes| String::from_utf8_lossy(bytes).into_owned();
    let tell = |outgoing: &Outgoing| match outgoing {
        Outgoing::Close(close) => format!("close {}", close.code),
        other => other
            .message()
            .map_or(String::new(), |message| text(message.bytes())),
    };
    batch.iter().map(tell).collect()
}

fn fine(_: &RoomEvent, _: &Transaction) -> Result<(), Fault> {
    Ok(())
}

/// Traps at a message that requests it, after its effects.
fn touchy(event: &RoomEvent, transaction: &Transaction) -> Result<(), Fault> {
    match event {
        RoomEvent::Messages(_, messages) if messages.contains(&Message::text("trap")) => {
            messages
                .iter()
                .for_each(|message| say(transaction, message));
            Err(Fault::Trap("as asked".into()))
        }
        _ => Ok(()),
    }
}

#[test]
fn what_a_room_keeps_is_there_after_it_slept_and_after_a_restart() {
    let world = World::new(fine);
    let ann = world.join("tea");
    world.say(&ann, &["a", "b"]).unwrap();
    assert_eq!(
        (heard(&ann), world.wakes()),
        (vec!["a".to_owned(), "b".into()], 1)
    );
    world.advance(Duration::from_secs(9));
    assert_eq!(world.rooms.awake(), 1);
    world.advance(Duration::from_secs(1));
    assert_eq!(world.rooms.awake(), 0);
    world.say(&ann, &["c"]).unwrap();
    assert_eq!(
        (heard(&ann), world.wakes(), world.log("tea")),
        (vec!["c".to_owned()], 2, Ok("abc".into()))
    );
    let restarted = World::over(world.memory.clone(), Arc::new(fine));
    assert_eq!(
        (restarted.log("tea"), restarted.log("milk")),
        (Ok("abc".into()), Ok(String::new()))
    );
}

#[test]
fn nobody_sees_an_event_before_it_is_durable() {
    let world = World::new(fine);
    let ann = world.join("tea");
    world.memory.hold();
    let mut said = world
        .front
        .clone()
        .messages(Arc::clone(&ann), vec![Message::text("a")]);
    assert!(poll(&mut said).is_none());
    world.settle();
    assert!(poll(&mut said).is_none() && heard(&ann).is_empty());
    // The room does not sleep in the middle of its event.
    world.advance(Duration::from_secs(60));
    assert_eq!(
        (world.rooms.awake(), world.memory.get(&room("tea"), "log")),
        (1, Ok(None))
    );
    world.memory.release();
    world.settle();
    assert_eq!(
        (poll(&mut said), heard(&ann)),
        (Some(Ok(())), vec!["a".to_owned()])
    );
}

#[test]
fn what_a_drain_finds_on_its_way_to_the_disk_is_kept_and_answered() {
    let world = World::new(fine);
    let ann = world.join("tea");
    world.memory.hold();
    let mut said = world
        .front
        .clone()
        .messages(Arc::clone(&ann), vec![Message::text("a")]);
    let asked = request("tea");
    let mut answer = world.front.handle(&asked, Bytes::new());
    assert!(poll(&mut said).is_none() && poll(&mut answer).is_none());
    world.settle();
    world
        .hub
        .connections()
        .close_all(&Close::new(1001, "the server is going away"));
    world.rooms.sleep_all();
    world.memory.release();
    world.settle();
    // A connection receives no message after its close, and a later client finds the stored text.
    assert_eq!(
        (poll(&mut said), heard(&ann)),
        (Some(Ok(())), vec!["close 1001".to_owned()])
    );
    assert_eq!(poll(&mut answer).unwrap().unwrap().body, "a");
    assert_eq!(
        World::over(world.memory.clone(), Arc::new(fine)).log("tea"),
        Ok("a".into())
    );
}

#[test]
fn an_event_whose_commit_fails_has_not_happened_and_the_room_is_woken_anew() {
    let world = World::new(fine);
    let ann = world.join("tea");
    world
        .memory
        .fail_next([EngineError::Full("no space".into())]);
    assert!(matches!(
        world.say(&ann, &["a"]),
        Err(Fault::Unavailable(_))
    ));
    assert!(heard(&ann).is_empty());
    world.say(&ann, &["b"]).unwrap();
    assert_eq!(
        (heard(&ann), world.log("tea"), world.wakes()),
        (vec!["b".to_owned()], Ok("b".into()), 2)
    );
}

#[test]
fn of_messages_that_trap_together_those_before_the_one_that_traps_alone_happen() {
    let world = World::new(touchy);
    let (ann, bob) = (world.join("tea"), world.join("tea"));
    assert!(matches!(
        world.say(&ann, &["a", "b", "trap", "c"]),
        Err(Fault::Trap(_))
    ));
    world.say(&bob, &["d"]).unwrap();
    assert_eq!(
        (heard(&bob), world.log("tea")),
        (
            vec!["a".to_owned(), "b".into(), "d".into()],
            Ok("abd".into())
        )
    );
}

#[test]
fn messages_of_which_some_were_flushed_do_not_run_again_after_a_trap() {
    let world = World::new(|event, transaction| {
        let RoomEvent::Messages(_, messages) = event else {
            return Ok(());
        };
        say(transaction, &messages[0]);
        assert!(poll(&mut Box::pin(transaction.flush())).unwrap().is_ok());
        say(transaction, &messages[1]);
        Err(Fault::Trap("after the flush".into()))
    });
    let (ann, bob) = (world.join("tea"), world.join("tea"));
    assert!(matches!(world.say(&ann, &["a", "b"]), Err(Fault::Trap(_))));
    assert_eq!(
        (heard(&bob), world.log("tea")),
        (vec!["a".to_owned()], Ok("a".into()))
    );
}

#[test]
fn a_trap_costs_the_events_beside_it_nothing_and_they_see_what_came_before() {
    let world = World::new(touchy);
    let conns = [(); 3].map(|()| world.join("tea"));
    let says = ["a", "trap", "b"];
    let mut calls: Vec<_> = conns
        .iter()
        .zip(says)
        .map(|(conn, text)| {
            world
                .front
                .clone()
                .messages(Arc::clone(conn), vec![Message::text(text)])
        })
        .collect();
    calls
        .iter_mut()
        .for_each(|call| assert!(poll(call).is_none()));
    world.settle();
    let outcomes: Vec<bool> = calls
        .iter_mut()
        .map(|call| poll(call).unwrap().is_ok())
        .collect();
    assert_eq!(
        (outcomes, world.log("tea")),
        (vec![true, false, true], Ok("ab".into()))
    );
    assert_eq!(
        world.hub.counters().commits.get(),
        1,
        "one turn, one commit"
    );
}

#[test]
fn a_room_that_traps_on_wake_five_times_in_a_row_is_closed_for_thirty_seconds() {
    let world = World::new(|event, _| match event {
        RoomEvent::Wake => Err(Fault::Trap("as asked".into())),
        _ => Ok(()),
    });
    for _ in 0..5 {
        assert!(matches!(world.log("tea"), Err(Fault::Trap(_))));
    }
    let request = request("tea");
    let closed = |world: &World| match poll(&mut world.front.handle(&request, Bytes::new())) {
        Some(Err(Fault::Closed(wait))) => Some(wait),
        _ => None,
    };
    assert_eq!(closed(&world), Some(Duration::from_secs(30)));
    world.advance(Duration::from_secs(29));
    assert_eq!(closed(&world), Some(Duration::from_secs(1)));
    world.advance(Duration::from_secs(1));
    assert!(
        matches!(world.log("tea"), Err(Fault::Trap(_))),
        "the wake is tried again"
    );
}

#[test]
fn names_of_rooms_that_cannot_wake_push_out_one_failing_room_each() {
    let world = World::new(|event, _| match event {
        RoomEvent::Wake => Err(Fault::Trap("as asked".into())),
        _ => Ok(()),
    });
    for _ in 0..5 {
        assert!(
            ["tea", "milk"]
                .iter()
                .all(|name| matches!(world.log(name), Err(Fault::Trap(_))))
        );
    }
    let is_closed = |name: &str| {
        matches!(
            poll(&mut world.front.handle(&request(name), Bytes::new())),
            Some(Err(Fault::Closed(_)))
        )
    };
    for number in 0..ROOMS_FAILING_MAX - 2 {
        assert!(matches!(
            world.log(&number.to_string()),
            Err(Fault::Trap(_))
        ));
    }
    assert!(is_closed("tea") && is_closed("milk"));
    assert!(matches!(world.log("one more"), Err(Fault::Trap(_))));
    assert!(is_closed("milk"));
    assert!(
        matches!(world.log("tea"), Err(Fault::Trap(_))),
        "the one that failed first is forgotten"
    );
}

#[test]
fn a_message_that_comes_while_the_room_wakes_waits_for_it() {
    let world = World::new(|event, transaction| {
        if let RoomEvent::Wake = event {
            transaction.put("log", "woken ".into()).unwrap();
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
    let mut open = world.front.clone().open(conn.clone(), request("tea"));
    let mut said = world
        .front
        .clone()
        .messages(conn.clone(), vec![Message::text("a")]);
    assert!(poll(&mut open).is_none() && poll(&mut said).is_none());
    world.settle();
    assert_eq!(
        (poll(&mut open), poll(&mut said), world.wakes()),
        (Some(Ok(())), Some(Ok(())), 1)
    );
    assert_eq!(world.log("tea"), Ok("woken a".into()));
}

/// Sets an alarm after the number of seconds in a message, and records each alarm's attempt.
fn alarming(fails: u32) -> impl Fn(&RoomEvent, &Transaction) -> Result<(), Fault> {
    move |event, transaction| match event {
        RoomEvent::Messages(_, messages) => {
            let seconds: u64 = std::str::from_utf8(messages[0].bytes())
                .unwrap()
                .parse()
                .unwrap();
            transaction.set_alarm(Some(START + seconds * 1000));
            Ok(())
        }
        RoomEvent::Alarm(attempt) => {
            say(transaction, &Message::text(format!("!{attempt}")));
            if *attempt <= fails {
                Err(Fault::Trap("as asked".into()))
            } else {
                Ok(())
            }
        }
        _ => Ok(()),
    }
}

#[test]
fn an_alarm_wakes_a_sleeping_room_once_and_survives_a_restart() {
    let world = World::new(alarming(0));
    let ann = world.join("tea");
    world.say(&ann, &["60"]).unwrap();
    world.advance(Duration::from_secs(59));
    assert_eq!((world.rooms.awake(), heard(&ann).len()), (0, 1));
    let restarted = World::over(world.memory.clone(), Arc::new(alarming(0)));
    for world in [&world, &restarted] {
        world.advance(Duration::from_secs(60));
        world.advance(Duration::from_secs(60));
    }
    assert_eq!(
        (heard(&ann), restarted.memory.alarms()),
        (vec!["!1".to_owned()], Ok(vec![]))
    );
}

#[test]
fn a_hundred_thousand_alarms_that_sleep_are_no_task_until_they_are_due() {
    let memory = MemoryEngine::default();
    for n in 0..100_000 {
        let alarm = Some(Alarm {
            at: START + 10_000 + n,
            attempt: 1,
        });
        let batch = Batch::new(
            room(&format!("room{n}")),
            RoomRecord {
                alarm,
                ..RoomRecord::default()
            },
        );
        assert_eq!(poll(&mut memory.commit(batch)), Some(Ok(())));
    }
    let world = World::over(memory, Arc::new(alarming(0)));
    world.rooms.tick(Now::at(START + 9_999));
    assert_eq!(
        (world.tasks.lock().unwrap().len(), world.rooms.awake()),
        (0, 0)
    );
    world.rooms.tick(Now::at(START + 10_001));
    assert_eq!(world.tasks.lock().unwrap().len(), 2);
    world.settle();
    assert_eq!(
        (world.wakes(), world.memory.alarms().unwrap().len()),
        (2, 99_998)
    );
}

#[test]
fn an_alarm_that_fails_is_tried_again_after_2_4_8_16_and_32_seconds_and_then_given_up() {
    let world = World::new(alarming(9));
    let ann = world.join("tea");
    world.say(&ann, &["10"]).unwrap();
    let stored = |world: &World| {
        world
            .memory
            .alarms()
            .unwrap()
            .first()
            .map(|(_, alarm)| (alarm.attempt, alarm.at - START))
    };
    world.advance(Duration::from_secs(10));
    let mut at = 10;
    for (attempt, wait) in [(2, 2), (3, 4), (4, 8), (5, 16), (6, 32)] {
        at += wait;
        assert_eq!(stored(&world), Some((attempt, at * 1000)));
        world.advance(Duration::from_secs(wait));
    }
    assert_eq!(
        (stored(&world), world.log("tea")),
        (None, Ok("10".into())),
        "the event has no effect"
    );
}

#[test]
fn an_alarm_that_succeeds_at_its_third_try_happens_once() {
    let world = World::new(alarming(2));
    let ann = world.join("tea");
    world.say(&ann, &["1"]).unwrap();
    for _ in 0..20 {
        world.advance(Duration::from_secs(1));
    }
    assert_eq!(heard(&ann), ["1", "!3"]);
}

#[test]
fn an_alarm_that_is_moved_or_whose_commit_fails_is_not_lost() {
    let world = World::new(alarming(0));
    let ann = world.join("tea");
    world.say(&ann, &["10"]).unwrap();
    world.say(&ann, &["20"]).unwrap();
    world.advance(Duration::from_secs(15));
    assert_eq!(heard(&ann), ["10", "20"]);
    world.memory.fail_next([EngineError::Io("as asked".into())]);
    world.advance(Duration::from_secs(5));
    assert!(heard(&ann).is_empty());
    world.advance(Duration::from_secs(2));
    assert_eq!(heard(&ann), ["!1"]);
}

#[test]
fn an_alarm_is_not_late_because_another_event_of_its_room_failed() {
    let world = World::new(alarming(0));
    let ann = world.join("tea");
    world.say(&ann, &["10"]).unwrap();
    world.advance(Duration::from_secs(9));
    world.memory.fail_next([EngineError::Io("as asked".into())]);
    assert!(world.say(&ann, &["20"]).is_err());
    world.advance(Duration::from_secs(1));
    assert_eq!(heard(&ann), ["10", "!1"]);
}

#[test]
fn rooms_that_were_all_needed_at_once_are_no_more_than_may_be_awake_when_they_rest() {
    let world = World::new(alarming(0));
    for name in ["a", "b", "c", "d", "e"] {
        world.say(&world.join(name), &["60"]).unwrap();
    }
    world.advance(Duration::from_secs(60));
    assert_eq!(world.rooms.awake(), 5);
    world.advance(Duration::from_millis(100));
    assert_eq!(world.rooms.awake(), 3);
}

#[test]
fn one_more_that_wakes_puts_the_longest_idle_to_sleep() {
    let world = World::new(fine);
    for (name, awake) in [("a", 1), ("b", 2), ("c", 3), ("d", 3), ("e", 3)] {
        world.advance(Duration::from_millis(1));
        world.log(name).unwrap();
        assert_eq!(world.rooms.awake(), awake, "{name}");
    }
    world.log("e").unwrap();
    assert_eq!(world.wakes(), 5, "the one that was used last is awake");
    world.log("a").unwrap();
    assert_eq!(world.wakes(), 6);
}

#[test]
fn an_auto_response_comes_with_its_commit_and_stays_while_the_room_sleeps() {
    let world = World::new(|event, transaction| match event {
        RoomEvent::Messages(_, messages) => {
            let response = AutoResponse::new("ping", "pong").unwrap();
            transaction
                .stage(Effect::SetAutoResponse(Some(response)))
                .unwrap();
            if messages[0] == Message::text("trap") {
                Err(Fault::Trap("as asked".into()))
            } else {
                Ok(())
            }
        }
        _ => Ok(()),
    });
    let (ann, elsewhere) = (world.join("tea"), world.join("milk"));
    let ping = Message::text("ping");
    assert!(world.say(&ann, &["trap"]).is_err() && !ann.answer_automatically(&ping));
    world.say(&ann, &["set"]).unwrap();
    heard(&ann);
    world.rooms.sleep_all();
    let bob = world
        .hub
        .open(Accept {
            room: Some(room("tea")),
            ..Accept::default()
        })
        .unwrap();
    assert!(
        !bob.answer_automatically(&ping),
        "the connection is not a member of the room yet"
    );
    world
        .run(world.front.clone().open(bob.clone(), request("tea")))
        .unwrap();
    world.rooms.sleep_all();
    for conn in [&ann, &bob] {
        assert!(
            conn.answer_automatically(&ping)
                && !conn.answer_automatically(&Message::binary("ping"))
        );
        assert_eq!(heard(conn), ["pong"]);
    }
    assert!(!elsewhere.answer_automatically(&ping));
    assert_eq!(world.hub.counters().auto_responses.get(), 2);
}

fn answer(call: &mut calls::RoomCall) -> Result<Bytes, CallError> {
    poll(call).expect("it has its answer")
}

#[test]
fn a_room_that_waits_for_its_caller_is_not_called_whoever_is_in_between() {
    let waiting = Arc::<Mutex<Vec<calls::RoomCall>>>::default();
    let calls = waiting.clone();
    let world = World::new(move |event, transaction| {
        if let RoomEvent::Messages(_, messages) = event {
            let Message::Text(name) = &messages[0] else {
                return Ok(());
            };
            calls
                .lock()
                .unwrap()
                .push(transaction.call("chat", name, Bytes::new()));
        }
        Ok(())
    });
    let [a, b, c] = ["a", "b", "c"].map(|name| world.join(name));
    let outcome = |conn: &Arc<Conn>, name: &'static str| {
        world.say(conn, &[name]).unwrap();
        poll(waiting.lock().unwrap().last_mut().unwrap())
    };
    assert_eq!(outcome(&a, "a"), Some(Err(CallError::Cycle)));
    // A caller that has not taken its answer counts as waiting.
    world.say(&a, &["b"]).unwrap();
    world.say(&b, &["c"]).unwrap();
    assert_eq!(outcome(&c, "a"), Some(Err(CallError::Cycle)));
    waiting.lock().unwrap().clear();
    assert_ne!(
        outcome(&c, "a"),
        Some(Err(CallError::Cycle)),
        "no caller waits"
    );
}

#[test]
fn a_call_is_an_event_of_its_room_and_what_can_not_be_one_is_told() {
    let world = World::new(|event, transaction| match event {
        RoomEvent::Call(payload) if payload == "trap" => {
            say(transaction, &Message::text("x"));
            Err(Fault::Trap("as asked".into()))
        }
        RoomEvent::Call(payload) if payload != "long" => {
            say(transaction, &Message::text("y"));
            Ok(())
        }
        _ => Ok(()),
    });
    let scope = Scope::App(world.hub.clone());
    let call = |class: &str, name: &str, payload: Vec<u8>| {
        let mut called = scope.call(class, name, payload.into());
        world.settle();
        answer(&mut called)
    };
    let cases = [
        (
            "chat",
            "tea",
            b"ping".to_vec(),
            Ok(Bytes::from_static(b"ping")),
        ),
        ("chat", "tea", b"trap".to_vec(), Err(CallError::Failed)),
        (
            "chat",
            "tea",
            b"refuse".to_vec(),
            Err(CallError::Refused(409, "as asked".into())),
        ),
        ("chat", "tea", b"long".to_vec(), Err(CallError::Failed)),
        (
            "chat",
            "tea",
            vec![0; (1 << 20) + 1],
            Err(CallError::TooLarge),
        ),
        ("chat", "a\nb", b"ping".to_vec(), Err(CallError::NotValid)),
        ("none", "tea", b"ping".to_vec(), Err(CallError::NotValid)),
        ("No", "tea", b"ping".to_vec(), Err(CallError::NotValid)),
    ];
    for (class, name, payload, expected) in cases {
        let told = String::from_utf8_lossy(&payload[..payload.len().min(9)]).into_owned();
        assert_eq!(
            call(class, name, payload),
            expected,
            "{class} {name} {told}"
        );
    }
    drop(scope.call("chat", "tea", "given up".into()));
    assert_eq!(
        world.log("tea"),
        Ok("yy".into()),
        "the call that trapped and the abandoned call stored nothing"
    );
}

/// A connection resumes from the position at the end of its path, if there is one.
fn resuming(
    seen: Arc<Mutex<Vec<(u64, bool)>>>,
) -> impl Fn(&RoomEvent, &Transaction) -> Result<(), Fault> {
    move |event, transaction| {
        if let RoomEvent::Open(conn, request) = event
            && let Ok(since) = request.path.rsplit('/').next().unwrap().parse()
        {
            let followed = transaction.resume(conn, since).unwrap().unwrap();
            seen.lock()
                .unwrap()
                .push((followed.position.sequence, followed.has_gap));
        }
        if let RoomEvent::Messages(conn, messages) = event {
            if messages[0] == Message::text("trap") {
                return Err(Fault::Trap("as asked".into()));
            }
            let here = transaction.position().unwrap();
            assert_eq!(
                transaction.resume(conn, here),
                Ok(Err(LimitError::NotValid)),
                "only an opening connection may resume"
            );
        }
        Ok(())
    }
}

fn come(world: &World, since: Position) -> ConnectionGuard {
    let conn = world
        .hub
        .open(Accept {
            room: Some(room("tea")),
            ..Accept::default()
        })
        .unwrap();
    let request = Request {
        path: format!("/rooms/tea/{since}"),
        ..request("tea")
    };
    world
        .run(world.front.clone().open(conn.clone(), request))
        .unwrap();
    conn
}

#[test]
fn a_connection_that_comes_back_gets_what_the_room_broadcast_meanwhile_each_once_and_in_order() {
    let seen = Arc::<Mutex<Vec<(u64, bool)>>>::default();
    let world = World::new(resuming(seen.clone()));
    let ann = world.join("tea");
    world.say(&ann, &["a", "b"]).unwrap();
    assert!(world.say(&ann, &["trap"]).is_err());
    world.say(&ann, &["c"]).unwrap();
    assert_eq!(heard(&ann), ["a", "b", "c"]);
    let epoch = world
        .memory
        .stored(&room("tea"))
        .unwrap()
        .history
        .unwrap()
        .position
        .epoch;
    let cases: [(u64, u64, &[&str], _); 5] = [
        (epoch, 0, &["a", "b", "c"], (0, false)),
        (epoch, 2, &["c"], (2, false)),
        (epoch, 3, &[], (3, false)),
        (epoch, 4, &[], (3, true)),
        (epoch ^ 1, 0, &[], (3, true)),
    ];
    for (epoch, sequence, texts, followed) in cases {
        let conn = come(&world, Position { epoch, sequence });
        assert_eq!(
            (heard(&conn), seen.lock().unwrap().pop()),
            (
                texts.iter().map(|text| text.to_string()).collect(),
                Some(followed)
            )
        );
    }
    let again = World::over(world.memory.clone(), Arc::new(resuming(seen.clone())));
    let bob = come(&again, Position { epoch, sequence: 1 });
    again.say(&bob, &["d"]).unwrap();
    assert_eq!(heard(&bob), ["b", "c", "d"], "over a restart");
    again.advance(Duration::from_secs(121));
    let late = come(&again, Position { epoch, sequence: 2 });
    assert_eq!(
        (heard(&late).len(), seen.lock().unwrap().pop()),
        (0, Some((4, true))),
        "the whole history is too old"
    );
}

/// Writes into the log which version handled an event, and the route of each request.
fn signed(name: &'static str) -> impl Fn(&RoomEvent, &Transaction) -> Result<(), Fault> {
    move |event, transaction| {
        match event {
            RoomEvent::Messages(..) => say(transaction, &Message::text(name)),
            RoomEvent::Handle(request, _) => say(
                transaction,
                &Message::text(format!("{name}{} ", request.route)),
            ),
            _ => {}
        }
        Ok(())
    }
}

#[test]
fn another_version_takes_over_between_two_events_and_the_room_is_never_there_twice() {
    let world = World::new(signed("1:"));
    let ann = world.join("tea");
    world.say(&ann, &["a "]).unwrap();
    // One event is being written to the disk, one waits for its turn, and one is matched with the
    // routes of the first version.
    world.memory.hold();
    let say = |text: &str| {
        world
            .front
            .clone()
            .messages(Arc::clone(&ann), vec![Message::text(text.to_owned())])
    };
    let mut first = say("b ");
    assert!(poll(&mut first).is_none());
    world.settle();
    let mut second = say("c ");
    assert!(poll(&mut second).is_none());
    world.version("chat", signed("2:")).serve();
    let asked = Request {
        route: 1,
        ..request("tea")
    };
    let mut third = world.front.handle(&asked, Bytes::new());
    assert!(poll(&mut third).is_none());
    world.memory.release();
    world.settle();
    assert_eq!(
        (poll(&mut first), poll(&mut second)),
        (Some(Ok(())), Some(Ok(())))
    );
    assert_eq!(poll(&mut third).unwrap().unwrap().body, "1:a 1:b 2:c 2:2 ");
    assert_eq!(
        (world.wakes(), heard(&ann).concat()),
        (2, "1:a 1:b 2:c 2:2 ".to_owned())
    );
}

#[test]
fn a_room_that_is_idle_when_another_version_is_served_sleeps_and_wakes_as_that() {
    let world = World::new(signed("1:"));
    let ann = world.join("tea");
    assert_eq!(world.rooms.awake(), 1);
    world.version("chat", signed("2:")).serve();
    assert_eq!(world.rooms.awake(), 0);
    world.say(&ann, &["a"]).unwrap();
    assert_eq!((heard(&ann).concat(), world.wakes()), ("2:a".to_owned(), 2));
    // The first version is served again.
    world.front.serve();
    world.say(&ann, &["b"]).unwrap();
    assert_eq!((heard(&ann).concat(), world.wakes()), ("1:b".to_owned(), 3));
}

#[test]
fn a_request_that_was_matched_with_a_route_that_is_gone_is_told_to_come_again() {
    let world = World::new(fine);
    world.version("talk", fine).serve();
    let asked = Request {
        route: 1,
        ..request("tea")
    };
    assert_eq!(
        world.run(world.front.handle(&asked, Bytes::new())),
        Err(Fault::Busy)
    );
}

#[test]
fn a_room_that_failed_to_wake_is_forgiven_when_another_version_is_served() {
    let world = World::new(|event, _| match event {
        RoomEvent::Wake => Err(Fault::Trap("as made".into())),
        _ => Ok(()),
    });
    for _ in 0..5 {
        assert!(world.log("tea").is_err());
    }
    let closed = poll(&mut world.front.handle(&request("tea"), Bytes::new()));
    assert!(matches!(closed, Some(Err(Fault::Closed(_)))), "{closed:?}");
    world.version("chat", fine).serve();
    assert_eq!(world.log("tea"), Ok(String::new()));
}

#[test]
fn an_alarm_of_a_class_that_is_not_served_waits_until_it_is() {
    let world = World::new(alarming(0));
    let ann = world.join("tea");
    world.say(&ann, &["60"]).unwrap();
    world.version("talk", alarming(0)).serve();
    world.advance(Duration::from_secs(600));
    assert_eq!(
        (heard(&ann).len(), world.memory.alarms().unwrap().len()),
        (1, 1)
    );
    world.front.serve();
    world.advance(Duration::from_secs(10));
    assert_eq!(
        (heard(&ann), world.memory.alarms()),
        (vec!["!1".to_owned()], Ok(vec![]))
    );
}

#[test]
fn what_is_transient_has_no_number_and_costs_no_commit() {
    let world = World::new(|event, transaction| {
        if let RoomEvent::Open(..) = event {
            let passing = Publication {
                transient: true,
                ..Publication::new(Message::text("passed"))
            };
            assert_eq!(transaction.broadcast(passing), Ok(Ok(0)));
        }
        Ok(())
    });
    let ann = world.join("tea");
    assert_eq!(
        (heard(&ann), world.hub.counters().commits.get()),
        (vec!["passed".into()], 0)
    );
    world.say(&ann, &["a"]).unwrap();
    world.join("tea");
    world.say(&ann, &["b"]).unwrap();
    assert_eq!(
        (heard(&ann), world.hub.counters().commits.get()),
        (["a", "passed", "b"].map(String::from).to_vec(), 2)
    );
    assert_eq!(
        world
            .memory
            .stored(&room("tea"))
            .unwrap()
            .history
            .unwrap()
            .position
            .sequence,
        2
    );
}

#[test]
fn a_rooms_connections_are_those_between_their_first_event_and_their_last() {
    let seen = Arc::<Mutex<Vec<(&'static str, usize)>>>::default();
    let note = seen.clone();
    let world = World::new(move |event, transaction| {
        let (what, conn, tags) = match event {
            RoomEvent::Open(conn, _) => ("open", conn, vec!["here".into()]),
            // A tag that is set at the end does not make the connection a member of the room again.
            RoomEvent::Close(conn, _) => ("close", conn, vec!["here".into(), "late".into()]),
            _ => return Ok(()),
        };
        transaction
            .stage(Effect::SetTags(conn.clone(), tags))
            .unwrap();
        let counts = [None, Some("here")].map(|tag| transaction.ids(tag, None, 9).len());
        assert_eq!(counts[0], counts[1]);
        note.lock().unwrap().push((what, counts[0]));
        Ok(())
    });
    let (ann, bob) = (world.join("tea"), world.join("tea"));
    let _elsewhere = world.join("milk");
    let gone = CloseEvent {
        code: 1000,
        reason: String::new(),
        was_clean: true,
        is_peer_initiated: true,
    };
    world
        .run(world.front.clone().close(Arc::clone(&ann), gone))
        .unwrap();
    drop(ann);
    assert_eq!(
        *seen.lock().unwrap(),
        [("open", 1), ("open", 2), ("open", 1), ("close", 1)]
    );
    world.say(&bob, &["x"]).unwrap();
    assert_eq!(heard(&bob), ["x"]);
}

#[test]
fn an_event_reads_what_it_wrote_itself_in_order() {
    let check = |event: &RoomEvent, transaction: &Transaction| {
        if let RoomEvent::Wake = event {
            return Ok(());
        }
        let keys = |range: Range<'_>| {
            transaction
                .entries(range)
                .unwrap()
                .into_iter()
                .map(|(key, _)| key)
                .collect::<Vec<_>>()
                .join("")
        };
        let all = Range::all(99);
        for key in ["b", "d", "a"] {
            transaction.put(key, Bytes::from_static(b"1")).unwrap();
        }
        transaction.delete("b").unwrap();
        assert_eq!(
            (
                keys(all),
                keys(Range {
                    reverse: true,
                    limit: 1,
                    ..all
                })
            ),
            ("ad".into(), "d".into())
        );
        transaction.rollback();
        assert_eq!(keys(all), "");
        transaction.put("c", Bytes::new()).unwrap();
        transaction.clear().unwrap();
        transaction.put("e", Bytes::new()).unwrap();
        assert_eq!(keys(all), "e");
        Ok(())
    };
    World::new(check).log("tea").unwrap();
}

/// The overlays over a storage equal a map after the same writes, for pseudo-random histories that
/// are the same in each run.
#[test]
fn pages_over_storage_and_uncommitted_writes_are_those_of_a_plain_map() {
    let world = World::new(fine);
    let mut random = Random(7);
    for round in 0..200 {
        let name = format!("r{round}");
        let transaction = Transaction::new(
            world.hub.clone(),
            Arc::new(world.memory.clone()),
            room(&name),
        );
        let mut model = BTreeMap::<String, Bytes>::new();
        for _ in 0..random.below(150) {
            match random.below(20) {
                0 => {
                    transaction.clear().unwrap();
                    model.clear();
                }
                1 => transaction.keep(),
                2 => assert!(poll(&mut pin!(transaction.flush())).unwrap().is_ok()),
                3..8 => {
                    let key = format!("{:02}", random.below(90));
                    assert_eq!(
                        transaction.delete(&key).unwrap(),
                        model.remove(&key).is_some()
                    );
                }
                _ => {
                    let (key, value) = (
                        format!("{:02}", random.below(90)),
                        Bytes::from(vec![b'x'; random.below(40)]),
                    );
                    transaction.put(&key, value.clone()).unwrap();
                    model.insert(key, value);
                }
            }
        }
        for reverse in [false, true] {
            let range = Range {
                reverse,
                ..Range::all(usize::MAX)
            };
            let mut expected: Vec<_> = model.clone().into_iter().collect();
            if reverse {
                expected.reverse();
            }
            assert_eq!(
                transaction.entries(range).unwrap(),
                expected,
                "round {round}"
            );
        }
        poll(&mut pin!(transaction.flush())).unwrap().unwrap();
        let bytes: usize = model
            .iter()
            .map(|(key, value)| key.len() + value.len())
            .sum();
        assert_eq!(
            world.memory.stored(&room(&name)).unwrap().bytes,
            bytes as u64,
            "round {round}"
        );
    }
}

/// Returns the same numbers in each run (xorshift).
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % bound as u64) as usize
    }
}
