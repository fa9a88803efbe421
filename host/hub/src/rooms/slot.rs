//! The place of a room in the scheduler: its state, its instance, and its queued events with their
//! memory.

use crate::{
    app::{Instance, RoomAnswer, RoomEvent},
    budget::{Budget, CONSUMER_BYTES_MIN, Consumer, MemoryKind},
    fault::Fault,
    name::RoomId,
    realtime::auto_response::AutoResponder,
    rooms::{room::Room, version::Version},
};
use std::{
    future::Future,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, Weak,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    task::{Context, Poll, ready},
};
use tokio::sync::oneshot;

/// A room that is awake or has a state to remember.
pub(crate) struct RoomSlot {
    pub(crate) id: RoomId,
    /// Keeps the auto-response while the room is awake, even without connections.
    _auto_responder: Arc<AutoResponder>,
    room: Mutex<RoomState>,
    is_consumer: AtomicBool,
}

/// The state machine of a room, with the scheduler's instances and events.
pub(crate) type RoomState = Room<RoomInstance, QueuedEvent>;

/// The one instance of a room.
pub(crate) struct RoomInstance {
    pub(crate) instance: Box<dyn Instance>,
    pub(crate) version: Arc<Version>,
}

/// An event that waits, with its sender.
pub(crate) struct QueuedEvent {
    pub(crate) event: RoomEvent,
    pub(crate) sender: EventSender,
}

/// The sender of an event, and the receiver of its outcome.
pub(crate) struct EventSender {
    /// The version whose routes the event's request was matched with; none for events without a
    /// request.
    pub(crate) version: Option<Arc<Version>>,
    pub(crate) reply: oneshot::Sender<Result<RoomAnswer, Fault>>,
    /// Memory of the event, until it has run.
    pub(crate) held: Option<InboxCharge>,
}

/// Returns true if the event must reach the app, even after many tries.
pub(crate) fn must_happen(event: &RoomEvent) -> bool {
    matches!(event, RoomEvent::Close(..))
}

impl QueuedEvent {
    /// Returns true if the caller has gone and the event can be skipped. Events of a connection and
    /// alarms are never skipped.
    pub(crate) fn is_given_up(&self) -> bool {
        self.sender.reply.is_closed() && self.event.can_be_given_up()
    }
}

/// Reservation for a waiting event.
pub(crate) struct InboxCharge {
    budget: Arc<Budget>,
    bytes: usize,
}

impl InboxCharge {
    /// Reserves memory. Fails if all rooms together would have more than `max` bytes, or if memory
    /// is short.
    pub(crate) fn reserve(
        budget: &Arc<Budget>,
        bytes: usize,
        max: usize,
    ) -> Result<InboxCharge, Fault> {
        if budget.reserved_for(MemoryKind::Inbox) + bytes > max
            || budget.reserve(MemoryKind::Inbox, bytes).is_err()
        {
            return Err(Fault::Busy);
        }
        Ok(InboxCharge {
            budget: budget.clone(),
            bytes,
        })
    }

    /// Reserves memory for an event that must happen. It is never refused.
    pub(crate) fn force(budget: &Arc<Budget>, bytes: usize) -> InboxCharge {
        budget.add(MemoryKind::Inbox, bytes);
        InboxCharge {
            budget: budget.clone(),
            bytes,
        }
    }
}

impl Drop for InboxCharge {
    fn drop(&mut self) {
        self.budget.give_back(MemoryKind::Inbox, self.bytes);
    }
}

/// The outcome of a posted event. Dropping it cancels the event if that still waits and can be
/// cancelled: its memory is freed now, not at its turn.
pub(crate) struct EventOutcome {
    outcome: oneshot::Receiver<Result<RoomAnswer, Fault>>,
    waits: Option<(Arc<RoomSlot>, u64)>,
}

impl EventOutcome {
    /// `waits` has the room and the number of the event, if the event can be cancelled.
    pub(crate) fn new(
        outcome: oneshot::Receiver<Result<RoomAnswer, Fault>>,
        waits: Option<(Arc<RoomSlot>, u64)>,
    ) -> EventOutcome {
        EventOutcome { outcome, waits }
    }
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

impl RoomSlot {
    /// Returns a room that sleeps.
    pub(crate) fn new(id: RoomId, auto_responder: Arc<AutoResponder>) -> Arc<RoomSlot> {
        let (room, is_consumer) = Default::default();
        Arc::new(RoomSlot {
            id,
            _auto_responder: auto_responder,
            room,
            is_consumer,
        })
    }

    /// Registers the room as a consumer of memory when its queue is large for the first time.
    pub(crate) fn register(self: &Arc<RoomSlot>, budget: &Budget, waiting: usize) {
        if waiting >= CONSUMER_BYTES_MIN && !self.is_consumer.swap(true, Relaxed) {
            let me: Weak<RoomSlot> = Arc::downgrade(self);
            budget.register(me);
        }
    }

    /// Locks the state of the room.
    pub(crate) fn room(&self) -> MutexGuard<'_, RoomState> {
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
        for QueuedEvent { sender, .. } in refused {
            _ = sender.reply.send(Err(Fault::Busy));
        }
    }
}
