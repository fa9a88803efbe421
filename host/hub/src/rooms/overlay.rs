//! Overlays: the writes of a room that its storage does not have yet, and reads that see both.

use crate::{
    limits::{ENTRIES_PAGE_BYTES, ENTRIES_PAGE_MAX},
    name::RoomId,
    rooms::storage::{Engine, EngineError, Range},
};
use bytes::Bytes;
use std::{collections::BTreeMap, ops::Bound};

/// Number of entries that are read from the storage at once.
const READ: usize = 32;

/// Writes since the last commit.
#[derive(Default)]
pub(crate) struct Overlay {
    /// True if all entries of the storage are deleted.
    pub(crate) clear: bool,
    /// New values; `None` for a key that was deleted.
    pub(crate) writes: BTreeMap<String, Option<Bytes>>,
    weight: usize,
}

impl Overlay {
    /// Returns the value of the key if it was written, `Some(None)` if it was deleted, and `None`
    /// if the storage decides.
    pub(crate) fn find(&self, key: &str) -> Option<Option<Bytes>> {
        match self.writes.get(key) {
            Some(value) => Some(value.clone()),
            None => self.clear.then_some(None),
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        !self.clear && self.writes.is_empty()
    }

    /// Returns the bytes of memory that it takes.
    pub(crate) fn weight(&self) -> usize {
        self.weight
    }

    /// Returns the bytes that this write takes, and those of the write that it replaces.
    pub(crate) fn cost(&self, key: &str, value: Option<&Bytes>) -> (usize, usize) {
        (
            weight(key, value),
            self.writes
                .get(key)
                .map_or(0, |old| weight(key, old.as_ref())),
        )
    }

    /// Writes a key, or deletes it.
    pub(crate) fn insert(&mut self, key: &str, value: Option<Bytes>) {
        let (more, less) = self.cost(key, value.as_ref());
        self.weight = self.weight + more - less;
        self.writes.insert(key.to_owned(), value);
    }

    /// Deletes all entries.
    pub(crate) fn clear(&mut self) {
        *self = Overlay {
            clear: true,
            ..Overlay::default()
        };
    }

    /// Adds the writes of a later overlay.
    pub(crate) fn absorb(&mut self, later: Overlay) {
        if later.clear {
            *self = later;
            return;
        }
        for (key, value) in later.writes {
            let (more, less) = self.cost(&key, value.as_ref());
            self.weight = self.weight + more - less;
            self.writes.insert(key, value);
        }
    }
}

/// Returns the bytes of memory that a write takes: the record and its strings.
fn weight(key: &str, value: Option<&Bytes>) -> usize {
    size_of::<(String, Option<Bytes>)>() + key.len() + value.map_or(0, Bytes::len)
}

/// Returns a page of entries as they would be with both overlays committed, the older one first. It
/// ends at the range's limit, at 1,000 entries, or with the entry that makes it 1 MiB. It is empty
/// only if there are no entries.
pub(crate) fn page(
    engine: &dyn Engine,
    room: &RoomId,
    overlays: [&Overlay; 2],
    range: Range<'_>,
) -> Result<Vec<(String, Bytes)>, EngineError> {
    let [older, newer] = overlays;
    let limit = range.limit.min(ENTRIES_PAGE_MAX);
    let (mut start, mut end) = (range.start.map(str::to_owned), range.end.map(str::to_owned));
    let (mut page, mut bytes) = (Vec::new(), 0);
    loop {
        let (from, to) = (
            start.as_ref().map(String::as_str),
            end.as_ref().map(String::as_str),
        );
        if limit == 0 || is_empty(from, to) {
            return Ok(page);
        }
        let read = match older.clear || newer.clear {
            true => Vec::new(),
            false => engine.range(
                room,
                &Range {
                    start: from,
                    end: to,
                    reverse: range.reverse,
                    limit: READ,
                },
            )?,
        };
        let last = read
            .last()
            .filter(|_| read.len() == READ)
            .map(|(key, _)| key.clone());
        let seen = match &last {
            Some(last) if range.reverse => (Bound::Included(last.as_str()), to),
            Some(last) => (from, Bound::Included(last.as_str())),
            None => (from, to),
        };
        let mut window: BTreeMap<String, Bytes> = read.into_iter().collect();
        let layers = if newer.clear {
            [None, Some(newer)]
        } else {
            [Some(older), Some(newer)]
        };
        for (key, value) in layers
            .into_iter()
            .flatten()
            .flat_map(|layer| layer.writes.range::<str, _>(seen))
        {
            match value {
                Some(value) => _ = window.insert(key.clone(), value.clone()),
                None => _ = window.remove(key),
            }
        }
        let forwards: Box<dyn Iterator<Item = (String, Bytes)>> = match range.reverse {
            true => Box::new(window.into_iter().rev()),
            false => Box::new(window.into_iter()),
        };
        for (key, value) in forwards {
            bytes += key.len() + value.len();
            page.push((key, value));
            if page.len() >= limit || bytes >= ENTRIES_PAGE_BYTES {
                return Ok(page);
            }
        }
        match last {
            None => return Ok(page),
            Some(last) if range.reverse => end = Bound::Excluded(last),
            Some(last) => start = Bound::Excluded(last),
        }
    }
}

/// Returns true if no key is between the two. Such a range is no error of the app.
fn is_empty(start: Bound<&str>, end: Bound<&str>) -> bool {
    match (start, end) {
        (Bound::Unbounded, _) | (_, Bound::Unbounded) => false,
        (Bound::Included(start), Bound::Included(end)) => start > end,
        (
            Bound::Included(start) | Bound::Excluded(start),
            Bound::Included(end) | Bound::Excluded(end),
        ) => start >= end,
    }
}
