//! A form that a test sends.

use crate::{Field, Result};
use std::collections::VecDeque;

/// Its fields, each in pieces.
#[derive(Default)]
pub(crate) struct Form {
    pub(crate) json: Option<String>,
    pub(crate) fields: VecDeque<(Field, VecDeque<Vec<u8>>)>,
    pub(crate) current: VecDeque<Vec<u8>>,
}

impl Form {
    pub(crate) fn json(&self) -> Option<String> {
        self.json.clone()
    }

    pub(crate) async fn next(&mut self) -> Result<Option<Field>> {
        let Some((field, pieces)) = self.fields.pop_front() else {
            return Ok(None);
        };
        self.current = pieces;
        Ok(Some(field))
    }

    pub(crate) async fn read(&mut self) -> Result<Option<Vec<u8>>> {
        Ok(self.current.pop_front())
    }
}
