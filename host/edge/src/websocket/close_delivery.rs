//! The last event of a connection, delivered after the socket is closed: exactly once for each
//! on-open that was delivered.
//!
//! A connection hands itself over when its socket has ended; from then on it is one entry here. In
//! a room, the room keeps the event, in the order of its other events, until the app has received
//! it. Outside of rooms, [`PendingCloses`](crate::websocket::pending_closes::PendingCloses) keeps it: entries wait
//! in order while the host can't call the app. A few workers, which exist only while an entry
//! waits, retry the first entries with growing pauses.
//!
//! A pending close keeps its connection in the registry. It counts towards `connections_max`, which
//! bounds the queue, and the drain waits for it.

use crate::{
    server::{Server, Version},
    websocket::pending_closes::PendingClose,
};
use std::{sync::Arc, time::Duration};
use tidegate_hub::{App, Fault, FaultContext, retry::Backoff};
use tokio::time::sleep;

/// Delivers the event, now or later.
pub(crate) async fn deliver(server: Arc<Server>, close: PendingClose) {
    // The client has left: messages and publications to it are refused from now on, not queued.
    close.conn.outbox().abandon();
    if close.conn.room().is_some() || server.pending_closes.is_empty() {
        let Err(fault) = close.attempt(&server).await else {
            return;
        };
        // One log line covers all waiting entries.
        match server.pending_closes.is_empty() {
            true => {
                tracing::warn!(connection = %close.conn.id(), "its on-close has to wait: {fault}")
            }
            false => {
                tracing::debug!(connection = %close.conn.id(), "its on-close has to wait: {fault}")
            }
        }
    }
    if server.pending_closes.push(close) {
        tokio::spawn(retry_closes(server));
    }
}

/// Ends when no entry waits.
async fn retry_closes(server: Arc<Server>) {
    let mut backoff = Backoff::default();
    while let Some(close) = server.pending_closes.take() {
        if close.attempt(&server).await.is_ok() {
            backoff = Backoff::default();
        } else {
            server.pending_closes.put_back(close);
            sleep(Duration::from_millis(backoff.pause())).await;
        }
    }
}

impl PendingClose {
    /// Tries once. Returns an error if the host could not call the app. An app that fails has been
    /// called; the log has its fault.
    async fn attempt(&self, server: &Server) -> Result<(), Fault> {
        let outcome = match self.app(server) {
            Some(app) => app.close(Arc::clone(&self.conn), self.event.clone()).await,
            None => Err(Fault::Host("no version of the app has its route".into())),
        };
        match outcome {
            Err(fault) if !fault.has_begun() => Err(fault),
            Err(fault) => {
                let id = fault.report(
                    server.hub.counters(),
                    FaultContext {
                        conn: Some(&self.conn),
                        ..FaultContext::default()
                    },
                );
                if server.config.dev.is_some() {
                    let attachment = self.conn.attachment();
                    let attachment = String::from_utf8_lossy(&attachment);
                    tracing::error!(%id, event = ?self.event, %attachment, "the event that failed");
                }
                Ok(())
            }
            Ok(()) => Ok(()),
        }
    }

    /// Returns the served version, or the last version with this route if the served one has none.
    fn app(&self, server: &Server) -> Option<Arc<dyn App>> {
        let version = server.version();
        match self.conn.route() {
            Some(route) if !version.router.has_successor(route) => {
                let last = self.conn.last_version()?.downcast_ref::<Version>()?;
                Some(last.app.clone())
            }
            _ => Some(version.app.clone()),
        }
    }
}
