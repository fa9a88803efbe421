//! Handles to values of the test's thread, which the hub may send to other threads.

use std::{
    any::Any,
    cell::{Cell, RefCell},
    collections::HashMap,
    marker::PhantomData,
    rc::Rc,
};

thread_local! {
    static VALUES: RefCell<HashMap<u64, Rc<dyn Any>>> = RefCell::default();
    static NEXT: Cell<u64> = const { Cell::new(0) };
}

/// A handle to a value that never leaves its thread. The hub's traits require `Send`, but handlers
/// of an app are not `Send`. So the value stays in the thread's table, and only its key moves.
pub(super) struct ThreadBound<T> {
    key: u64,
    value: PhantomData<fn(T)>,
}

impl<T: 'static> ThreadBound<T> {
    pub(super) fn new(value: T) -> ThreadBound<T> {
        let key = NEXT.replace(NEXT.get() + 1);
        VALUES.with_borrow_mut(|values| values.insert(key, Rc::new(value)));
        ThreadBound {
            key,
            value: PhantomData,
        }
    }

    /// Returns the value. Panics on another thread than that of [`ThreadBound::new`].
    pub(super) fn get(&self) -> Rc<T> {
        let value = VALUES.with_borrow(|values| values.get(&self.key).cloned());
        value
            .and_then(|value| value.downcast().ok())
            .expect("a server under test stays on its thread")
    }
}

impl<T> Drop for ThreadBound<T> {
    fn drop(&mut self) {
        // Removed before the drop, because the value may hold other handles. At the end of the
        // thread the table and its values are gone.
        let value = VALUES.try_with(|values| values.borrow_mut().remove(&self.key));
        drop(value);
    }
}
