//! The checks of an exchange before guest code: the client that a proxy describes, the host, the
//! origin of a form, and the opening handshake of a WebSocket.

use super::Exchange;
use crate::{
    http::forwarded,
    http::refusal::RequestRefusal,
    http::request_body::RequestBody,
    http::target::{self, RequestHost},
    websocket::handshake,
    websocket::upgrade::UpgradeRequest,
};
use http::{HeaderMap, HeaderName, StatusCode, header};
use std::time::Instant;
use tidegate_routing::Wants;

impl Exchange {
    /// Reads the host that the request names: the first step, because a proxy may name it, and the
    /// client's address with it.
    pub(super) fn read_host(
        &mut self,
        request: &mut http::Request<RequestBody>,
    ) -> Result<RequestHost, RequestRefusal> {
        if forwarded::is_described(request.headers()) {
            self.forward(request)?;
        }
        let host = RequestHost::of(request, &self.server.config.hosts, || {
            self.server.own_authority()
        })
        .map_err(RequestRefusal::bad_head)?;
        if request.uri().authority().is_some() {
            target::replace_host(request.headers_mut(), &host.authority);
        }
        Ok(host)
    }

    /// Applies a trusted proxy's description of its client before any part of the request is used.
    /// For other clients it removes those headers.
    fn forward(&mut self, request: &mut http::Request<RequestBody>) -> Result<(), RequestRefusal> {
        let Some(seat) = &self.proxy else {
            forwarded::remove(request.headers_mut());
            return Ok(());
        };
        let described = forwarded::read(request.headers_mut(), &self.server.config.trusted)
            .map_err(RequestRefusal::bad_head)?;
        if let Some(peer) = described.peer {
            self.peer = peer.to_string().into();
            seat.stand_for(peer.ip()).map_err(|refusal| {
                self.server
                    .sockets
                    .note(refusal, self.server.hub.counters(), Instant::now());
                RequestRefusal::Connections
            })?;
        }
        self.scheme = described.scheme;
        if let (Some(authority), Some(_)) = (described.authority, request.uri().authority()) {
            // A target in absolute form also names a host, and would take precedence over the
            // header.
            let mut parts = std::mem::take(request.uri_mut()).into_parts();
            parts.authority = authority.parse().ok();
            *request.uri_mut() = http::Uri::from_parts(parts).map_err(|_| {
                RequestRefusal::bad_head(
                    "the target and the host that the proxy names do not fit together",
                )
            })?;
        }
        Ok(())
    }

    /// Checks whether a page of this origin may send forms here: the check against cross-site
    /// request forgery.
    pub(super) fn check_form_origin(
        &self,
        headers: &HeaderMap,
        authority: &str,
    ) -> Result<(), RequestRefusal> {
        let config = &self.server.config;
        let is_admitted =
            config
                .origins
                .admit_form(headers, authority, self.scheme, config.require_origin);
        if is_admitted {
            Ok(())
        } else {
            Err(RequestRefusal::head(
                StatusCode::FORBIDDEN,
                "this origin may not send forms here",
            ))
        }
    }

    /// Reads an opening handshake, and checks whether a page of its origin may open WebSockets
    /// here. The result can take over the socket.
    pub(super) fn check_handshake(
        &mut self,
        request: &http::Request<RequestBody>,
        authority: &str,
    ) -> Result<Box<UpgradeRequest>, RequestRefusal> {
        let (headers, config) = (request.headers(), &self.server.config);
        let handshake = handshake::read(request.method(), request.version(), headers)?;
        let is_admitted =
            config
                .origins
                .admit(headers, authority, self.scheme, config.require_origin);
        if !is_admitted {
            return Err(RequestRefusal::head(
                StatusCode::FORBIDDEN,
                "this origin may not open a WebSocket here",
            ));
        }
        let handle = self.upgrade.take().ok_or_else(|| {
            RequestRefusal::head(
                StatusCode::NOT_IMPLEMENTED,
                "this connection can't become a WebSocket",
            )
        })?;
        Ok(Box::new(UpgradeRequest { handshake, handle }))
    }
}

/// Returns the kind of answer that the request asks for, where a path has routes of several kinds.
pub(super) fn wants(headers: &HeaderMap) -> Wants {
    let names = |name: HeaderName, value: &str| {
        let mut values = headers
            .get_all(name)
            .iter()
            .filter_map(|header| header.to_str().ok());
        values.any(|values| {
            values
                .split([',', ';'])
                .any(|given| given.trim().eq_ignore_ascii_case(value))
        })
    };
    if names(header::UPGRADE, "websocket") {
        Wants::WebSocket
    } else if names(header::ACCEPT, "text/event-stream") {
        Wants::Events
    } else {
        Wants::Other
    }
}
