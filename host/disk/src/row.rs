//! What is kept of a room besides its entries, and the keys under which it is all found.

use tidegate_hub::{Alarm, RoomId, Stored};

/// Number, size and alarm of one room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Row {
    /// Given when the room first wrote, and anew when it is cleared: what the old number has is garbage at once.
    pub(crate) number: u64,
    pub(crate) stored: Stored,
}

impl Row {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(28);
        bytes.extend_from_slice(&self.number.to_be_bytes());
        bytes.extend_from_slice(&self.stored.bytes.to_be_bytes());
        if let Some(alarm) = self.stored.alarm {
            bytes.extend_from_slice(&alarm.at.to_be_bytes());
            bytes.extend_from_slice(&alarm.attempt.to_be_bytes());
        }
        bytes
    }

    /// None if it is not what `encode` made.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Row> {
        let (number, rest) = number(bytes)?;
        let (size, rest) = self::number(rest)?;
        let alarm = match rest {
            [] => None,
            rest => {
                let (at, attempt) = self::number(rest)?;
                Some(Alarm { at, attempt: u32::from_be_bytes(attempt.try_into().ok()?) })
            }
        };
        Some(Row { number, stored: Stored { bytes: size, alarm } })
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

/// Whose entry it is, and its key.
pub(crate) fn entry_of(key: &[u8]) -> Option<(u64, &str)> {
    let (number, key) = number(key)?;
    Some((number, std::str::from_utf8(key).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_read_as_it_was_written_and_nothing_else_is_one() {
        for alarm in [None, Some(Alarm { at: u64::MAX, attempt: 3 })] {
            let row = Row { number: 7, stored: Stored { bytes: 9, alarm } };
            let bytes = row.encode();
            assert_eq!(Row::decode(&bytes), Some(row));
            for cut in (0..bytes.len()).filter(|cut| *cut != 16) {
                assert_eq!(Row::decode(&bytes[..cut]), None, "{cut}");
            }
        }
    }
}
