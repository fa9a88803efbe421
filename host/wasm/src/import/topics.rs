//! `tidegate:app/topics`: publications of an app.

use crate::{
    bindings::tidegate::app::{
        topics::{Host, Publication},
        types::LimitError,
    },
    state::State,
};
use tidegate_hub as hub;
use wasmtime::Result;

impl Host for State {
    fn publish(&mut self, topic: String, publication: Publication) -> Result<Result<u64, LimitError>> {
        let Publication { message, event, except } = publication;
        let except = match except.map(|id| id.parse()) {
            Some(Err(_)) => return Ok(Err(LimitError::NotValid)),
            except => except.and_then(Result::ok),
        };
        let publication = hub::Publication { event, except, ..hub::Publication::new(super::message(message)) };
        Ok(self.hub()?.publish(&topic, publication).map_err(Into::into))
    }
}
