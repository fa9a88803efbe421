//! A complete WebSocket message.

use crate::{Error, Result};
use serde::{Serialize, de::DeserializeOwned};

/// Text or binary (RFC 6455 section 5.6). Strings and bytes convert into messages.
///
/// # Examples
///
/// ```
/// use tidegate::{prelude::*, testing};
///
/// let double = async |conn: Conn, msg: Message| conn.send(msg.text()?.repeat(2));
/// let mut server = testing::serve(App::new().socket("/double", double));
/// let ann = server.connect("/double");
/// server.send(ann, "tick");
/// assert_eq!(server.received(ann), ["ticktick"]);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// UTF-8 text.
    Text(String),
    /// Any bytes.
    Binary(Vec<u8>),
}

impl Message {
    /// Returns the value as JSON in a text message. Fails if it has no JSON form (a map with keys
    /// that are not strings).
    ///
    /// # Errors
    ///
    /// A fault if the value is not one of JSON.
    pub fn from_json(value: &impl Serialize) -> Result<Message> {
        Ok(Message::Text(serde_json::to_string(value)?))
    }

    /// Returns the text. A binary message is the client's error.
    ///
    /// # Errors
    ///
    /// 400 for a binary message: a connection is closed with 1008.
    pub fn text(&self) -> Result<&str> {
        match self {
            Message::Text(text) => Ok(text),
            Message::Binary(_) => Err(Error::bad_request("a text message, please")),
        }
    }

    /// Returns the value that the message carries as JSON. An invalid value is the client's error.
    ///
    /// # Errors
    ///
    /// 400 if the message is not the JSON of a `T`: a connection is closed with 1008.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T> {
        serde_json::from_slice(self.bytes())
            .map_err(|error| Error::bad_request(format!("the message: {error}")))
    }

    /// Returns the payload of either kind.
    pub fn bytes(&self) -> &[u8] {
        match self {
            Message::Text(text) => text.as_bytes(),
            Message::Binary(bytes) => bytes,
        }
    }

    /// Returns the length of the payload in bytes.
    pub fn len(&self) -> usize {
        self.bytes().len()
    }

    /// Returns true if the payload is empty.
    pub fn is_empty(&self) -> bool {
        self.bytes().is_empty()
    }
}

impl From<String> for Message {
    fn from(text: String) -> Message {
        Message::Text(text)
    }
}

impl From<&str> for Message {
    fn from(text: &str) -> Message {
        Message::Text(text.to_owned())
    }
}

impl From<&String> for Message {
    fn from(text: &String) -> Message {
        Message::Text(text.clone())
    }
}

impl From<Vec<u8>> for Message {
    fn from(bytes: Vec<u8>) -> Message {
        Message::Binary(bytes)
    }
}

impl From<&[u8]> for Message {
    fn from(bytes: &[u8]) -> Message {
        Message::Binary(bytes.to_vec())
    }
}

impl<const N: usize> From<&[u8; N]> for Message {
    fn from(bytes: &[u8; N]) -> Message {
        Message::Binary(bytes.to_vec())
    }
}

/// Equal to a text message with this text.
impl PartialEq<&str> for Message {
    fn eq(&self, text: &&str) -> bool {
        matches!(self, Message::Text(own) if own == text)
    }
}

/// Equal to a text message with this text.
impl PartialEq<String> for Message {
    fn eq(&self, text: &String) -> bool {
        *self == text.as_str()
    }
}

/// Equal to a binary message with these bytes.
impl PartialEq<&[u8]> for Message {
    fn eq(&self, bytes: &&[u8]) -> bool {
        matches!(self, Message::Binary(own) if own == bytes)
    }
}

/// Equal to a binary message with these bytes.
impl<const N: usize> PartialEq<&[u8; N]> for Message {
    fn eq(&self, bytes: &&[u8; N]) -> bool {
        *self == bytes.as_slice()
    }
}
