//! The scheduler of rooms: it queues each event in its room, runs turns, and wakes rooms for
//! alarms.
//!
//! A room has at most one live instance and runs one event at a time. The first event that finds no
//! turn running starts a task (`Spawn`), which takes turns until the queue is empty. A turn is a
//! batch: all waiting events, up to a bound, run one after the other, and their changes are
//! committed at once. Replies, messages and publications leave after the commit, so that no client
//! sees a state that a crash could undo. One commit for many events also makes rooms fast on a
//! disk.
//!
//! The task belongs to the room, not to the client that started it. A client that leaves cancels
//! its event only while that waits.
//!
//! Invariants: an event runs in an instance of the version that is served at that moment. After a
//! fault of the app or a failed commit the instance is dropped, because it may remember changes
//! that did not happen. An on-close is tried until it was delivered. Names of rooms are chosen by
//! clients, so every table here is bounded, or holds only rooms that are awake or have pending
//! events.
//!
//! The events of a turn run in `turn`, and their instance wakes in `wake`. The states of one room
//! are in `room`, its place here in `slot`, its writes and effects in `transaction`, the times of
//! alarms in `alarms`, the order of idle rooms in `awake`.

mod callee;
mod turn;
mod wake;

use crate::{
    app::RoomEvent,
    fault::{Fault, FaultContext},
    hub::Hub,
    limits::{ALARM_OF_NOBODY, ALARM_RETRY, ROOM_RETRIES_MAX},
    name::RoomId,
    now::Now,
    retry::Backoff,
    rooms::{
        awake::AwakeRooms,
        failing::FailingRooms,
        inbox::InboxMax,
        room::{Admission, PostError},
        slot::{
            EventOutcome, EventSender, InboxCharge, QueuedEvent, RoomInstance, RoomSlot, RoomState,
            must_happen,
        },
        storage::{Engine, EngineError},
        version::Version,
        waiting::WaitingRooms,
    },
};
use std::{
    collections::{BTreeSet, HashMap},
    future::{Future, poll_fn},
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, RwLock, Weak},
    task::Poll,
    time::Duration,
};
use tokio::sync::oneshot;
use turn::Turn;

/// Maximum number of events in one turn, and so in one commit.
const TURN_EVENTS_MAX: usize = 256;

/// Bytes of events at which a turn ends.
const TURN_BYTES: usize = 4 << 20;

/// A task that runs a room until no event waits for it.
pub type RoomTask = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Runs a task of this room to its end, on any thread. The task must not end with the client whose
/// event started it.
pub type Spawn = Box<dyn Fn(&RoomId, RoomTask) + Send + Sync>;

/// The rooms of an app, for all of its versions. A [`RoomRouter`](crate::RoomRouter) leads the
/// events of one version to them.
///
/// A room has one live instance, and one event at a time. All waiting events are one turn: they run
/// one after the other, then their changes are committed at once, and only then are they visible.
pub struct Rooms {
    hub: Arc<Hub>,
    engine: Arc<dyn Engine>,
    /// The version that rooms wake as; none before the first version is served.
    current: RwLock<Option<Arc<Version>>>,
    spawn: Spawn,
    /// Rooms that are awake or have a state to remember.
    live: Mutex<HashMap<RoomId, Arc<RoomSlot>>>,
    /// Rooms with pending events, by the monotonic time of their next try.
    retries: Mutex<BTreeSet<(u64, RoomId)>>,
    /// Rooms whose event waits for the answer of another room.
    waiting: Arc<WaitingRooms>,
    /// Number of the awake rooms, and order of the idle ones.
    awake: Mutex<AwakeRooms<Arc<RoomSlot>>>,
    /// The next try to read the stored alarms; none once they are in the index.
    unread_alarms: Mutex<Option<UnreadAlarms>>,
    failing: Mutex<FailingRooms>,
    me: Weak<Rooms>,
}

/// Stored alarms that could not be read yet, because the storage is closed.
#[derive(Default)]
struct UnreadAlarms {
    /// Time of the next try in monotonic milliseconds.
    retry_at: u64,
    backoff: Backoff,
}

impl Rooms {
    /// Returns the rooms. Stored alarms are called from the next [`tick`](Rooms::tick) on, or after
    /// a closed storage has opened.
    ///
    /// # Errors Returns [`EngineError::Corrupt`] if a stored alarm cannot be read.
    pub fn new(
        hub: Arc<Hub>,
        engine: Arc<dyn Engine>,
        spawn: Spawn,
        now: Now,
    ) -> Result<Arc<Rooms>, EngineError> {
        hub.tick(now);
        let (current, live, retries, waiting) = Default::default();
        let (awake, failing) = Default::default();
        let rooms = Arc::new_cyclic(|me| Rooms {
            hub,
            engine,
            current,
            spawn,
            live,
            retries,
            waiting,
            awake,
            failing,
            unread_alarms: Mutex::new(Some(UnreadAlarms::default())),
            me: me.clone(),
        });
        match rooms.load_alarms(now) {
            Err(error @ EngineError::Corrupt(_)) => return Err(error),
            Err(error) => tracing::warn!("alarms wait until they can be read: {error}"),
            Ok(()) => {}
        }
        let me: Weak<Rooms> = rooms.me.clone();
        rooms.hub.set_callee(me);
        Ok(rooms)
    }

    /// Advances the time to `now`, also that of the hub. It calls rooms whose alarms are due,
    /// retries the tasks that the host could not do, and puts rooms to sleep that were idle for
    /// long enough. Call it about every 100 ms.
    pub fn tick(&self, now: Now) {
        self.hub.tick(now);
        if let Err(error) = self.load_alarms(now) {
            tracing::debug!("alarms still wait until they can be read: {error}");
        }
        // No room has a class before the first version is served. An alarm that came due now would
        // be postponed as the alarm of a class that is gone.
        let due = if self.current().is_some() {
            self.hub.alarms().call_due(now)
        } else {
            Vec::new()
        };
        for room in due {
            if !self.has_class(room.class()) {
                // A class of a version that is not served now: its alarm must not fail until it is
                // dropped.
                self.hub.alarms().postpone(&room, ALARM_OF_NOBODY, now);
            } else if let Err(fault) = self.post(&room, RoomEvent::Alarm(0), None) {
                tracing::warn!(%room, "its alarm has to wait: {fault}");
                self.hub.alarms().postpone(&room, ALARM_RETRY, now);
            }
        }
        self.resume_pending(now.monotonic);
        let idle_max = self.hub.limits().room_idle_max.as_millis() as u64;
        self.sleep_where(|since| since + idle_max <= now.monotonic);
        self.evict_idle();
    }

    /// Reads the stored alarms if that has not succeeded yet and the pause is over.
    fn load_alarms(&self, now: Now) -> Result<(), EngineError> {
        let mut unread = self
            .unread_alarms
            .lock()
            .expect("nothing panics while it holds the unread alarms");
        let Some(UnreadAlarms { retry_at, backoff }) = &mut *unread else {
            return Ok(());
        };
        if now.monotonic < *retry_at {
            return Ok(());
        }
        *retry_at = now.monotonic + backoff.pause();
        for (room, alarm) in self.engine.alarms()? {
            self.hub.alarms().load(&room, alarm, now);
        }
        *unread = None;
        Ok(())
    }

    /// Begins the next try of some rooms whose pause is over.
    fn resume_pending(&self, now: u64) {
        for _ in 0..ROOM_RETRIES_MAX {
            let due = {
                let mut retries = self.retries();
                let is_due = retries.first().is_some_and(|(at, _)| *at <= now);
                is_due.then(|| retries.pop_first()).flatten()
            };
            let Some((at, id)) = due else { return };
            let Some(live) = self.live().get(&id).cloned() else {
                continue;
            };
            let resumed = {
                let mut room = live.room();
                let resumed = room.resume(at);
                self.note_start(&mut room, resumed.as_ref());
                resumed
            };
            if let Some(Admission::Start(instance)) = resumed {
                self.start(live, instance);
            }
        }
    }

    fn retry_at(&self, at: u64, room: &RoomId) {
        self.retries().insert((at, room.clone()));
    }

    /// Puts every room to sleep that has no event.
    pub fn sleep_all(&self) {
        self.sleep_where(|_| true);
    }

    /// Puts every room to sleep that has been idle for this long, to free its memory.
    pub fn shed(&self, idle: Duration) {
        let (now, idle) = (self.now(), idle.as_millis() as u64);
        self.sleep_where(|since| since + idle <= now);
    }

    /// Returns the time of the next alarm in Unix milliseconds, as long as the wall clock is not
    /// set.
    pub fn next_alarm(&self) -> Option<u64> {
        self.hub.alarms().next(self.hub.now())
    }

    /// Puts one room to sleep if it has no event. Returns true if it sleeps now.
    pub fn sleep(&self, room: &RoomId) -> bool {
        let Some(live) = self.live().get(room).cloned() else {
            return true;
        };
        let (asleep, still_awake) = {
            let mut room = live.room();
            (self.sleep_if_idle(&mut room), room.is_awake())
        };
        drop(asleep);
        !still_awake
    }

    /// Returns the number of rooms that are awake.
    pub fn awake(&self) -> usize {
        self.awake_rooms().count()
    }

    /// Drops the instances of idle rooms, and removes rooms that have no state to remember.
    fn sleep_where(&self, is_due: impl Fn(u64) -> bool) {
        let mut asleep = Vec::new();
        self.live().retain(|_, live| {
            let mut room = live.room();
            if room.idle_since().is_some_and(&is_due) {
                asleep.extend(self.sleep_if_idle(&mut room));
            }
            !room.is_blank(self.now())
        });
        drop(asleep); // outside of the locks: it gives memory back to the system
    }

    /// Puts rooms to sleep that exceed the maximum of awake rooms, the longest idle first. Rooms
    /// that run are not idle: while many run at once, only the app's instances bound them.
    fn evict_idle(&self) {
        let max = self.hub.limits().rooms_awake_max;
        loop {
            let Some((ticket, live)) = self.awake_rooms().evict(max) else {
                return;
            };
            let asleep = {
                let mut room = live.room();
                // It may have had an event since.
                let is_still_idle = room.ticket.take_if(|own| *own == ticket).is_some();
                is_still_idle.then(|| room.sleep())
            };
            drop(asleep); // outside of the lock
        }
    }

    /// Puts the room to sleep if it is idle. Returns its instance for the caller to drop.
    fn sleep_if_idle(&self, room: &mut RoomState) -> Option<RoomInstance> {
        let instance = room.sleep()?;
        if let Some(ticket) = room.ticket.take() {
            self.awake_rooms().sleep(ticket);
        }
        Some(instance)
    }

    /// Notes in the index of awake rooms that a room starts to run, if it does.
    fn note_start(&self, room: &mut RoomState, admission: Option<&Admission<RoomInstance>>) {
        if let Some(Admission::Start(_)) = admission {
            self.awake_rooms().start(room.ticket.take());
        }
    }

    /// Notes in the index of awake rooms that a room has stopped to run.
    fn note_rest(&self, live: &Arc<RoomSlot>, room: &mut RoomState) {
        let mut awake = self.awake_rooms();
        match room.is_awake() {
            true => room.ticket = Some(awake.rest(live.clone())),
            false => awake.end(),
        }
    }

    /// Serves this version: rooms wake as it from now on. Idle rooms are put to sleep now; a
    /// running room changes between two of its events. Failed wakes of the version before are
    /// forgotten.
    pub(crate) fn serve(&self, version: Arc<Version>) {
        *self
            .current
            .write()
            .expect("nothing panics while it holds the version") = Some(version);
        let pending: Vec<RoomId> = self
            .live()
            .values()
            .filter(|live| live.room().reset_wake_failures())
            .map(|live| live.id.clone())
            .collect();
        pending.iter().for_each(|room| self.retry_at(0, room));
        self.sleep_all();
    }

    fn current(&self) -> Option<Arc<Version>> {
        self.current
            .read()
            .expect("nothing panics while it holds the version")
            .clone()
    }

    fn has_class(&self, class: &str) -> bool {
        self.current()
            .is_some_and(|version| version.has_class(class))
    }

    pub(crate) fn post(
        &self,
        id: &RoomId,
        event: RoomEvent,
        version: Option<&Arc<Version>>,
    ) -> Result<EventOutcome, Fault> {
        let (reply, outcome) = oneshot::channel();
        let limits = self.hub.limits();
        let (bytes, can_be_given_up) = (event.weight(), event.can_be_given_up());
        let must_happen = must_happen(&event);
        let held = match must_happen {
            true => InboxCharge::force(self.hub.budget(), bytes),
            false => InboxCharge::reserve(self.hub.budget(), bytes, limits.rooms_inbox_bytes_max)?,
        };
        // Find the room and post its event under one lock, so that the room is not removed in
        // between.
        let mut rooms = self.live();
        let live = match rooms.get(id) {
            Some(live) => live.clone(),
            None => {
                let auto_responder = self.hub.connections().auto_responder_of(id);
                let live = RoomSlot::new(id.clone(), auto_responder);
                rooms.insert(id.clone(), live.clone());
                live
            }
        };
        let max = InboxMax {
            events: limits.room_inbox_max,
            bytes: limits.room_inbox_bytes_max,
        };
        let sender = EventSender {
            version: version.cloned(),
            reply,
            held: Some(held),
        };
        let waiting = QueuedEvent { event, sender };
        let (posted, bytes) = {
            let mut room = live.room();
            let posted = match must_happen {
                true => Ok((0, room.post_required(waiting, bytes, self.now()))),
                false => room.post(waiting, bytes, max, self.now()),
            };
            let admission = posted.as_ref().ok().map(|(_, admission)| admission);
            self.note_start(&mut room, admission);
            (posted, room.waiting_bytes())
        };
        drop(rooms);
        live.register(self.hub.budget(), bytes);
        let (number, posted) = posted.map_err(|refused| match refused {
            PostError::Full => Fault::Busy,
            PostError::Closed(wait) => Fault::Closed(wait),
        })?;
        match posted {
            Admission::Queued => {}
            Admission::Start(instance) => self.start(live.clone(), instance),
            Admission::Pending(at) => self.retry_at(at, id),
        }
        let waits = can_be_given_up.then_some((live, number));
        Ok(EventOutcome::new(outcome, waits))
    }

    fn start(&self, live: Arc<RoomSlot>, instance: Option<RoomInstance>) {
        let me = self.me.upgrade().expect("it is being called");
        (self.spawn)(&live.id, Box::pin(me.run_room(live.clone(), instance)));
    }

    async fn run_room(self: Arc<Rooms>, live: Arc<RoomSlot>, mut instance: Option<RoomInstance>) {
        loop {
            let waiting = {
                let mut room = live.room();
                let waiting =
                    room.next_turn(TURN_EVENTS_MAX, TURN_BYTES, &mut instance, self.now());
                if waiting.is_empty() {
                    self.note_rest(&live, &mut room);
                    return;
                }
                waiting
            };
            Turn::run(&self, &live, &mut instance, waiting).await;
            // A room that is never idle lets the other tasks of its thread run between two turns.
            yield_once().await;
        }
    }

    /// Notes a failed wake. Beyond the bound, the failures of the room that failed first are
    /// forgotten.
    fn remember_failing(&self, room: &RoomId) {
        let forgotten = self
            .failing
            .lock()
            .expect("nothing panics while it holds the failing rooms")
            .note(room);
        let forgotten = forgotten.and_then(|room| self.live().get(&room).cloned());
        if let Some(live) = forgotten {
            // Pending events of the room are tried again at their own time.
            _ = live.room().reset_wake_failures();
        }
    }

    /// Returns the monotonic time in milliseconds.
    fn now(&self) -> u64 {
        self.hub.now().monotonic
    }

    fn live(&self) -> MutexGuard<'_, HashMap<RoomId, Arc<RoomSlot>>> {
        self.live
            .lock()
            .expect("nothing panics while it holds the rooms")
    }

    fn awake_rooms(&self) -> MutexGuard<'_, AwakeRooms<Arc<RoomSlot>>> {
        self.awake
            .lock()
            .expect("nothing panics while it holds the index of awake rooms")
    }

    fn retries(&self) -> MutexGuard<'_, BTreeSet<(u64, RoomId)>> {
        self.retries
            .lock()
            .expect("nothing panics while it holds the retries")
    }
}

/// Reports the fault of a room's event whose outcome no client receives.
fn report(hub: &Hub, room: &RoomId, event: &str, fault: &Fault) {
    let context = FaultContext {
        room: Some(room),
        event,
        ..FaultContext::default()
    };
    fault.report(hub.counters(), context);
}

/// Lets every other task of the thread run first.
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
