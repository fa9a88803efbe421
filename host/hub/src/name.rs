//! Names that the host gives: what apps hold instead of the things themselves.

use crate::LimitError;
use std::{fmt, str::FromStr};

/// Names one connection or feed for its life; never used again, not after a restart either.
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
        let well_formed = text.len() == 16 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        let number = u64::from_str_radix(text, 16).ok().filter(|_| well_formed);
        number.map(ConnId).ok_or(LimitError::NotValid)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_other_text_is_an_id() {
        for text in ["", "7", "00000000000000zz", "+000000000000001", "000000000000000A", "00000000000000001"] {
            assert!(text.parse::<ConnId>().is_err(), "{text:?}");
        }
    }
}
