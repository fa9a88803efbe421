//! Lets the app decide about an upgrade and, if it accepts, gives the socket a task of its own.

use crate::{
    drain::DrainGuard,
    http::answer::{self, AnswerBody, HttpAnswer},
    http::pace::ClientSocket,
    server::{self, Server, Version},
    websocket::connection::{Connection, OpenEvent},
    websocket::handshake::Handshake,
    websocket::wire::Wire,
};
use bytes::Bytes;
use http::{HeaderValue, StatusCode, header};
use std::sync::Arc;
use tidegate_hub::{Accept, ConnectionGuard, Decision, Fault, LimitError, Request, contract};

/// The right to take over the socket of a request whose answer is a 101. The connection makes it:
/// only the connection knows the socket's type, and when the 101 has been written.
pub(crate) struct UpgradeHandle(Box<dyn FnOnce(AcceptedWebSocket) + Send + Sync>);

impl UpgradeHandle {
    /// `start` waits for the 101, and then calls [`AcceptedWebSocket::start`]. It does not block.
    pub(crate) fn new(
        start: impl FnOnce(AcceptedWebSocket) + Send + Sync + 'static,
    ) -> UpgradeHandle {
        UpgradeHandle(Box::new(start))
    }
}

/// An opening handshake that is valid, and the right to the socket on which it came.
pub(crate) struct UpgradeRequest {
    pub(crate) handshake: Handshake,
    pub(crate) handle: UpgradeHandle,
}

/// A WebSocket that the app has accepted, before it has its socket.
pub(crate) struct AcceptedWebSocket {
    server: Arc<Server>,
    drain: DrainGuard,
    connection: ConnectionGuard,
    /// Event of the connection's first call, if it has one.
    open_event: Option<Box<OpenEvent>>,
}

impl AcceptedWebSocket {
    /// Continues with the socket in a task of its own. `ahead` has the bytes that the client sent
    /// after its request.
    pub(crate) fn start(self, io: impl ClientSocket, ahead: Bytes) {
        let wire = Wire::new(io, ahead, self.server.hub.limits());
        // A separate task that consists only of the connection: it lives long, and there are many.
        tokio::spawn(Connection::new(
            wire,
            self.connection,
            self.server,
            self.drain,
            self.open_event,
        ));
    }
}

/// Asks the app. Returns a 101 or the app's refusal.
pub(crate) async fn upgrade(
    server: Arc<Server>,
    version: Arc<Version>,
    drain: DrainGuard,
    request: Request,
    opening: Box<UpgradeRequest>,
) -> Result<HttpAnswer, Fault> {
    let UpgradeRequest { handshake, handle } = *opening;
    let decision = version.app.upgrade(&request, &handshake.offered).await?;
    let (mut accept, close) = match decision {
        Decision::Reject(response) => return answer::from_app(response),
        Decision::Accept(accept) => (accept, None),
        Decision::AcceptThenClose(code, reason) => (
            Accept::default(),
            Some(contract::check_final_close(code, reason)?),
        ),
    };
    let mut switching = switching(&handshake, &accept)?;
    contract::append_headers(switching.headers_mut(), accept.headers.clone())?;
    accept.route = version.router.route(request.route).cloned();
    let opened = match server.hub.open(accept) {
        Ok(opened) => opened,
        Err(LimitError::TooMany)
            if server.hub.connections().count().0 >= server.hub.limits().connections_max =>
        {
            server.hub.counters().refused_websockets.add(1);
            return Ok(answer::retry_later("too many connections, try again later"));
        }
        Err(error) => return Err(contract::bad_accept(error)),
    };
    // The version may have changed while the app decided.
    let is_gone = opened
        .route()
        .is_some_and(|route| !server.version().router.has_successor(route));
    if is_gone {
        opened.set_last_version(version.clone());
    }
    let open_event = close
        .is_none()
        .then(|| Box::new(OpenEvent { version, request }));
    if let Some(close) = close.or_else(|| is_gone.then(server::route_is_gone)) {
        opened.outbox().close(close);
    }
    (handle.0)(AcceptedWebSocket {
        server,
        drain,
        connection: opened,
        open_event,
    });
    Ok(switching)
}

fn switching(handshake: &Handshake, accept: &Accept) -> Result<HttpAnswer, Fault> {
    let mut answer = http::Response::new(AnswerBody::Whole(None));
    *answer.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = answer.headers_mut();
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    let key = HeaderValue::from_str(&handshake.accept_key).expect("base64");
    headers.insert(header::SEC_WEBSOCKET_ACCEPT, key);
    contract::check_protocol(accept.protocol.as_deref(), &handshake.offered)?;
    if let Some(protocol) = &accept.protocol {
        let protocol = HeaderValue::from_str(protocol).expect("an offered token");
        headers.insert(header::SEC_WEBSOCKET_PROTOCOL, protocol);
    }
    Ok(answer)
}
