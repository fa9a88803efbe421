//! `tidegate:app/topics`: publications of an app.

pub(crate) use crate::bindings::tidegate::app::topics::Publication;
use crate::{
    bindings::tidegate::app::{topics::Host, types::LimitError},
    state::State,
};
use wasmtime::Result;

impl Host for State {
    fn publish(
        &mut self,
        topic: String,
        publication: Publication,
    ) -> Result<Result<u64, LimitError>> {
        let scope = self.scope()?;
        let published = super::publication(publication)
            .and_then(|publication| scope.publish(&topic, publication));
        Ok(published.map_err(Into::into))
    }
}
