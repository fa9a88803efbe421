//! Effects: the changes that the code of an app makes to connections and topics.
//!
//! An `Effect` is a value. The functions that an app calls make it: the imports of a component, and
//! the same functions of the SDK in native tests. `Scope::perform` decides when it happens. An
//! event of the app applies it at once; an event of a room stages it, and it happens when the event
//! is durable. So a kind of effect that is added here exists for both, in components and in tests.
//!
//! Each kind has its rules here: the checks of its values (`prepare`), the bytes of memory that it
//! takes while it is staged (`held_bytes`), the bytes that it adds to an outbox (`queued`), the way
//! it happens (`apply`), and the treatment of a refusal after the commit (`release`).
//!
//! Invariant: an effect that is refused has changed nothing.
//!
//! Left to others: the order of staged effects, and reads that see them, to `rooms::effects`. The
//! functions that only a room has, such as storage, alarm and broadcast, are methods of its
//! `Transaction`: an event of the app has no value for them.

use crate::{
    hub::Hub,
    limits::{LimitError, Limits},
    message::Message,
    name::RoomId,
    realtime::{
        auto_response::AutoResponse,
        connections::{Conn, check_close, check_tags},
        history::{Position, StartPoint},
        outbox::SendError,
        outgoing::{CONTROL_BYTES_MAX, Close, Outgoing},
        publication::Publication,
        topics::check_name,
    },
};
use bytes::Bytes;
use std::{fmt, sync::Arc};

/// A change that the code of an app makes. [`Scope::perform`](crate::Scope::perform) applies or
/// stages it.
pub enum Effect {
    /// Queues a message for the client.
    Send(Arc<Conn>, Message),
    /// Queues a ping with this payload (RFC 6455 section 5.5.2).
    Ping(Arc<Conn>, Bytes),
    /// Closes the connection after the entries of its outbox. Only the first close counts.
    Close(Arc<Conn>, Close),
    /// Replaces the app's own state for the connection.
    SetAttachment(Arc<Conn>, Bytes),
    /// Replaces the connection's tags.
    SetTags(Arc<Conn>, Vec<String>),
    /// Subscribes the connection to a topic, from a position on.
    Follow(Arc<Conn>, String, Option<Position>),
    /// Undoes [`Follow`](Effect::Follow).
    Unfollow(Arc<Conn>, String),
    /// Publishes to a topic.
    Publish(String, Publication),
    /// Sets the auto-response of the connections that are in no room, or of the room's.
    SetAutoResponse(Option<AutoResponse>),
}

/// Result of an effect that was applied or staged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EffectOutcome {
    /// There is nothing to report.
    Done,
    /// Number of the publication in its topic; 0 if it is transient or waits for a commit.
    Published(u64),
    /// Where the connection starts to follow the topic.
    Following(StartPoint),
}

impl EffectOutcome {
    /// Returns the number of the publication; 0 if it has none.
    pub fn sequence(self) -> u64 {
        match self {
            EffectOutcome::Published(sequence) => sequence,
            _ => 0,
        }
    }

    /// Returns where the connection starts to follow the topic.
    ///
    /// # Panics
    ///
    /// Panics if the effect was not a [`Follow`](Effect::Follow).
    pub fn start(self) -> StartPoint {
        match self {
            EffectOutcome::Following(start) => start,
            _ => panic!("only the outcome of a follow has a start"),
        }
    }
}

/// Why an effect was refused. Nothing was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EffectError {
    /// The client is leaving or gone.
    Closed,
    /// The outbox of the client is at its bound.
    Full,
    /// A value is longer than its limit.
    TooLarge,
    /// There would be more of them than the limit, or memory is short.
    TooMany,
    /// The protocol does not allow the value.
    NotValid,
}

impl fmt::Display for EffectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            EffectError::Closed => SendError::Closed.fmt(f),
            EffectError::Full => SendError::Full.fmt(f),
            EffectError::TooLarge => LimitError::TooLarge.fmt(f),
            EffectError::TooMany => LimitError::TooMany.fmt(f),
            EffectError::NotValid => LimitError::NotValid.fmt(f),
        }
    }
}

impl std::error::Error for EffectError {}

impl From<SendError> for EffectError {
    fn from(error: SendError) -> EffectError {
        match error {
            SendError::Closed => EffectError::Closed,
            SendError::Full => EffectError::Full,
            SendError::TooLarge => EffectError::TooLarge,
        }
    }
}

impl From<LimitError> for EffectError {
    fn from(error: LimitError) -> EffectError {
        match error {
            LimitError::TooLarge => EffectError::TooLarge,
            LimitError::TooMany => EffectError::TooMany,
            LimitError::NotValid => EffectError::NotValid,
        }
    }
}

impl Effect {
    /// Applies the effect of an event of the app.
    pub(crate) fn apply(self, hub: &Hub) -> Result<EffectOutcome, EffectError> {
        match self {
            Effect::Send(conn, message) => conn.send(message)?,
            Effect::Ping(conn, payload) => conn.outbox().queue(Outgoing::Ping(payload))?,
            Effect::Close(conn, close) => {
                check_close(close.code, &close.reason)?;
                conn.outbox().close(close);
            }
            Effect::SetAttachment(conn, value) => conn.set_attachment(value)?,
            Effect::SetTags(conn, tags) => conn.set_tags(tags)?,
            Effect::Follow(conn, topic, since) => {
                return Ok(EffectOutcome::Following(conn.follow(&topic, since)?));
            }
            Effect::Unfollow(conn, topic) => conn.unfollow(&topic),
            Effect::Publish(topic, publication) => {
                return Ok(EffectOutcome::Published(hub.publish(&topic, publication)?));
            }
            Effect::SetAutoResponse(response) => hub.connections().set_auto_response(response),
        }
        Ok(EffectOutcome::Done)
    }

    /// Checks the values of an effect that a room's event stages, and returns its outcome. Limits
    /// that depend on the state of a connection are left to the room.
    pub(crate) fn prepare(&mut self, hub: &Hub) -> Result<EffectOutcome, EffectError> {
        let limits = hub.limits();
        match self {
            Effect::Send(_, message) => check_length(message.len(), limits.message_bytes_max)?,
            Effect::Ping(_, payload) => check_length(payload.len(), CONTROL_BYTES_MAX)?,
            Effect::Close(_, close) => check_close(close.code, &close.reason)?,
            Effect::SetAttachment(_, value) => {
                check_length(value.len(), limits.attachment_bytes_max)?;
            }
            Effect::SetTags(_, tags) => check_tags(tags, limits)?,
            Effect::Follow(_, topic, since) => {
                let start = hub.check_follow(topic, *since)?;
                // Publications from here to the commit belong to the subscription. The connection's
                // limit of topics is checked at the release, because its topics are not known
                // before.
                *since = Some(start.position);
                return Ok(EffectOutcome::Following(start));
            }
            Effect::Publish(topic, publication) => {
                check_name(topic, limits)?;
                publication.check(limits)?;
                return Ok(EffectOutcome::Published(0));
            }
            Effect::Unfollow(..) | Effect::SetAutoResponse(_) => {}
        }
        Ok(EffectOutcome::Done)
    }

    /// Returns true if it changes nothing in any state.
    pub(crate) fn is_void(&self, limits: &Limits) -> bool {
        // No connection follows a topic of such a name.
        matches!(self, Effect::Unfollow(_, topic) if check_name(topic, limits).is_err())
    }

    /// Returns the bytes of memory that it holds beside its record.
    pub(crate) fn held_bytes(&self) -> usize {
        match self {
            Effect::Send(_, message) => message.len(),
            Effect::Close(_, close) => close.reason.len(),
            Effect::Ping(_, bytes) | Effect::SetAttachment(_, bytes) => bytes.len(),
            Effect::SetTags(_, tags) => tags_bytes(tags),
            Effect::Follow(_, topic, _) | Effect::Unfollow(_, topic) => topic.len(),
            Effect::Publish(topic, publication) => topic.len() + publication.weight(),
            Effect::SetAutoResponse(response) => response.as_ref().map_or(0, AutoResponse::weight),
        }
    }

    /// Returns the connection to whose outbox it adds an entry, and the bytes of the entry. There
    /// must be room for it when it is staged.
    pub(crate) fn queued(&self) -> Option<(&Arc<Conn>, usize)> {
        match self {
            Effect::Send(conn, message) => Some((conn, message.len())),
            Effect::Ping(conn, payload) => Some((conn, payload.len())),
            _ => None,
        }
    }

    /// Applies a staged effect, whose event is durable. It was admitted when it was staged, and
    /// cannot be undone. If it is refused now, its connection is closed, because the client must
    /// not miss a part without notice.
    pub(crate) fn release(self, hub: &Hub, room: &RoomId) {
        match self {
            Effect::Send(conn, message) => close_if_full(&conn, conn.send(message)),
            // A client misses nothing without it.
            Effect::Ping(conn, payload) => _ = conn.outbox().queue(Outgoing::Ping(payload)),
            Effect::Close(conn, close) => conn.outbox().close(close),
            Effect::SetAttachment(conn, value) => {
                close_if_short(&conn, conn.set_attachment(value));
            }
            Effect::SetTags(conn, tags) => close_if_short(&conn, conn.set_tags(tags)),
            Effect::Follow(conn, topic, from) => match conn.follow(&topic, from) {
                Ok(start) if start.has_gap => {
                    close(&conn, 1013, "too slow for what it follows");
                }
                Ok(_) => {}
                Err(_) => close(&conn, 1011, "it follows too many topics"),
            },
            Effect::Unfollow(conn, topic) => conn.unfollow(&topic),
            Effect::Publish(topic, mut publication) => {
                // It was admitted with the event, so a shortage of memory cannot undo it now.
                let weight = publication.weight();
                publication.charge.force(hub.budget(), weight);
                // Fails only if there are too many topics: then the topic has no followers.
                _ = hub.publish(&topic, publication);
            }
            Effect::SetAutoResponse(response) => {
                hub.connections().auto_responder_of(room).set(response);
            }
        }
    }
}

/// Returns the bytes of memory that tags take.
pub(crate) fn tags_bytes(tags: &[String]) -> usize {
    tags.iter().map(|tag| size_of::<String>() + tag.len()).sum()
}

fn check_length(length: usize, max: usize) -> Result<(), LimitError> {
    if length > max {
        Err(LimitError::TooLarge)
    } else {
        Ok(())
    }
}

/// Publications of others have taken the room of the entry in the meantime.
fn close_if_full(conn: &Conn, sent: Result<(), SendError>) {
    if sent == Err(SendError::Full) {
        close(conn, 1013, "too slow for what it is sent");
    }
}

/// The value was checked when it was staged, so a refusal means that memory is short.
fn close_if_short(conn: &Conn, set: Result<(), LimitError>) {
    if set.is_err() {
        close(conn, 1013, "the server is short of memory");
    }
}

fn close(conn: &Conn, code: u16, reason: &str) {
    conn.outbox().close(Close::new(code, reason));
}

#[cfg(test)]
mod tests;
