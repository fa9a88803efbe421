//! `tidegate:app/topics`: publications of an app.

pub(crate) use crate::bindings::tidegate::app::topics::Publication;
use crate::{
    bindings::tidegate::app::{topics::Host, types::LimitError},
    state::State,
};
use tidegate_hub::{Effect, EffectOutcome};
use wasmtime::Result;

impl Host for State {
    fn publish(
        &mut self,
        topic: String,
        publication: Publication,
    ) -> Result<Result<u64, LimitError>> {
        match super::publication(publication) {
            Ok(publication) => {
                let published = self.perform(Effect::Publish(topic, publication))?;
                Ok(published.map(EffectOutcome::sequence))
            }
            Err(error) => Ok(Err(error.into())),
        }
    }
}
