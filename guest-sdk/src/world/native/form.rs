//! The form of an action, read from the host under test.

use crate::{Error, Field, Result};
use std::{
    pin::pin,
    task::{Context, Poll, Waker},
};
use tidegate_hub::page::{self, FormError, FormPiece};

pub(crate) struct Form(pub(crate) Box<dyn page::Form>);

impl Form {
    pub(crate) fn json(&self) -> Option<String> {
        self.0.json().map(str::to_owned)
    }

    pub(crate) async fn next(&mut self) -> Result<Option<Field>> {
        let field = take(self.0.next())?;
        Ok(field.map(|field| Field {
            name: field.name,
            filename: field.filename,
            content_type: field.content_type,
        }))
    }

    pub(crate) async fn read(&mut self) -> Result<Option<Vec<u8>>> {
        Ok(take(self.0.read())?.map(|piece| piece.to_vec()))
    }
}

/// Returns a piece of a form, which is in memory.
fn take<T>(piece: FormPiece<'_, T>) -> Result<Option<T>> {
    match pin!(piece).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(piece) => piece.map_err(error),
        Poll::Pending => unreachable!("a test's form is in memory"),
    }
}

fn error(error: FormError) -> Error {
    let status = match error {
        FormError::Broken => 400,
        FormError::TooLarge => 413,
        FormError::TooSlow => 408,
    };
    Error::status(status, error.to_string())
}
