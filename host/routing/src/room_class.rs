//! The name of a kind of room.

use std::fmt;

/// Maximum length of the name of a room class, in bytes.
pub const ROOM_CLASS_BYTES_MAX: usize = 64;

/// The name of a kind of room: 1 to 64 of `a` to `z`, `0` to `9`, `-` and `_`.
///
/// ```
/// use tidegate_routing::{BadRoomClass, RoomClass};
/// assert_eq!(RoomClass::parse("chat").unwrap().as_str(), "chat");
/// assert_eq!(RoomClass::parse("Chat"), Err(BadRoomClass::NotValid));
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RoomClass(String);

/// Reason why a text does not name a room class.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadRoomClass {
    /// The name is longer than [`ROOM_CLASS_BYTES_MAX`].
    TooLong,
    /// The name is empty, or has a character that is not allowed.
    NotValid,
}

impl RoomClass {
    /// Reads a name.
    pub fn parse(text: &str) -> Result<RoomClass, BadRoomClass> {
        RoomClass::check(text).map(|()| RoomClass(text.to_owned()))
    }

    /// Checks that [`parse`](RoomClass::parse) accepts this text, without a copy of it.
    pub fn check(text: &str) -> Result<(), BadRoomClass> {
        if text.len() > ROOM_CLASS_BYTES_MAX {
            return Err(BadRoomClass::TooLong);
        }
        if text.is_empty() || !text.bytes().all(is_allowed) {
            return Err(BadRoomClass::NotValid);
        }
        Ok(())
    }

    /// Returns the name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

fn is_allowed(byte: u8) -> bool {
    matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_')
}

impl fmt::Display for RoomClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for BadRoomClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            BadRoomClass::TooLong => "longer than 64 bytes",
            BadRoomClass::NotValid => "not 1 to 64 of a-z, 0-9, '-' and '_'",
        })
    }
}

impl std::error::Error for BadRoomClass {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_class_is_a_short_name_in_lower_case() {
        let longest = "c".repeat(ROOM_CLASS_BYTES_MAX);
        let too_long = "c".repeat(ROOM_CLASS_BYTES_MAX + 1);
        let cases = [
            ("chat", Ok(())),
            ("a-b_7", Ok(())),
            (&longest, Ok(())),
            (&too_long, Err(BadRoomClass::TooLong)),
            ("", Err(BadRoomClass::NotValid)),
            ("Chat", Err(BadRoomClass::NotValid)),
            ("a/b", Err(BadRoomClass::NotValid)),
            ("é", Err(BadRoomClass::NotValid)),
        ];
        for (text, expected) in cases {
            assert_eq!(RoomClass::check(text), expected, "{text:?}");
        }
    }
}
