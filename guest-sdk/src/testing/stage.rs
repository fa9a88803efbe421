//! The app under test on its own: runs its events, and those of its rooms over a storage in memory, by a clock that the test moves.

use super::reply::within_contract;
use crate::{
    App, CallError, Cx, Message,
    room::DynRoom,
    world::{self, Handle},
};
use std::{
    cell::RefCell,
    collections::BTreeMap,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::pin,
    rc::{Rc, Weak},
    sync::Arc,
    task::{Context, Poll, Waker},
    time::{Duration, SystemTime},
};
use tidegate_hub::{
    Alarm, Conn, Engine as _, EngineError, Fault, Hub, Limits, Now, RoomId, Scope, TopicPolicy,
    Transaction, contract, limits::ALARM_RETRY, realtime::auto_response::AutoResponder,
    testing::Memory,
};

/// An app, its hub and its rooms. Handlers reach it again when they call rooms, so nothing of it is borrowed while one runs.
pub(super) struct Stage {
    app: RefCell<Rc<App>>,
    pub(super) hub: Arc<Hub>,
    pub(super) rooms: RefCell<Rooms>,
    /// Rooms whose events run: each waits for the next one's answer.
    running: RefCell<Vec<RoomId>>,
    /// How a room broke the contract in an event that another handler waits for: the test fails when that handler has ended.
    broken: RefCell<Option<Fault>>,
    me: Weak<Stage>,
}

/// Rooms of the server under test.
pub(super) struct Rooms {
    pub(super) memory: Memory,
    pub(super) awake: BTreeMap<RoomId, Awake>,
    pub(super) now: SystemTime,
    /// Alarms whose commit failed wait until then, in Unix milliseconds.
    pub(super) deferred: BTreeMap<RoomId, u64>,
}

/// A room in memory, and what answers for its connections.
type Awake = (Cx, Box<dyn DynRoom>, Arc<AutoResponder>);

/// Why an event has not happened.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Undone {
    Panic,
    /// A panic behind a flush: a part of it is durable, so it can't happen again.
    PanicAfterFlush,
    Commit,
}

impl Default for Rooms {
    fn default() -> Rooms {
        // Any time will do, but the same in each run.
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(2_000_000_000);
        Rooms {
            memory: Memory::default(),
            awake: BTreeMap::new(),
            now,
            deferred: BTreeMap::new(),
        }
    }
}

/// Whether the event is the first or the last of a connection.
pub(super) enum Membership {
    Joins(Arc<Conn>),
    Leaves(Arc<Conn>),
    Stays,
}

impl Stage {
    pub(super) fn new(app: App) -> Rc<Stage> {
        let hub = Hub::new(Limits::default(), TopicPolicy::default(), 1);
        let (rooms, running, broken) = Default::default();
        Rc::new_cyclic(|me| Stage {
            app: RefCell::new(Rc::new(app)),
            hub,
            rooms,
            running,
            broken,
            me: me.clone(),
        })
    }

    pub(super) fn app(&self) -> Rc<App> {
        self.app.borrow().clone()
    }

    /// Another version of the app: rooms wake as its own.
    pub(super) fn set_app(&self, app: App) {
        *self.app.borrow_mut() = Rc::new(app);
        self.rooms.borrow_mut().awake.clear();
    }

    /// Runs one event of the app. A panic ends it: `None`. The host drops an instance that trapped;
    /// here there is one app, which goes on with what its closures captured.
    pub(super) fn event<T>(&self, event: impl FnOnce(&App) -> T) -> Option<T> {
        self.enter(Scope::App(self.hub.clone()), || event(&self.app()))
    }

    fn enter<T>(&self, scope: Scope, handler: impl FnOnce() -> T) -> Option<T> {
        let me = self.me.clone();
        world::set_caller(Rc::new(move |class, name, payload| {
            let stage = me.upgrade().expect("its handler runs");
            stage.call(class, name, payload)
        }));
        catch_unwind(AssertUnwindSafe(|| world::enter(scope, handler))).ok()
    }

    /// Calls a room for a handler.
    fn call(&self, class: &str, name: &str, payload: &[u8]) -> Result<Vec<u8>, CallError> {
        let room = RoomId::new(class, name)
            .ok()
            .filter(|room| self.app().make_room(room.class()).is_some());
        let room = room.ok_or(CallError::NoSuchRoom)?;
        let max = self.hub.limits().call_bytes_max;
        if payload.len() > max {
            return Err(CallError::TooLarge);
        }
        if self.running.borrow().contains(&room) {
            return Err(CallError::Cycle);
        }
        let answer = self.try_room_event(&room, Membership::Stays, |live, cx, _| {
            let answer = live.call(cx, payload.to_vec());
            if let Err(fault) =
                contract::check_call_answer(answer.as_ref().map_or(0, Vec::len), max)
            {
                let text = fault.to_string();
                *self.broken.borrow_mut() = Some(fault);
                panic!("{text}");
            }
            answer
        });
        match answer {
            Ok(answer) => answer.map_err(|(status, text)| CallError::Refused(status, text)),
            Err(_) => Err(CallError::Failed),
        }
    }

    /// Fails the test if a room that was called broke the contract.
    pub(super) fn check_calls(&self) {
        within_contract(self.broken.take().map_or(Ok(()), Err));
    }

    /// Runs one event of a room as the host does: it happens as a whole, or not at all. None if it panicked, or did not become
    /// durable.
    pub(super) fn room_event<T>(
        &self,
        room: &RoomId,
        membership: Membership,
        event: impl FnOnce(&mut dyn DynRoom, &Cx, &Transaction) -> T,
    ) -> Option<T> {
        self.try_room_event(room, membership, event).ok()
    }

    /// As [`room_event`](Stage::room_event), and why not.
    pub(super) fn try_room_event<T>(
        &self,
        room: &RoomId,
        membership: Membership,
        event: impl FnOnce(&mut dyn DynRoom, &Cx, &Transaction) -> T,
    ) -> Result<T, Undone> {
        let transaction = self.transaction(room);
        let value = self.run_event(room, &transaction, membership, event);
        match &value {
            Some(_) => transaction.keep(),
            None => transaction.discard(),
        }
        let outcome = match (value, commit(&transaction)) {
            (Some(value), Ok(())) => Ok(value),
            (_, Err(_)) => Err(Undone::Commit),
            (None, Ok(())) if transaction.flushes() > 0 => Err(Undone::PanicAfterFlush),
            (None, Ok(())) => Err(Undone::Panic),
        };
        if outcome.is_err() {
            self.rooms.borrow_mut().awake.remove(room);
        }
        outcome
    }

    /// Hands over messages that came together; if they panic, one by one. None if one has not happened, nor those behind it.
    pub(super) fn room_messages(
        &self,
        room: &RoomId,
        conn: &Arc<Conn>,
        messages: Vec<Message>,
    ) -> Option<()> {
        let hand_over = |messages| {
            self.try_room_event(room, Membership::Stays, |live, cx, _| {
                crate::Conn::lend(Handle(conn.clone()), |conn| {
                    live.messages(cx, conn, messages)
                });
            })
        };
        let alone = messages.clone();
        match hand_over(messages) {
            Err(Undone::Panic) if alone.len() > 1 => alone
                .into_iter()
                .try_for_each(|message| hand_over(vec![message]).ok()),
            outcome => outcome.ok(),
        }
    }

    fn run_event<T>(
        &self,
        room: &RoomId,
        transaction: &Transaction,
        membership: Membership,
        event: impl FnOnce(&mut dyn DynRoom, &Cx, &Transaction) -> T,
    ) -> Option<T> {
        world::set_now(self.now());
        self.running.borrow_mut().push(room.clone());
        let value = self.enter(Scope::Room(transaction.clone()), || {
            let awake = self.rooms.borrow_mut().awake.remove(room);
            let (cx, mut live, automatic) = match awake {
                Some(awake) => awake,
                None => self.wake(room, transaction),
            };
            match membership {
                Membership::Joins(conn) => transaction.join(conn),
                Membership::Leaves(conn) => transaction.leave(conn),
                Membership::Stays => {}
            }
            let value = event(&mut *live, &cx, transaction);
            self.rooms
                .borrow_mut()
                .awake
                .insert(room.clone(), (cx, live, automatic));
            value
        });
        self.running.borrow_mut().pop();
        value
    }

    fn transaction(&self, room: &RoomId) -> Transaction {
        Transaction::new(
            self.hub.clone(),
            Arc::new(self.rooms.borrow().memory.clone()),
            room.clone(),
        )
    }

    fn wake(&self, room: &RoomId, transaction: &Transaction) -> Awake {
        let cx = Cx::new(room.class().to_owned(), room.name().to_owned());
        let mut live = self
            .app()
            .make_room(room.class())
            .expect("routes are of classes that the app has");
        if let Err(why) = live.wake(&cx) {
            panic!("the room {room} could not wake: {why}");
        }
        transaction.keep();
        (cx, live, self.hub.connections().auto_responder_of(room))
    }

    pub(super) fn now(&self) -> SystemTime {
        self.rooms.borrow().now
    }

    pub(super) fn set_now(&self, now: SystemTime) {
        self.rooms.borrow_mut().now = now;
        self.hub.tick(Now::at(unix_ms(now)));
    }

    /// The next alarm that is due by then: when, whose it is, and what it is.
    pub(super) fn next_alarm(&self, until: SystemTime) -> Option<(SystemTime, RoomId, Alarm)> {
        let rooms = self.rooms.borrow();
        let alarms = rooms
            .memory
            .alarms()
            .expect("memory can be read")
            .into_iter();
        let deferred = |room: &RoomId| rooms.deferred.get(room).copied().unwrap_or(0);
        let due = alarms.map(|(room, alarm)| (alarm.at.max(deferred(&room)), room, alarm));
        let next = due.min_by(|(one, one_room, _), (other, other_room, _)| {
            (one, one_room).cmp(&(other, other_room))
        });
        let (at, room, alarm) = next.filter(|(at, ..)| *at <= unix_ms(until))?;
        Some((
            SystemTime::UNIX_EPOCH + Duration::from_millis(at),
            room,
            alarm,
        ))
    }

    pub(super) fn call_alarm(&self, room: &RoomId, alarm: Alarm) {
        self.rooms.borrow_mut().deferred.remove(room);
        let outcome = self.try_room_event(room, Membership::Stays, |live, cx, transaction| {
            transaction.set_alarm(None);
            live.alarm(cx, alarm.attempt);
        });
        let now = unix_ms(self.now());
        match outcome {
            Ok(()) => {}
            Err(Undone::Commit) => {
                _ = self
                    .rooms
                    .borrow_mut()
                    .deferred
                    .insert(room.clone(), now + ALARM_RETRY.as_millis() as u64)
            }
            Err(Undone::Panic | Undone::PanicAfterFlush) => {
                let transaction = self.transaction(room);
                transaction.retry_alarm(alarm, now);
                commit(&transaction).expect("memory can be written");
            }
        }
    }
}

fn commit(transaction: &Transaction) -> Result<(), EngineError> {
    match pin!(transaction.commit()).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(outcome) => outcome,
        Poll::Pending => unreachable!("the storage is in memory"),
    }
}

fn unix_ms(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default()
        .as_millis() as u64
}
