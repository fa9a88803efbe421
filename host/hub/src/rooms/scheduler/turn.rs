//! A turn of a room: all waiting events run in order, are committed at once, and report their
//! outcomes after the commit.
//!
//! A `Turn` lends the instance of its room from the task, and owns the transaction of its events.
//! An event that ran is *finished*, and knows the number of the commit that makes it durable. The
//! turn commits at its end, and earlier when its changes are heavy; an event may commit by a flush.
//!
//! Invariant: no outcome is reported before the commit of its event. An event that must happen and
//! did not is *pending*: it returns to the room in its place.
//!
//! How an event runs in the instance is left to `wake`, the order of turns to the scheduler.

use super::{Rooms, report};
use crate::{
    app::{RoomAnswer, RoomEvent},
    fault::Fault,
    limits::ALARM_RETRY,
    realtime::{connections::Conn, feed::Feed},
    rooms::{
        pending_feed::PendingFeed,
        slot::{EventSender, QueuedEvent, RoomInstance, RoomSlot, must_happen},
        storage::EngineStatus,
        transaction::Transaction,
        version::Version,
    },
};
use std::sync::Arc;

/// A room's events that run one after the other and are committed at once.
pub(super) struct Turn<'a> {
    pub(super) rooms: &'a Rooms,
    pub(super) live: &'a RoomSlot,
    pub(super) instance: &'a mut Option<RoomInstance>,
    pub(super) transaction: Transaction,
    done: Vec<FinishedEvent>,
    /// Number of bytes of their answers.
    answers: usize,
    /// Events that must happen and could not be handed over, with their place in the turn.
    pending: Vec<(usize, QueuedEvent)>,
    /// Reason why the host cannot run events of the room. The other events of the turn fail with it
    /// at once.
    pub(super) unreachable: Option<Fault>,
    /// Version that posted the running event. `called` is true if the event was handed to the app.
    pub(super) version: Option<Arc<Version>>,
    pub(super) called: bool,
}

/// An event that ran and is not durable yet.
struct FinishedEvent {
    place: usize,
    /// Number of the commit that makes it durable; none if it flushed, and changed nothing since.
    commit: Option<u64>,
    sender: EventSender,
    outcome: Result<RoomAnswer, Fault>,
    /// The feed that the event admitted.
    feed: Option<Arc<PendingFeed>>,
    /// A copy of the event, if it must happen.
    again: Option<RoomEvent>,
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

impl Turn<'_> {
    /// Runs the events, commits their changes and reports their outcomes.
    pub(super) async fn run(
        rooms: &Rooms,
        live: &RoomSlot,
        instance: &mut Option<RoomInstance>,
        waiting: impl IntoIterator<Item = QueuedEvent>,
    ) {
        // While the storage is closed, the app's writes could not be committed.
        let unreachable = match rooms.engine.status() {
            EngineStatus::Open => None,
            EngineStatus::Closed(why) => Some(Fault::Unavailable(why)),
        };
        let (hub, engine) = (rooms.hub.clone(), rooms.engine.clone());
        let mut turn = Turn {
            rooms,
            live,
            instance,
            transaction: Transaction::new(hub, engine, live.id.clone()),
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
            turn.run_event(place, waiting).await;
            if turn.transaction.is_heavy(turn.answers) {
                turn.commit().await;
                turn.answers = 0;
            }
        }
        turn.commit().await;
        turn.requeue();
    }

    async fn run_event(&mut self, place: usize, waiting: QueuedEvent) {
        // A flush that the previous event gave up decides which state this event reads.
        self.transaction.finish().await;
        let again = must_happen(&waiting.event).then(|| waiting.event.clone());
        let is_alarm = matches!(waiting.event, RoomEvent::Alarm(_));
        let QueuedEvent { event, mut sender } = waiting;
        let conn = if let RoomEvent::Open(conn, _) = &event {
            Some(conn.clone())
        } else {
            None
        };
        (self.called, self.version) = (false, sender.version.clone());
        let first = self.transaction.number();
        let (outcome, feed) = match self.rebind_route(event) {
            Some(event) => self.handle(event).await,
            None => (Err(Fault::Busy), None),
        };
        match (&outcome, again) {
            (Err(fault), Some(event)) if fault.is_of_host() || !self.called => {
                tracing::debug!(room = %self.live.id, "an event has to wait: {fault}");
                self.pending.push((place, QueuedEvent { event, sender }));
            }
            (_, again) => {
                self.answers += outcome.as_ref().map_or(0, RoomAnswer::weight);
                if again.is_none() {
                    sender.held = None;
                }
                let number = self.transaction.number();
                let has_flushed = number != first && self.transaction.outcome(first).is_ok();
                let commit = (!has_flushed || !self.transaction.is_clean()).then_some(number);
                let has_failed = outcome.as_ref().is_err_and(|fault| !fault.is_of_host());
                let opened = conn.filter(|_| self.called).map(|conn| OpenedConnection {
                    conn,
                    must_happen: has_flushed || has_failed,
                });
                self.done.push(FinishedEvent {
                    place,
                    commit,
                    sender,
                    outcome,
                    feed,
                    again,
                    opened,
                    is_alarm,
                });
            }
        }
    }

    /// Commits the changes, then reports the outcomes of the events.
    async fn commit(&mut self) {
        if self.transaction.commit().await.is_err() {
            // The instance remembers changes that did not happen, so it is dropped.
            *self.instance = None;
        }
        for FinishedEvent {
            place,
            commit,
            sender,
            outcome,
            feed,
            again,
            opened,
            is_alarm,
        } in std::mem::take(&mut self.done)
        {
            let failure = commit.and_then(|commit| self.transaction.outcome(commit).err());
            if is_alarm {
                let is_of_host =
                    failure.is_some() || outcome.as_ref().is_err_and(Fault::is_of_host);
                self.finish_alarm(is_of_host);
                if let Some(error) = &failure {
                    tracing::warn!(room = %self.live.id, "its alarm has to wait: {error}");
                }
            }
            let outcome = match (failure, outcome, again) {
                (Some(error), Ok(_), again) => {
                    if let Some(event) = again {
                        self.pending.push((place, QueuedEvent { event, sender }));
                        continue;
                    }
                    Err(error.into())
                }
                (_, Ok(RoomAnswer::Feed(Ok(answer))), _) => Ok(RoomAnswer::Feed(Ok(Feed {
                    opened: feed.and_then(|slot| slot.take()),
                    ..answer
                }))),
                (_, outcome, again) => {
                    if again.is_some() {
                        self.live.room().handle_delivery();
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
            // A caller reports the fault that it receives. `run_alarm` reports that of an alarm.
            if let Err(Err(fault)) = sender.reply.send(outcome)
                && !is_alarm
            {
                report(
                    &self.rooms.hub,
                    &self.live.id,
                    "its caller has gone",
                    &fault,
                );
            }
        }
    }

    /// Handles the end of an alarm's event. The stored alarm decides when the room is called again,
    /// unless the host has failed.
    fn finish_alarm(&self, is_of_host: bool) {
        let (room, now) = (&self.live.id, self.rooms.hub.now());
        match self.transaction.stored_alarm() {
            Ok(stored) if !is_of_host => self.rooms.hub.alarms().finish(room, stored, now),
            _ => self.rooms.hub.alarms().postpone(room, ALARM_RETRY, now),
        }
    }

    /// Keeps the events of the turn that must happen and could not be handed over, for another try.
    fn requeue(self) {
        let Turn {
            rooms,
            live,
            mut pending,
            ..
        } = self;
        if pending.is_empty() {
            return;
        }
        pending.sort_by_key(|(place, _)| *place);
        // An old version is kept only if no other one can be called.
        let is_served = rooms.has_class(live.id.class());
        let mut events: Vec<QueuedEvent> =
            pending.into_iter().map(|(_, waiting)| waiting).collect();
        if is_served {
            events
                .iter_mut()
                .for_each(|event| event.sender.version = None);
        }
        let count = events.len();
        let (again, is_first) = live.room().requeue(events.into_iter(), rooms.now());
        if is_first {
            tracing::warn!(room = %live.id, "{count} on-close events have to wait");
        }
        rooms.retry_at(again, &live.id);
    }

    /// Returns the event with its route in the version that is served now; none if that version no
    /// longer has the route.
    fn rebind_route(&self, mut event: RoomEvent) -> Option<RoomEvent> {
        let (Some(version), Some(current)) = (&self.version, self.rooms.current()) else {
            return Some(event);
        };
        if let RoomEvent::Handle(request, _)
        | RoomEvent::Upgrade(request, _)
        | RoomEvent::Open(_, request)
        | RoomEvent::Subscribe(request, _) = &mut event
            && !Arc::ptr_eq(version, &current)
        {
            let route = version.manifest.routes.get(request.route as usize)?;
            request.route = current.manifest.successor(route)?;
        }
        Some(event)
    }
}
