//! Any history of a few rooms, against a model that is a few strings: the same is kept, heard, and missed.

use super::{World, heard, request, room};
use proptest::{collection::vec, prelude::*};
use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tidegate_hub::{
    Accept, App as _, CloseInfo, Engine as _, EngineError, Fault, Message, Opened, Position, Request, Transaction, app::RoomEvent,
    testing::Memory,
};

const ROOMS: [&str; 5] = ["a", "b", "c", "d", "e"];
const TEXTS: [&str; 6] = ["1", "2", "3", "later", "later", "trap"];
const ALARM_AFTER: u64 = 1000;
const RETRY_AFTER: u64 = 2000;
const KEPT_FOR: u64 = 120_000;

#[derive(Clone, Debug)]
enum Step {
    /// Somebody comes to a room.
    Come(usize),
    /// Somebody comes back who missed so many of the room's last broadcasts.
    ComeBack(usize, u64),
    /// A connection says texts at once.
    Say(usize, Vec<usize>),
    Leave(usize),
    Sleep,
    Wait(u64),
    /// The next commit fails.
    Fail,
    /// The host is killed and started again.
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (0..ROOMS.len()).prop_map(Step::Come),
        2 => (0..ROOMS.len(), 0..5u64).prop_map(|(room, missed)| Step::ComeBack(room, missed)),
        8 => (0..20usize, vec(0..TEXTS.len(), 1..4)).prop_map(|(conn, texts)| Step::Say(conn, texts)),
        1 => (0..20usize).prop_map(Step::Leave),
        1 => Just(Step::Sleep),
        2 => prop_oneof![0..3000u64, Just(KEPT_FOR)].prop_map(Step::Wait),
        1 => Just(Step::Fail),
        1 => Just(Step::Restart),
    ]
}

/// What should be.
#[derive(Default)]
struct Model {
    logs: [String; ROOMS.len()],
    /// When each was broadcast, and what.
    broadcasts: [Vec<(u64, String)>; ROOMS.len()],
    /// When each is called.
    alarms: BTreeMap<usize, u64>,
    /// Commits that are going to fail.
    failures: usize,
    now: u64,
}

/// A connection, its room, and what it should have heard since the last look.
struct Client(Opened, usize, Vec<String>);

/// The rooms under test, the model, and who is connected to both.
struct Pair {
    memory: Memory,
    world: World,
    /// Unix milliseconds, for handlers.
    clock: Arc<AtomicU64>,
    /// Whether the last that resumed was told of a gap.
    gap: Arc<Mutex<Option<bool>>>,
    model: Model,
    clients: Vec<Client>,
}

fn start(memory: Memory, clock: Arc<AtomicU64>, gap: Arc<Mutex<Option<bool>>>) -> World {
    let script = move |event: &RoomEvent, transaction: &Transaction| {
        match event {
            RoomEvent::Open(conn, request) => {
                if let Ok(since) = request.path.rsplit('/').next().unwrap().parse() {
                    *gap.lock().unwrap() = Some(transaction.resume(conn, since).unwrap().unwrap().gap);
                }
            }
            RoomEvent::Messages(_, messages) if messages.contains(&Message::text("trap")) => return Err(Fault::Trap("as asked".into())),
            RoomEvent::Messages(_, messages) if messages.contains(&Message::text("later")) => {
                transaction.set_alarm(Some(clock.load(Ordering::Relaxed) + ALARM_AFTER));
            }
            RoomEvent::Alarm(_) => super::say(transaction, &Message::text("!")),
            _ => {}
        }
        Ok(())
    };
    World::over(memory, Arc::new(script))
}

impl Pair {
    fn new() -> Pair {
        let (memory, clock, gap) = (Memory::default(), Arc::<AtomicU64>::default(), Arc::<Mutex<Option<bool>>>::default());
        clock.store(super::START, Ordering::Relaxed);
        let world = start(memory.clone(), clock.clone(), gap.clone());
        let model = Model { now: super::START, ..Model::default() };
        Pair { memory, world, clock, gap, model, clients: Vec::new() }
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::Come(room) => self.come(room, None),
            Step::ComeBack(room, missed) => self.come_back(room, missed),
            Step::Say(client, texts) if !self.clients.is_empty() => self.say(client % self.clients.len(), &texts),
            Step::Leave(client) if !self.clients.is_empty() => {
                let Client(conn, ..) = self.clients.swap_remove(client % self.clients.len());
                let gone = CloseInfo { code: 1000, reason: String::new(), clean: true, by_peer: true };
                self.world.run(self.world.front.clone().close(conn.clone(), gone)).unwrap();
            }
            Step::Say(..) | Step::Leave(_) => {}
            Step::Sleep => self.world.rooms.sleep_all(),
            Step::Wait(time) => self.wait(time),
            Step::Fail => {
                self.memory.fail_next([EngineError::Io("as asked".into())]);
                self.model.failures += 1;
            }
            Step::Restart => {
                self.clients.clear();
                self.world = start(self.memory.clone(), self.clock.clone(), self.gap.clone());
                self.world.now.store(self.model.now, Ordering::Relaxed);
                // What waited for another try is tried at once.
                for (room, at) in &mut self.model.alarms {
                    *at = self.memory.stored(&super::room(ROOMS[*room])).unwrap().alarm.unwrap().at;
                }
                self.wait(0);
            }
        }
    }

    fn come(&mut self, room: usize, path: Option<String>) {
        let conn = self.world.hub.open(Accept { room: Some(super::room(ROOMS[room])), ..Accept::default() }).unwrap();
        let request = request(ROOMS[room]);
        let request = Request { path: path.unwrap_or_else(|| request.path.clone()), ..request };
        self.world.run(self.world.front.clone().open(conn.clone(), request)).unwrap();
        self.clients.push(Client(conn, room, Vec::new()));
    }

    fn come_back(&mut self, index: usize, missed: u64) {
        let broadcasts = &self.model.broadcasts[index];
        let Some(history) = self.memory.stored(&room(ROOMS[index])).unwrap().history else {
            assert!(broadcasts.is_empty(), "the room has no position");
            return;
        };
        assert_eq!(history.position.sequence, broadcasts.len() as u64);
        let sequence = history.position.sequence.saturating_sub(missed);
        let texts = &broadcasts[sequence as usize..];
        let gap = texts.iter().any(|(at, _)| at + KEPT_FOR <= self.model.now);
        let expected = if gap { Vec::new() } else { texts.iter().map(|(_, text)| text.clone()).collect() };
        let since = Position { epoch: history.position.epoch, sequence };
        self.come(index, Some(format!("/rooms/{}/{since}", ROOMS[index])));
        assert_eq!(self.gap.lock().unwrap().take(), Some(gap));
        self.clients.last_mut().unwrap().2 = expected;
    }

    fn say(&mut self, client: usize, texts: &[usize]) {
        let Client(conn, room, _) = &self.clients[client];
        let (conn, room) = (Arc::clone(conn), *room);
        let texts: Vec<&'static str> = texts.iter().map(|text| TEXTS[*text]).collect();
        let outcome = self.world.say(&conn, &texts);
        let happens: Vec<&str> = texts.iter().copied().take_while(|text| *text != "trap").collect();
        let mut fails = happens.len() < texts.len();
        if !happens.is_empty() && !self.commit() {
            fails = true;
        } else {
            happens.iter().for_each(|text| self.broadcast(room, text));
            if happens.contains(&"later") {
                self.model.alarms.insert(room, self.model.now + ALARM_AFTER);
            }
        }
        assert_eq!(outcome.is_err(), fails, "{texts:?}: {outcome:?}");
    }

    fn wait(&mut self, time: u64) {
        self.model.now += time;
        self.clock.store(self.model.now, Ordering::Relaxed);
        self.world.advance(Duration::from_millis(time));
        let mut due: Vec<(u64, usize)> = self.model.alarms.iter().map(|(room, at)| (*at, *room)).collect();
        due.retain(|(at, _)| *at <= self.model.now);
        due.sort_unstable();
        for (_, room) in due {
            if self.commit() {
                self.model.alarms.remove(&room);
                self.broadcast(room, "!");
            } else {
                self.model.alarms.insert(room, self.model.now + RETRY_AFTER);
            }
        }
    }

    /// Whether the next commit succeeds.
    fn commit(&mut self) -> bool {
        let fails = self.model.failures > 0;
        self.model.failures -= usize::from(fails);
        !fails
    }

    fn broadcast(&mut self, room: usize, text: &str) {
        self.model.logs[room] += text;
        self.model.broadcasts[room].push((self.model.now, text.to_owned()));
        let there = self.clients.iter_mut().filter(|Client(_, of, _)| *of == room);
        there.for_each(|Client(.., expected)| expected.push(text.to_owned()));
    }

    fn compare(&mut self) {
        for Client(conn, room, expected) in &mut self.clients {
            assert_eq!(heard(conn), std::mem::take(expected), "in {}", ROOMS[*room]);
        }
        for (name, log) in ROOMS.iter().zip(&self.model.logs) {
            let kept = self.memory.get(&room(name), "log").unwrap().unwrap_or_default();
            assert_eq!(String::from_utf8_lossy(&kept), *log, "kept in {name}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_history_of_rooms_is_that_of_a_few_strings(steps in vec(step(), 1..60)) {
        let mut pair = Pair::new();
        for step in steps {
            pair.take(step);
            pair.compare();
        }
    }
}
