//! Lets the app decide about an upgrade and, if it accepts, gives the socket a task of its own.

use crate::{
    http::answer::{self, Answer, Body},
    http::pace::Socket,
    http::paced::Paced,
    lifeline::Lifeline,
    server::{self, Server, Version},
    websocket::connection::{Connection, First},
    websocket::handshake::Handshake,
    websocket::wire::Wire,
};
use http::{HeaderValue, StatusCode, header};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use std::sync::Arc;
use tidegate_hub::{Accept, ConnectionGuard, Decision, Fault, LimitError, Request, contract};

/// Continues with a socket as a WebSocket. Only the code that accepted the connection knows the
/// socket's type.
pub(crate) type GoOn = fn(Arc<Server>, Lifeline, ConnectionGuard, Option<Box<First>>, OnUpgrade);

/// Continues with sockets of this type.
pub(crate) fn go_on<Io>(
    server: Arc<Server>,
    lifeline: Lifeline,
    opened: ConnectionGuard,
    first: Option<Box<First>>,
    on_upgrade: OnUpgrade,
) where
    Io: Socket,
{
    tokio::spawn(async move {
        // The client may have left before it received its 101: then no connection was opened.
        let Ok(upgraded) = on_upgrade.await else {
            return;
        };
        let Ok(parts) = upgraded.downcast::<TokioIo<Paced<Io>>>() else {
            return;
        };
        let wire = Wire::new(
            parts.io.into_inner().into_inner(),
            parts.read_buf,
            server.hub.limits(),
        );
        // A separate task that consists only of the connection: it lives long, and there are many.
        tokio::spawn(Connection::new(wire, opened, server, lifeline, first));
    });
}

/// Asks the app. Returns a 101 or the app's refusal.
pub(crate) async fn upgrade(
    server: &Arc<Server>,
    version: Arc<Version>,
    lifeline: Lifeline,
    request: Request,
    (handshake, on_upgrade, go_on): (Handshake, OnUpgrade, GoOn),
) -> Result<Answer, Fault> {
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
    let first = close
        .is_none()
        .then(|| Box::new(First { version, request }));
    if let Some(close) = close.or_else(|| is_gone.then(server::route_is_gone)) {
        opened.outbox().close(close);
    }
    go_on(server.clone(), lifeline, opened, first, on_upgrade);
    Ok(switching)
}

fn switching(handshake: &Handshake, accept: &Accept) -> Result<Answer, Fault> {
    let mut answer = http::Response::new(Body::Whole(None));
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
