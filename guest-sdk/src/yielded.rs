//! A value on its way from a loader or an action to the host: one at a time, taken before the next is made.

use crate::Result;
use serde::Serialize;
use std::{cell::RefCell, future::poll_fn, rc::Rc, task::Poll};

/// Where it waits; clones are the same place.
#[derive(Clone, Default)]
pub(crate) struct Yielded(Rc<RefCell<Option<String>>>);

impl Yielded {
    /// Gives a value away, as JSON, and is ready when the host wants the next.
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

    /// Takes the value that waits, if any.
    pub(crate) fn take(&self) -> Option<String> {
        self.0.borrow_mut().take()
    }
}
