//! A value on its way from a loader or an action to the host. Each value is taken before the next
//! is made.

use crate::Result;
use serde::Serialize;
use std::{cell::RefCell, future::poll_fn, rc::Rc, task::Poll};

/// Place of the waiting value; clones share it.
#[derive(Clone, Default)]
pub(crate) struct ValueSlot(Rc<RefCell<Option<String>>>);

impl ValueSlot {
    /// Stores a value as JSON, and is ready when the host wants the next one.
    pub(crate) async fn give(&self, value: &(impl Serialize + ?Sized)) -> Result {
        *self.0.borrow_mut() = Some(serde_json::to_string(value)?);
        poll_fn(|_| {
            if self.0.borrow().is_some() {
                Poll::Pending
            } else {
                Poll::Ready(())
            }
        })
        .await;
        Ok(())
    }

    /// Takes the waiting value, if any.
    pub(crate) fn take(&self) -> Option<String> {
        self.0.borrow_mut().take()
    }
}
