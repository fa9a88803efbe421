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
//! The states of one room are in `room`, its writes and effects in `transaction`, the times of
//! alarms in `alarms`.

use crate::{
    app::{App, Fault, Instance, RoomAnswer, RoomEvent},
    budget::{Budget, CONSUMER_BYTES_MIN, Consumer, Kind},
    contract,
    hub::Hub,
    limits::{ALARM_OF_NOBODY, ALARM_RETRY, ROOM_RETRIES_MAX, ROOMS_FAILING_MAX},
    name::RoomId,
    now::Now,
    realtime::{auto_response::AutoResponder, connections::Conn, feed::Feed, history::Positions},
    retry::Backoff,
    rooms::{
        calls::{CallError, Callee, RoomCall},
        effects::PendingFeed,
        room::{Admission, InboxMax, PostError, Room},
        storage::{Engine, EngineError, EngineStatus},
        transaction::Transaction,
    },
};
use bytes::Bytes;
use std::{
    collections::{BTreeSet, HashMap, VecDeque},
    future::{Future, poll_fn},
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, RwLock, Weak,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    task::{Context, Poll, ready},
    time::Duration,
};
use tidegate_routing::Manifest;
use tokio::sync::oneshot;

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
    waits: Mutex<HashMap<RoomId, RoomId>>,
    /// The next try to read the stored alarms; none once they are in the index.
    unread_alarms: Mutex<Option<UnreadAlarms>>,
    /// Rooms whose last wake failed, in the order of their first failure. Clients choose names of
    /// rooms, so the length is bounded.
    failing: Mutex<VecDeque<RoomId>>,
    me: Weak<Rooms>,
}

/// Stored alarms that could not be read yet, because the storage is closed.
#[derive(Default)]
struct UnreadAlarms {
    /// Time of the next try in monotonic milliseconds.
    retry_at: u64,
    backoff: Backoff,
}

struct RoomSlot {
    id: RoomId,
    /// Keeps the auto-response while the room is awake, even without connections.
    _auto_responder: Arc<AutoResponder>,
    room: Mutex<Room<RoomInstance, QueuedEvent>>,
    is_consumer: AtomicBool,
}

/// One version of the app: its code and its manifest.
pub(crate) struct Version {
    pub(crate) app: Arc<dyn App>,
    pub(crate) manifest: Manifest,
}

impl Version {
    fn has_class(&self, class: &str) -> bool {
        self.manifest
            .routes
            .iter()
            .any(|route| route.room.as_deref() == Some(class))
    }
}

/// The one instance of a room.
struct RoomInstance {
    instance: Box<dyn Instance>,
    version: Arc<Version>,
}

/// An event, and the receiver of its outcome.
struct QueuedEvent {
    event: RoomEvent,
    /// The version whose routes the event's request was matched with; none for events without a
    /// request.
    version: Option<Arc<Version>>,
    reply: oneshot::Sender<Result<RoomAnswer, Fault>>,
    held: InboxCharge,
}

/// Reservation for a waiting event.
struct InboxCharge {
    budget: Arc<Budget>,
    bytes: usize,
}

impl InboxCharge {
    /// Reserves memory. Fails if all rooms together would have more than `max` bytes, or if memory
    /// is short.
    fn reserve(budget: &Arc<Budget>, bytes: usize, max: usize) -> Result<InboxCharge, Fault> {
        if budget.reserved_for(Kind::Inbox) + bytes > max
            || budget.reserve(Kind::Inbox, bytes).is_err()
        {
            return Err(Fault::Busy);
        }
        Ok(InboxCharge {
            budget: budget.clone(),
            bytes,
        })
    }

    fn force(budget: &Arc<Budget>, bytes: usize) -> InboxCharge {
        budget.add(Kind::Inbox, bytes);
        InboxCharge {
            budget: budget.clone(),
            bytes,
        }
    }
}

impl Drop for InboxCharge {
    fn drop(&mut self) {
        self.budget.give_back(Kind::Inbox, self.bytes);
    }
}

/// Returns true if the event must reach the app, even after many tries.
fn must_happen(event: &RoomEvent) -> bool {
    matches!(event, RoomEvent::Close(..))
}

impl QueuedEvent {
    /// Returns true if the caller has gone and the event can be skipped. Events of a connection and
    /// alarms are never skipped.
    fn is_given_up(&self) -> bool {
        self.reply.is_closed() && self.event.can_be_given_up()
    }

    /// Returns true if the event must reach the app, even after many tries.
    fn must_happen(&self) -> bool {
        must_happen(&self.event)
    }
}

/// A room's events that run one after the other and are committed at once.
struct Turn<'a> {
    live: &'a RoomSlot,
    instance: &'a mut Option<RoomInstance>,
    transaction: Transaction,
    done: Vec<FinishedEvent>,
    /// Number of bytes of their answers.
    answers: usize,
    /// Events that must happen and could not be handed over, with their place in the turn.
    pending: Vec<(usize, QueuedEvent)>,
    /// Reason why the host cannot run events of the room. The other events of the turn fail with it
    /// at once.
    unreachable: Option<Fault>,
    /// Version that posted the running event. `called` is true if the event was handed to the app.
    version: Option<Arc<Version>>,
    called: bool,
}

/// An event that ran and is not durable yet.
struct FinishedEvent {
    place: usize,
    /// Number of the commit that makes it durable; none if it flushed, and changed nothing since.
    commit: Option<u64>,
    reply: oneshot::Sender<Result<RoomAnswer, Fault>>,
    outcome: Result<RoomAnswer, Fault>,
    /// The feed that the event admitted.
    feed: Option<Arc<PendingFeed>>,
    /// A copy of the event, if it must happen.
    again: Option<(RoomEvent, InboxCharge)>,
    version: Option<Arc<Version>>,
    /// The connection that the event opened.
    opened: Option<OpenedConnection>,
    is_alarm: bool,
}

/// A connection whose on-open ran. `must_happen` is true if a part of that is certain to have
/// happened: the app failed in it, or flushed.
struct OpenedConnection {
    conn: Arc<Conn>,
    must_happen: bool,
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
        let (current, live, retries, waits) = Default::default();
        let failing = Mutex::default();
        let rooms = Arc::new_cyclic(|me| Rooms {
            hub,
            engine,
            current,
            spawn,
            live,
            retries,
            waits,
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
            let resumed = live.room().resume(at);
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
            (
                room.idle_since().and_then(|_| room.sleep()),
                room.is_awake(),
            )
        };
        drop(asleep);
        !still_awake
    }

    /// Returns the number of rooms that are awake.
    pub fn awake(&self) -> usize {
        self.live()
            .values()
            .filter(|live| live.room().is_awake())
            .count()
    }

    /// Drops the instances of idle rooms, and removes rooms that have no state to remember.
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

    /// Puts rooms to sleep that exceed the maximum of awake rooms, the longest idle first. Rooms
    /// that run are not idle: while many run at once, only the app's instances bound them.
    fn evict_idle(&self) {
        let asleep: Vec<_> = {
            let live = self.live();
            let awake = live.values().filter(|live| live.room().is_awake()).count();
            let excess = awake.saturating_sub(self.hub.limits().rooms_awake_max);
            let mut idle = match excess {
                0 => Vec::new(),
                _ => live
                    .values()
                    .filter_map(|live| Some((live.room().idle_since()?, live)))
                    .collect(),
            };
            idle.sort_by_key(|(since, _)| *since);
            idle.iter()
                .take(excess)
                .filter_map(|(_, live)| live.room().sleep())
                .collect()
        };
        drop(asleep);
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
        let (bytes, can_be_given_up, limits) =
            (event.weight(), event.can_be_given_up(), self.hub.limits());
        let held = match must_happen(&event) {
            true => InboxCharge::force(self.hub.budget(), bytes),
            false => InboxCharge::reserve(self.hub.budget(), bytes, limits.rooms_inbox_bytes_max)?,
        };
        // Find the room and post its event under one lock, so that the room is not removed in
        // between.
        let mut rooms = self.live();
        let live = match rooms.get(id) {
            Some(live) => live.clone(),
            None => {
                let _auto_responder = self.hub.connections().auto_responder_of(id);
                let (room, is_consumer) = Default::default();
                let live = Arc::new(RoomSlot {
                    id: id.clone(),
                    _auto_responder,
                    room,
                    is_consumer,
                });
                rooms.insert(id.clone(), live.clone());
                live
            }
        };
        let max = InboxMax {
            events: limits.room_inbox_max,
            bytes: limits.room_inbox_bytes_max,
        };
        let waiting = QueuedEvent {
            event,
            version: version.cloned(),
            reply,
            held,
        };
        let (posted, bytes) = {
            let mut room = live.room();
            let posted = match waiting.must_happen() {
                true => Ok((0, room.post_required(waiting, bytes, self.now()))),
                false => room.post(waiting, bytes, max, self.now()),
            };
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
        Ok(EventOutcome {
            outcome,
            waits: can_be_given_up.then_some((live, number)),
        })
    }

    fn start(&self, live: Arc<RoomSlot>, instance: Option<RoomInstance>) {
        let me = self.me.upgrade().expect("it is being called");
        (self.spawn)(&live.id, Box::pin(me.run_room(live.clone(), instance)));
    }

    async fn run_room(self: Arc<Rooms>, live: Arc<RoomSlot>, mut instance: Option<RoomInstance>) {
        loop {
            let waiting =
                live.room()
                    .next_turn(TURN_EVENTS_MAX, TURN_BYTES, &mut instance, self.now());
            if waiting.is_empty() {
                return;
            }
            self.run_turn(&live, &mut instance, waiting).await;
            // A room that is never idle lets the other tasks of its thread run between two turns.
            yield_once().await;
        }
    }

    async fn run_turn(
        &self,
        live: &RoomSlot,
        instance: &mut Option<RoomInstance>,
        waiting: impl IntoIterator<Item = QueuedEvent>,
    ) {
        // While the storage is closed, the app's writes could not be committed.
        let unreachable = match self.engine.status() {
            EngineStatus::Open => None,
            EngineStatus::Closed(why) => Some(Fault::Unavailable(why)),
        };
        let mut turn = Turn {
            live,
            instance,
            transaction: Transaction::new(self.hub.clone(), self.engine.clone(), live.id.clone()),
            done: Vec::new(),
            answers: 0,
            pending: Vec::new(),
            unreachable,
            version: None,
            called: false,
        };
        for (place, waiting) in waiting.into_iter().enumerate() {
            if waiting.is_given_up() {
                continue;
            }
            self.run_event(&mut turn, place, waiting).await;
            if turn.transaction.is_heavy(turn.answers) {
                self.commit_turn(&mut turn).await;
                turn.answers = 0;
            }
        }
        self.commit_turn(&mut turn).await;
        self.requeue(turn);
    }

    async fn run_event(&self, turn: &mut Turn<'_>, place: usize, waiting: QueuedEvent) {
        // A flush that the previous event gave up decides which state this event reads.
        turn.transaction.finish().await;
        let again = waiting.must_happen().then(|| waiting.event.clone());
        let is_alarm = matches!(waiting.event, RoomEvent::Alarm(_));
        let QueuedEvent {
            event,
            version,
            reply,
            held,
        } = waiting;
        let conn = if let RoomEvent::Open(conn, _) = &event {
            Some(conn.clone())
        } else {
            None
        };
        (turn.called, turn.version) = (false, version.clone());
        let first = turn.transaction.number();
        let (outcome, feed) = match self.rebind_route(event, version.clone()) {
            Some(event) => self.run(turn, event).await,
            None => (Err(Fault::Busy), None),
        };
        match (&outcome, again) {
            (Err(fault), Some(event)) if fault.is_of_host() || !turn.called => {
                tracing::debug!(room = %turn.live.id, "an event has to wait: {fault}");
                turn.pending.push((
                    place,
                    QueuedEvent {
                        event,
                        version,
                        reply,
                        held,
                    },
                ));
            }
            (_, again) => {
                turn.answers += outcome.as_ref().map_or(0, RoomAnswer::weight);
                let again = again.map(|event| (event, held));
                let number = turn.transaction.number();
                let has_flushed = number != first && turn.transaction.outcome(first).is_ok();
                let commit = (!has_flushed || !turn.transaction.is_clean()).then_some(number);
                let has_failed = outcome.as_ref().is_err_and(|fault| !fault.is_of_host());
                let opened = conn.filter(|_| turn.called).map(|conn| OpenedConnection {
                    conn,
                    must_happen: has_flushed || has_failed,
                });
                turn.done.push(FinishedEvent {
                    place,
                    commit,
                    reply,
                    outcome,
                    feed,
                    again,
                    version,
                    opened,
                    is_alarm,
                });
            }
        }
    }

    /// Commits the changes, then reports the outcomes of the events.
    async fn commit_turn(&self, turn: &mut Turn<'_>) {
        if turn.transaction.commit().await.is_err() {
            // The instance remembers changes that did not happen, so it is dropped.
            *turn.instance = None;
        }
        let mut failures = Vec::new();
        for FinishedEvent {
            place,
            commit,
            reply,
            outcome,
            feed,
            again,
            version,
            opened,
            is_alarm,
        } in std::mem::take(&mut turn.done)
        {
            let failure = commit.and_then(|commit| turn.transaction.outcome(commit).err());
            if is_alarm {
                let is_of_host =
                    failure.is_some() || outcome.as_ref().is_err_and(Fault::is_of_host);
                self.finish_alarm(turn, is_of_host);
            }
            let outcome = match (failure, outcome, again) {
                (Some(error), Ok(_), again) => {
                    failures.push(error.clone());
                    if let Some((event, held)) = again {
                        turn.pending.push((
                            place,
                            QueuedEvent {
                                event,
                                version,
                                reply,
                                held,
                            },
                        ));
                        continue;
                    }
                    self.hub.counters().faults.add(1);
                    Err(error.into())
                }
                (_, Ok(RoomAnswer::Feed(Ok(answer))), _) => Ok(RoomAnswer::Feed(Ok(Feed {
                    opened: feed.and_then(|slot| slot.take()),
                    ..answer
                }))),
                (_, outcome, again) => {
                    if again.is_some() {
                        turn.live.room().handle_delivery();
                    }
                    outcome
                }
            };
            // An on-open that has not happened needs no on-close.
            if let Some(OpenedConnection { conn, .. }) =
                opened.filter(|opened| opened.must_happen || outcome.is_ok())
            {
                conn.handle_opening();
            }
            _ = reply.send(outcome);
        }
        if let Some(error) = failures.first() {
            tracing::error!(room = %turn.live.id, "{} events did not happen: {error}", failures.len());
        }
    }

    /// Handles the end of an alarm's event. The stored alarm decides when the room is called again,
    /// unless the host has failed.
    fn finish_alarm(&self, turn: &Turn<'_>, is_of_host: bool) {
        let (room, now) = (&turn.live.id, self.hub.now());
        match turn.transaction.stored_alarm() {
            Ok(stored) if !is_of_host => self.hub.alarms().finish(room, stored, now),
            _ => self.hub.alarms().postpone(room, ALARM_RETRY, now),
        }
    }

    /// Keeps the events of the turn that must happen and could not be handed over, for another try.
    fn requeue(&self, turn: Turn<'_>) {
        let Turn {
            live, mut pending, ..
        } = turn;
        if pending.is_empty() {
            return;
        }
        pending.sort_by_key(|(place, _)| *place);
        // An old version is kept only if no other one can be called.
        let is_served = self.has_class(live.id.class());
        let forget = |waiting: QueuedEvent| QueuedEvent {
            version: waiting.version.filter(|_| !is_served),
            ..waiting
        };
        let events: Vec<QueuedEvent> = pending
            .into_iter()
            .map(|(_, waiting)| forget(waiting))
            .collect();
        let count = events.len();
        let (again, is_first) = live.room().requeue(events.into_iter(), self.now());
        if is_first {
            tracing::warn!(room = %live.id, "{count} on-close events have to wait");
        }
        self.retry_at(again, &live.id);
    }

    /// Returns the event with its route in the version that is served now; none if that version no
    /// longer has the route.
    fn rebind_route(
        &self,
        mut event: RoomEvent,
        version: Option<Arc<Version>>,
    ) -> Option<RoomEvent> {
        let (Some(version), Some(current)) = (version, self.current()) else {
            return Some(event);
        };
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

    /// Runs one event. If messages that run together trap, those before the first one that traps
    /// alone are kept, unless they flushed: then it is not known which of them are durable.
    async fn run(
        &self,
        turn: &mut Turn<'_>,
        event: RoomEvent,
    ) -> (Result<RoomAnswer, Fault>, Option<Arc<PendingFeed>>) {
        match event {
            // It is rare, and boxed like the other calls here: the future of each turn is small,
            // because it is moved when the turn starts.
            RoomEvent::Alarm(_) => (Box::pin(self.run_alarm(turn)).await, None),
            RoomEvent::Messages(conn, messages) if messages.len() > 1 => {
                let flushes = turn.transaction.flushes();
                let together = self
                    .call(turn, RoomEvent::Messages(conn.clone(), messages.clone()))
                    .await;
                let has_app_failed = together.as_ref().is_err_and(|fault| !fault.is_of_host());
                if !has_app_failed || turn.transaction.flushes() != flushes {
                    return (together, None);
                }
                for message in messages {
                    let alone =
                        Box::pin(self.call(turn, RoomEvent::Messages(conn.clone(), vec![message])))
                            .await;
                    if alone.is_err() {
                        return (alone, None);
                    }
                }
                (Ok(RoomAnswer::Done), None)
            }
            RoomEvent::Subscribe(request, last) => {
                let since = last.as_deref().map(Positions::parse);
                match Box::pin(self.call(turn, RoomEvent::Subscribe(request, last))).await {
                    Ok(RoomAnswer::Feed(Ok(feed))) => {
                        Rooms::open_feed(&turn.transaction, feed, since)
                    }
                    outcome => (outcome, None),
                }
            }
            event => (self.call(turn, event).await, None),
        }
    }

    /// Opens a feed, which begins with the event that admitted it.
    fn open_feed(
        transaction: &Transaction,
        mut feed: Feed,
        since: Option<Positions>,
    ) -> (Result<RoomAnswer, Fault>, Option<Arc<PendingFeed>>) {
        match transaction.subscribe(std::mem::take(&mut feed.topics), since) {
            Ok(slot) => {
                transaction.keep();
                (Ok(RoomAnswer::Feed(Ok(feed))), Some(slot))
            }
            Err(error) => (Err(error.into()), None),
        }
    }

    /// Runs the event of an alarm. A try counts only if the app has failed.
    async fn run_alarm(&self, turn: &mut Turn<'_>) -> Result<RoomAnswer, Fault> {
        let (room, now) = (&turn.live.id, self.hub.now());
        let alarm = turn.transaction.alarm().map_err(Fault::from)?;
        // The alarm may have been moved or removed while it waited for its turn. It may also have
        // been due then, before the clock was set back.
        let Some(alarm) =
            alarm.filter(|alarm| alarm.at <= now.wall || self.hub.alarms().is_called(room, *alarm))
        else {
            return Ok(RoomAnswer::Done);
        };
        let outcome = match self.ensure_awake(turn).await {
            Ok(()) => {
                turn.transaction.set_alarm(None);
                turn.transaction.keep();
                self.call(turn, RoomEvent::Alarm(alarm.attempt)).await
            }
            Err(fault) => Err(fault),
        };
        match &outcome {
            Ok(_) => {}
            Err(fault) if fault.is_of_host() => {
                turn.transaction.restore_alarm(alarm);
                tracing::warn!(%room, "its alarm has to wait: {fault}");
            }
            Err(fault) => {
                let again = if turn.transaction.retry_alarm(alarm, now.wall) {
                    "it is tried again"
                } else {
                    "it was the last try"
                };
                tracing::error!(%room, attempt = alarm.attempt, "its alarm failed, {again}: {fault}");
            }
        }
        outcome
    }

    /// Calls the room's instance with the event, and keeps its changes if it ends well.
    async fn call(&self, turn: &mut Turn<'_>, event: RoomEvent) -> Result<RoomAnswer, Fault> {
        self.ensure_awake(turn).await?;
        let transaction = &turn.transaction;
        match &event {
            RoomEvent::Open(conn, _) => transaction.join(conn.clone()),
            RoomEvent::Close(conn, _) => transaction.leave(conn.clone()),
            _ => {}
        }
        turn.called = true;
        let awake = turn.instance.as_mut().expect("it was woken");
        let outcome = awake
            .instance
            .call(event, transaction)
            .await
            .and_then(|answer| self.check_answer(answer));
        match &outcome {
            Ok(_) => transaction.keep(),
            Err(_) => {
                // A flush that the call gave up must be over before the event's own changes are
                // discarded.
                transaction.finish().await;
                transaction.discard();
                *turn.instance = None;
            }
        }
        outcome
    }

    /// Gives the room an instance of the version that is served.
    async fn ensure_awake(&self, turn: &mut Turn<'_>) -> Result<(), Fault> {
        if let Some(fault) = &turn.unreachable {
            return Err(fault.clone());
        }
        let version = self.version_for(turn)?;
        if turn
            .instance
            .as_ref()
            .is_some_and(|awake| Arc::ptr_eq(&awake.version, &version))
        {
            return Ok(());
        }
        *turn.instance = None; // before there is another one
        let woken = Box::pin(self.wake(turn.live, &turn.transaction, version)).await;
        *turn.instance =
            Some(woken.inspect_err(|fault| {
                turn.unreachable = fault.is_of_host().then(|| fault.clone())
            })?);
        Ok(())
    }

    /// Returns the version that is served. If that has no rooms of this class, it is the version
    /// that the event was posted by: a connection that is closed because its route is gone still
    /// gets its last event.
    fn version_for(&self, turn: &Turn<'_>) -> Result<Arc<Version>, Fault> {
        let current = self
            .current()
            .ok_or_else(|| Fault::Host("no version of the app is served yet".into()))?;
        let is_known = |version: &Arc<Version>| version.has_class(turn.live.id.class());
        if turn
            .instance
            .as_ref()
            .is_some_and(|awake| Arc::ptr_eq(&awake.version, &current))
            || is_known(&current)
        {
            return Ok(current);
        }
        Ok(turn.version.clone().filter(is_known).unwrap_or(current))
    }

    /// Replaces an answer that is too long by a fault, before any effect is released.
    fn check_answer(&self, answer: RoomAnswer) -> Result<RoomAnswer, Fault> {
        let (weight, limits) = (answer.weight(), self.hub.limits());
        if let RoomAnswer::Called(_) = &answer {
            contract::check_call_answer(weight, limits.call_bytes_max)?;
        }
        match limits.room_event_bytes_max {
            max if weight > max => Err(Fault::Answer(format!(
                "{weight} bytes in the answer to one event: at most {max}"
            ))),
            _ => Ok(answer),
        }
    }

    /// Notes that the caller waits for the room. Fails if that would be a cycle.
    fn begin_call(&self, caller: &RoomId, room: &RoomId) -> Result<CallGuard, CallError> {
        let mut waits = self.waits();
        let mut next = Some(room);
        while let Some(room) = next {
            if room == caller {
                return Err(CallError::Cycle);
            }
            next = waits.get(room);
        }
        waits.insert(caller.clone(), room.clone());
        Ok(CallGuard {
            rooms: self.me.clone(),
            caller: caller.clone(),
        })
    }

    async fn wake(
        &self,
        live: &RoomSlot,
        transaction: &Transaction,
        version: Arc<Version>,
    ) -> Result<RoomInstance, Fault> {
        if let Err(PostError::Closed(wait)) = live.room().check_open(self.now()) {
            return Err(Fault::Closed(wait));
        }
        self.evict_idle();
        let woken = async {
            let mut instance = version.app.instance().await?;
            self.hub.counters().wakes.add(1);
            instance.call(RoomEvent::Wake, transaction).await?;
            Ok(RoomInstance { instance, version })
        };
        let woken = woken.await;
        match &woken {
            Ok(_) => transaction.keep(),
            Err(_) => transaction.discard(),
        }
        // A fault of the host, such as no free instance, is not the room's.
        if !woken.as_ref().is_err_and(Fault::is_of_host) {
            live.room().handle_wake(woken.is_ok(), self.now());
            if woken.is_err() {
                self.remember_failing(&live.id);
            }
        }
        woken
    }

    /// Notes a failed wake. Beyond the bound, the failures of the room that failed first are
    /// forgotten.
    fn remember_failing(&self, room: &RoomId) {
        let forgotten = {
            let mut failing = self
                .failing
                .lock()
                .expect("nothing panics while it holds the failing rooms");
            if failing.contains(room) {
                return;
            }
            failing.push_back(room.clone());
            if failing.len() > ROOMS_FAILING_MAX {
                failing.pop_front()
            } else {
                None
            }
        };
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

    fn waits(&self) -> MutexGuard<'_, HashMap<RoomId, RoomId>> {
        self.waits
            .lock()
            .expect("nothing panics while it holds the table of waits")
    }

    fn retries(&self) -> MutexGuard<'_, BTreeSet<(u64, RoomId)>> {
        self.retries
            .lock()
            .expect("nothing panics while it holds the retries")
    }
}

/// The outcome of a posted event. Dropping it cancels the event if that still waits and can be
/// cancelled: its memory is freed now, not at its turn.
pub(crate) struct EventOutcome {
    outcome: oneshot::Receiver<Result<RoomAnswer, Fault>>,
    waits: Option<(Arc<RoomSlot>, u64)>,
}

impl Future for EventOutcome {
    type Output = Result<Result<RoomAnswer, Fault>, oneshot::error::RecvError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let outcome = ready!(Pin::new(&mut self.outcome).poll(cx));
        self.waits = None;
        Poll::Ready(outcome)
    }
}

impl Drop for EventOutcome {
    fn drop(&mut self) {
        let Some((live, number)) = self.waits.take() else {
            return;
        };
        let given_up = live.room().give_up(number);
        drop(given_up); // outside of the lock
    }
}

/// Marks that a room's event waits for the answer of another room.
struct CallGuard {
    rooms: Weak<Rooms>,
    caller: RoomId,
}

impl Drop for CallGuard {
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

    fn call_room(&self, caller: Option<&RoomId>, room: RoomId, payload: Bytes) -> RoomCall {
        let begin = || {
            if !self.has_class(room.class()) {
                return Err(CallError::NotValid);
            }
            let wait = caller
                .map(|caller| self.begin_call(caller, &room))
                .transpose()?;
            Ok((
                wait,
                self.post(&room, RoomEvent::Call(payload), None)
                    .map_err(call_error)?,
            ))
        };
        let begun = begin();
        Box::pin(async move {
            let (_wait, outcome) = begun?;
            match outcome.await {
                Ok(Ok(RoomAnswer::Called(answer))) => {
                    answer.map_err(|(status, text)| CallError::Refused(status, text))
                }
                Ok(Err(fault)) => Err(call_error(fault)),
                _ => Err(CallError::Failed),
            }
        })
    }
}

/// Returns the error that a caller gets for a fault. The text of the fault is only in the log.
fn call_error(fault: Fault) -> CallError {
    match fault {
        Fault::Busy | Fault::Shortage | Fault::Closed(_) | Fault::Unavailable(_) => CallError::Busy,
        _ => CallError::Failed,
    }
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

impl RoomSlot {
    /// Registers the room as a consumer of memory when its queue is large for the first time.
    fn register(self: &Arc<RoomSlot>, budget: &Budget, waiting: usize) {
        if waiting >= CONSUMER_BYTES_MIN && !self.is_consumer.swap(true, Relaxed) {
            let me: Weak<RoomSlot> = Arc::downgrade(self);
            budget.register(me);
        }
    }

    fn room(&self) -> MutexGuard<'_, Room<RoomInstance, QueuedEvent>> {
        self.room
            .lock()
            .expect("nothing panics while it holds a room")
    }
}

/// The waiting events of a room. If memory is short, waiting requests and calls are answered as if
/// the room were busy.
impl Consumer for RoomSlot {
    fn bytes(&self) -> usize {
        self.room().waiting_bytes()
    }

    fn evict(&self) {
        let refused = self
            .room()
            .give_up_where(|waiting| waiting.event.can_be_given_up());
        for QueuedEvent { reply, .. } in refused {
            _ = reply.send(Err(Fault::Busy));
        }
    }
}
