//! The history of a topic: its latest publications, so that a client that comes back misses nothing
//! or learns that there is a gap.
//!
//! A topic owns one `History` in memory. A room keeps its history in its storage instead, by
//! `encode` and `decode`, because it has to outlast the process.
//!
//! A client names its place by a `Position`: the epoch of the topic and the number of the last
//! publication that it has. The epoch changes when the numbers begin again, so a position of an
//! earlier run matches nothing.
//!
//! Invariant: a client that resumes gets either every publication after its position, or a gap is
//! reported to it. `resume` compares the number of kept publications with the number of missed
//! ones, so a client never gets a part of them without notice.
//!
//! Bounds are count, age and length of each message, and the bytes of all topics together. The
//! module reads no clock and delivers nothing: `topics` passes the time and sends the publications.

use crate::{
    limits::{LimitError, Limits},
    message::Message,
    realtime::publication::Publication,
};
use bytes::Bytes;
use std::{
    collections::VecDeque,
    fmt,
    str::FromStr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

/// A place in a topic: after the publication with this number. Its text is `<epoch>-<sequence>`
/// with the epoch in hex: the id of an event on an event stream.
///
/// ```
/// use tidegate_hub::Position;
/// let position: Position = "a-3".parse().unwrap();
/// assert_eq!((position.epoch, position.sequence, position.to_string()), (10, 3, "a-3".to_owned()));
/// assert!("3".parse::<Position>().is_err());
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// Distinguishes the numbers of this topic from those of other topics, and from earlier ones of
    /// the same name.
    pub epoch: u64,
    /// Number of a publication, from 1; 0 is before the first.
    pub sequence: u64,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}-{}", self.epoch, self.sequence)
    }
}

impl FromStr for Position {
    type Err = LimitError;

    fn from_str(text: &str) -> Result<Position, LimitError> {
        let parse = || {
            let (epoch, sequence) = text.split_once('-')?;
            Some(Position {
                epoch: u64::from_str_radix(epoch, 16).ok()?,
                sequence: sequence.parse().ok()?,
            })
        };
        parse().ok_or(LimitError::NotValid)
    }
}

/// The position of a client in each topic that it follows. As the id of an event it is a list with
/// commas.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Positions(pub Vec<Position>);

impl Positions {
    /// Reads the positions in an id. A position that is not ours is in no topic: its client gets a
    /// gap.
    pub fn parse(id: &str) -> Positions {
        Positions(
            id.split(',')
                .filter_map(|position| position.parse().ok())
                .collect(),
        )
    }

    /// Returns the position in the topic that is now at `here`. A client without one may have
    /// missed anything.
    pub(crate) fn within(&self, here: Position) -> Position {
        let nowhere = Position {
            epoch: here.epoch.wrapping_add(1),
            sequence: 0,
        };
        self.0
            .iter()
            .copied()
            .find(|position| position.epoch == here.epoch)
            .unwrap_or(nowhere)
    }

    /// Moves on to this publication, which has been sent.
    pub fn advance(&mut self, publication: &Publication) {
        let Publication {
            epoch, sequence, ..
        } = *publication;
        match self.0.iter_mut().find(|position| position.epoch == epoch) {
            Some(position) => position.sequence = sequence,
            None => self.0.push(Position { epoch, sequence }),
        }
    }
}

impl fmt::Display for Positions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        self.0.iter().try_for_each(|position| {
            write!(f, "{}{position}", std::mem::replace(&mut separator, ","))
        })
    }
}

/// The point at which a subscription begins (WIT `types.followed`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StartPoint {
    /// The position; all later publications will be sent.
    pub position: Position,
    /// True if publications between the client's position and `position` are gone.
    pub has_gap: bool,
}

/// Consecutive publications that were kept.
pub(crate) type Replay = Vec<Arc<Publication>>;

/// Returns the start of a subscription, and the publications to send to a client that has
/// everything up to `since`, now that the topic is at `now`.
pub(crate) fn resume(
    since: Option<Position>,
    now: Position,
    kept: impl FnOnce(u64) -> Replay,
) -> (StartPoint, Replay) {
    let fresh = |has_gap| {
        (
            StartPoint {
                position: now,
                has_gap,
            },
            Replay::new(),
        )
    };
    let Some(since) = since else {
        return fresh(false);
    };
    let Some(missed) = now
        .sequence
        .checked_sub(since.sequence)
        .filter(|_| since.epoch == now.epoch)
    else {
        return fresh(true);
    };
    let kept = if missed == 0 {
        Replay::new()
    } else {
        kept(since.sequence)
    };
    match kept.len() as u64 == missed {
        true => (
            StartPoint {
                position: since,
                has_gap: false,
            },
            kept,
        ),
        false => fresh(true),
    }
}

/// The latest publications of a topic in memory, within the limits for count and age, and for the
/// bytes of all topics together.
pub(crate) struct History {
    /// Each with the time at which it was published.
    kept: VecDeque<(u64, Arc<Publication>)>,
    bytes: Arc<AtomicUsize>,
}

impl History {
    /// `bytes` is the counter of the bytes that all topics keep.
    pub(crate) fn new(bytes: Arc<AtomicUsize>) -> History {
        History {
            kept: VecDeque::new(),
            bytes,
        }
    }

    pub(crate) fn push(&mut self, publication: &Arc<Publication>, now: u64, limits: &Limits) {
        let (length, weight) = (publication.message.len(), weight(publication));
        let fits = |bytes: usize| bytes + weight <= limits.history_bytes_max;
        while self.kept.len() >= limits.history_messages_max
            || !fits(self.bytes.load(Ordering::Relaxed))
        {
            if !self.pop() {
                return;
            }
        }
        if length <= limits.history_message_bytes_max {
            self.bytes.fetch_add(weight, Ordering::Relaxed);
            self.kept.push_back((now, publication.clone()));
        }
    }

    /// Removes the publications that are too old. Returns true if any are left.
    pub(crate) fn expire(&mut self, now: u64, limits: &Limits) -> bool {
        while self
            .kept
            .front()
            .is_some_and(|(at, _)| is_old(*at, now, limits))
        {
            self.pop();
        }
        if self.kept.is_empty() {
            self.kept = VecDeque::new();
        }
        !self.kept.is_empty()
    }

    /// Removes all publications.
    pub(crate) fn clear(&mut self) {
        while self.pop() {}
        self.kept = VecDeque::new();
    }

    /// Returns the publications after this number.
    pub(crate) fn after(&self, sequence: u64) -> Replay {
        self.kept
            .iter()
            .map(|(_, publication)| publication)
            .filter(|publication| publication.sequence > sequence)
            .cloned()
            .collect()
    }

    fn pop(&mut self) -> bool {
        let popped = self.kept.pop_front();
        popped
            .inspect(|(_, publication)| {
                _ = self.bytes.fetch_sub(weight(publication), Ordering::Relaxed)
            })
            .is_some()
    }
}

impl Drop for History {
    fn drop(&mut self) {
        self.clear();
    }
}

/// Returns the bytes that a publication counts in a history. An empty one takes memory too.
fn weight(publication: &Publication) -> usize {
    size_of::<(u64, Arc<Publication>)>() + publication.weight()
}

fn is_old(at: u64, now: u64, limits: &Limits) -> bool {
    at.saturating_add(limits.history_age_max.as_millis() as u64) <= now
}

/// Returns a room's publication as its storage keeps it; none if publications like it are not kept.
pub(crate) fn encode(publication: &Publication, now: u64, limits: &Limits) -> Option<Bytes> {
    if publication.sequence == 0 || publication.message.len() > limits.history_message_bytes_max {
        return None;
    }
    let event = publication.event.as_deref().unwrap_or_default();
    let kind = u8::from(matches!(publication.message, Message::Text(_)))
        | u8::from(publication.event.is_some()) << 1;
    let mut bytes = Vec::with_capacity(21 + event.len() + publication.message.len());
    bytes.extend_from_slice(&now.to_be_bytes());
    bytes.extend_from_slice(&publication.sequence.to_be_bytes());
    bytes.push(kind);
    bytes.extend_from_slice(&(event.len() as u32).to_be_bytes());
    bytes.extend_from_slice(event.as_bytes());
    bytes.extend_from_slice(publication.message.bytes());
    Some(bytes.into())
}

/// Reads a publication that [`encode`] wrote, and gives it this epoch. Returns none if it is too
/// old.
pub(crate) fn decode(
    bytes: &Bytes,
    epoch: u64,
    now: u64,
    limits: &Limits,
) -> Option<Arc<Publication>> {
    let (at, rest) = bytes.split_first_chunk()?;
    let (sequence, rest) = rest.split_first_chunk()?;
    let ([kind], rest) = rest.split_first_chunk()?;
    let (length, rest) = rest.split_first_chunk()?;
    let (event, payload) = rest.split_at_checked(u32::from_be_bytes(*length) as usize)?;
    if is_old(u64::from_be_bytes(*at), now, limits) {
        return None;
    }
    let payload = bytes.slice_ref(payload);
    let message = match kind & 1 {
        1 => Message::Text(payload.try_into().ok()?),
        _ => Message::Binary(payload),
    };
    let event = if kind & 2 == 2 {
        Some(std::str::from_utf8(event).ok()?.to_owned())
    } else {
        None
    };
    Some(Arc::new(Publication {
        event,
        epoch,
        sequence: u64::from_be_bytes(*sequence),
        ..Publication::new(message)
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn limits() -> Limits {
        Limits {
            history_messages_max: 3,
            history_age_max: Duration::from_millis(100),
            history_bytes_max: 3 * RECORD + 10,
            history_message_bytes_max: 5,
            ..Limits::default()
        }
    }

    /// Number of bytes that an empty publication counts.
    const RECORD: usize = size_of::<(u64, Arc<Publication>)>() + size_of::<Publication>();

    fn publication(sequence: u64, text: &str) -> Arc<Publication> {
        Arc::new(Publication {
            epoch: 7,
            sequence,
            ..Publication::new(Message::text(text.to_owned()))
        })
    }

    fn at(sequence: u64) -> Position {
        Position { epoch: 7, sequence }
    }

    #[test]
    fn a_position_is_read_as_it_is_written_and_other_text_is_skipped() {
        let id = Positions(vec![
            at(0),
            Position {
                epoch: u64::MAX,
                sequence: u64::MAX,
            },
        ])
        .to_string();
        assert_eq!(id, "7-0,ffffffffffffffff-18446744073709551615");
        assert_eq!(Positions::parse(&id).to_string(), id);
        for (id, count) in [
            ("", 0),
            ("7", 0),
            ("x-1", 0),
            ("7-", 0),
            ("-7", 0),
            ("7-1,", 1),
            ("x,7-1", 1),
            ("7-1-1", 0),
        ] {
            assert_eq!(Positions::parse(id).0.len(), count, "{id:?}");
        }
    }

    #[test]
    fn a_returning_follower_gets_the_missed_publications_or_a_gap() {
        let mut history = History::new(Arc::default());
        for sequence in 1..=5 {
            history.push(&publication(sequence, "x"), 0, &limits());
        }
        let cases = [
            (None, at(5), false, 0),
            (Some(at(5)), at(5), false, 0),
            (Some(at(4)), at(4), false, 1),
            (Some(at(2)), at(2), false, 3),
            (Some(at(1)), at(5), true, 0),
            (Some(at(6)), at(5), true, 0),
            (
                Some(Position {
                    epoch: 8,
                    sequence: 5,
                }),
                at(5),
                true,
                0,
            ),
        ];
        for (since, position, has_gap, missed) in cases {
            let (start, got) = resume(since, at(5), |sequence| history.after(sequence));
            assert_eq!(
                (start, got.len()),
                (StartPoint { position, has_gap }, missed),
                "{since:?}"
            );
        }
    }

    #[test]
    fn count_age_and_bytes_are_bounded_and_the_oldest_goes_first() {
        let (total, limits) = (Arc::<AtomicUsize>::default(), limits());
        let mut history = History::new(total.clone());
        let mut other = History::new(total.clone());
        for (sequence, text) in [(1, "1234"), (2, "1234"), (3, "12")] {
            history.push(&publication(sequence, text), sequence, &limits);
        }
        assert_eq!(
            (history.after(0).len(), total.load(Ordering::Relaxed)),
            (3, 3 * RECORD + 10)
        );
        other.push(&publication(1, "x"), 0, &limits);
        assert_eq!(
            other.after(0).len(),
            0,
            "nothing of another topic gives way"
        );
        history.push(&publication(4, "123"), 4, &limits);
        assert_eq!(
            (history.after(0).len(), total.load(Ordering::Relaxed)),
            (3, 3 * RECORD + 9)
        );
        history.push(&publication(5, "123456"), 5, &limits);
        assert_eq!(
            history.after(0).last().unwrap().sequence,
            4,
            "it is too large to be kept"
        );
        assert!(history.expire(103, &limits) && !history.expire(104, &limits));
        assert_eq!(total.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn a_publication_is_read_as_it_was_kept_until_it_is_too_old() {
        let limits = limits();
        for (message, event) in [
            (Message::text("tea"), Some("")),
            (Message::binary(vec![255]), Some("cup")),
            (Message::text(""), None),
        ] {
            let sent = Publication {
                sequence: 3,
                event: event.map(str::to_owned),
                ..Publication::new(message)
            };
            let bytes = encode(&sent, 50, &limits).unwrap();
            let got = decode(&bytes, 7, 149, &limits).unwrap();
            assert_eq!(
                (&got.message, &got.event, got.epoch, got.sequence),
                (&sent.message, &sent.event, 7, 3)
            );
            assert!(decode(&bytes, 7, 150, &limits).is_none(), "it is too old");
            assert!(
                (0..21 + event.map_or(0, str::len)).all(|cut| decode(
                    &bytes.slice(..cut),
                    7,
                    0,
                    &limits
                )
                .is_none())
            );
        }
        let large = Publication {
            sequence: 1,
            ..Publication::new(Message::text("123456"))
        };
        assert!(
            encode(&large, 0, &limits).is_none()
                && encode(&Publication::new(Message::text("")), 0, &limits).is_none()
        );
    }
}
