//! The reservation of one owner.

use super::{Budget, MemoryKind, OutOfMemory, percent};
use std::sync::Arc;

/// Percent of `memory_max` that HTTP connections have, even if all else is reserved: a client that
/// opens a few of them is served while others hold the rest.
const SOCKETS_PERCENT: usize = 10;

/// Reservation of one owner. It is empty while the owner stays within the free amount of its kind.
/// Dropping it gives it back.
#[derive(Debug)]
pub struct Charge {
    pub(super) kind: MemoryKind,
    pub(super) bytes: usize,
    /// The budget; none until something is reserved.
    budget: Option<Arc<Budget>>,
}

impl Charge {
    /// Returns an empty reservation.
    pub const fn new(kind: MemoryKind) -> Charge {
        Charge {
            kind,
            bytes: 0,
            budget: None,
        }
    }

    /// Returns the bytes that are reserved.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Sets the bytes of the owner. If they are refused, it keeps the reservation that it had.
    #[inline]
    pub fn fit(&mut self, budget: &Arc<Budget>, bytes: usize) -> Result<(), OutOfMemory> {
        if self.is_free(bytes) {
            Ok(())
        } else {
            self.reserve(budget, bytes)
        }
    }

    /// Returns true if this many bytes are free and nothing is reserved: the common case.
    #[inline]
    pub(crate) fn is_free(&self, bytes: usize) -> bool {
        self.bytes == 0 && bytes <= self.kind.free()
    }

    fn reserve(&mut self, budget: &Arc<Budget>, bytes: usize) -> Result<(), OutOfMemory> {
        if self.is_close(bytes) {
            return Ok(());
        }
        let wanted = self.kind.reservation(bytes);
        match wanted.checked_sub(self.bytes) {
            Some(more) => budget.reserve(self.kind, more)?,
            None => budget.give_back(self.kind, self.bytes - wanted),
        }
        self.set(budget, wanted);
        Ok(())
    }

    /// As [`fit`](Charge::fit), for an HTTP connection that is opened: it is never refused while
    /// all of them together have little.
    pub fn admit(&mut self, budget: &Arc<Budget>, bytes: usize) -> Result<(), OutOfMemory> {
        let all = budget.reserved_for(self.kind).saturating_add(bytes);
        if all <= percent(budget.bytes_max, SOCKETS_PERCENT) {
            self.force(budget, bytes);
            Ok(())
        } else {
            self.fit(budget, bytes)
        }
    }

    /// As [`fit`](Charge::fit), for memory that was admitted already.
    pub fn force(&mut self, budget: &Arc<Budget>, bytes: usize) {
        if self.fit(budget, bytes).is_err() {
            let wanted = self.kind.reservation(bytes);
            budget.add(self.kind, wanted - self.bytes);
            self.set(budget, wanted);
        }
    }

    fn set(&mut self, budget: &Arc<Budget>, bytes: usize) {
        self.bytes = bytes;
        self.budget.get_or_insert_with(|| budget.clone());
    }

    /// Returns true if the reservation is close enough, so that an owner whose bytes vary a little
    /// reserves nothing.
    fn is_close(&self, bytes: usize) -> bool {
        bytes <= self.bytes
            && bytes > self.kind.free()
            && self.bytes - bytes <= 2 * self.kind.chunk()
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        if let Some(budget) = &self.budget {
            budget.give_back(self.kind, self.bytes);
        }
    }
}
