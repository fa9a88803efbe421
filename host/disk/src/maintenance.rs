//! What an operator does with the storage: look, export, delete, verify, back up.

use crate::{
    OpenError, Storage,
    guarded::guarded,
    open_error::Why,
    row::{Row, entry_of, room_key, room_of},
    tables::Tables,
};
use fjall::{PersistMode, Readable as _};
use std::{
    collections::{HashMap, HashSet},
    fmt,
    path::Path,
};
use tidegate_hub::{Batch, Engine as _, EngineError, RoomId, Stored};

/// Entries that are copied at a time.
const COPY: usize = 1000;

/// What [`Storage::verify`] found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verified {
    /// Rooms that keep something.
    pub rooms: usize,
    /// Their entries.
    pub entries: usize,
    /// Bytes of keys and values.
    pub bytes: u64,
    /// What is not as it should be, a line each; none if all is well.
    pub wrong: Vec<String>,
}

impl Verified {
    fn wrong(&mut self, what: impl fmt::Display) {
        self.wrong.push(what.to_string());
    }
}

impl Storage {
    /// A page of rooms in the order of class and name: those of the class, behind `after`, at most `limit`.
    pub fn rooms(&self, class: Option<&str>, after: Option<&RoomId>, limit: usize) -> Result<Vec<(RoomId, Stored)>, EngineError> {
        let prefix = class.map_or_else(Vec::new, |class| [class.as_bytes(), b"\0"].concat());
        let start = after.map_or_else(|| prefix.clone(), |after| [&room_key(after)[..], b"\0"].concat()).max(prefix.clone());
        let rows = guarded(|| {
            let rows = self.tables.rooms.range(start..).take(limit).map(|guard| guard.into_inner());
            rows.collect::<fjall::Result<Vec<_>>>()
        })?;
        let within = rows.into_iter().take_while(|(key, _)| key.starts_with(&prefix));
        within.map(|(key, row)| read(&key, &row).map(|(room, row)| (room, row.stored))).collect()
    }

    /// Deletes a room with all that it keeps; whether it was there. Waits until that is durable.
    pub async fn delete(&self, room: &RoomId) -> Result<bool, EngineError> {
        let there = self.row(room)?.is_some();
        if there {
            self.commit(Batch { clear: true, ..Batch::new(room.clone(), Stored::default()) }).await?;
        }
        Ok(there)
    }

    /// About as many entries as all rooms have: more, if much was overwritten.
    pub fn entries_about(&self) -> usize {
        self.tables.entries.approximate_len()
    }

    /// Reads everything and compares: each block with its checksum, each room's size with its entries, alarms with rooms. `each` is
    /// called with each entry.
    pub fn verify(&self, mut each: impl FnMut()) -> Result<Verified, EngineError> {
        let snapshot = self.tables.store.snapshot();
        let mut found = Verified::default();
        let mut by_number = HashMap::<u64, (RoomId, u64)>::new();
        let mut logs = HashSet::new();
        let mut alarms = 0;
        for guard in snapshot.iter(&self.tables.rooms) {
            let (key, row) = guarded(|| guard.into_inner())?;
            match read(&key, &row) {
                Ok((room, row)) => {
                    found.rooms += 1;
                    alarms += usize::from(row.stored.alarm.is_some());
                    logs.extend((row.log != 0).then_some(row.log));
                    by_number.insert(row.number, (room, row.stored.bytes));
                }
                Err(error) => found.wrong(error),
            }
        }
        let garbage = snapshot.iter(&self.tables.garbage).map(|guard| guarded(|| guard.key())).collect::<Result<Vec<_>, _>>()?;
        for guard in snapshot.iter(&self.tables.entries) {
            let (key, value) = guarded(|| guard.into_inner())?;
            each();
            let Some((number, text)) = entry_of(&key) else {
                found.wrong("an entry's key is no text");
                continue;
            };
            let size = (text.len() + value.len()) as u64;
            match by_number.get_mut(&number) {
                Some((_, left)) => {
                    found.entries += 1;
                    found.bytes += size;
                    *left = left.wrapping_sub(size);
                }
                None if logs.contains(&number) => {}
                None if garbage.iter().any(|own| **own == number.to_be_bytes()) => {}
                None => found.wrong(format_args!("the entry {text:?} is of no room")),
            }
        }
        for (room, left) in by_number.values().filter(|(_, left)| *left != 0) {
            found.wrong(format_args!("the size of {room} is wrong by {} bytes", *left as i64));
        }
        let listed = snapshot.iter(&self.tables.alarms).count();
        if listed != alarms {
            found.wrong(format_args!("{listed} alarms are listed, and {alarms} rooms have one"));
        }
        Ok(found)
    }

    /// Gives back the space of what was overwritten and deleted. Takes as much again while it runs.
    pub fn compact(&self) -> Result<(), EngineError> {
        let Tables { rooms, entries, alarms, garbage, meta, .. } = &self.tables;
        [rooms, entries, alarms, garbage, meta].into_iter().try_for_each(|table| {
            guarded(|| {
                table.rotate_memtable_and_wait()?;
                table.major_compact()
            })
        })
    }

    /// Copies everything as it is at one moment, while commits go on, into a directory that is not there yet. `each` is called with
    /// each row: an entry, and a few more for each room.
    pub fn backup(&self, to: &Path, mut each: impl FnMut()) -> Result<(), OpenError> {
        if to.exists() {
            return Err(OpenError::new(to, Why::Exists));
        }
        let snapshot = self.tables.store.snapshot();
        let copy = Tables::open(to)?;
        let Tables { rooms, entries, alarms, garbage, meta, .. } = &self.tables;
        let tables = [(rooms, &copy.rooms), (entries, &copy.entries), (alarms, &copy.alarms), (garbage, &copy.garbage), (meta, &copy.meta)];
        let copied = guarded(|| {
            for (from, to) in tables {
                let mut write = copy.store.batch();
                for guard in snapshot.iter(from) {
                    let (key, value) = guard.into_inner()?;
                    write.insert(to, key, value);
                    each();
                    if write.len() >= COPY {
                        std::mem::replace(&mut write, copy.store.batch()).commit()?;
                    }
                }
                write.commit()?;
            }
            copy.store.persist(PersistMode::SyncAll)
        });
        copied.map_err(|error| OpenError::new(to, Why::Corrupt(error.to_string())))
    }
}

fn read(key: &[u8], row: &[u8]) -> Result<(RoomId, Row), EngineError> {
    let room = room_of(key).ok_or_else(|| EngineError::Corrupt("the name of a room can't be read".into()))?;
    let row = Row::decode(row).ok_or_else(|| EngineError::Corrupt(format!("what is kept of the room {room} can't be read")))?;
    Ok((room, row))
}
