//! What ties each connection to the drain.

use tokio::sync::{mpsc, watch};

/// What each connection's tasks hold: the news of the shutdown, and a sign of life.
#[derive(Clone)]
pub(crate) struct Lifeline {
    pub(crate) stopping: watch::Receiver<bool>,
    _alive: mpsc::Sender<()>,
}

impl Lifeline {
    /// A lifeline; who says that the shutdown began; and who is told when no lifeline is left.
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
