//! Queue of connections outside of rooms whose last event has to wait.

use crate::drain::DrainGuard;
use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard},
};
use tidegate_hub::{CloseEvent, ConnectionGuard};

/// Maximum number of concurrent tries: each one may wait for an instance.
const WORKERS_MAX: usize = 8;

/// A connection whose on-close is still to be delivered.
pub(crate) struct PendingClose {
    pub(crate) conn: ConnectionGuard,
    pub(crate) event: CloseEvent,
    pub(crate) _drain: DrainGuard,
}

/// Connections that wait for another try, and the number of workers. `connections_max` bounds the
/// queue, since each entry keeps its place.
#[derive(Default)]
pub(crate) struct PendingCloses(Mutex<(VecDeque<PendingClose>, usize)>);

impl PendingCloses {
    pub(crate) fn is_empty(&self) -> bool {
        self.lock().0.is_empty()
    }

    /// Adds a connection at the end of the queue. Returns true if a worker has to be started.
    pub(crate) fn push(&self, close: PendingClose) -> bool {
        let (waiting, workers) = &mut *self.lock();
        waiting.push_back(close);
        let starts = *workers < WORKERS_MAX;
        *workers += usize::from(starts);
        starts
    }

    /// Returns the first connection. If there is none, the calling worker ends.
    pub(crate) fn take(&self) -> Option<PendingClose> {
        let (waiting, workers) = &mut *self.lock();
        let first = waiting.pop_front();
        *workers -= usize::from(first.is_none());
        first
    }

    pub(crate) fn put_back(&self, close: PendingClose) {
        self.lock().0.push_front(close);
    }

    fn lock(&self) -> MutexGuard<'_, (VecDeque<PendingClose>, usize)> {
        self.0
            .lock()
            .expect("nothing panics while it holds the queue")
    }
}
