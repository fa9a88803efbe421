//! `tidegate:app/forms`: the form of the action that runs, as it comes from the client.

use crate::{
    bindings::tidegate::app::forms::{Field, FormError, Host, HostForm},
    form::FormResource,
    state::State,
};
use tidegate_hub::page;
use wasmtime::{Result, component::Resource};

impl Host for State {}

impl HostForm for State {
    fn json(&mut self, form: Resource<FormResource>) -> Result<Option<String>> {
        Ok(self.table.get(&form)?.0.json().map(str::to_owned))
    }

    async fn next(
        &mut self,
        form: Resource<FormResource>,
    ) -> Result<Result<Option<Field>, FormError>> {
        let next = self.table.get_mut(&form)?.0.next().await;
        let field = |page::Field {
                         name,
                         filename,
                         content_type,
                     }| Field {
            name,
            filename,
            content_type,
        };
        Ok(next.map(|next| next.map(field)).map_err(Into::into))
    }

    async fn read(
        &mut self,
        form: Resource<FormResource>,
    ) -> Result<Result<Option<Vec<u8>>, FormError>> {
        let piece = self.table.get_mut(&form)?.0.read().await;
        Ok(piece.map(|piece| piece.map(Into::into)).map_err(Into::into))
    }

    fn drop(&mut self, form: Resource<FormResource>) -> Result<()> {
        self.table.delete(form)?;
        Ok(())
    }
}

impl From<page::FormError> for FormError {
    fn from(error: page::FormError) -> FormError {
        match error {
            page::FormError::Broken => FormError::Invalid,
            page::FormError::TooLarge => FormError::TooLarge,
            page::FormError::TooSlow => FormError::Timeout,
        }
    }
}
