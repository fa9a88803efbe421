//! The server's rooms: the hub's transactions over a storage in memory, and a clock that the test moves.

use super::{Reply, Server};
use crate::{
    Cx, Message,
    room::Live,
    world::{self, Handle},
};
use std::{
    collections::BTreeMap,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::pin,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::{Duration, SystemTime},
};
use tidegate_hub::{
    Alarm, Conn, Engine as _, EngineError, Found, LimitError, RoomId, Scope, Transaction, auto_response::Automatic, limits::ALARM_RETRY,
    manifest::AskedFor, path::Path, testing::Memory,
};

/// Alarms that may come at one and the same time.
const ALARMS_MAX: usize = 1000;

/// Rooms of the server under test.
pub(super) struct Rooms {
    memory: Memory,
    awake: BTreeMap<RoomId, Awake>,
    now: SystemTime,
    /// Alarms whose commit failed wait until then, in Unix milliseconds.
    deferred: BTreeMap<RoomId, u64>,
}

/// A room in memory, and what answers for its connections.
type Awake = (Cx, Box<dyn Live>, Arc<Automatic>);

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
        Rooms { memory: Memory::default(), awake: BTreeMap::new(), now, deferred: BTreeMap::new() }
    }
}

/// Whether the event is the first or the last of a connection.
pub(super) enum Membership {
    Joins(Arc<Conn>),
    Leaves(Arc<Conn>),
    Stays,
}

/// Rooms.
impl Server {
    /// Puts the room of this path to sleep, as the host does after 10 seconds without an event: what it has in memory is gone,
    /// its connections stay, and the next event wakes it.
    ///
    /// ```
    /// use tidegate::{prelude::*, testing};
    ///
    /// struct Forgetful(u32);
    ///
    /// impl Room for Forgetful {
    ///     async fn wake(_: &Cx) -> Result<Self> {
    ///         Ok(Forgetful(0))
    ///     }
    ///     async fn message(&mut self, _: &Cx, conn: &Conn, _: Message) -> Result {
    ///         self.0 += 1;
    ///         conn.send(self.0.to_string())
    ///     }
    /// }
    ///
    /// let mut server = testing::serve(App::new().room::<Forgetful>("/{name}"));
    /// let ann = server.connect("/tea");
    /// server.say(ann, "x");
    /// server.sleep("/tea");
    /// server.say(ann, "x");
    /// assert_eq!(server.heard(ann), ["1", "1"]);
    /// ```
    pub fn sleep(&mut self, path: &str) {
        let room = self.room_at(path);
        self.rooms.awake.remove(&room);
    }

    /// Lets so much time go by: alarms that become due in it are called in their order, those that fail again as often as the host
    /// does. Panics at the thousandth alarm of one and the same time.
    ///
    /// ```
    /// use std::time::Duration;
    /// use tidegate::{prelude::*, testing};
    ///
    /// struct Egg;
    ///
    /// impl Room for Egg {
    ///     async fn wake(_: &Cx) -> Result<Self> {
    ///         Ok(Egg)
    ///     }
    ///     async fn open(&mut self, cx: &Cx, _: &Conn, _: &Request) -> Result {
    ///         cx.alarm_in(Duration::from_secs(300))
    ///     }
    ///     async fn alarm(&mut self, cx: &Cx) -> Result {
    ///         cx.broadcast("done")
    ///     }
    /// }
    ///
    /// let mut server = testing::serve(App::new().room::<Egg>("/eggs/{name}"));
    /// let ann = server.connect("/eggs/soft");
    /// server.advance(Duration::from_secs(299));
    /// assert!(server.heard(ann).is_empty());
    /// server.advance(Duration::from_secs(1));
    /// assert_eq!(server.heard(ann), ["done"]);
    /// ```
    pub fn advance(&mut self, time: Duration) {
        let until = self.rooms.now + time;
        let mut left = ALARMS_MAX;
        while let Some((due, room, alarm)) = self.rooms.next_alarm(unix_ms(until)) {
            self.hub.tick(due);
            let due = SystemTime::UNIX_EPOCH + Duration::from_millis(due);
            left = if due > self.rooms.now { ALARMS_MAX } else { left - 1 };
            assert!(left > 0, "{room} sets its alarm to the time that it is called at, again and again");
            self.rooms.now = self.rooms.now.max(due);
            self.call_alarm(&room, alarm);
            self.settle();
        }
        self.rooms.now = until;
        self.hub.tick(unix_ms(until));
    }

    /// The next event of a room that writes fails to become durable: it has not happened, and its client is told so.
    ///
    /// ```
    /// use tidegate::{prelude::*, testing};
    ///
    /// struct Note;
    ///
    /// impl Room for Note {
    ///     async fn wake(_: &Cx) -> Result<Self> {
    ///         Ok(Note)
    ///     }
    ///     async fn request(&mut self, cx: &Cx, req: Request) -> Result<Response> {
    ///         cx.put("note", req.bytes())?;
    ///         Ok(Response::text("kept"))
    ///     }
    /// }
    ///
    /// let mut server = testing::serve(App::new().room::<Note>("/note"));
    /// server.fail_next_commit();
    /// assert_eq!((server.post("/note", "tea").status(), server.stored("/note", "note")), (500, None));
    /// server.post("/note", "tea");
    /// server.restart();
    /// assert_eq!(server.stored("/note", "note").unwrap(), b"tea");
    /// ```
    pub fn fail_next_commit(&mut self) {
        self.rooms.memory.fail_next([EngineError::Io("the test asked for it".into())]);
    }

    /// As if the host had been killed and started again: connections, feeds and everything in memory are gone, what rooms keep is
    /// there, and the clock is where it was.
    pub fn restart(&mut self) {
        self.rooms.awake.clear();
        self.rooms.deferred.clear();
        self.clients.iter_mut().for_each(super::client::Client::drop_dead);
        self.listeners.iter_mut().for_each(super::listener::Listener::drop_dead);
    }

    /// The value that the room of this path keeps under a key.
    pub fn stored(&self, path: &str, key: &str) -> Option<Vec<u8>> {
        let value = self.rooms.memory.get(&self.room_at(path), key);
        value.expect("memory can be read").map(|value| value.to_vec())
    }

    /// Runs one event of a room as the host does: it happens as a whole, or not at all. None if it panicked, or did not become
    /// durable.
    pub(super) fn room_event<T>(
        &mut self,
        room: &RoomId,
        membership: Membership,
        event: impl FnOnce(&mut dyn Live, &Cx, &Transaction) -> T,
    ) -> Option<T> {
        self.try_room_event(room, membership, event).ok()
    }

    /// As [`room_event`](Server::room_event), and why not.
    pub(super) fn try_room_event<T>(
        &mut self,
        room: &RoomId,
        membership: Membership,
        event: impl FnOnce(&mut dyn Live, &Cx, &Transaction) -> T,
    ) -> Result<T, Undone> {
        let transaction = Transaction::new(self.hub.clone(), Arc::new(self.rooms.memory.clone()), room.clone());
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
            self.rooms.awake.remove(room);
        }
        outcome
    }

    /// Hands over messages that came together; if they panic, one by one. None if one has not happened, nor those behind it.
    pub(super) fn room_messages(&mut self, room: &RoomId, conn: &Arc<Conn>, messages: Vec<Message>) -> Option<()> {
        let mut hand_over = |messages| {
            self.try_room_event(room, Membership::Stays, |live, cx, _| {
                crate::Conn::lend(Handle(conn.clone()), |conn| live.messages(cx, conn, messages));
            })
        };
        let alone = messages.clone();
        match hand_over(messages) {
            Err(Undone::Panic) if alone.len() > 1 => alone.into_iter().try_for_each(|message| hand_over(vec![message]).ok()),
            outcome => outcome.ok(),
        }
    }

    fn run_event<T>(
        &mut self,
        room: &RoomId,
        transaction: &Transaction,
        membership: Membership,
        event: impl FnOnce(&mut dyn Live, &Cx, &Transaction) -> T,
    ) -> Option<T> {
        world::set_now(self.rooms.now);
        let run = || {
            world::enter(Scope::Room(transaction.clone()), || {
                let (cx, mut live, automatic) = match self.rooms.awake.remove(room) {
                    Some(awake) => awake,
                    None => self.wake(room, transaction),
                };
                match membership {
                    Membership::Joins(conn) => transaction.join(conn),
                    Membership::Leaves(conn) => transaction.leave(conn),
                    Membership::Stays => {}
                }
                let value = event(&mut *live, &cx, transaction);
                self.rooms.awake.insert(room.clone(), (cx, live, automatic));
                value
            })
        };
        catch_unwind(AssertUnwindSafe(run)).ok()
    }

    fn wake(&self, room: &RoomId, transaction: &Transaction) -> Awake {
        let cx = Cx::new(room.class().to_owned(), room.name().to_owned());
        let mut live = self.app.make_room(room.class()).expect("routes are of classes that the app has");
        if let Err(why) = live.wake(&cx) {
            panic!("the room {room} could not wake: {why}");
        }
        transaction.keep();
        (cx, live, self.hub.connections().automatic_of(room))
    }

    fn call_alarm(&mut self, room: &RoomId, alarm: Alarm) {
        self.rooms.deferred.remove(room);
        let outcome = self.try_room_event(room, Membership::Stays, |live, cx, transaction| {
            transaction.set_alarm(None);
            live.alarm(cx, alarm.attempt);
        });
        let now = unix_ms(self.rooms.now);
        match outcome {
            Ok(()) => {}
            Err(Undone::Commit) => _ = self.rooms.deferred.insert(room.clone(), now + ALARM_RETRY.as_millis() as u64),
            Err(Undone::Panic | Undone::PanicAfterFlush) => {
                let transaction = Transaction::new(self.hub.clone(), Arc::new(self.rooms.memory.clone()), room.clone());
                transaction.retry_alarm(alarm, now);
                commit(&transaction).expect("memory can be written");
            }
        }
    }

    /// The room that this path leads to. Panics if it leads to none.
    fn room_at(&self, path: &str) -> RoomId {
        let parsed = Path::parse(path).unwrap_or_else(|_| panic!("{path:?} is no path"));
        let found = self.table.find("GET", AskedFor::WebSocket, &parsed);
        let Found::Route { index, params, .. } = found else { panic!("no route leads to {path:?}") };
        let room = self.room_of(index, &params).unwrap_or_else(|reply| panic!("{path:?}: {reply:?}"));
        room.unwrap_or_else(|| panic!("{path:?} is no room's"))
    }

    /// The room of a route, if it has any; a 400 if no room can have this name.
    pub(super) fn room_of(&self, route: u32, params: &[(String, String)]) -> Result<Option<RoomId>, Reply> {
        let Some(class) = self.app.routes[route as usize].handler.class() else { return Ok(None) };
        match RoomId::of_params(class, params.iter().map(|(_, value)| value.as_str())) {
            Ok(room) => Ok(Some(room)),
            Err(LimitError::TooLarge) => Err(Reply::of_host(400, "the room's name is too long")),
            Err(_) => Err(Reply::of_host(400, "the room's name has a control character")),
        }
    }
}

impl Rooms {
    /// When it is due, whose it is, and what it is.
    fn next_alarm(&self, until: u64) -> Option<(u64, RoomId, Alarm)> {
        let alarms = self.memory.alarms().expect("memory can be read").into_iter();
        let deferred = |room: &RoomId| self.deferred.get(room).copied().unwrap_or(0);
        let due = alarms.map(|(room, alarm)| (alarm.at.max(deferred(&room)), room, alarm));
        due.filter(|(at, ..)| *at <= until).min_by(|(one, one_room, _), (other, other_room, _)| (one, one_room).cmp(&(other, other_room)))
    }
}

fn commit(transaction: &Transaction) -> Result<(), EngineError> {
    match pin!(transaction.commit()).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(outcome) => outcome.map(|_| ()),
        Poll::Pending => unreachable!("the storage is in memory"),
    }
}

fn unix_ms(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_millis() as u64
}
