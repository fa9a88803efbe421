//! Answers that need no app: one text is answered with another, and nobody wakes for it.

use crate::{
    limits::{AUTO_RESPONSE_BYTES_MAX, LimitError},
    message::Message,
};
use bytestring::ByteString;
use std::sync::{
    Mutex,
    atomic::{AtomicBool, Ordering},
};

/// Which text message is answered, and with what (WIT `websockets.set-auto-response`).
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
    /// Each has at most 2,048 bytes.
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

    /// Bytes of memory that it takes.
    pub(crate) fn weight(&self) -> usize {
        size_of::<AutoResponse>() + self.request.len() + self.response.len()
    }
}

/// The auto-response of some connections, shared by them: of all of a room's, or of all that are in none.
#[derive(Default)]
pub struct AutoResponder {
    /// Most have none: then a message costs no lock.
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

    /// Whether any message is answered.
    #[inline]
    pub(crate) fn is_set(&self) -> bool {
        self.is_set.load(Ordering::Acquire)
    }

    /// What answers this message; none if the app has to.
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
