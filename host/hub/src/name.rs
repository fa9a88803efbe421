//! Names that the host gives to connections and rooms. Apps hold a name instead of the object.

use crate::limits::{LimitError, ROOM_NAME_BYTES_MAX};
use std::{fmt, str::FromStr, sync::Arc};
use tidegate_routing::{BadRoomClass, RoomClass};

/// Id of one connection or feed for its life. It is never used again, even after a restart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnId(pub(crate) u64);

impl fmt::Display for ConnId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl FromStr for ConnId {
    type Err = LimitError;

    fn from_str(text: &str) -> Result<ConnId, LimitError> {
        let well_formed =
            text.len() == 16 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        let number = u64::from_str_radix(text, 16).ok().filter(|_| well_formed);
        number.map(ConnId).ok_or(LimitError::NotValid)
    }
}

/// Id of one room: its class, and its name in that class. A clone shares the text.
///
/// ```
/// use tidegate_hub::RoomId;
/// let id = RoomId::new("chat", "tea").unwrap();
/// assert_eq!((id.class(), id.name(), id.to_string()), ("chat", "tea", "chat/tea".into()));
/// ```
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RoomId(Arc<(String, String)>);

impl RoomId {
    /// Returns the id. `class` is 1 to 64 of `a` to `z`, `0` to `9`, `-` and `_`. `name` has at
    /// most 256 bytes without control characters; it is empty for the only room of its class.
    pub fn new(class: &str, name: &str) -> Result<RoomId, LimitError> {
        RoomClass::check(class).map_err(|error| match error {
            BadRoomClass::TooLong => LimitError::TooLarge,
            BadRoomClass::NotValid => LimitError::NotValid,
        })?;
        if name.len() > ROOM_NAME_BYTES_MAX {
            return Err(LimitError::TooLarge);
        }
        if name.chars().any(char::is_control) {
            return Err(LimitError::NotValid);
        }
        Ok(RoomId(Arc::new((class.to_owned(), name.to_owned()))))
    }

    /// Returns an id that is before every room in their order, and names none.
    pub(crate) fn least() -> RoomId {
        RoomId(Arc::new((String::new(), String::new())))
    }

    /// Returns the room that these values of a route's parameters name. One value is the name;
    /// several are joined by `/`, with `/` and `%` in them percent-encoded, so that no two lists
    /// make one name.
    pub fn of_params<'a>(
        class: &str,
        params: impl ExactSizeIterator<Item = &'a str>,
    ) -> Result<RoomId, LimitError> {
        if params.len() == 1 {
            return params
                .map(|name| RoomId::new(class, name))
                .next()
                .expect("there is one");
        }
        let escaped: Vec<String> = params
            .map(|value| value.replace('%', "%25").replace('/', "%2F"))
            .collect();
        RoomId::new(class, &escaped.join("/"))
    }

    /// Returns the class of the room.
    pub fn class(&self) -> &str {
        &self.0.0
    }

    /// Returns the name in the class.
    pub fn name(&self) -> &str {
        &self.0.1
    }
}

impl fmt::Display for RoomId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.class(), self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_room_is_named_by_its_parameters_and_by_no_other_list_of_them() {
        let name = |params: &[&str]| {
            RoomId::of_params("chat", params.iter().copied()).map(|id| id.name().to_owned())
        };
        let long = "x".repeat(257);
        let cases: [(&[&str], Result<&str, LimitError>); 8] = [
            (&[], Ok("")),
            (&["tea"], Ok("tea")),
            (&["a/b"], Ok("a/b")),
            (&["a", "b"], Ok("a/b")),
            (&["a/b", "c"], Ok("a%2Fb/c")),
            (&["a", "b/c"], Ok("a/b%2Fc")),
            (&[&long], Err(LimitError::TooLarge)),
            (&["a\nb"], Err(LimitError::NotValid)),
        ];
        for (params, expected) in cases {
            assert_eq!(name(params), expected.map(str::to_owned), "{params:?}");
        }
        for (class, error) in [
            ("", LimitError::NotValid),
            ("Chat", LimitError::NotValid),
            (&*"c".repeat(65), LimitError::TooLarge),
        ] {
            assert_eq!(RoomId::new(class, "tea"), Err(error), "{class:?}");
        }
    }

    #[test]
    fn no_other_text_is_an_id() {
        for text in [
            "",
            "7",
            "00000000000000zz",
            "+000000000000001",
            "000000000000000A",
            "00000000000000001",
        ] {
            assert!(text.parse::<ConnId>().is_err(), "{text:?}");
        }
    }
}
