//! The bound of a room's event: the weight of its writes and effects until the commit.

use crate::{
    budget::{Budget, Charge},
    limits::LimitError,
};
use std::sync::Arc;

/// The bound of the running event. Each of its writes and effects has a weight: the bytes of memory
/// that it takes until the commit. Their sum is at most `room_event_bytes_max`, and within the
/// budget of the process.
pub(crate) struct Allowance<'a> {
    /// Weight of the running event so far.
    pub(crate) weight: &'a mut usize,
    /// Weight of the events before it that are not committed.
    pub(crate) kept: usize,
    pub(crate) max: usize,
    pub(crate) budget: &'a Arc<Budget>,
    pub(crate) charge: &'a mut Charge,
}

impl Allowance<'_> {
    /// Adds `more` bytes to the event and removes `less`, which they replace.
    pub(crate) fn admit(&mut self, more: usize, less: usize) -> Result<(), LimitError> {
        let weight = *self.weight + more - less;
        if weight > self.max && more > less {
            return Err(LimitError::TooMany);
        }
        self.charge.fit(self.budget, self.kept + weight)?;
        *self.weight = weight;
        Ok(())
    }

    /// As [`admit`](Allowance::admit), for an effect of the host, which is never refused.
    pub(crate) fn force(&mut self, more: usize) {
        *self.weight += more;
        self.charge.force(self.budget, self.kept + *self.weight);
    }

    /// Returns true if this many more bytes would be admitted.
    pub(crate) fn has_room(&self, more: usize) -> bool {
        *self.weight + more <= self.max
    }
}
