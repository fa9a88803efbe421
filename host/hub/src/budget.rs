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
//! Small amounts are not reserved. Each [`Kind`] has an amount that is free for each of its owners;
//! beyond that, bytes are reserved in chunks. So an ordinary message or request touches no shared
//! counter, and is served even when nothing is left for larger ones. Instances with little memory
//! are admitted one by one ([`admit_small`](Budget::admit_small)), because they are many and come
//! fast. Those since the last look count as uncounted bytes, and have a bound of their own above
//! that of large amounts.
//!
//! The measured bytes put the server into one of four stages ([`Stage`]); each includes the
//! measures of the earlier ones. Owners of much memory are [`Consumer`]s: they are closed, the
//! largest first, when refusing was not enough.

use crate::{counters::Counter, limits::LimitError};
use std::{
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, Weak,
        atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    task::Waker,
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
/// Percent of `memory_max` that HTTP connections have, even if all else is reserved: a client that
/// opens a few of them is served while others hold the rest.
const SOCKETS_PERCENT: usize = 10;
/// Percent of `memory_max` that HTTP connections must have before those that wait for a request are
/// closed for want of memory: below it they are not the cause.
const CROWD_PERCENT: usize = 25;
/// A consumer with fewer reserved bytes is never closed for want of memory.
pub const CONSUMER_BYTES_MIN: usize = 64 << 10;

/// Bytes of linear memory that an instance has without a reservation.
pub const INSTANCE_FREE_BYTES: usize = 2 << 20;

/// Purpose of a reservation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Queued messages to a client.
    Outbox,
    /// Buffers and state of an HTTP connection, whether it sends anything or not.
    Socket,
    /// Attachment, tags and topics of a connection.
    Connection,
    /// Parts of a message, a request's head or its body.
    Request,
    /// Responses on their way to a client.
    Response,
    /// A large publication, which its followers share.
    Publication,
    /// Events that wait for a room.
    Inbox,
    /// Writes and effects of a room's events before their commit.
    Transaction,
    /// Linear memories of an instance.
    Instance,
    /// Copies of the values that an instance may pass to the host at the end of a call.
    HandOver,
}

impl Kind {
    /// All kinds.
    pub const ALL: [Kind; 10] = [
        Kind::Outbox,
        Kind::Socket,
        Kind::Connection,
        Kind::Request,
        Kind::Response,
        Kind::Publication,
        Kind::Inbox,
        Kind::Transaction,
        Kind::Instance,
        Kind::HandOver,
    ];

    /// Returns the bytes that each owner has without a reservation.
    const fn free(self) -> usize {
        match self {
            Kind::Connection | Kind::Publication => 4 << 10,
            Kind::Outbox | Kind::Request | Kind::Response => 16 << 10,
            Kind::Socket | Kind::Inbox => 0,
            Kind::Transaction => 64 << 10,
            Kind::HandOver => 128 << 10,
            Kind::Instance => INSTANCE_FREE_BYTES,
        }
    }

    /// Returns the size of the chunks in which bytes are reserved.
    const fn chunk(self) -> usize {
        match self {
            Kind::Connection | Kind::Publication => 4 << 10,
            Kind::Outbox | Kind::Request | Kind::Response => 16 << 10,
            Kind::Socket | Kind::Inbox => 1,
            Kind::Transaction | Kind::Instance | Kind::HandOver => 64 << 10,
        }
    }

    /// Returns the number of bytes to reserve for this many used bytes.
    const fn reservation(self, bytes: usize) -> usize {
        if bytes <= self.free() {
            0
        } else {
            bytes.next_multiple_of(self.chunk())
        }
    }
}

/// Level of a shortage of memory. Later stages include the measures of earlier ones.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Stage {
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

impl Stage {
    fn of(number: u8) -> Stage {
        match number {
            0 => Stage::Calm,
            1 => Stage::Shed,
            2 => Stage::Refuse,
            _ => Stage::Close,
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
/// use tidegate_hub::budget::{Budget, Charge, Kind, OutOfMemory};
/// let budget = Arc::new(Budget::new(1 << 20));
/// let mut charge = Charge::new(Kind::Request);
/// assert_eq!(charge.fit(&budget, 500_000), Ok(()));
/// assert_eq!(charge.fit(&budget, 2_000_000), Err(OutOfMemory));
/// drop(charge);
/// assert_eq!(budget.reserved(), 0);
/// ```
pub struct Budget {
    /// Maximum number of bytes; zero for no bound.
    bytes_max: usize,
    reserved: AtomicUsize,
    by_kind: [AtomicUsize; Kind::ALL.len()],
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
    pub fn reserved_for(&self, kind: Kind) -> usize {
        self.by_kind[kind as usize].load(Relaxed)
    }

    /// Returns the stage at the last look.
    pub fn stage(&self) -> Stage {
        Stage::of(self.stage.load(Relaxed))
    }

    /// Returns true if work that would hold memory for long is refused: connections, feeds,
    /// streams, forms.
    pub fn is_scarce(&self) -> bool {
        self.stage.load(Relaxed) >= Stage::Refuse as u8
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
    pub fn look(&self, measured: usize) -> Stage {
        if self.bytes_max == 0 {
            return Stage::Calm;
        }
        // Not all reserved bytes were touched, so the difference may hide uncounted bytes. The
        // maximum counts therefore, and decays slowly. Most bytes that may be handed over never
        // are.
        let counted = self
            .reserved()
            .saturating_sub(self.reserved_for(Kind::HandOver));
        let before = self.uncounted.load(Relaxed);
        let uncounted = measured.saturating_sub(counted);
        self.uncounted
            .store(uncounted.max(before - before / UNCOUNTED_DECAY), Relaxed);
        self.admitted.store(0, Relaxed);
        let [shed, refuse, close] =
            [SHED_PERCENT, REFUSE_PERCENT, CLOSE_PERCENT].map(|part| percent(self.bytes_max, part));
        let stage = match measured {
            _ if measured >= close => Stage::Close,
            _ if measured >= refuse => Stage::Refuse,
            _ if measured.max(self.reserved().saturating_add(uncounted)) >= shed => Stage::Shed,
            _ => Stage::Calm,
        };
        self.stage.store(stage as u8, Relaxed);
        stage
    }

    /// Returns true if HTTP connections have so much of the budget that those without a request are
    /// closed when memory is short.
    pub fn is_crowded(&self) -> bool {
        self.bytes_max > 0
            && self.reserved_for(Kind::Socket) >= percent(self.bytes_max, CROWD_PERCENT)
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
        // One atomic step: if a refused admission were added and subtracted again, a look in between
        // would set the sum to zero, and the subtraction would wrap.
        let admit = |admitted: usize| {
            let admitted = admitted.saturating_add(bytes);
            self.is_within(SMALL_PERCENT, self.reserved(), admitted)
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
    pub(crate) fn reserve(&self, kind: Kind, bytes: usize) -> Result<(), OutOfMemory> {
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
    pub(crate) fn add(&self, kind: Kind, bytes: usize) {
        self.reserved.fetch_add(bytes, Relaxed);
        self.by_kind[kind as usize].fetch_add(bytes, Relaxed);
    }

    /// Gives back bytes that were reserved or added.
    pub(crate) fn give_back(&self, kind: Kind, bytes: usize) {
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
        for kind in Kind::ALL
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

/// Reservation of one owner. It is empty while the owner stays within the free amount of its kind.
/// Dropping it gives it back.
#[derive(Debug)]
pub struct Charge {
    kind: Kind,
    bytes: usize,
    /// The budget; none until something is reserved.
    budget: Option<Arc<Budget>>,
}

impl Charge {
    /// Returns an empty reservation.
    pub const fn new(kind: Kind) -> Charge {
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

impl fmt::Debug for Budget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Budget")
            .field("bytes_max", &self.bytes_max)
            .field("reserved", &self.reserved())
            .finish()
    }
}

/// Total reservation of one socket or instance. It is a consumer: its owner checks whether it must
/// end, and is woken for that.
pub struct Account {
    budget: Arc<Budget>,
    bytes: AtomicUsize,
    is_registered: AtomicBool,
    is_evicted: AtomicBool,
    waker: Mutex<Option<Waker>>,
    me: Weak<Account>,
}

impl Account {
    /// Returns an account without reservations.
    pub fn new(budget: &Arc<Budget>) -> Arc<Account> {
        let new = |me: &Weak<Account>| Account {
            budget: budget.clone(),
            bytes: AtomicUsize::new(0),
            is_registered: AtomicBool::new(false),
            is_evicted: AtomicBool::new(false),
            waker: Mutex::default(),
            me: me.clone(),
        };
        Arc::new_cyclic(new)
    }

    /// Returns its budget.
    pub fn budget(&self) -> &Arc<Budget> {
        &self.budget
    }

    /// Returns true if its owner must end, because memory is short.
    pub fn is_evicted(&self) -> bool {
        self.is_evicted.load(Relaxed)
    }

    /// Returns true if it is so large that it may be evicted. Only then its owner has to watch.
    pub fn is_large(&self) -> bool {
        self.is_registered.load(Relaxed)
    }

    /// Wakes `waker` when its owner must end.
    pub fn watch(&self, waker: &Waker) {
        let mut current = self
            .waker
            .lock()
            .expect("nothing panics while it holds a waker");
        match &mut *current {
            Some(current) => current.clone_from(waker),
            None => *current = Some(waker.clone()),
        }
    }

    fn changed(&self, before: usize, after: usize) {
        let bytes = match after.checked_sub(before) {
            Some(more) => self.bytes.fetch_add(more, Relaxed) + more,
            None => self.bytes.fetch_sub(before - after, Relaxed),
        };
        if bytes >= CONSUMER_BYTES_MIN && !self.is_registered.swap(true, Relaxed) {
            self.budget.register(self.me.clone());
        }
    }
}

impl Consumer for Account {
    fn bytes(&self) -> usize {
        self.bytes.load(Relaxed)
    }

    fn evict(&self) {
        self.is_evicted.store(true, Relaxed);
        let waker = self
            .waker
            .lock()
            .expect("nothing panics while it holds a waker")
            .take();
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

/// A part of an [`Account`].
pub struct Share {
    account: Arc<Account>,
    charge: Charge,
    /// Number of its bytes in the account. For an instance they include those without a
    /// reservation, so that it may be closed.
    counted: usize,
}

impl Share {
    /// Returns a share without a reservation.
    pub fn new(account: &Arc<Account>, kind: Kind) -> Share {
        Share {
            account: account.clone(),
            charge: Charge::new(kind),
            counted: 0,
        }
    }

    /// As [`Charge::fit`].
    pub fn fit(&mut self, bytes: usize) -> Result<(), OutOfMemory> {
        self.charge.fit(&self.account.budget, bytes)?;
        let counted = if self.charge.kind == Kind::Instance {
            bytes
        } else {
            self.charge.bytes
        };
        if counted != self.counted {
            self.account.changed(self.counted, counted);
            self.counted = counted;
        }
        Ok(())
    }

    /// As [`Charge::force`].
    pub fn force(&mut self, bytes: usize) {
        if self.fit(bytes).is_err() {
            self.charge.force(&self.account.budget, bytes);
            // The bytes are reserved now, so this only updates the account.
            _ = self.fit(bytes);
        }
    }

    /// Returns the bytes that are reserved.
    pub fn bytes(&self) -> usize {
        self.charge.bytes
    }

    /// Returns its account.
    pub fn account(&self) -> &Arc<Account> {
        &self.account
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        if self.counted > 0 {
            self.account.changed(self.counted, 0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: usize = 1 << 20;

    fn budget() -> Arc<Budget> {
        Arc::new(Budget::new(100 * MIB))
    }

    #[test]
    fn what_is_small_is_free_and_the_rest_is_reserved_in_chunks() {
        let budget = budget();
        for kind in Kind::ALL {
            let mut charge = Charge::new(kind);
            charge.fit(&budget, kind.free()).unwrap();
            assert_eq!(budget.reserved(), 0, "{kind:?}");
            charge.fit(&budget, kind.free() + 1).unwrap();
            assert_eq!(
                charge.bytes(),
                (kind.free() + 1).next_multiple_of(kind.chunk()),
                "{kind:?}"
            );
            assert_eq!(
                (budget.reserved(), budget.reserved_for(kind)),
                (charge.bytes(), charge.bytes()),
                "{kind:?}"
            );
            charge.fit(&budget, 0).unwrap();
            assert_eq!(budget.reserved(), 0, "{kind:?}");
            charge.fit(&budget, 10 * MIB).unwrap();
            drop(charge);
            assert_eq!(
                (budget.reserved(), budget.reserved_for(kind)),
                (0, 0),
                "{kind:?}"
            );
        }
    }

    #[test]
    fn bytes_that_go_up_and_down_by_a_little_reserve_nothing_more() {
        let budget = budget();
        let mut charge = Charge::new(Kind::Outbox);
        charge.fit(&budget, MIB).unwrap();
        for bytes in [MIB - 30_000, MIB, MIB - 1] {
            charge.fit(&budget, bytes).unwrap();
            assert_eq!(budget.reserved(), MIB);
        }
        charge.fit(&budget, MIB / 2).unwrap();
        assert_eq!(budget.reserved(), MIB / 2);
    }

    #[test]
    fn what_exceeds_the_budget_is_refused_and_changes_nothing() {
        let budget = budget();
        let mut charge = Charge::new(Kind::Request);
        charge.fit(&budget, 80 * MIB).unwrap();
        assert_eq!(charge.fit(&budget, 86 * MIB), Err(OutOfMemory));
        assert_eq!(
            (charge.bytes(), budget.reserved(), budget.refusals()),
            (80 * MIB, 80 * MIB, 1)
        );
        charge.force(&budget, 90 * MIB);
        assert_eq!(budget.reserved(), 90 * MIB);
        let mut small = Charge::new(Kind::Request);
        assert_eq!(
            small.fit(&budget, 10_000),
            Ok(()),
            "what is small is served"
        );
        drop(charge);
        assert_eq!(small.fit(&budget, 80 * MIB), Ok(()));
    }

    #[test]
    fn only_so_much_is_reserved_as_the_last_look_left_free() {
        let budget = budget();
        for (measured, reserved, fits) in [
            (0, 85, true),
            (0, 86, false),
            (60, 25, true),
            (60, 26, false),
            (90, 1, false),
        ] {
            let budget = self::budget();
            budget.look(measured * MIB);
            let mut charge = Charge::new(Kind::Request);
            assert_eq!(
                charge.fit(&budget, reserved * MIB).is_ok(),
                fits,
                "{measured} measured, {reserved} reserved"
            );
        }
        // The measured bytes include the reserved ones.
        let mut charge = Charge::new(Kind::Request);
        budget.look(0);
        charge.fit(&budget, 50 * MIB).unwrap();
        budget.look(70 * MIB);
        assert!(charge.fit(&budget, 65 * MIB).is_ok() && charge.fit(&budget, 66 * MIB).is_err());
    }

    #[test]
    fn uncounted_bytes_are_remembered_while_reserved_ones_are_untouched() {
        let budget = budget();
        budget.look(30 * MIB);
        let mut charge = Charge::new(Kind::Request);
        charge.fit(&budget, 50 * MIB).unwrap();
        // None of it is touched, so the measured bytes are fewer than the reserved ones.
        budget.look(30 * MIB);
        assert!(
            charge.fit(&budget, 56 * MIB).is_err(),
            "the 30 MiB are still there"
        );
        (0..1000).for_each(|_| _ = budget.look(30 * MIB));
        assert!(
            charge.fit(&budget, 84 * MIB).is_ok(),
            "they are forgotten with time"
        );
        // Most bytes that may be handed over never are.
        let budget = self::budget();
        let mut charge = Charge::new(Kind::HandOver);
        charge.fit(&budget, 50 * MIB).unwrap();
        budget.look(30 * MIB);
        assert!(charge.fit(&budget, 56 * MIB).is_err());
    }

    #[test]
    fn small_instances_are_admitted_as_far_as_the_last_look_left_room() {
        let budget = budget();
        budget.look(60 * MIB);
        let admit = |count: usize| {
            (0..count)
                .filter(|_| budget.admit_small(MIB).is_ok())
                .count()
        };
        assert_eq!((admit(50), budget.reserved()), (35, 0));
        let mut charge = Charge::new(Kind::Request);
        assert_eq!(
            charge.fit(&budget, 100_000),
            Err(OutOfMemory),
            "what was admitted counts until the next look"
        );
        budget.look(70 * MIB);
        assert_eq!((charge.fit(&budget, 15 * MIB), admit(50)), (Ok(()), 10));
        // It is a consumer, without a reservation.
        let mut share = Share::new(&Account::new(&budget), Kind::Instance);
        share.fit(MIB).unwrap();
        assert_eq!(
            (budget.reserved(), budget.close_largest(1)),
            (15 * MIB, (1, MIB))
        );
    }

    #[test]
    fn a_burst_of_small_instances_does_not_refuse_larger_amounts() {
        // MiB: instances admitted since the look, and the most that is reserved after them. With 60
        // measured, the bound of large amounts is 85, and that of both together is 95.
        for (admitted, reserved_max) in [(0, 25), (1, 25), (10, 25), (11, 24), (20, 15), (35, 0)] {
            let budget = budget();
            budget.look(60 * MIB);
            for _ in 0..admitted {
                budget.admit_small(MIB).unwrap();
            }
            let reserved = |mib: usize| budget.reserve(Kind::Request, mib * MIB);
            assert_eq!(
                (reserved(reserved_max + 1), budget.reserved()),
                (Err(OutOfMemory), 0),
                "{admitted} admitted"
            );
            assert_eq!(
                (reserved(reserved_max), budget.reserved()),
                (Ok(()), reserved_max * MIB),
                "{admitted} admitted"
            );
        }
    }

    #[test]
    fn http_connections_always_have_a_part_of_the_budget() {
        let budget = budget();
        let admit = |charge: &mut Charge| charge.admit(&budget, MIB).is_ok();
        let new = || Charge::new(Kind::Socket);
        let mut all = Charge::new(Kind::Request);
        all.fit(&budget, 85 * MIB).unwrap();
        let mut sockets: Vec<Charge> = (0..12).map(|_| new()).collect();
        assert_eq!(
            sockets
                .iter_mut()
                .filter_map(|one| admit(one).then_some(()))
                .count(),
            10
        );
        assert!(!budget.is_crowded());
        drop((all, sockets));
        let mut sockets: Vec<Charge> = (0..100).map(|_| new()).collect();
        assert_eq!(
            sockets
                .iter_mut()
                .filter_map(|one| admit(one).then_some(()))
                .count(),
            85
        );
        assert!(budget.is_crowded());
        sockets[0].fit(&budget, 0).unwrap();
        assert!(admit(&mut new()), "one has ended");
        drop(sockets);
        assert_eq!(budget.reserved(), 0);
    }

    #[test]
    fn the_stages_follow_what_is_measured() {
        let budget = budget();
        let stages = [
            (0, Stage::Calm),
            (69, Stage::Calm),
            (70, Stage::Shed),
            (85, Stage::Refuse),
            (92, Stage::Close),
            (10, Stage::Calm),
        ];
        for (measured, stage) in stages {
            assert_eq!(
                (budget.look(measured * MIB), budget.stage()),
                (stage, stage),
                "{measured}"
            );
            assert_eq!(budget.is_scarce(), stage >= Stage::Refuse);
        }
        assert_eq!(budget.excess(95 * MIB), 10 * MIB);
        let unbounded = Arc::new(Budget::new(0));
        assert_eq!(unbounded.look(usize::MAX), Stage::Calm);
        assert_eq!(Charge::new(Kind::Request).fit(&unbounded, 1 << 50), Ok(()));
    }

    #[test]
    fn the_largest_consumers_are_closed_and_the_small_ones_never() {
        let budget = budget();
        let accounts = [MIB, 3 * MIB, 2 * MIB, 20_000].map(|bytes| {
            let mut share = Share::new(&Account::new(&budget), Kind::Request);
            share.fit(bytes).unwrap();
            share
        });
        let evicted = || {
            accounts
                .each_ref()
                .map(|share| share.account().is_evicted())
        };
        assert_eq!(budget.close_largest(4 * MIB), (2, 5 * MIB));
        assert_eq!(evicted(), [false, true, true, false]);
        assert_eq!(budget.close_largest(100 * MIB).0, 3);
        assert_eq!(evicted(), [true, true, true, false]);
        drop(accounts);
        assert_eq!(
            (
                budget.close_largest(1),
                budget.reserved(),
                budget.evictions()
            ),
            ((0, 0), 0, 5)
        );
    }
}
