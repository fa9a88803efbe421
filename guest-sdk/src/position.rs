//! Positions in topics, for clients that reconnect.

use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};

/// A position in a topic: after the publication with this sequence number. Its text form, also in
/// JSON, is `<epoch>-<sequence>` with the epoch in hexadecimal: the id of an event on a feed.
///
/// # Examples
///
/// ```
/// use tidegate::Position;
/// let position: Position = "a-3".parse().unwrap();
/// assert_eq!(position, Position { epoch: 10, sequence: 3 });
/// assert_eq!(serde_json::to_string(&position).unwrap(), "\"a-3\"");
/// assert!("3".parse::<Position>().is_err());
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Position {
    /// Identifies one numbering of one topic. A topic that lost its history starts a new epoch.
    pub epoch: u64,
    /// Sequence number of a publication, from 1; 0 is before the first.
    pub sequence: u64,
}

/// Where a connection starts to follow a topic (WIT `types.start-point`): returned by
/// [`Conn::follow_since`](crate::Conn::follow_since) and [`Cx::resume`](crate::Cx::resume).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StartPoint {
    /// The connection receives the publications after this position: first those it missed, then
    /// new ones.
    pub position: Position,
    /// True if the history no longer has all publications since the requested position, or they do
    /// not fit into the outbox: the client has to read the current state.
    pub has_gap: bool,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}-{}", self.epoch, self.sequence)
    }
}

impl FromStr for Position {
    type Err = Error;

    fn from_str(text: &str) -> Result<Position> {
        let parse = || {
            let (epoch, sequence) = text.split_once('-')?;
            Some(Position {
                epoch: u64::from_str_radix(epoch, 16).ok()?,
                sequence: sequence.parse().ok()?,
            })
        };
        parse().ok_or_else(|| Error::bad_request("a position is of the form <epoch>-<sequence>"))
    }
}

impl TryFrom<String> for Position {
    type Error = Error;

    fn try_from(text: String) -> Result<Position> {
        text.parse()
    }
}

impl From<Position> for String {
    fn from(position: Position) -> String {
        position.to_string()
    }
}
