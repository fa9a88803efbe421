//! Refusals: the host's own answers to requests that it does not give to the app, or whose body it
//! does not take.

use crate::{
    http::answer::{self, HttpAnswer},
    websocket::handshake,
};
use http::{HeaderValue, StatusCode, header};
use std::borrow::Cow;
use tidegate_hub::dispatch::HostRefusal;

/// Reason for which the host refuses a request.
pub(crate) enum RequestRefusal {
    /// The order of handling has no step for it.
    Dispatch(HostRefusal),
    /// Its opening handshake is not valid.
    Handshake(handshake::HandshakeRefusal),
    /// The head is not valid, or asks for something that is not allowed.
    Head {
        status: StatusCode,
        text: Cow<'static, str>,
    },
    /// The body is not taken; its connection ends with the answer.
    Body {
        status: StatusCode,
        text: Cow<'static, str>,
    },
    /// There is not enough memory for the body; its connection ends with the answer.
    BodyMemory,
    /// There is not enough memory for what it asks for.
    Memory,
    /// The client of a proxy has too many connections.
    Connections,
}

impl RequestRefusal {
    /// Refuses a head with this status and text.
    pub(crate) fn head(status: StatusCode, text: impl Into<Cow<'static, str>>) -> RequestRefusal {
        let text = text.into();
        RequestRefusal::Head { status, text }
    }

    /// Refuses a head that is not valid.
    pub(crate) fn bad_head(text: impl Into<Cow<'static, str>>) -> RequestRefusal {
        RequestRefusal::head(StatusCode::BAD_REQUEST, text)
    }

    /// Refuses a body with this status and text.
    pub(crate) fn body(status: StatusCode, text: impl Into<Cow<'static, str>>) -> RequestRefusal {
        let text = text.into();
        RequestRefusal::Body { status, text }
    }

    /// Refuses a body that comes too slowly.
    pub(crate) fn slow_body() -> RequestRefusal {
        RequestRefusal::body(StatusCode::REQUEST_TIMEOUT, "the body took too long")
    }
}

impl From<HostRefusal> for RequestRefusal {
    fn from(refusal: HostRefusal) -> RequestRefusal {
        RequestRefusal::Dispatch(refusal)
    }
}

impl From<handshake::HandshakeRefusal> for RequestRefusal {
    fn from(refusal: handshake::HandshakeRefusal) -> RequestRefusal {
        RequestRefusal::Handshake(refusal)
    }
}

/// Returns the answer to a refused request.
pub(crate) fn refuse(refusal: impl Into<RequestRefusal>) -> HttpAnswer {
    match refusal.into() {
        RequestRefusal::Dispatch(refusal) => {
            let mut answer = answer::text(refusal.status(), &refusal.text());
            if let Some(allow) = refusal.allow() {
                let allow =
                    HeaderValue::from_str(&allow).expect("the rules let only method names pass");
                answer.headers_mut().insert(header::ALLOW, allow);
            }
            answer
        }
        RequestRefusal::Handshake(refusal) => {
            let mut answer = answer::text(refusal.status, refusal.text);
            // RFC 9110 sections 15.5.22 and 7.8: a 426 has both, whichever field is wrong.
            if refusal.status == StatusCode::UPGRADE_REQUIRED {
                let headers = answer.headers_mut();
                headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
                headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
            }
            if let Some((name, value)) = refusal.header {
                answer
                    .headers_mut()
                    .insert(name, HeaderValue::from_static(value));
            }
            answer
        }
        RequestRefusal::Head { status, text } => answer::text(status, &text),
        RequestRefusal::Body { status, text } => answer::with_close(answer::text(status, &text)),
        RequestRefusal::BodyMemory => answer::with_close(answer::out_of_memory()),
        RequestRefusal::Memory => answer::out_of_memory(),
        RequestRefusal::Connections => answer::retry_later("too many connections, try again later"),
    }
}
