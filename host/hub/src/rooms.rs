//! All rooms of an app: leads each event to its room, takes the turns of each, and calls rooms when their alarms are due.

use crate::{
    App, CallError, Engine, EngineError, EngineStatus, Fault, Feed, Hub, Manifest, Positions, RoomId, Route, Transaction,
    alarms::Alarms,
    app::{Instance, RoomAnswer, RoomEvent},
    auto_response::Automatic,
    calls::{Called, Callee},
    effects::Slot,
    limits::{ALARM_OF_NOBODY, ALARM_RETRY},
    room::{Posted, Refused, Room},
};
use bytes::Bytes;
use std::{
    collections::{HashMap, VecDeque},
    future::{Future, poll_fn},
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, RwLock, Weak},
    task::Poll,
};
use tokio::sync::oneshot;

/// Events that one commit is for, at most.
const TURN_EVENTS_MAX: usize = 256;

/// Runs a task to its end, on whatever thread: what takes a room's turns must not end with the client that began them.
pub type Spawn = Box<dyn Fn(Pin<Box<dyn Future<Output = ()> + Send>>) + Send + Sync>;

/// The rooms of an app, whichever version of it is served. What leads a version's events to them is a [`Front`](crate::Front).
///
/// A room has one live instance, and one event at a time. All events that wait are one turn: they run one after the other,
/// then what they did is committed at once, and only then anybody sees it.
pub struct Rooms {
    hub: Arc<Hub>,
    engine: Arc<dyn Engine>,
    /// Whose instances are woken from now on; none before the first is served.
    current: RwLock<Option<Arc<Version>>>,
    spawn: Spawn,
    /// Rooms that are awake, or of which there is something to remember.
    live: Mutex<HashMap<RoomId, Arc<Live>>>,
    alarms: Mutex<Alarms>,
    /// Rooms whose event waits for the answer of another room.
    waits: Mutex<HashMap<RoomId, RoomId>>,
    me: Weak<Rooms>,
}

struct Live {
    id: RoomId,
    /// As long as the room is awake, it is there also without connections.
    _automatic: Arc<Automatic>,
    room: Mutex<Room<Awake, Waiting>>,
}

/// One version of the app: its code, and what it asked the host to mount.
pub(crate) struct Version {
    pub(crate) app: Arc<dyn App>,
    pub(crate) manifest: Manifest,
}

/// The one instance of a room.
struct Awake {
    instance: Box<dyn Instance>,
    version: Arc<Version>,
}

/// An event, and who waits for its outcome.
struct Waiting {
    event: RoomEvent,
    /// The version whose routes the event's request was matched with; none for events without a request.
    version: Option<Arc<Version>>,
    reply: oneshot::Sender<Result<RoomAnswer, Fault>>,
}

/// An event that ran, and is not durable yet.
struct Done {
    reply: oneshot::Sender<Result<RoomAnswer, Fault>>,
    outcome: Result<RoomAnswer, Fault>,
    /// Where the feed is found that the event admitted.
    feed: Option<Arc<Slot>>,
}

impl Rooms {
    /// `now` is Unix time in milliseconds. Alarms that the storage has are called from the next [`tick`](Rooms::tick) on.
    pub fn new(hub: Arc<Hub>, engine: Arc<dyn Engine>, spawn: Spawn, now: u64) -> Result<Arc<Rooms>, EngineError> {
        let mut alarms = Alarms::default();
        for (room, alarm) in engine.alarms()? {
            alarms.set(&room, Some(alarm.at));
        }
        hub.tick(now);
        let (current, live, alarms, waits) = (RwLock::default(), Mutex::default(), Mutex::new(alarms), Mutex::default());
        let rooms = Arc::new_cyclic(|me| Rooms { hub, engine, current, spawn, live, alarms, waits, me: me.clone() });
        let me: Weak<Rooms> = rooms.me.clone();
        rooms.hub.set_callee(me);
        Ok(rooms)
    }

    /// Time has come so far, also for the hub: calls rooms whose alarms are due, and puts to sleep those that were idle for long enough.
    /// Call it every tenth of a second or so.
    pub fn tick(&self, now: u64) {
        self.hub.tick(now);
        while let Some(room) = { self.alarms().take_due(now) } {
            if !self.has_class(room.class()) {
                // Of a version that is not served now: it must not fail until it is given up.
                self.alarms().set(&room, Some(now + ALARM_OF_NOBODY.as_millis() as u64));
            } else if let Err(fault) = self.post(&room, RoomEvent::Alarm(0), None) {
                tracing::warn!(%room, "its alarm has to wait: {fault}");
                self.alarms().set(&room, Some(now + ALARM_RETRY.as_millis() as u64));
            }
        }
        let idle_max = self.hub.limits().room_idle_max.as_millis() as u64;
        self.sleep_where(|since| since + idle_max <= now);
        self.make_place();
    }

    /// Puts every room to sleep that has no event.
    pub fn sleep_all(&self) {
        self.sleep_where(|_| true);
    }

    /// When the next alarm is due, in Unix milliseconds.
    pub fn next_alarm(&self) -> Option<u64> {
        self.alarms().next()
    }

    /// Puts one room to sleep, if it has no event; whether it sleeps now.
    pub fn sleep(&self, room: &RoomId) -> bool {
        let Some(live) = self.live().get(room).cloned() else { return true };
        let (asleep, still_awake) = {
            let mut room = live.room();
            (room.idle_since().and_then(|_| room.sleep()), room.is_awake())
        };
        drop(asleep);
        !still_awake
    }

    /// How many rooms are awake.
    pub fn awake(&self) -> usize {
        self.live().values().filter(|live| live.room().is_awake()).count()
    }

    /// Drops the instances of idle rooms, and forgets rooms of which there is nothing to remember.
    fn sleep_where(&self, is_due: impl Fn(u64) -> bool) {
        let mut asleep = Vec::new();
        self.live().retain(|_, live| {
            let mut room = live.room();
            if room.idle_since().is_some_and(&is_due) {
                asleep.extend(room.sleep());
            }
            !room.is_blank(self.now())
        });
        drop(asleep); // outside of the locks: it gives memory back to the system
    }

    /// Puts those to sleep that are more than may be awake, the longest idle first. Those that run are not idle: many at once are
    /// bounded by the app's instances only, until they rest.
    fn make_place(&self) {
        let asleep: Vec<_> = {
            let live = self.live();
            let awake = live.values().filter(|live| live.room().is_awake()).count();
            let excess = awake.saturating_sub(self.hub.limits().rooms_awake_max);
            let mut idle = match excess {
                0 => Vec::new(),
                _ => live.values().filter_map(|live| Some((live.room().idle_since()?, live))).collect(),
            };
            idle.sort_by_key(|(since, _)| *since);
            idle.iter().take(excess).filter_map(|(_, live)| live.room().sleep()).collect()
        };
        drop(asleep);
    }

    /// From now on rooms wake as this version. Those that are idle sleep now; one that runs changes between two of its events.
    /// What made the version before it fail to wake is forgiven.
    pub(crate) fn serve(&self, version: Arc<Version>) {
        *self.current.write().expect("nothing panics while it holds the version") = Some(version);
        self.live().values().for_each(|live| live.room().forgive());
        self.sleep_all();
    }

    fn current(&self) -> Option<Arc<Version>> {
        self.current.read().expect("nothing panics while it holds the version").clone()
    }

    fn has_class(&self, class: &str) -> bool {
        let is_it = |route: &Route| route.room.as_deref() == Some(class);
        self.current().is_some_and(|version| version.manifest.routes.iter().any(is_it))
    }

    pub(crate) fn post(
        &self,
        id: &RoomId,
        event: RoomEvent,
        version: Option<&Arc<Version>>,
    ) -> Result<oneshot::Receiver<Result<RoomAnswer, Fault>>, Fault> {
        let (reply, outcome) = oneshot::channel();
        // The room is found and gets its event under one lock: it can't be forgotten in between.
        let mut rooms = self.live();
        let live = match rooms.get(id) {
            Some(live) => live.clone(),
            None => {
                let _automatic = self.hub.connections().automatic_of(id);
                let live = Arc::new(Live { id: id.clone(), _automatic, room: Mutex::default() });
                rooms.insert(id.clone(), live.clone());
                live
            }
        };
        let posted = live.room().post(Waiting { event, version: version.cloned(), reply }, self.hub.limits().room_inbox_max, self.now());
        drop(rooms);
        match posted {
            Ok(Posted::Queued) => {}
            Ok(Posted::Start(instance)) => {
                let me = self.me.upgrade().expect("it is being called");
                (self.spawn)(Box::pin(me.take_turns(live, instance)));
            }
            Err(Refused::Full) => return Err(Fault::Busy),
            Err(Refused::Closed(wait)) => return Err(Fault::Closed(wait)),
        }
        Ok(outcome)
    }

    async fn take_turns(self: Arc<Rooms>, live: Arc<Live>, mut instance: Option<Awake>) {
        loop {
            let waiting = live.room().next_turn(TURN_EVENTS_MAX, &mut instance, self.now());
            if waiting.is_empty() {
                return;
            }
            self.take_turn(&live, &mut instance, waiting).await;
            // A room that never rests leaves its thread to the others between two turns.
            yield_once().await;
        }
    }

    async fn take_turn(&self, live: &Live, instance: &mut Option<Awake>, waiting: VecDeque<Waiting>) {
        let transaction = Transaction::new(self.hub.clone(), self.engine.clone(), live.id.clone());
        let mut done = Vec::with_capacity(waiting.len());
        for Waiting { event, version, reply } in waiting {
            // Whoever asked has gone; events of a connection and alarms happen all the same.
            if reply.is_closed()
                && matches!(event, RoomEvent::Handle(..) | RoomEvent::Upgrade(..) | RoomEvent::Subscribe(..) | RoomEvent::Call(_))
            {
                continue;
            }
            let (outcome, feed) = match self.adopt(event, version) {
                Some(event) => self.run(live, instance, &transaction, event).await,
                None => (Err(Fault::Busy), None),
            };
            done.push(Done { reply, outcome, feed });
            if transaction.is_heavy() {
                self.settle(live, instance, &transaction, std::mem::take(&mut done)).await;
            }
        }
        self.settle(live, instance, &transaction, done).await;
    }

    /// Commits what was done, then tells everybody.
    async fn settle(&self, live: &Live, instance: &mut Option<Awake>, transaction: &Transaction, done: Vec<Done>) {
        let failure = match transaction.commit().await {
            Ok(alarm) => {
                if let Some(alarm) = alarm {
                    self.alarms().set(&live.id, alarm.map(|alarm| alarm.at));
                }
                None
            }
            Err(error) => {
                // What the instance remembers did not happen.
                *instance = None;
                tracing::error!(room = %live.id, "{} events did not happen: {error}", done.len());
                // Was it the alarm's event, the alarm is still there, and no longer listed.
                if let Ok(Some(alarm)) = transaction.alarm() {
                    let retry = self.now() + ALARM_RETRY.as_millis() as u64;
                    self.alarms().set_again(&live.id, alarm.at.max(retry));
                }
                Some(Fault::from(error))
            }
        };
        for Done { reply, outcome, feed } in done {
            let outcome = match (&failure, outcome) {
                (Some(fault), Ok(_)) => {
                    self.hub.counters().faults.add(1);
                    Err(fault.clone())
                }
                (_, Ok(RoomAnswer::Feed(Ok(answer)))) => {
                    Ok(RoomAnswer::Feed(Ok(Feed { opened: feed.and_then(|slot| slot.take()), ..answer })))
                }
                (_, outcome) => outcome,
            };
            _ = reply.send(outcome);
        }
    }

    /// The event as the version that is served now knows it; none if that has no such route any more.
    fn adopt(&self, mut event: RoomEvent, version: Option<Arc<Version>>) -> Option<RoomEvent> {
        let (Some(version), Some(current)) = (version, self.current()) else { return Some(event) };
        if let RoomEvent::Handle(request, _)
        | RoomEvent::Upgrade(request, _)
        | RoomEvent::Open(_, request)
        | RoomEvent::Subscribe(request, _) = &mut event
            && !Arc::ptr_eq(&version, &current)
        {
            let route = version.manifest.routes.get(request.route as usize)?;
            request.route = current.manifest.successor(route)?;
        }
        Some(event)
    }

    /// Runs one event; of messages that trap together, those before the first that traps by itself, unless they flushed: then
    /// nobody knows which of them are durable.
    async fn run(
        &self,
        live: &Live,
        instance: &mut Option<Awake>,
        transaction: &Transaction,
        event: RoomEvent,
    ) -> (Result<RoomAnswer, Fault>, Option<Arc<Slot>>) {
        match event {
            RoomEvent::Alarm(_) => (self.run_alarm(live, instance, transaction).await, None),
            RoomEvent::Messages(conn, messages) if messages.len() > 1 => {
                let flushes = transaction.flushes();
                let together = self.call(live, instance, transaction, RoomEvent::Messages(conn.clone(), messages.clone())).await;
                if together.is_ok() || transaction.flushes() != flushes {
                    return (together, None);
                }
                for message in messages {
                    let alone = self.call(live, instance, transaction, RoomEvent::Messages(conn.clone(), vec![message])).await;
                    if alone.is_err() {
                        return (alone, None);
                    }
                }
                (Ok(RoomAnswer::Done), None)
            }
            RoomEvent::Subscribe(request, last) => {
                let since = last.as_deref().map(Positions::parse);
                match self.call(live, instance, transaction, RoomEvent::Subscribe(request, last)).await {
                    Ok(RoomAnswer::Feed(Ok(feed))) => Rooms::open_feed(transaction, feed, since),
                    outcome => (outcome, None),
                }
            }
            event => (self.call(live, instance, transaction, event).await, None),
        }
    }

    /// The feed begins with the event that admitted it.
    fn open_feed(transaction: &Transaction, mut feed: Feed, since: Option<Positions>) -> (Result<RoomAnswer, Fault>, Option<Arc<Slot>>) {
        match transaction.subscribe(std::mem::take(&mut feed.topics), since) {
            Ok(slot) => {
                transaction.keep();
                (Ok(RoomAnswer::Feed(Ok(feed))), Some(slot))
            }
            Err(error) => (Err(error.into()), None),
        }
    }

    async fn run_alarm(&self, live: &Live, instance: &mut Option<Awake>, transaction: &Transaction) -> Result<RoomAnswer, Fault> {
        let alarm = transaction.alarm().map_err(Fault::from)?;
        // It was moved or taken away while it waited for its turn.
        let Some(alarm) = alarm.filter(|alarm| alarm.at <= self.now()) else { return Ok(RoomAnswer::Done) };
        transaction.set_alarm(None);
        transaction.keep();
        let outcome = self.call(live, instance, transaction, RoomEvent::Alarm(alarm.attempt)).await;
        if let Err(fault) = &outcome {
            let again = if transaction.retry_alarm(alarm, self.now()) { "it is tried again" } else { "it was the last try" };
            tracing::error!(room = %live.id, attempt = alarm.attempt, "its alarm failed, {again}: {fault}");
        }
        outcome
    }

    /// Calls the room's instance with the event, and keeps what it did if it ends well.
    async fn call(
        &self,
        live: &Live,
        instance: &mut Option<Awake>,
        transaction: &Transaction,
        event: RoomEvent,
    ) -> Result<RoomAnswer, Fault> {
        let current = self.current().ok_or_else(|| Fault::Host("no version of the app is served yet".into()))?;
        if instance.as_ref().is_none_or(|awake| !Arc::ptr_eq(&awake.version, &current)) {
            *instance = None; // before there is another one
            *instance = Some(self.wake(live, transaction, current).await?);
        }
        match &event {
            RoomEvent::Open(conn, _) => transaction.join(conn.clone()),
            RoomEvent::Close(conn, _) => transaction.leave(conn.clone()),
            _ => {}
        }
        let awake = instance.as_mut().expect("it was woken");
        let outcome = awake.instance.call(event, transaction).await.and_then(|answer| self.check_answer(answer));
        match &outcome {
            Ok(_) => transaction.keep(),
            Err(_) => {
                transaction.discard();
                *instance = None;
            }
        }
        outcome
    }

    /// An answer that is too long is none, before anything happens.
    fn check_answer(&self, answer: RoomAnswer) -> Result<RoomAnswer, Fault> {
        let max = self.hub.limits().call_bytes_max;
        match &answer {
            RoomAnswer::Called(Ok(bytes)) if bytes.len() > max => {
                Err(Fault::Answer(format!("{} bytes to a call: at most {max}", bytes.len())))
            }
            _ => Ok(answer),
        }
    }

    /// Notes that the caller waits for the room; refused if that, or what it waits for, waits for the caller.
    fn wait_for(&self, caller: &RoomId, room: &RoomId) -> Result<Wait, CallError> {
        let mut waits = self.waits();
        let mut next = Some(room);
        while let Some(room) = next {
            if room == caller {
                return Err(CallError::Cycle);
            }
            next = waits.get(room);
        }
        waits.insert(caller.clone(), room.clone());
        Ok(Wait { rooms: self.me.clone(), caller: caller.clone() })
    }

    async fn wake(&self, live: &Live, transaction: &Transaction, version: Arc<Version>) -> Result<Awake, Fault> {
        if let Err(Refused::Closed(wait)) = live.room().check_open(self.now()) {
            return Err(Fault::Closed(wait));
        }
        self.make_place();
        let woken = async {
            let mut instance = version.app.instance().await?;
            self.hub.counters().wakes.add(1);
            instance.call(RoomEvent::Wake, transaction).await?;
            Ok(Awake { instance, version })
        };
        let woken = woken.await;
        match &woken {
            Ok(_) => transaction.keep(),
            Err(_) => transaction.discard(),
        }
        // That every instance is in use is not the room's fault.
        if !matches!(woken, Err(Fault::Busy)) {
            live.room().handle_wake(woken.is_ok(), self.now());
        }
        woken
    }

    fn now(&self) -> u64 {
        self.hub.now()
    }

    fn live(&self) -> MutexGuard<'_, HashMap<RoomId, Arc<Live>>> {
        self.live.lock().expect("nothing panics while it holds the rooms")
    }

    fn waits(&self) -> MutexGuard<'_, HashMap<RoomId, RoomId>> {
        self.waits.lock().expect("nothing panics while it holds who waits")
    }

    fn alarms(&self) -> MutexGuard<'_, Alarms> {
        self.alarms.lock().expect("nothing panics while it holds the alarms")
    }
}

/// A room's event waits for the answer of another room.
struct Wait {
    rooms: Weak<Rooms>,
    caller: RoomId,
}

impl Drop for Wait {
    fn drop(&mut self) {
        if let Some(rooms) = self.rooms.upgrade() {
            rooms.waits().remove(&self.caller);
        }
    }
}

impl Callee for Rooms {
    fn storage_status(&self) -> EngineStatus {
        self.engine.status()
    }

    fn call_room(&self, caller: Option<&RoomId>, room: RoomId, payload: Bytes) -> Called {
        let begin = || {
            if !self.has_class(room.class()) {
                return Err(CallError::NotValid);
            }
            let wait = caller.map(|caller| self.wait_for(caller, &room)).transpose()?;
            Ok((wait, self.post(&room, RoomEvent::Call(payload), None).map_err(no_answer)?))
        };
        let begun = begin();
        Box::pin(async move {
            let (_wait, outcome) = begun?;
            match outcome.await {
                Ok(Ok(RoomAnswer::Called(answer))) => answer.map_err(|(status, text)| CallError::Refused(status, text)),
                Ok(Err(fault)) => Err(no_answer(fault)),
                _ => Err(CallError::Failed),
            }
        })
    }
}

/// What a caller learns of a fault: nothing of its text, which the log has.
fn no_answer(fault: Fault) -> CallError {
    match fault {
        Fault::Busy | Fault::Closed(_) | Fault::Unavailable(_) => CallError::Busy,
        _ => CallError::Failed,
    }
}

/// Lets every other task of the thread go first.
async fn yield_once() {
    let mut yielded = false;
    poll_fn(|cx| match std::mem::replace(&mut yielded, true) {
        true => Poll::Ready(()),
        false => {
            cx.waker().wake_by_ref();
            Poll::Pending
        }
    })
    .await;
}

impl Live {
    fn room(&self) -> MutexGuard<'_, Room<Awake, Waiting>> {
        self.room.lock().expect("nothing panics while it holds a room")
    }
}
