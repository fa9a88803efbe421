//! The host's side of the interfaces that apps import, one file an interface.

pub(crate) mod topics;
pub(crate) mod websockets;

use crate::{
    bindings::tidegate::app::types::{self, LimitError, Message},
    state::State,
};
use bytes::Bytes;
use std::sync::Arc;
use tidegate_hub as hub;
use wasmtime::component::{HasSelf, Linker};

/// Answers `tidegate:app`'s imports.
pub(crate) fn add_to_linker(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    use crate::bindings::tidegate::app;
    app::types::add_to_linker::<_, HasSelf<State>>(linker, |state| state)?;
    app::websockets::add_to_linker::<_, HasSelf<State>>(linker, |state| state)?;
    app::topics::add_to_linker::<_, HasSelf<State>>(linker, |state| state)
}

impl types::Host for State {}

impl State {
    fn hub(&self) -> wasmtime::Result<&Arc<hub::Hub>> {
        self.hub.as_ref().ok_or_else(|| wasmtime::format_err!("an app can't reach connections or topics while it describes itself"))
    }
}

/// Takes the message's memory over.
fn message(message: Message) -> hub::Message {
    match message {
        Message::Text(text) => hub::Message::Text(text.into()),
        Message::Binary(bytes) => hub::Message::Binary(Bytes::from(bytes)),
    }
}

impl From<hub::LimitError> for LimitError {
    fn from(error: hub::LimitError) -> LimitError {
        match error {
            hub::LimitError::TooLarge => LimitError::TooLarge,
            hub::LimitError::TooMany => LimitError::TooMany,
            hub::LimitError::NotValid => LimitError::NotValid,
        }
    }
}
