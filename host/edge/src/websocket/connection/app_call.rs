//! Calls of the app by a WebSocket's task, one at a time: their start, their outcome, and the close
//! after a fault.

use super::Connection;
use crate::{http::answer::ACCESS, http::pace::ClientSocket};
use std::task::{Context, Poll};
use tidegate_hub::{Call, Close, Fault, FaultContext, realtime::session::ConnectionEvent};
use tracing::field::display;

impl<Io: ClientSocket> Connection<Io> {
    pub(super) fn poll_call(&mut self, cx: &mut Context<'_>) -> bool {
        let mut has_returned = false;
        loop {
            if self.call.is_none() {
                let Some(event) = self.session.next_call() else {
                    break;
                };
                // The outbox is checked after the call, so messages from the app need not wake the
                // task.
                self.conn.outbox().unwatch();
                self.is_opening = matches!(event, ConnectionEvent::Open);
                self.call = Some(self.start_call(event));
            }
            let Some(Poll::Ready(outcome)) = self.call.as_mut().map(|call| call.as_mut().poll(cx))
            else {
                break;
            };
            self.call = None;
            // For a connection of a room, the room records that the on-open was delivered.
            if self.is_opening
                && self.conn.room().is_none()
                && outcome.as_ref().err().is_none_or(Fault::has_begun)
            {
                self.conn.handle_opening();
            }
            self.session.handle_returned(outcome.is_ok());
            self.charge_messages();
            if let Err(fault) = outcome {
                self.handle_fault(&fault);
            }
            has_returned = true;
        }
        // Bytes that were left unread while messages waited can be read now.
        has_returned && self.is_readable
    }

    fn start_call(&mut self, event: ConnectionEvent) -> Call<'static, ()> {
        let (conn, version) = (self.conn.clone(), self.server.version());
        self.event = self
            .server
            .config
            .dev
            .is_some()
            .then(|| format!("{event:?}"));
        let is_gone = || {
            conn.outbox().is_closed()
                && conn
                    .route()
                    .is_some_and(|route| !version.router.has_successor(route))
        };
        self.log_access(&event);
        match event {
            // No served version has a handler for it.
            ConnectionEvent::Messages(_) if is_gone() => Box::pin(async { Ok(()) }),
            ConnectionEvent::Open => match self.open_event.take() {
                Some(open) => open.version.app.clone().open(conn, open.request),
                None => Box::pin(async { Ok(()) }),
            },
            ConnectionEvent::Messages(mut messages) => {
                // These messages came before the room received the connection.
                if conn.has_auto_response() {
                    messages.retain(|message| !conn.answer_automatically(message));
                }
                match messages.is_empty() {
                    true => Box::pin(async { Ok(()) }),
                    false => version.app.clone().messages(conn, messages),
                }
            }
            ConnectionEvent::Close(info) => {
                self.ended = Some(info);
                Box::pin(async { Ok(()) })
            }
        }
    }

    fn log_access(&self, event: &ConnectionEvent) {
        let end = match event {
            ConnectionEvent::Open => None,
            ConnectionEvent::Messages(_) => return,
            ConnectionEvent::Close(info) => Some(info),
        };
        let conn = &self.conn;
        let (connection, room, route) = (
            display(conn.id()),
            conn.room().map(display),
            conn.route().map(|route| route.pattern.as_str()),
        );
        match end {
            None => tracing::debug!(target: ACCESS, connection, room, route, "opened"),
            Some(info) => {
                tracing::debug!(target: ACCESS, connection, room, route, code = info.code, is_peer_initiated = info.is_peer_initiated, "closed")
            }
        }
    }

    fn handle_fault(&mut self, fault: &Fault) {
        let id = fault.report(
            self.server.hub.counters(),
            FaultContext {
                conn: Some(&self.conn),
                ..FaultContext::default()
            },
        );
        if let Some(event) = &self.event {
            let (route, attachment) = (
                self.conn.route().map_or("", |route| &route.pattern),
                self.conn.attachment(),
            );
            tracing::error!(%id, route, event, attachment = %String::from_utf8_lossy(&attachment), "the event that failed");
        }
        let close = match fault {
            Fault::Busy => Close::new(1013, "busy, try again shortly"),
            Fault::Shortage => Close::new(1013, "the server is short of memory"),
            Fault::Closed(_) => Close::new(1013, "the room is closed for now"),
            Fault::Unavailable(_) => Close::new(
                1013,
                "the room's storage is not available, try again shortly",
            ),
            _ => Close {
                code: 1011,
                reason: format!("internal error (id {id})"),
            },
        };
        self.conn.outbox().close(close);
    }
}
