//! The stored row of a room (everything but its entries), and the keys of the store.

use tidegate_hub::{Alarm, Position, RoomId, RoomRecord, rooms::storage::LogHead};

/// Numbers, size, alarm and history of one room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Row {
    /// Of its entries. Given when the room first wrote, and anew when it is cleared: what the old
    /// number has is garbage at once.
    pub(crate) number: u64,
    /// Of its log, if it has a history; else 0.
    pub(crate) log: u64,
    pub(crate) stored: RoomRecord,
}

/// Which parts a row has.
const ALARM: u8 = 1;
const HISTORY: u8 = 2;

impl Row {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let RoomRecord {
            bytes: size,
            alarm,
            history,
        } = self.stored;
        let parts =
            if alarm.is_some() { ALARM } else { 0 } | if history.is_some() { HISTORY } else { 0 };
        let mut bytes = Vec::with_capacity(61);
        bytes.push(parts);
        bytes.extend_from_slice(&self.number.to_be_bytes());
        bytes.extend_from_slice(&size.to_be_bytes());
        if let Some(Alarm { at, attempt }) = alarm {
            bytes.extend_from_slice(&at.to_be_bytes());
            bytes.extend_from_slice(&attempt.to_be_bytes());
        }
        if let Some(LogHead {
            position: Position { epoch, sequence },
            expires,
        }) = history
        {
            [self.log, epoch, sequence, expires]
                .iter()
                .for_each(|number| bytes.extend_from_slice(&number.to_be_bytes()));
        }
        bytes
    }

    /// None if it is not what `encode` made.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Row> {
        let (&parts, rest) = bytes.split_first()?;
        let (number, rest) = self::number(rest)?;
        let (bytes, mut rest) = self::number(rest)?;
        let mut row = Row {
            number,
            log: 0,
            stored: RoomRecord {
                bytes,
                ..RoomRecord::default()
            },
        };
        if parts & ALARM != 0 {
            let (at, behind) = self::number(rest)?;
            let (attempt, behind) = behind.split_first_chunk()?;
            row.stored.alarm = Some(Alarm {
                at,
                attempt: u32::from_be_bytes(*attempt),
            });
            rest = behind;
        }
        if parts & HISTORY != 0 {
            let mut next = || {
                let (number, behind) = self::number(rest)?;
                rest = behind;
                Some(number)
            };
            row.log = next()?;
            row.stored.history = Some(LogHead {
                position: Position {
                    epoch: next()?,
                    sequence: next()?,
                },
                expires: next()?,
            });
        }
        (rest.is_empty() && parts & !(ALARM | HISTORY) == 0).then_some(row)
    }
}

fn number(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let (head, rest) = bytes.split_first_chunk()?;
    Some((u64::from_be_bytes(*head), rest))
}

/// Class and name: neither has a NUL, so no two rooms have the same.
pub(crate) fn room_key(room: &RoomId) -> Vec<u8> {
    [room.class().as_bytes(), b"\0", room.name().as_bytes()].concat()
}

/// The room of a key; none if it is no such key.
pub(crate) fn room_of(key: &[u8]) -> Option<RoomId> {
    let (class, name) = std::str::from_utf8(key).ok()?.split_once('\0')?;
    RoomId::new(class, name).ok()
}

/// One room's entries are together, in the order of their keys.
pub(crate) fn entry_key(number: u64, key: &str) -> Vec<u8> {
    [&number.to_be_bytes()[..], key.as_bytes()].concat()
}

/// Returns the number of the entry's room, and the entry's key.
pub(crate) fn entry_of(key: &[u8]) -> Option<(u64, &str)> {
    let (number, key) = number(key)?;
    Some((number, std::str::from_utf8(key).ok()?))
}

/// A slot of a log, among entries that have the log's number.
pub(crate) fn slot_key(slot: u32) -> String {
    format!("{slot:08x}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_written_row_is_parsed() {
        let alarm = Some(Alarm {
            at: u64::MAX,
            attempt: 3,
        });
        let history = Some(LogHead {
            position: Position {
                epoch: 8,
                sequence: u64::MAX,
            },
            expires: 5,
        });
        for (alarm, history) in [
            (None, None),
            (alarm, None),
            (None, history),
            (alarm, history),
        ] {
            let log = if history.is_some() { 6 } else { 0 };
            let row = Row {
                number: 7,
                log,
                stored: RoomRecord {
                    bytes: 9,
                    alarm,
                    history,
                },
            };
            let bytes = row.encode();
            assert_eq!(Row::decode(&bytes), Some(row));
            assert!((0..bytes.len()).all(|cut| Row::decode(&bytes[..cut]).is_none()));
            assert_eq!(Row::decode(&[&bytes[..], b"x"].concat()), None);
        }
    }
}
