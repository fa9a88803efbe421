//! The entries of an outbox: everything that the host writes to one client, in the order in which it
//! was queued.

use crate::{limits::CLOSE_REASON_BYTES_MAX, message::Message, realtime::publication::Publication};
use bytes::Bytes;
use std::sync::Arc;

/// Maximum bytes of the payload of a control frame (RFC 6455 section 5.5). That of a close has a
/// code of two bytes and a reason.
pub(crate) const CONTROL_BYTES_MAX: usize = 2 + CLOSE_REASON_BYTES_MAX;

/// One thing to write to a client.
#[derive(Clone, Debug)]
pub enum Outgoing {
    /// A message to this client alone.
    Message(Message),
    /// A ping with this payload (RFC 6455 section 5.5.2).
    Ping(Bytes),
    /// A publication, shared with every follower of its topic.
    Publication(Arc<Publication>),
    /// The last entry: nothing is queued after it.
    Close(Close),
}

/// Content of a close frame (RFC 6455 section 7.4).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Close {
    /// Code from 1000 to 4999.
    pub code: u16,
    /// Reason of at most 123 bytes.
    pub reason: String,
}

impl Close {
    /// Returns a close with one of the protocol's own codes.
    pub fn new(code: u16, reason: &str) -> Close {
        Close {
            code,
            reason: reason.to_owned(),
        }
    }
}

impl Outgoing {
    /// Returns the message that the client receives, if it is one.
    pub fn message(&self) -> Option<&Message> {
        match self {
            Outgoing::Message(message) => Some(message),
            Outgoing::Publication(publication) => Some(&publication.message),
            Outgoing::Ping(_) | Outgoing::Close(_) => None,
        }
    }

    /// Returns the bytes of its payload; a close counts none.
    pub(crate) fn len(&self) -> usize {
        match self {
            Outgoing::Message(message) => message.len(),
            Outgoing::Ping(payload) => payload.len(),
            Outgoing::Publication(publication) => publication.message.len(),
            Outgoing::Close(_) => 0,
        }
    }

    /// Returns the maximum bytes of its payload, if a message has at most `message_bytes_max`.
    pub(crate) fn length_max(&self, message_bytes_max: usize) -> usize {
        match self {
            Outgoing::Message(_) | Outgoing::Publication(_) => message_bytes_max,
            Outgoing::Ping(_) | Outgoing::Close(_) => CONTROL_BYTES_MAX,
        }
    }

    /// Returns the bytes of its payload that do not count as memory of this outbox. The bytes of a
    /// large publication, which its followers share, are counted once where it was made.
    pub(crate) fn shared(&self) -> usize {
        match self {
            Outgoing::Publication(publication) => shared(publication.message.len()),
            _ => 0,
        }
    }
}

/// A publication with more bytes is counted once for all of its followers.
const SHARED_BYTES_MAX: usize = 4 << 10;

/// Returns the bytes of a publication of this length that its followers share.
pub(crate) fn shared(length: usize) -> usize {
    length.saturating_sub(SHARED_BYTES_MAX)
}
