//! The seam to the storage of rooms: one trait, answered by a file in the host and by memory in tests.

use crate::{name::RoomId, realtime::history::Position};
use bytes::Bytes;
use std::{collections::BTreeMap, fmt, future::Future, ops::Bound, pin::Pin};

/// Where rooms keep what has to last: for each room ordered keys with values, a size and an alarm.
///
/// A room reads and commits from one place at a time; different rooms do so at once.
pub trait Engine: Send + Sync + 'static {
    /// The value of a key. May block for a read of the disk.
    fn get(&self, room: &RoomId, key: &str) -> Result<Option<Bytes>, EngineError>;
    /// Entries in the order of their keys' bytes. May block for reads of the disk.
    fn range(&self, room: &RoomId, range: &Range<'_>) -> Result<Vec<(String, Bytes)>, EngineError>;
    /// What is known of the room besides its entries; the default if it never wrote.
    fn stored(&self, room: &RoomId) -> Result<RoomRecord, EngineError>;
    /// The room's latest publications, in any order: what batches put into the slots of its log.
    fn log(&self, room: &RoomId) -> Result<Vec<Bytes>, EngineError>;
    /// Every room that has an alarm.
    fn alarms(&self) -> Result<Vec<(RoomId, Alarm)>, EngineError>;
    /// Writes all of the batch. Ready when it is durable: from then on no crash undoes it. After an error nothing of it was
    /// written, and nothing of it is read back later, except after [`EngineError::Unknown`]: then this process does not read it
    /// back, and a later one may.
    fn commit(&self, batch: Batch) -> Commit;
    /// Returns whether rooms can be read and written now. Cheap: reads no disk.
    fn status(&self) -> EngineStatus {
        EngineStatus::Open
    }
}

/// Whether an engine can be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EngineStatus {
    /// Reads and commits are taken.
    Open,
    /// Reads and commits are refused with [`EngineError::Closed`] until the engine has opened again by itself. The text is the
    /// operator's.
    Closed(String),
}

/// A commit on its way. Dropping it does not undo the commit.
pub type Commit = Pin<Box<dyn Future<Output = Result<(), EngineError>> + Send>>;

/// Which entries of a room.
#[derive(Clone, Copy, Debug)]
pub struct Range<'a> {
    /// From this key on.
    pub start: Bound<&'a str>,
    /// Up to this key.
    pub end: Bound<&'a str>,
    /// From the end to the start.
    pub reverse: bool,
    /// At most so many.
    pub limit: usize,
}

impl Range<'_> {
    /// Every entry, the first `limit` of them.
    pub fn all(limit: usize) -> Range<'static> {
        Range {
            start: Bound::Unbounded,
            end: Bound::Unbounded,
            reverse: false,
            limit,
        }
    }
}

/// The first key behind all that begin with `prefix`; none if there is no such key.
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

/// When a room is to be called again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Alarm {
    /// Unix time in milliseconds.
    pub at: u64,
    /// Of its tries, the next one: from 1.
    pub attempt: u32,
}

/// What is kept of a room besides its entries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RoomRecord {
    /// Of all keys and values.
    pub bytes: u64,
    /// Its alarm.
    pub alarm: Option<Alarm>,
    /// Of its topic, if anything was broadcast.
    pub history: Option<LogHead>,
}

/// What is kept of a room's topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogHead {
    /// Where the topic is.
    pub position: Position,
    /// Unix time in milliseconds; from then on nothing in the log is of any use.
    pub expires: u64,
}

/// What a room changes at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// Whose.
    pub room: RoomId,
    /// Whether everything that was there goes first.
    pub clear: bool,
    /// New values; none deletes the key.
    pub writes: BTreeMap<String, Option<Bytes>>,
    /// Publications for the slots of the room's log, each in the place of the one before it.
    pub log: Vec<(u32, Bytes)>,
    /// What is to be known of the room from now on. A room without entries, alarm and history is forgotten.
    pub stored: RoomRecord,
}

impl Batch {
    /// Changes no entry.
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

/// Why storage did not do what it was asked to. The text is the operator's.
///
/// After all but [`Unknown`](EngineError::Unknown) the batch of a refused commit has not happened, and never will.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EngineError {
    /// Space on the disk, or file descriptors, are used up. The engine goes on by itself when there are some again.
    Full(String),
    /// This call could not read or write the disk. A later call may succeed.
    Io(String),
    /// What was read is not what was written. Restore a backup, or export what can still be read.
    Corrupt(String),
    /// An earlier failure closed the engine: the text is that failure's. It opens again by itself.
    Closed(String),
    /// A commit failed, and the disk took no note of that either: after a crash of the machine the batch may be there or not.
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
