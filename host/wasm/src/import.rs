//! The host's side of the interfaces that apps import, one file an interface.

mod clocks;
pub(crate) mod forms;
pub(crate) mod room;
pub(crate) mod rooms;
pub(crate) mod topics;
pub(crate) mod websockets;

use crate::{
    bindings::tidegate::app::types::{self, LimitError, Message, Position, StartPoint},
    state::State,
};
use bytes::Bytes;
use tidegate_hub::{self as hub, Effect, EffectError, EffectOutcome};
use wasmtime::component::{HasSelf, Linker};

/// Answers `tidegate:app`'s imports, and replaces the clocks of WASI; those of 0.3 if `concurrent`.
pub(crate) fn add_to_linker(linker: &mut Linker<State>, concurrent: bool) -> wasmtime::Result<()> {
    use crate::bindings::tidegate::app;
    clocks::add_to_linker(linker, concurrent)?;
    app::types::add_to_linker::<_, HasSelf<State>>(linker, |state| state)?;
    app::websockets::add_to_linker::<_, HasSelf<State>>(linker, |state| state)?;
    app::topics::add_to_linker::<_, HasSelf<State>>(linker, |state| state)?;
    app::room::add_to_linker::<_, HasSelf<State>>(linker, |state| state)?;
    app::rooms::add_to_linker::<_, HasSelf<State>>(linker, |state| state)?;
    app::forms::add_to_linker::<_, HasSelf<State>>(linker, |state| state)
}

impl types::Host for State {}

impl State {
    fn scope(&self) -> wasmtime::Result<&hub::Scope> {
        self.scope.as_ref().ok_or_else(|| {
            wasmtime::format_err!(
                "an app can't reach connections or topics while it describes itself"
            )
        })
    }

    /// Performs an effect of the event: at once, or when the event of a room is durable. `E` is the
    /// error of the interface that the guest called.
    fn perform<E: From<EffectError>>(
        &self,
        effect: Effect,
    ) -> wasmtime::Result<Result<EffectOutcome, E>> {
        Ok(self.scope()?.perform(effect).map_err(E::from))
    }
}

/// Converts a publication of the app to the hub's.
fn publication(publication: topics::Publication) -> Result<hub::Publication, hub::LimitError> {
    let topics::Publication {
        message,
        event,
        except,
        is_transient,
    } = publication;
    let except = except.map(|id| id.parse()).transpose()?;
    Ok(hub::Publication {
        event,
        except,
        transient: is_transient,
        ..hub::Publication::new(self::message(message))
    })
}

/// Takes the message's memory over.
fn message(message: Message) -> hub::Message {
    match message {
        Message::Text(text) => hub::Message::Text(text.into()),
        Message::Binary(bytes) => hub::Message::Binary(Bytes::from(bytes)),
    }
}

fn position(position: Position) -> hub::Position {
    hub::Position {
        epoch: position.epoch,
        sequence: position.sequence,
    }
}

impl From<hub::Position> for Position {
    fn from(position: hub::Position) -> Position {
        Position {
            epoch: position.epoch,
            sequence: position.sequence,
        }
    }
}

impl From<hub::StartPoint> for StartPoint {
    fn from(start: hub::StartPoint) -> StartPoint {
        StartPoint {
            position: start.position.into(),
            has_gap: start.has_gap,
        }
    }
}

impl From<hub::LimitError> for LimitError {
    fn from(error: hub::LimitError) -> LimitError {
        EffectError::from(error).into()
    }
}

impl From<EffectError> for LimitError {
    fn from(error: EffectError) -> LimitError {
        match error {
            EffectError::TooLarge => LimitError::TooLarge,
            EffectError::TooMany | EffectError::Full => LimitError::TooMany,
            EffectError::NotValid | EffectError::Closed => LimitError::Invalid,
        }
    }
}
