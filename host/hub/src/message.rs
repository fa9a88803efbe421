//! One WebSocket message, shared without copying.

use bytes::Bytes;
use bytestring::ByteString;

/// Text or binary (RFC 6455 section 5.6). Cloning shares the bytes.
///
/// ```
/// use tidegate_hub::Message;
/// assert_eq!(Message::text("tide").len(), 4);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// UTF-8, which was checked when it was created.
    Text(ByteString),
    /// Any bytes.
    Binary(Bytes),
}

impl Message {
    /// Returns a text message.
    pub fn text(text: impl Into<ByteString>) -> Message {
        Message::Text(text.into())
    }

    /// Returns a binary message.
    pub fn binary(bytes: impl Into<Bytes>) -> Message {
        Message::Binary(bytes.into())
    }

    /// Returns the length of the payload in bytes.
    pub fn len(&self) -> usize {
        self.bytes().len()
    }

    /// Returns true if the payload is empty.
    pub fn is_empty(&self) -> bool {
        self.bytes().is_empty()
    }

    /// Returns the payload of either kind.
    pub fn bytes(&self) -> &Bytes {
        match self {
            Message::Text(text) => text.as_bytes(),
            Message::Binary(bytes) => bytes,
        }
    }
}
