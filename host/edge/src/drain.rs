//! The part of each connection in a drain.

use tokio::sync::{mpsc, watch};

/// Each task of a connection holds one: it announces the shutdown, and its drop shows that the task
/// has ended.
#[derive(Clone)]
pub(crate) struct DrainGuard {
    pub(crate) stopping: watch::Receiver<bool>,
    _alive: mpsc::Sender<()>,
}

impl DrainGuard {
    /// Returns a guard, the sender that announces the shutdown, and a receiver that ends when no
    /// guard is left.
    pub(crate) fn new() -> (DrainGuard, watch::Sender<bool>, mpsc::Receiver<()>) {
        let (stop, stopping) = watch::channel(false);
        let (_alive, all_gone) = mpsc::channel(1);
        (DrainGuard { stopping, _alive }, stop, all_gone)
    }
}
