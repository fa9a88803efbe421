//! The memory of the process as one account, with a bound (`memory_max`).
//!
//! The process owns one [`Budget`]. It reports the memory that it measures, sheds memory, and
//! decides when to look again: nothing here has a clock or does I/O.
//!
//! Two figures decide. *Reserved* bytes are those that the parts of the server reserve before they
//! allocate them. *Measured* bytes are the anonymous memory of the process, which its owner reports
//! by [`look`](Budget::look). Measured bytes beyond the reserved ones are *uncounted* (allocator,
//! stacks, the store, small amounts), and reduce the bytes that may be reserved.
//!
//! Invariant: a reservation that would exceed the budget is refused, so the counted memory stays
//! within it, however fast it is requested. Only memory that was admitted already is counted in any
//! case.
//!
//! Small amounts are not reserved. Each [`MemoryKind`] has an amount that is free for each of its
//! owners; beyond that, bytes are reserved in chunks. So an ordinary message or request touches no shared
//! counter, and is served even when nothing is left for larger ones. Instances with little memory
//! are admitted one by one ([`admit_small`](Budget::admit_small)), because they are many and come
//! fast. Those since the last look count as uncounted bytes, and have a bound of their own above
//! that of large amounts.
//!
//! The measured bytes put the server into one of four stages ([`MemoryStage`]); each includes the
//! measures of the earlier ones. Owners of much memory are [`Consumer`]s: they are closed, the
//! largest first, when refusing was not enough.

mod account;
mod charge;
mod kind;

pub use account::{MemoryAccount, Share};
pub use charge::Charge;
pub use kind::{INSTANCE_FREE_BYTES, MemoryKind};

use crate::{counters::Counter, limits::LimitError};
use std::{
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, Weak,
        atomic::{AtomicU8, AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
};
use tokio::sync::Notify;

/// Percent of `memory_max` from which idle instances and histories are dropped.
const SHED_PERCENT: usize = 70;
/// Percent of `memory_max` that may be reserved, and from which new work is refused. The rest is
/// for uncounted bytes.
const REFUSE_PERCENT: usize = 85;
/// Percent of `memory_max` up to which instances with little memory are created.
const SMALL_PERCENT: usize = 95;
/// Percent of `memory_max` from which the largest consumers are closed.
const CLOSE_PERCENT: usize = 92;
/// Percent of `memory_max` that is freed by closing the largest consumers, if refusing work for
/// some time freed nothing.
const RELIEF_PERCENT: usize = 15;
/// At each look one part in this many of the uncounted bytes is dropped, if fewer are measured:
/// half of them in 0.5 s with a look every 10 ms.
const UNCOUNTED_DECAY: usize = 64;
/// Percent of `memory_max` that HTTP connections must have before those that wait for a request are
/// closed for want of memory: below it they are not the cause.
const CROWD_PERCENT: usize = 25;
/// A consumer with fewer reserved bytes is never closed for want of memory.
pub const CONSUMER_BYTES_MIN: usize = 64 << 10;

/// Level of a shortage of memory. Later stages include the measures of earlier ones.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum MemoryStage {
    /// Nothing has to be done.
    #[default]
    Calm,
    /// Idle instances and histories are dropped.
    Shed,
    /// Work that would hold memory is refused: 503, 1013 or an error to the app. Small requests are
    /// served.
    Refuse,
    /// The largest consumers are closed.
    Close,
}

impl MemoryStage {
    fn of(number: u8) -> MemoryStage {
        match number {
            0 => MemoryStage::Calm,
            1 => MemoryStage::Shed,
            2 => MemoryStage::Refuse,
            _ => MemoryStage::Close,
        }
    }
}

/// The budget has no memory for the request. Nothing was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutOfMemory;

impl fmt::Display for OutOfMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the server is short of memory")
    }
}

impl std::error::Error for OutOfMemory {}

impl From<OutOfMemory> for LimitError {
    fn from(_: OutOfMemory) -> LimitError {
        LimitError::TooMany
    }
}

/// An owner of much memory, which can be closed.
pub trait Consumer: Send + Sync {
    /// Returns the bytes that it has reserved.
    fn bytes(&self) -> usize;
    /// Closes it, so that it gives its bytes back soon.
    fn evict(&self);
}

/// The account of the memory of the process. All parts that reserve memory share it.
///
/// ```
/// use std::sync::Arc;
/// use tidegate_hub::budget::{Budget, Charge, MemoryKind, OutOfMemory};
/// let budget = Arc::new(Budget::new(1 << 20));
/// let mut charge = Charge::new(MemoryKind::Request);
/// assert_eq!(charge.fit(&budget, 500_000), Ok(()));
/// assert_eq!(charge.fit(&budget, 2_000_000), Err(OutOfMemory));
/// drop(charge);
/// assert_eq!(budget.reserved(), 0);
/// ```
pub struct Budget {
    /// Maximum number of bytes; zero for no bound.
    bytes_max: usize,
    reserved: AtomicUsize,
    by_kind: [AtomicUsize; MemoryKind::ALL.len()],
    /// Number of measured bytes beyond the reserved ones: the maximum of the latest looks.
    uncounted: AtomicUsize,
    /// Number of bytes of small memories that were admitted since the last look.
    admitted: AtomicUsize,
    stage: AtomicU8,
    refusals: Counter,
    evictions: Counter,
    consumers: Mutex<Vec<Weak<dyn Consumer>>>,
    /// Number of calls of [`hurry`](Budget::hurry), and the wake-up for them.
    hurries: AtomicU64,
    hurry: Notify,
}

impl Budget {
    /// Returns a budget of this many bytes; zero for one without a bound.
    pub fn new(bytes_max: usize) -> Budget {
        Budget {
            bytes_max,
            reserved: AtomicUsize::new(0),
            by_kind: Default::default(),
            uncounted: AtomicUsize::new(0),
            admitted: AtomicUsize::new(0),
            stage: AtomicU8::new(0),
            refusals: Counter::default(),
            evictions: Counter::default(),
            consumers: Mutex::default(),
            hurries: AtomicU64::new(0),
            hurry: Notify::new(),
        }
    }

    /// Returns `memory_max` in bytes; zero if there is no bound.
    pub fn bytes_max(&self) -> usize {
        self.bytes_max
    }

    /// Returns the bytes that are reserved now.
    pub fn reserved(&self) -> usize {
        self.reserved.load(Relaxed)
    }

    /// Returns the bytes that are reserved for one kind.
    pub fn reserved_for(&self, kind: MemoryKind) -> usize {
        self.by_kind[kind as usize].load(Relaxed)
    }

    /// Returns the stage at the last look.
    pub fn stage(&self) -> MemoryStage {
        MemoryStage::of(self.stage.load(Relaxed))
    }

    /// Returns true if work that would hold memory for long is refused: connections, feeds,
    /// streams, forms.
    pub fn is_scarce(&self) -> bool {
        self.stage.load(Relaxed) >= MemoryStage::Refuse as u8
    }

    /// Returns the number of reservations that were refused since the start.
    pub fn refusals(&self) -> u64 {
        self.refusals.get()
    }

    /// Returns the number of consumers that were closed since the start.
    pub fn evictions(&self) -> u64 {
        self.evictions.get()
    }

    /// Takes the measured bytes of anonymous memory of the process. Returns the stage that follows.
    pub fn look(&self, measured: usize) -> MemoryStage {
        if self.bytes_max == 0 {
            return MemoryStage::Calm;
        }
        // Not all reserved bytes were touched, so the difference may hide uncounted bytes. The
        // maximum counts therefore, and decays slowly. Most bytes that may be handed over never
        // are.
        let counted = self
            .reserved()
            .saturating_sub(self.reserved_for(MemoryKind::HandOver));
        let before = self.uncounted.load(Relaxed);
        let uncounted = measured.saturating_sub(counted);
        self.uncounted
            .store(uncounted.max(before - before / UNCOUNTED_DECAY), Relaxed);
        self.admitted.store(0, Relaxed);
        let [shed, refuse, close] =
            [SHED_PERCENT, REFUSE_PERCENT, CLOSE_PERCENT].map(|part| percent(self.bytes_max, part));
        let stage = match measured {
            _ if measured >= close => MemoryStage::Close,
            _ if measured >= refuse => MemoryStage::Refuse,
            _ if measured.max(self.reserved().saturating_add(uncounted)) >= shed => {
                MemoryStage::Shed
            }
            _ => MemoryStage::Calm,
        };
        self.stage.store(stage as u8, Relaxed);
        stage
    }

    /// Returns true if HTTP connections have so much of the budget that those without a request are
    /// closed when memory is short.
    pub fn is_crowded(&self) -> bool {
        self.bytes_max > 0
            && self.reserved_for(MemoryKind::Socket) >= percent(self.bytes_max, CROWD_PERCENT)
    }

    /// Requests that connections without a request are closed.
    pub fn hurry(&self) {
        self.hurries.fetch_add(1, Relaxed);
        self.hurry.notify_one();
    }

    /// Returns the number of [`hurry`](Budget::hurry) calls so far.
    pub fn hurries(&self) -> u64 {
        self.hurries.load(Relaxed)
    }

    /// Resolves after the next [`hurry`](Budget::hurry), or at once if one came since the last
    /// call.
    pub async fn hurried(&self) {
        self.hurry.notified().await;
    }

    /// Returns the bytes to free when work was refused for too long.
    pub fn relief(&self) -> usize {
        percent(self.bytes_max, RELIEF_PERCENT)
    }

    /// Returns the bytes that must be freed before new work is accepted again.
    pub fn excess(&self, measured: usize) -> usize {
        measured.saturating_sub(percent(self.bytes_max, REFUSE_PERCENT))
    }

    /// Closes the largest consumers until they have this many bytes together. Returns the number of
    /// closed consumers, and their bytes.
    pub fn close_largest(&self, bytes: usize) -> (usize, usize) {
        let consumers: Vec<Arc<dyn Consumer>> = {
            let mut consumers = self.consumers();
            consumers.retain(|consumer| consumer.strong_count() > 0);
            consumers.iter().filter_map(Weak::upgrade).collect()
        };
        let mut consumers: Vec<_> = consumers
            .into_iter()
            .map(|consumer| (consumer.bytes(), consumer))
            .collect();
        consumers.retain(|(bytes, _)| *bytes >= CONSUMER_BYTES_MIN);
        consumers.sort_by_key(|(bytes, _)| std::cmp::Reverse(*bytes));
        let (mut count, mut freed) = (0, 0);
        for (size, consumer) in consumers {
            if freed >= bytes {
                break;
            }
            consumer.evict();
            (count, freed) = (count + 1, freed + size);
        }
        self.evictions.add(count as u64);
        (count, freed)
    }

    /// Adds a consumer to those that may be closed while they live.
    pub(crate) fn register(&self, consumer: Weak<dyn Consumer>) {
        let mut consumers = self.consumers();
        if consumers.len() == consumers.capacity() {
            consumers.retain(|consumer| consumer.strong_count() > 0);
        }
        consumers.push(consumer);
    }

    /// Admits the memory of an instance with little memory. The bytes are not reserved, but refused
    /// if the process has no room for them.
    pub fn admit_small(&self, bytes: usize) -> Result<(), OutOfMemory> {
        // Values that were handed over are measured, so they are uncounted bytes and may be covered by
        // the reservations for them at once. Half of the smaller amount counts once here, so that
        // large calls that hand over much do not leave small ones without memory that is free.
        let counted_twice = self
            .reserved_for(MemoryKind::HandOver)
            .min(self.uncounted.load(Relaxed))
            / 2;
        let counted = self.reserved().saturating_sub(counted_twice);
        // One atomic step: if a refused admission were added and subtracted again, a look in between
        // would set the sum to zero, and the subtraction would wrap.
        let admit = |admitted: usize| {
            let admitted = admitted.saturating_add(bytes);
            self.is_within(SMALL_PERCENT, counted, admitted)
                .then_some(admitted)
        };
        if self.admitted.fetch_update(Relaxed, Relaxed, admit).is_err() {
            self.refusals.add(1);
            return Err(OutOfMemory);
        }
        Ok(())
    }

    fn is_within(&self, part: usize, reserved: usize, admitted: usize) -> bool {
        let used = reserved
            .saturating_add(self.uncounted.load(Relaxed))
            .saturating_add(admitted);
        self.bytes_max == 0 || used <= percent(self.bytes_max, part)
    }

    /// Reserves exactly this many bytes.
    pub(crate) fn reserve(&self, kind: MemoryKind, bytes: usize) -> Result<(), OutOfMemory> {
        let before = self.reserved.fetch_add(bytes, Relaxed);
        let reserved = before.saturating_add(bytes);
        // A burst of small instances counts as if it had touched all its memory, until the next
        // look. It may use the space above the bound of large amounts, and so does not refuse them.
        if !self.is_within(REFUSE_PERCENT, reserved, 0)
            || !self.is_within(SMALL_PERCENT, reserved, self.admitted.load(Relaxed))
        {
            self.reserved.fetch_sub(bytes, Relaxed);
            self.refusals.add(1);
            return Err(OutOfMemory);
        }
        self.by_kind[kind as usize].fetch_add(bytes, Relaxed);
        Ok(())
    }

    /// Counts this many bytes even if they do not fit, for memory that was admitted already.
    pub(crate) fn add(&self, kind: MemoryKind, bytes: usize) {
        self.reserved.fetch_add(bytes, Relaxed);
        self.by_kind[kind as usize].fetch_add(bytes, Relaxed);
    }

    /// Gives back bytes that were reserved or added.
    pub(crate) fn give_back(&self, kind: MemoryKind, bytes: usize) {
        self.reserved.fetch_sub(bytes, Relaxed);
        self.by_kind[kind as usize].fetch_sub(bytes, Relaxed);
    }

    fn consumers(&self) -> MutexGuard<'_, Vec<Weak<dyn Consumer>>> {
        self.consumers
            .lock()
            .expect("nothing panics while it holds the consumers")
    }
}

/// Writes the reserved bytes of each kind, for the log.
impl fmt::Display for Budget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        for kind in MemoryKind::ALL
            .into_iter()
            .filter(|kind| self.reserved_for(*kind) > 0)
        {
            write!(
                f,
                "{separator}{kind:?} {} KiB",
                self.reserved_for(kind) >> 10
            )?;
            separator = ", ";
        }
        Ok(())
    }
}

fn percent(bytes: usize, part: usize) -> usize {
    bytes / 100 * part
}

impl fmt::Debug for Budget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Budget")
            .field("bytes_max", &self.bytes_max)
            .field("reserved", &self.reserved())
            .finish()
    }
}

#[cfg(test)]
mod tests;
