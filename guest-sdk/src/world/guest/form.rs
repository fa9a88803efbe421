//! The form of an action, read from the host.

use crate::{
    Error, Field, Result,
    bindings::tidegate::app::forms::{self, FormError},
};

pub(crate) struct Form(pub(super) forms::Form);

impl Form {
    pub(crate) fn json(&self) -> Option<String> {
        self.0.json()
    }

    pub(crate) async fn next(&mut self) -> Result<Option<Field>> {
        let next = self.0.next().map_err(error)?;
        Ok(next.map(|field| Field {
            name: field.name,
            filename: field.filename,
            content_type: field.content_type,
        }))
    }

    pub(crate) async fn read(&mut self) -> Result<Option<Vec<u8>>> {
        self.0.read().map_err(error)
    }
}

fn error(error: FormError) -> Error {
    match error {
        FormError::Invalid => Error::bad_request("the form broke off, or is none"),
        FormError::TooLarge => Error::status(413, "the form is too large"),
        FormError::Timeout => Error::status(408, "the form took too long"),
    }
}
