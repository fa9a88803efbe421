//! Any history of a few rooms, against a model of a few strings: both store the same, send the
//! same, report the same gaps and make the same calls.

use super::{World, heard, poll, request, room};
use proptest::{collection::vec, prelude::*};
use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tidegate_hub::{
    Accept, Alarm, App as _, Call, CloseEvent, ConnectionGuard, Engine as _, EngineError, Fault,
    Limits, Message, Now, Position, Request, Transaction, app::RoomEvent, testing::MemoryEngine,
};

const ROOMS: [&str; 5] = ["a", "b", "c", "d", "e"];
/// Texts that connections send. Some are also commands. An event runs its commands in this order,
/// then stores and broadcasts all its texts.
const TEXTS: [&str; 8] = [
    "1", "2", "later", "later", "cancel", "undo", "flush", "trap",
];
const ALARM_AFTER: u64 = 1000;
/// Delay before the second try of an alarm whose handler failed, and minimum delay before that of
/// an alarm whose outcome the host could not store.
const RETRY_AFTER: u64 = 2000;
const KEPT_FOR: u64 = 120_000;
const HOUR: i64 = 3_600_000;

#[derive(Clone, Debug)]
enum Step {
    /// A client connects to a room.
    Come(usize),
    /// A client reconnects that missed this number of the room's last broadcasts.
    ComeBack(usize, u64),
    /// Connections of one room send texts, and their events are one turn.
    Say(usize, Vec<Vec<usize>>),
    /// Makes the first tries of the room's alarm fail from now on.
    Sulk(usize),
    Leave(usize),
    Sleep,
    Wait(u64),
    /// Sets the wall clock.
    Set(i64),
    /// Sets the wall clock between the moment when alarms are due and the turns of their rooms.
    WaitAndSet(u64, i64),
    /// Makes the next commit fail.
    Fail,
    /// Kills the host and starts it again.
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    let set = || prop_oneof![Just(HOUR), Just(-HOUR), -5000..5000_i64];
    prop_oneof![
        3 => (0..ROOMS.len()).prop_map(Step::Come),
        2 => (0..ROOMS.len(), 0..5u64).prop_map(|(room, missed)| Step::ComeBack(room, missed)),
        9 => (0..20usize, vec(vec(0..TEXTS.len(), 1..4), 1..4)).prop_map(|(conn, texts)| Step::Say(conn, texts)),
        1 => (0..ROOMS.len()).prop_map(Step::Sulk),
        2 => (0..20usize).prop_map(Step::Leave),
        1 => Just(Step::Sleep),
        4 => prop_oneof![0..3000u64, Just(KEPT_FOR)].prop_map(Step::Wait),
        1 => set().prop_map(Step::Set),
        1 => (0..3000u64, set()).prop_map(|(wait, by)| Step::WaitAndSet(wait, by)),
        2 => Just(Step::Fail),
        1 => Just(Step::Restart),
    ]
}

/// One event of a turn.
#[derive(Clone, Debug)]
enum Event {
    Open,
    /// A call with this number and these texts.
    Say(usize, Vec<&'static str>),
    Close(u64),
    Alarm,
}

/// The expected state.
#[derive(Default)]
struct Model {
    rooms: [RoomModel; ROOMS.len()],
    /// Number of commits that will fail.
    failures: usize,
    now: Now,
}

#[derive(Default)]
struct RoomModel {
    log: String,
    /// Time and text of each broadcast.
    broadcasts: Vec<(u64, String)>,
    alarm: Option<Alarm>,
    sulks: bool,
    /// Time at which the room is called for its alarm.
    due: Option<NextCall>,
    /// The stored alarm as the index knows it; `None` if the index has to read it.
    known: Option<Alarm>,
    pauses: u32,
    /// On-close events that are not durable yet, the time of their next try, and the pauses so far.
    closes: Vec<u64>,
    again_at: u64,
    tries: u32,
    awake: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum NextCall {
    Wall(u64),
    Monotonic(u64),
    Called,
}

/// Changes since the last commit.
#[derive(Default)]
struct Uncommitted {
    alarm: Option<Option<Alarm>>,
    texts: Vec<String>,
    calls: Vec<usize>,
    closes: Vec<u64>,
    rang: bool,
}

/// A connection with its number and room, and the messages that it should have received since the
/// last check.
struct Client {
    conn: ConnectionGuard,
    number: u64,
    room: usize,
    expected: Vec<String>,
}

/// A closing connection, with the call of its on-close.
struct Leaving {
    number: u64,
    call: Call<'static, ()>,
    conn: ConnectionGuard,
}

/// The rooms under test, the model, and the connections of both.
struct Pair {
    memory: MemoryEngine,
    world: World,
    /// Unix milliseconds, for handlers.
    clock: Arc<AtomicU64>,
    /// True if the last client that resumed received a gap notice.
    gap: Arc<Mutex<Option<bool>>>,
    model: Model,
    clients: Vec<Client>,
    leaving: Vec<Leaving>,
    /// Number of connections so far.
    count: u64,
}

fn pause(tries: &mut u32) -> u64 {
    *tries += 1;
    (250 << (*tries - 1).min(10)).min(5000)
}

fn flush(transaction: &Transaction) -> Result<(), Fault> {
    poll(&mut Box::pin(transaction.flush()))
        .expect("memory is quick")
        .map_err(|error| Fault::Storage(error.to_string()))
}

fn start(
    now: Now,
    memory: MemoryEngine,
    clock: Arc<AtomicU64>,
    gap: Arc<Mutex<Option<bool>>>,
) -> World {
    let script = move |event: &RoomEvent, transaction: &Transaction| {
        match event {
            RoomEvent::Open(conn, request) => {
                if let Ok(since) = request.path.rsplit('/').next().unwrap().parse() {
                    *gap.lock().unwrap() =
                        Some(transaction.resume(conn, since).unwrap().unwrap().has_gap);
                }
            }
            RoomEvent::Messages(_, messages) => {
                let has = |text: &'static str| messages.contains(&Message::text(text));
                if has("trap") {
                    return Err(Fault::Trap("as asked".into()));
                }
                if has("later") {
                    transaction.set_alarm(Some(clock.load(Ordering::Relaxed) + ALARM_AFTER));
                }
                if has("cancel") {
                    transaction.set_alarm(None);
                }
                if has("undo") {
                    transaction.rollback();
                }
                if has("flush") {
                    flush(transaction)?;
                }
                if has("sulk") {
                    transaction.put("sulks", "".into()).unwrap();
                }
            }
            // Presence does the same: its message is durable before a later step can fail.
            RoomEvent::Close(..) => {
                super::say(transaction, &Message::text("bye"));
                flush(transaction)?;
            }
            RoomEvent::Alarm(attempt) => {
                if *attempt == 1 && transaction.get("sulks").unwrap().is_some() {
                    return Err(Fault::Trap("it sulks".into()));
                }
                super::say(transaction, &Message::text("!"));
            }
            _ => {}
        }
        Ok(())
    };
    let limits = Limits {
        rooms_awake_max: 99,
        room_idle_max: Duration::from_secs(1 << 30),
        ..Limits::default()
    };
    World::at(now, limits, memory, Arc::new(script))
}

impl Pair {
    fn new() -> Pair {
        let (memory, clock, gap) = (
            MemoryEngine::default(),
            Arc::<AtomicU64>::default(),
            Arc::<Mutex<Option<bool>>>::default(),
        );
        // The clock is far enough from zero to be set back often.
        let now = Now {
            monotonic: super::START,
            wall: 1 << 40,
        };
        clock.store(now.wall, Ordering::Relaxed);
        let world = start(now, memory.clone(), clock.clone(), gap.clone());
        let model = Model {
            now,
            ..Model::default()
        };
        let (clients, leaving, count) = Default::default();
        Pair {
            memory,
            world,
            clock,
            gap,
            model,
            clients,
            leaving,
            count,
        }
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::Come(room) => self.come(room, None),
            Step::ComeBack(room, missed) => self.come_back(room, missed),
            Step::Say(client, texts) if !self.clients.is_empty() => {
                let texts = texts
                    .iter()
                    .map(|texts| texts.iter().map(|text| TEXTS[*text]).collect())
                    .collect();
                self.say(client % self.clients.len(), texts);
            }
            Step::Leave(client) if !self.clients.is_empty() => {
                self.leave(client % self.clients.len())
            }
            Step::Sulk(room) => {
                if let Some(client) = self.clients.iter().position(|client| client.room == room) {
                    self.say(client, vec![vec!["sulk"]]);
                }
            }
            Step::Say(..) | Step::Leave(_) => {}
            Step::Sleep => {
                self.world.rooms.sleep_all();
                self.model
                    .rooms
                    .iter_mut()
                    .for_each(|room| room.awake = false);
            }
            Step::Wait(time) => self.wait(time, 0),
            Step::Set(by) => self.set(by),
            Step::WaitAndSet(time, by) => self.wait(time, by),
            Step::Fail => {
                self.memory.fail_next([EngineError::Io("as asked".into())]);
                self.model.failures += 1;
            }
            Step::Restart => self.restart(),
        }
    }

    fn restart(&mut self) {
        self.clients.clear();
        self.leaving.clear();
        let now = self.model.now;
        self.world = start(
            now,
            self.memory.clone(),
            self.clock.clone(),
            self.gap.clone(),
        );
        for room in &mut self.model.rooms {
            (
                room.closes,
                room.tries,
                room.again_at,
                room.pauses,
                room.awake,
            ) = (Vec::new(), 0, 0, 0, false);
            (room.known, room.due) = (room.alarm, room.alarm.map(|alarm| due(alarm, now)));
        }
        self.wait(0, 0);
    }

    fn set(&mut self, by: i64) {
        self.model.now.wall = self.model.now.wall.wrapping_add(by as u64);
        self.world.set_clock(by);
        let due = self.model.tick();
        self.take_due(due);
    }

    fn come(&mut self, index: usize, path: Option<String>) {
        let conn = self
            .world
            .hub
            .open(Accept {
                room: Some(room(ROOMS[index])),
                ..Accept::default()
            })
            .unwrap();
        let request = request(ROOMS[index]);
        let request = Request {
            path: path.unwrap_or_else(|| request.path.clone()),
            ..request
        };
        self.world
            .run(self.world.front.clone().open(conn.clone(), request))
            .unwrap();
        self.count += 1;
        // The open precedes the broadcasts of pending events.
        self.clients.push(Client {
            conn,
            number: self.count,
            room: index,
            expected: Vec::new(),
        });
        self.turn(index, vec![Event::Open]);
    }

    fn come_back(&mut self, index: usize, missed: u64) {
        let broadcasts = &self.model.rooms[index].broadcasts;
        let Some(history) = self.memory.stored(&room(ROOMS[index])).unwrap().history else {
            assert!(broadcasts.is_empty(), "the room has no position");
            return;
        };
        assert_eq!(history.position.sequence, broadcasts.len() as u64);
        let sequence = history.position.sequence.saturating_sub(missed);
        let texts = &broadcasts[sequence as usize..];
        let gap = texts
            .iter()
            .any(|(at, _)| at + KEPT_FOR <= self.model.now.wall);
        let expected: Vec<String> = if gap {
            Vec::new()
        } else {
            texts.iter().map(|(_, text)| text.clone()).collect()
        };
        let since = Position {
            epoch: history.position.epoch,
            sequence,
        };
        let before = self.clients.len();
        self.come(index, Some(format!("/rooms/{}/{since}", ROOMS[index])));
        assert_eq!(self.gap.lock().unwrap().take(), Some(gap));
        self.clients[before].expected.splice(0..0, expected);
    }

    /// The client, and as many others of its room as there are texts, send in one turn.
    fn say(&mut self, client: usize, texts: Vec<Vec<&'static str>>) {
        let room = self.clients[client].room;
        let others = (0..self.clients.len())
            .filter(|other| *other != client && self.clients[*other].room == room);
        let speakers: Vec<usize> = [client]
            .into_iter()
            .chain(others)
            .take(texts.len())
            .collect();
        let texts = &texts[..speakers.len()];
        let message = |text: &&'static str| Message::text(*text);
        let call = |(speaker, texts): (&usize, &Vec<&'static str>)| {
            let conn = Arc::clone(&self.clients[*speaker].conn);
            self.world
                .front
                .clone()
                .messages(conn, texts.iter().map(message).collect())
        };
        let mut calls: Vec<_> = speakers.iter().zip(texts).map(call).collect();
        calls
            .iter_mut()
            .for_each(|call| assert!(poll(call).is_none()));
        self.world.settle();
        let happened = self.turn(
            room,
            texts
                .iter()
                .cloned()
                .enumerate()
                .map(|(call, texts)| Event::Say(call, texts))
                .collect(),
        );
        for (index, call) in calls.iter_mut().enumerate() {
            let outcome = poll(call).expect("the turn is over");
            assert_eq!(
                outcome.is_ok(),
                happened[index],
                "{:?} of {texts:?}: {outcome:?}",
                texts[index]
            );
        }
    }

    fn leave(&mut self, client: usize) {
        let Client {
            conn, number, room, ..
        } = self.clients.swap_remove(client);
        let gone = CloseEvent {
            code: 1000,
            reason: String::new(),
            was_clean: true,
            is_peer_initiated: true,
        };
        let mut call = self.world.front.clone().close(Arc::clone(&conn), gone);
        assert!(poll(&mut call).is_none());
        self.leaving.push(Leaving { number, call, conn });
        self.world.settle();
        let model = &mut self.model.rooms[room];
        match model.closes.is_empty() {
            true => _ = self.turn(room, vec![Event::Close(number)]),
            false => model.closes.push(number),
        }
    }

    fn wait(&mut self, time: u64, then_set: i64) {
        let now = &mut self.model.now;
        (now.monotonic, now.wall) = (now.monotonic + time, now.wall + time);
        self.world.now.fetch_add(time, Ordering::Relaxed);
        self.world.rooms.tick(self.world.time());
        let mut due = self.model.tick();
        if then_set != 0 {
            self.model.now.wall = self.model.now.wall.wrapping_add(then_set as u64);
            self.world.set_clock(then_set);
            due.extend(self.model.tick());
        }
        self.take_due(due);
    }

    /// Runs the rooms that a tick has started, in that order; the flag is true for an alarm. A room
    /// that is listed twice has one turn.
    fn take_due(&mut self, due: Vec<(usize, bool)>) {
        self.clock.store(self.model.now.wall, Ordering::Relaxed);
        self.world.settle();
        for (index, (room, _)) in due.iter().enumerate() {
            if due[..index].iter().all(|(earlier, _)| earlier != room) {
                let is_called = due
                    .iter()
                    .any(|(other, is_called)| other == room && *is_called);
                self.turn(
                    *room,
                    if is_called {
                        vec![Event::Alarm]
                    } else {
                        Vec::new()
                    },
                );
            }
        }
    }

    /// Runs a turn of these events, and of those that follow at once because events are pending.
    /// Returns which calls happened.
    fn turn(&mut self, room: usize, mut events: Vec<Event>) -> Vec<bool> {
        let calls = events
            .iter()
            .filter(|event| matches!(event, Event::Say(..)))
            .count();
        let mut happened = vec![true; calls];
        loop {
            let model = &mut self.model.rooms[room];
            if model.again_at <= self.model.now.monotonic {
                let pending = std::mem::take(&mut model.closes)
                    .into_iter()
                    .map(Event::Close);
                events.splice(0..0, pending);
            }
            if events.is_empty() {
                return happened;
            }
            self.take_turn(room, std::mem::take(&mut events), &mut happened);
        }
    }

    /// Hands over an event. If that woke the room, pending events are next.
    fn wake(&mut self, room: usize) {
        let model = &mut self.model.rooms[room];
        if !std::mem::replace(&mut model.awake, true) {
            model.again_at = model.again_at.min(self.model.now.monotonic);
        }
    }

    fn take_turn(&mut self, room: usize, events: Vec<Event>, happened: &mut [bool]) {
        let mut open = Uncommitted::default();
        let (mut failed, mut rang) = (Vec::new(), None);
        for event in events {
            match event {
                Event::Open => self.wake(room),
                Event::Close(number) => {
                    self.wake(room);
                    open.texts.push("bye".into());
                    open.closes.push(number);
                    self.commit(room, &mut open, happened, &mut failed);
                }
                Event::Say(call, texts) => {
                    let alone = texts.contains(&"trap");
                    let parts: Vec<Vec<&str>> = if alone {
                        texts.iter().map(|text| vec![*text]).collect()
                    } else {
                        vec![texts]
                    };
                    if parts.len() > 1 {
                        // All events run at once first, and that turn traps.
                        self.wake(room);
                        self.model.rooms[room].awake = false;
                    }
                    for part in parts {
                        self.wake(room);
                        if part.contains(&"trap") {
                            self.model.rooms[room].awake = false;
                        }
                        if part.contains(&"trap")
                            || !self.say_part(room, call, &part, &mut open, happened, &mut failed)
                        {
                            happened[call] = false;
                            break;
                        }
                    }
                }
                Event::Alarm => rang = Some(self.ring(room, &mut open)),
            }
        }
        if !open.texts.is_empty() || open.alarm.is_some() {
            self.commit(room, &mut open, happened, &mut failed);
        }
        let now = self.model.now;
        let model = &mut self.model.rooms[room];
        match rang {
            // The host could not store the outcome of the alarm.
            Some(rings) if rings && open.rang => {
                model.due = Some(NextCall::Monotonic(
                    now.monotonic + pause(&mut model.pauses).max(RETRY_AFTER),
                ));
            }
            // The stored alarm determines the time of the next call.
            Some(_) if model.due == Some(NextCall::Called) || model.known.is_none() => {
                (model.known, model.due, model.pauses) =
                    (model.alarm, model.alarm.map(|alarm| due(alarm, now)), 0);
            }
            _ => {}
        }
        if !failed.is_empty() {
            model.closes.splice(0..0, failed);
            model.again_at = now.monotonic + pause(&mut model.tries);
        }
    }

    /// Returns true if the alarm's handler is called or fails, so that a commit has to store the
    /// outcome.
    fn ring(&mut self, room: usize, open: &mut Uncommitted) -> bool {
        let now = self.model.now;
        let model = &self.model.rooms[room];
        let alarm = open.alarm.unwrap_or(model.alarm);
        let is_called =
            |alarm: &Alarm| model.due == Some(NextCall::Called) && model.known == Some(*alarm);
        let Some(alarm) = alarm.filter(|alarm| alarm.at <= now.wall || is_called(alarm)) else {
            return false;
        };
        let fails = alarm.attempt == 1 && model.sulks;
        open.rang = true;
        self.wake(room);
        if fails {
            self.model.rooms[room].awake = false;
            open.alarm = Some(Some(Alarm {
                at: now.wall + RETRY_AFTER,
                attempt: 2,
            }));
        } else {
            open.alarm = Some(None);
            open.texts.push("!".into());
        }
        true
    }

    fn say_part(
        &mut self,
        room: usize,
        call: usize,
        texts: &[&str],
        open: &mut Uncommitted,
        happened: &mut [bool],
        failed: &mut Vec<u64>,
    ) -> bool {
        let mut alarm = None;
        if texts.contains(&"later") {
            alarm = Some(Some(Alarm {
                at: self.clock.load(Ordering::Relaxed) + ALARM_AFTER,
                attempt: 1,
            }));
        }
        if texts.contains(&"cancel") {
            alarm = Some(None);
        }
        if texts.contains(&"undo") {
            alarm = None;
        }
        if texts.contains(&"flush") {
            open.alarm = alarm.take().or(open.alarm);
            let is_needed = !open.texts.is_empty() || open.alarm.is_some();
            if is_needed && !self.commit(room, open, happened, failed) {
                return false;
            }
        }
        open.alarm = alarm.or(open.alarm);
        open.texts.extend(texts.iter().map(|text| text.to_string()));
        open.calls.push(call);
        true
    }

    /// Returns true if the commit succeeds.
    fn commit(
        &mut self,
        room: usize,
        open: &mut Uncommitted,
        happened: &mut [bool],
        failed: &mut Vec<u64>,
    ) -> bool {
        let rang = open.rang;
        let Uncommitted {
            alarm,
            texts,
            calls,
            closes,
            ..
        } = std::mem::take(open);
        let now = self.model.now;
        let model = &mut self.model.rooms[room];
        let stored = alarm.unwrap_or(model.alarm);
        if self.model.failures > 0 {
            self.model.failures -= 1;
            open.rang = rang;
            if stored != model.alarm {
                model.known = None;
                if model.due != Some(NextCall::Called) {
                    model.due = Some(NextCall::Monotonic(now.monotonic + 250));
                }
            }
            calls.into_iter().for_each(|call| happened[call] = false);
            failed.extend(closes);
            model.awake = false;
            return false;
        }
        model.alarm = stored;
        if model.known != stored {
            (model.known, model.due, model.pauses) =
                (stored, stored.map(|alarm| due(alarm, now)), 0);
        }
        if !closes.is_empty() {
            model.tries = 0;
        }
        for number in closes {
            let at = self
                .leaving
                .iter()
                .position(|leaving| leaving.number == number)
                .expect("it leaves once");
            let Leaving { mut call, conn, .. } = self.leaving.swap_remove(at);
            assert_eq!(poll(&mut call), Some(Ok(())), "its on-close is durable");
            drop(conn);
        }
        for text in texts {
            model.sulks |= text == "sulk";
            model.log += &text;
            model.broadcasts.push((now.wall, text.clone()));
            let there = self.clients.iter_mut().filter(|client| client.room == room);
            there.for_each(|client| client.expected.push(text.clone()));
        }
        true
    }

    fn compare(&mut self) {
        for Client {
            conn,
            room,
            expected,
            ..
        } in &mut self.clients
        {
            assert_eq!(heard(conn), std::mem::take(expected), "in {}", ROOMS[*room]);
        }
        for (name, model) in ROOMS.iter().zip(&self.model.rooms) {
            let kept = self
                .memory
                .get(&room(name), "log")
                .unwrap()
                .unwrap_or_default();
            assert_eq!(String::from_utf8_lossy(&kept), model.log, "kept in {name}");
            assert_eq!(
                self.memory.stored(&room(name)).unwrap().alarm,
                model.alarm,
                "the alarm of {name}"
            );
        }
        for Leaving { call, .. } in &mut self.leaving {
            assert!(poll(call).is_none(), "its on-close is not durable");
        }
        let next = self.model.rooms.iter().filter_map(|room| room.due);
        let next = next.filter_map(|due| match due {
            NextCall::Wall(at) => Some(at),
            NextCall::Monotonic(at) => Some(self.model.now.wall + (at - self.model.now.monotonic)),
            NextCall::Called => None,
        });
        assert_eq!(self.world.rooms.next_alarm(), next.min(), "the next call");
    }
}

impl Model {
    /// Returns the rooms that a tick starts, in their order: those that are called for their
    /// alarms, and those whose events are tried again.
    fn tick(&mut self) -> Vec<(usize, bool)> {
        let now = self.now;
        let is_due = |due: NextCall| match due {
            NextCall::Wall(at) => at <= now.wall,
            NextCall::Monotonic(at) => at <= now.monotonic,
            NextCall::Called => false,
        };
        let mut called: Vec<(NextCall, usize)> = self
            .rooms
            .iter()
            .enumerate()
            .filter_map(|(index, room)| Some((room.due?, index)))
            .collect();
        called.retain(|(due, _)| is_due(*due));
        called.sort_unstable();
        called
            .iter()
            .for_each(|(_, room)| self.rooms[*room].due = Some(NextCall::Called));
        let is_pending = |(_, room): &(usize, &RoomModel)| {
            !room.closes.is_empty() && room.again_at <= now.monotonic
        };
        let mut retried: Vec<(u64, usize)> = self
            .rooms
            .iter()
            .enumerate()
            .filter(is_pending)
            .map(|(index, room)| (room.again_at, index))
            .collect();
        retried.sort_unstable();
        called
            .into_iter()
            .map(|(_, room)| (room, true))
            .chain(retried.into_iter().map(|(_, room)| (room, false)))
            .collect()
    }
}

/// Returns when the alarm is due. A second try waits for its pause, even if the wall clock is set.
fn due(alarm: Alarm, now: Now) -> NextCall {
    match alarm.attempt {
        1 => NextCall::Wall(alarm.at),
        _ => {
            NextCall::Monotonic(now.monotonic + alarm.at.saturating_sub(now.wall).min(RETRY_AFTER))
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_history_of_rooms_is_that_of_a_few_strings(steps in vec(step(), 1..60)) {
        let mut pair = Pair::new();
        for step in steps {
            pair.take(step);
            pair.compare();
        }
    }
}
