//! Waker of a connection's socket and clock.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Wake, Waker},
};

/// Waker for the socket and the clock, which records that it was used. If only a message to send
/// woke the task, as most often in a broadcast, the task polls neither of them.
pub(super) struct IoWaker {
    flag: Arc<IoWakeFlag>,
    waker: Waker,
}

struct IoWakeFlag {
    is_woken: AtomicBool,
    task: Waker,
}

impl IoWaker {
    pub(super) fn new(task: Waker) -> IoWaker {
        let flag = Arc::new(IoWakeFlag {
            is_woken: AtomicBool::new(true),
            task,
        });
        IoWaker {
            waker: flag.clone().into(),
            flag,
        }
    }

    pub(super) fn waker(&self) -> &Waker {
        &self.waker
    }

    /// Returns true if it wakes the same task as this waker.
    pub(super) fn will_wake(&self, task: &Waker) -> bool {
        self.flag.task.will_wake(task)
    }

    /// Returns true if the socket or the clock woke the task since the last call.
    pub(super) fn take_wake(&self) -> bool {
        self.flag.is_woken.load(Ordering::Relaxed)
            && self.flag.is_woken.swap(false, Ordering::Acquire)
    }
}

impl Wake for IoWakeFlag {
    fn wake(self: Arc<IoWakeFlag>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<IoWakeFlag>) {
        self.is_woken.store(true, Ordering::Release);
        self.task.wake_by_ref();
    }
}
