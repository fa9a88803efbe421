//! The interface to the storage of rooms: one trait, implemented by a file in the host and by
//! memory in tests.

use crate::{name::RoomId, realtime::history::Position};
use bytes::Bytes;
use std::{collections::BTreeMap, fmt, future::Future, ops::Bound, pin::Pin};

/// The durable storage of rooms. Each room has ordered keys with values, a size and an alarm.
///
/// Reads and commits of one room come one at a time; those of different rooms may be concurrent.
pub trait Engine: Send + Sync + 'static {
    /// Returns the value of a key. May block for a read of the disk.
    fn get(&self, room: &RoomId, key: &str) -> Result<Option<Bytes>, EngineError>;
    /// Returns entries in the order of their keys' bytes. May block for reads of the disk.
    fn range(&self, room: &RoomId, range: &Range<'_>) -> Result<Vec<(String, Bytes)>, EngineError>;
    /// Returns the record of the room beside its entries; the default if it never wrote.
    fn stored(&self, room: &RoomId) -> Result<RoomRecord, EngineError>;
    /// Returns the room's latest publications in any order: the contents of the slots of its log.
    fn log(&self, room: &RoomId) -> Result<Vec<Bytes>, EngineError>;
    /// Returns every room that has an alarm.
    fn alarms(&self) -> Result<Vec<(RoomId, Alarm)>, EngineError>;
    /// Writes all of the batch. The future is ready when the batch is durable: no crash undoes it
    /// then. After an error nothing of the batch was written, and no part is read back later. The
    /// exception is [`EngineError::Unknown`]: this process does not read the batch back, but a
    /// later one may.
    fn commit(&self, batch: Batch) -> Commit;
    /// Returns whether rooms can be read and written now. It is cheap: it reads no disk.
    fn status(&self) -> EngineStatus {
        EngineStatus::Open
    }
}

/// State of an engine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EngineStatus {
    /// Reads and commits are taken.
    Open,
    /// Reads and commits are refused with [`EngineError::Closed`] until the engine has opened
    /// again, which it does without help. The text is for the operator.
    Closed(String),
}

/// A commit in progress. Dropping it does not undo the commit.
pub type Commit = Pin<Box<dyn Future<Output = Result<(), EngineError>> + Send>>;

/// A range of a room's entries.
#[derive(Clone, Copy, Debug)]
pub struct Range<'a> {
    /// Lower bound of the keys.
    pub start: Bound<&'a str>,
    /// Upper bound of the keys.
    pub end: Bound<&'a str>,
    /// True for the order from the end to the start.
    pub reverse: bool,
    /// Maximum number of entries.
    pub limit: usize,
}

impl Range<'_> {
    /// Returns the range of the first `limit` entries.
    pub fn all(limit: usize) -> Range<'static> {
        Range {
            start: Bound::Unbounded,
            end: Bound::Unbounded,
            reverse: false,
            limit,
        }
    }
}

/// Returns the first key after all that begin with `prefix`; none if there is no such key.
pub(crate) fn prefix_end(prefix: &str) -> Option<String> {
    let mut kept = prefix;
    while let Some(last) = kept.chars().next_back() {
        kept = &kept[..kept.len() - last.len_utf8()];
        // Keys are in the order of their bytes, which for UTF-8 is that of its characters.
        let next = (last as u32 + 1..=char::MAX as u32).find_map(char::from_u32);
        if let Some(next) = next {
            return Some(format!("{kept}{next}"));
        }
    }
    None
}

/// The time at which a room is called again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Alarm {
    /// Unix time in milliseconds.
    pub at: u64,
    /// Number of the next try, from 1.
    pub attempt: u32,
}

/// The record of a room beside its entries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RoomRecord {
    /// Number of bytes of all keys and values.
    pub bytes: u64,
    /// The alarm, if there is one.
    pub alarm: Option<Alarm>,
    /// Head of the log, if anything was broadcast.
    pub history: Option<LogHead>,
}

/// The durable state of a room's topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogHead {
    /// Position of the topic.
    pub position: Position,
    /// Unix time in milliseconds from which all entries of the log are too old.
    pub expires: u64,
}

/// Changes of a room that are written at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// The room.
    pub room: RoomId,
    /// True if all entries are deleted first.
    pub clear: bool,
    /// New values; `None` deletes the key.
    pub writes: BTreeMap<String, Option<Bytes>>,
    /// Publications for slots of the room's log. Each replaces the one before it.
    pub log: Vec<(u32, Bytes)>,
    /// The new record of the room. A room without entries, alarm and history is deleted.
    pub stored: RoomRecord,
}

impl Batch {
    /// Returns a batch that changes no entry.
    pub fn new(room: RoomId, stored: RoomRecord) -> Batch {
        Batch {
            room,
            clear: false,
            writes: BTreeMap::new(),
            log: Vec::new(),
            stored,
        }
    }
}

/// An error of the storage. The text is for the operator.
///
/// After all errors but [`Unknown`](EngineError::Unknown) the batch of the commit has not happened,
/// and never will.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EngineError {
    /// The disk is full, or no file descriptor is left. The engine continues when there is space
    /// again.
    Full(String),
    /// This call could not read or write the disk. A later call may succeed.
    Io(String),
    /// The bytes that were read differ from those that were written. Restore a backup, or export
    /// the data that can still be read.
    Corrupt(String),
    /// An earlier failure closed the engine; the text is that failure's. It opens again without
    /// help.
    Closed(String),
    /// A commit failed, and the failure could not be written either: after a crash of the machine
    /// the batch may be there or not.
    Unknown(String),
}

impl fmt::Display for EngineError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            EngineError::Full(text) => {
                write!(f, "the storage lacks space or file descriptors: {text}")
            }
            EngineError::Io(text) => write!(f, "the storage can't be read or written: {text}"),
            EngineError::Corrupt(text) => write!(f, "the storage is damaged: {text}"),
            EngineError::Closed(text) => write!(
                f,
                "the storage is closed since an earlier failure, and opens again by itself: {text}"
            ),
            EngineError::Unknown(text) => write!(
                f,
                "it is not known whether the disk has what was written: {text}"
            ),
        }
    }
}

impl std::error::Error for EngineError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_behind_a_prefix_begins_with_the_next_character() {
        let cases = [
            ("", None),
            ("a", Some("b")),
            ("tea/", Some("tea0")),
            ("a\u{d7ff}", Some("a\u{e000}")),
            ("a\u{10ffff}", Some("b")),
            ("\u{10ffff}", None),
        ];
        for (prefix, expected) in cases {
            assert_eq!(prefix_end(prefix).as_deref(), expected, "{prefix:?}");
        }
    }
}
