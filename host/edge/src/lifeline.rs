//! The connection of each client with the drain.

use tokio::sync::{mpsc, watch};

/// Each task of a connection holds one: it announces the shutdown, and its drop shows that the task
/// has ended.
#[derive(Clone)]
pub(crate) struct Lifeline {
    pub(crate) stopping: watch::Receiver<bool>,
    _alive: mpsc::Sender<()>,
}

impl Lifeline {
    /// Returns a lifeline, the sender that announces the shutdown, and a receiver that ends when no
    /// lifeline is left.
    pub(crate) fn new() -> (Lifeline, watch::Sender<bool>, mpsc::Receiver<()>) {
        let (stop, stopping) = watch::channel(false);
        let (alive, all_gone) = mpsc::channel(1);
        (
            Lifeline {
                stopping,
                _alive: alive,
            },
            stop,
            all_gone,
        )
    }
}
