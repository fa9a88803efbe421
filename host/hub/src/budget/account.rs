//! The reservations of one socket or one instance together, as a consumer that can be closed.

use super::{Budget, CONSUMER_BYTES_MIN, Charge, Consumer, MemoryKind, OutOfMemory};
use std::{
    sync::{
        Arc, Mutex, Weak,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
    task::Waker,
};

/// Total reservation of one socket or instance. It is a consumer: its owner checks whether it must
/// end, and is woken for that.
pub struct MemoryAccount {
    budget: Arc<Budget>,
    bytes: AtomicUsize,
    is_registered: AtomicBool,
    is_evicted: AtomicBool,
    waker: Mutex<Option<Waker>>,
    me: Weak<MemoryAccount>,
}

impl MemoryAccount {
    /// Returns an account without reservations.
    pub fn new(budget: &Arc<Budget>) -> Arc<MemoryAccount> {
        let new = |me: &Weak<MemoryAccount>| MemoryAccount {
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

impl Consumer for MemoryAccount {
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

/// A part of an [`MemoryAccount`].
pub struct Share {
    account: Arc<MemoryAccount>,
    charge: Charge,
    /// Number of its bytes in the account. For an instance they include those without a
    /// reservation, so that it may be closed.
    counted: usize,
}

impl Share {
    /// Returns a share without a reservation.
    pub fn new(account: &Arc<MemoryAccount>, kind: MemoryKind) -> Share {
        Share {
            account: account.clone(),
            charge: Charge::new(kind),
            counted: 0,
        }
    }

    /// As [`Charge::fit`].
    pub fn fit(&mut self, bytes: usize) -> Result<(), OutOfMemory> {
        self.charge.fit(&self.account.budget, bytes)?;
        let counted = if self.charge.kind == MemoryKind::Instance {
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
    pub fn account(&self) -> &Arc<MemoryAccount> {
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
