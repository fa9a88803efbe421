//! The functions of a room's handlers, natively: the hub's transaction of the room, and the clock
//! of the test.

use super::{position, published, scope, start_point};
use crate::{CallError, LimitError, Position, Publication, Range, StartPoint, StorageError};
use std::{
    cell::{Cell, RefCell},
    pin::pin,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::SystemTime,
};
use tidegate_hub::{self as hub, Transaction};

/// Calls a room of the server under test for an event of this scope: class, name, payload.
pub(crate) type Caller = Rc<dyn Fn(hub::Scope, &str, &str, &[u8]) -> Result<Vec<u8>, CallError>>;

thread_local! {
    /// The function for calls of rooms, while a handler runs.
    static CALLER: RefCell<Option<Caller>> = const { RefCell::new(None) };
    static NOW: Cell<SystemTime> = const { Cell::new(SystemTime::UNIX_EPOCH) };
}

/// Panic message for a failure of the storage in memory, which ends the handler.
const FAILED: &str = "the storage failed";

fn transaction() -> Transaction {
    let scope = scope();
    scope
        .room()
        .cloned()
        .expect("a room's storage is there inside of its handlers")
}

pub(crate) fn room_get(key: &str) -> Option<Vec<u8>> {
    transaction()
        .get(key)
        .expect(FAILED)
        .map(|value| value.to_vec())
}

pub(crate) fn room_put(key: &str, value: &[u8]) -> Result<(), StorageError> {
    use hub::StorageError::{Engine, Event, Key, Room, Value};
    transaction()
        .put(key, value.to_vec().into())
        .map_err(|error| match error {
            Key(max) => StorageError::KeySize(max as u64),
            Value(max) => StorageError::ValueSize(max as u64),
            Room(max) => StorageError::RoomSize(max as u64),
            Event(max) => StorageError::EventSize(max as u64),
            Engine(error) => panic!("{error}"),
        })
}

pub(crate) fn room_delete(key: &str) -> bool {
    transaction().delete(key).expect(FAILED)
}

pub(crate) fn room_clear() {
    transaction().clear().expect(FAILED);
}

pub(crate) fn room_entries(range: Range<'_>) -> Vec<(String, Vec<u8>)> {
    let entries = transaction()
        .query(
            range.prefix,
            range.start,
            range.end,
            range.reverse,
            range.limit,
        )
        .expect(FAILED);
    entries
        .into_iter()
        .map(|(key, value)| (key, value.to_vec()))
        .collect()
}

pub(crate) fn room_set_alarm(at: Option<u64>) {
    transaction().set_alarm(at);
}

pub(crate) fn room_alarm() -> Option<u64> {
    transaction().alarm().expect(FAILED).map(|alarm| alarm.at)
}

pub(crate) fn room_broadcast(publication: Publication) -> Result<(), LimitError> {
    let publication = published(publication)?;
    let broadcast = transaction().broadcast(publication).expect(FAILED);
    Ok(broadcast.map(drop)?)
}

pub(crate) fn room_position() -> Position {
    let hub::Position { epoch, sequence } = transaction().position().expect(FAILED);
    Position { epoch, sequence }
}

pub(super) fn resume(conn: &Arc<hub::Conn>, since: Position) -> Result<StartPoint, LimitError> {
    let resumed = transaction().resume(conn, position(since)).expect(FAILED);
    Ok(resumed.map(start_point)?)
}

pub(crate) fn room_flush() {
    match pin!(transaction().flush()).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(flushed) => flushed.expect(FAILED),
        Poll::Pending => unreachable!("the storage is in memory"),
    }
}

pub(crate) fn rollback() {
    if let Some(transaction) = scope().room() {
        transaction.rollback();
    }
}

/// Every handler ends at once, so no call times out.
pub(crate) fn call(
    class: &str,
    name: &str,
    payload: &[u8],
    _timeout_ms: Option<u32>,
    attempts: u32,
) -> Result<Vec<u8>, CallError> {
    let caller = CALLER
        .with_borrow(Clone::clone)
        .expect("rooms are called inside of handlers: drive the app by `tidegate::testing::serve`");
    let mut left = attempts;
    loop {
        left = left.saturating_sub(1);
        match caller(scope(), class, name, payload) {
            Err(CallError::Busy | CallError::Failed) if left > 0 => {}
            outcome => return outcome,
        }
    }
}

/// Sets the function for calls from this thread.
pub(crate) fn set_caller(caller: Caller) {
    CALLER.set(Some(caller));
}

/// Returns the server's time of day.
pub(crate) fn now() -> SystemTime {
    NOW.get()
}

pub(crate) fn set_now(now: SystemTime) {
    NOW.set(now);
}
