//! The functions of a room's handlers, as imports.

use super::{position, published, start_point};
use crate::{
    CallError, LimitError, Position, Publication, Range, StartPoint, StorageError,
    bindings::tidegate::app::{room, rooms, websockets::Connection},
};
use std::time::SystemTime;

pub(crate) fn room_get(key: &str) -> Option<Vec<u8>> {
    room::get(key)
}

pub(crate) fn room_put(key: &str, value: &[u8]) -> Result<(), StorageError> {
    room::put(key, value).map_err(|error| match error {
        room::StorageError::KeySize(max) => StorageError::KeySize(max),
        room::StorageError::ValueSize(max) => StorageError::ValueSize(max),
        room::StorageError::RoomSize(max) => StorageError::RoomSize(max),
        room::StorageError::EventSize(max) => StorageError::EventSize(max),
    })
}

pub(crate) fn room_delete(key: &str) -> bool {
    room::delete(key)
}

pub(crate) fn room_clear() {
    room::clear();
}

pub(crate) fn room_entries(range: Range<'_>) -> Vec<(String, Vec<u8>)> {
    let owned = |bound: Option<&str>| bound.map(str::to_owned);
    room::entries(&room::Range {
        prefix: range.prefix.to_owned(),
        start: owned(range.start),
        end: owned(range.end),
        reverse: range.reverse,
        limit: Some(range.limit.try_into().unwrap_or(u32::MAX)),
    })
}

pub(crate) fn room_set_alarm(at: Option<u64>) {
    room::set_alarm(at);
}

pub(crate) fn room_alarm() -> Option<u64> {
    room::alarm()
}

pub(crate) fn room_broadcast(publication: Publication) -> Result<(), LimitError> {
    Ok(room::broadcast(&published(publication)).map(drop)?)
}

pub(crate) fn room_position() -> Position {
    let room::Position { epoch, sequence } = room::topic_position();
    Position { epoch, sequence }
}

pub(super) fn resume(connection: &Connection, since: Position) -> Result<StartPoint, LimitError> {
    Ok(room::resume(connection, position(since)).map(start_point)?)
}

pub(crate) fn room_flush() {
    room::flush();
}

pub(crate) fn rollback() {
    room::rollback();
}

pub(crate) fn call(
    class: &str,
    name: &str,
    payload: &[u8],
    timeout_ms: Option<u32>,
    attempts: u32,
) -> Result<Vec<u8>, CallError> {
    let options = rooms::CallOptions {
        timeout_ms,
        attempts_max: Some(attempts),
    };
    rooms::call(class, name, payload, options).map_err(|error| match error {
        rooms::CallError::NoSuchRoom => CallError::NoSuchRoom,
        rooms::CallError::TooLarge => CallError::TooLarge,
        rooms::CallError::Cycle => CallError::Cycle,
        rooms::CallError::Busy => CallError::Busy,
        rooms::CallError::Failed => CallError::Failed,
        rooms::CallError::Timeout => CallError::Timeout,
        rooms::CallError::Refused(error) => CallError::Refused(error.status, error.message),
    })
}

pub(crate) fn now() -> SystemTime {
    SystemTime::now()
}
