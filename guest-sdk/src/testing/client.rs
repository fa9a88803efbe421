//! The client of a WebSocket.

use super::Reply;
use crate::{Accept, Message, world};
use std::{collections::VecDeque, sync::Arc};
use tidegate_hub::{self as hub, Close, ConnectionGuard, Hub, LimitError, Outgoing, RoomId};

/// A WebSocket of the test.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnRef(pub(super) usize);

/// One WebSocket and what its client knows.
pub(super) struct Client {
    pub(super) route: u32,
    pub(super) room: Option<RoomId>,
    /// None once it is closed.
    pub(super) opened: Option<ConnectionGuard>,
    pub(super) handshake: Reply,
    pub(super) received: Vec<Message>,
    pub(super) closed: Option<(u16, String)>,
    /// Reads nothing.
    pub(super) is_stalled: bool,
}

impl Client {
    pub(super) fn open(
        hub: &Arc<Hub>,
        route: u32,
        room: Option<RoomId>,
        accept: Accept,
        handshake: Reply,
    ) -> Result<Client, LimitError> {
        let Accept {
            protocol,
            attachment,
            tags,
            ..
        } = accept;
        let accept = hub::Accept {
            protocol,
            headers: Vec::new(),
            attachment: attachment.into(),
            tags,
            room: room.clone(),
            route: None,
        };
        let opened = Some(hub.open(accept)?);
        Ok(Client {
            route,
            room,
            opened,
            handshake,
            received: Vec::new(),
            closed: None,
            is_stalled: false,
        })
    }

    /// Closed before it was opened.
    pub(super) fn refuse(&mut self, close: Close) {
        self.opened = None;
        self.closed = Some((close.code, close.reason));
    }

    /// Ends it without a word to the app.
    pub(super) fn drop_dead(&mut self, code: u16, reason: &str) {
        if self.opened.take().is_some() {
            self.closed = Some((code, reason.to_owned()));
        }
    }

    /// Takes what is on its way to the client; a close, if that is the last of it.
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
                Outgoing::Message(message) => self.received.push(world::inward(&message)),
                Outgoing::Publication(publication) => {
                    self.received.push(world::inward(&publication.message))
                }
                Outgoing::Close(close) => return Some(close),
            }
        }
        None
    }
}
