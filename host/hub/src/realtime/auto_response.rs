//! Auto-responses: the host answers a fixed text with another one, without a call into the app.

use crate::{
    limits::{AUTO_RESPONSE_BYTES_MAX, LimitError},
    message::Message,
    name::RoomId,
};
use bytestring::ByteString;
use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, Weak,
        atomic::{AtomicBool, Ordering},
    },
};

/// A text message, and the text with which the host answers it (WIT
/// `websockets.set-auto-response`).
///
/// ```
/// use tidegate_hub::AutoResponse;
/// assert!(AutoResponse::new("ping", "pong").is_ok());
/// assert!(AutoResponse::new("ping", "x".repeat(2049)).is_err());
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AutoResponse {
    request: ByteString,
    response: ByteString,
}

impl AutoResponse {
    /// Returns an auto-response. Each text has at most 2,048 bytes.
    pub fn new(
        request: impl Into<ByteString>,
        response: impl Into<ByteString>,
    ) -> Result<AutoResponse, LimitError> {
        let (request, response) = (request.into(), response.into());
        match request.len().max(response.len()) <= AUTO_RESPONSE_BYTES_MAX {
            true => Ok(AutoResponse { request, response }),
            false => Err(LimitError::TooLarge),
        }
    }

    /// Returns the memory that it takes, in bytes.
    pub(crate) fn weight(&self) -> usize {
        size_of::<AutoResponse>() + self.request.len() + self.response.len()
    }
}

/// The auto-response of a group of connections: all of one room, or all that are in no room.
#[derive(Default)]
pub struct AutoResponder {
    /// Most groups have no auto-response: then a message costs no lock.
    is_set: AtomicBool,
    response: Mutex<Option<AutoResponse>>,
}

impl AutoResponder {
    pub(crate) fn set(&self, response: Option<AutoResponse>) {
        let mut current = self
            .response
            .lock()
            .expect("nothing panics while it holds an auto-response");
        self.is_set.store(response.is_some(), Ordering::Release);
        *current = response;
    }

    /// Returns true if there is an auto-response.
    #[inline]
    pub(crate) fn is_set(&self) -> bool {
        self.is_set.load(Ordering::Acquire)
    }

    /// Returns the answer to this message; none if the message is for the app.
    pub(crate) fn answer(&self, message: &Message) -> Option<Message> {
        let Message::Text(text) = message else {
            return None;
        };
        let current = self
            .response
            .lock()
            .expect("nothing panics while it holds an auto-response");
        let response = current
            .as_ref()
            .filter(|response| response.request == *text)?;
        Some(Message::Text(response.response.clone()))
    }
}

/// The auto-responses of rooms. Each lives as long as a connection of the room, or the awake room.
#[derive(Default)]
pub(crate) struct RoomAutoResponders(Mutex<HashMap<RoomId, Weak<AutoResponder>>>);

impl RoomAutoResponders {
    /// Returns the auto-response of this room.
    pub(crate) fn of(&self, room: &RoomId) -> Arc<AutoResponder> {
        let mut all = self
            .0
            .lock()
            .expect("nothing panics while it holds the auto-responses");
        if let Some(auto_responder) = all.get(room).and_then(Weak::upgrade) {
            return auto_responder;
        }
        if all.len() == all.capacity() {
            all.retain(|_, auto_responder| auto_responder.strong_count() > 0);
        }
        let auto_responder = Arc::<AutoResponder>::default();
        all.insert(room.clone(), Arc::downgrade(&auto_responder));
        auto_responder
    }
}
