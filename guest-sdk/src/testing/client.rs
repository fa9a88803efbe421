//! The client of a WebSocket.

use super::ClientResponse;
use crate::{Message, world};
use std::collections::VecDeque;
use tidegate_hub::{Close, ConnectionGuard, Outgoing};

/// A WebSocket of the test.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnRef(pub(super) usize);

/// One WebSocket and the state of its client.
pub(super) struct TestClient {
    /// `None` once it is closed.
    pub(super) opened: Option<ConnectionGuard>,
    pub(super) handshake: ClientResponse,
    pub(super) received: Vec<Message>,
    pub(super) closed: Option<(u16, String)>,
    /// True if the client reads nothing.
    pub(super) is_stalled: bool,
}

impl TestClient {
    pub(super) fn new(opened: ConnectionGuard, handshake: ClientResponse) -> TestClient {
        TestClient {
            opened: Some(opened),
            handshake,
            received: Vec::new(),
            closed: None,
            is_stalled: false,
        }
    }

    /// Records a connection that was closed before it was opened.
    pub(super) fn refuse(&mut self, close: Close) {
        self.opened = None;
        self.closed = Some((close.code, close.reason));
    }

    /// Ends the connection without an event for the app.
    pub(super) fn drop_dead(&mut self, code: u16, reason: &str) {
        if self.opened.take().is_some() {
            self.closed = Some((code, reason.to_owned()));
        }
    }

    /// Takes the messages on their way to the client. Returns the close if it is the last of them.
    pub(super) fn drain(&mut self) -> Option<Close> {
        if self.is_stalled {
            return None;
        }
        let mut batch = VecDeque::new();
        let outbox = self.opened.as_ref()?.outbox();
        outbox.take(&mut batch);
        outbox.written();
        for outgoing in batch {
            match outgoing {
                Outgoing::Close(close) => return Some(close),
                other => self.received.extend(other.message().map(world::inward)),
            }
        }
        None
    }
}
