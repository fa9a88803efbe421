//! A request's body that is read whole, before the app is called.

use super::Exchange;
use crate::{
    http::refusal::RequestRefusal,
    http::request_body::{BodyFailure, RequestBody},
};
use bytes::Bytes;
use http::StatusCode;
use http_body::Body as _;
use http_body_util::{LengthLimitError, Limited};
use tokio::time::timeout;

impl Exchange {
    /// Returns the whole body, or refuses it.
    pub(super) async fn collect(&self, body: RequestBody) -> Result<Bytes, RequestRefusal> {
        let max = self.server.hub.limits().body_bytes_max;
        let too_large = || {
            RequestRefusal::body(
                StatusCode::PAYLOAD_TOO_LARGE,
                format!("the body is larger than {max} bytes"),
            )
        };
        if body.size_hint().lower() > max as u64 {
            return Err(too_large());
        }
        let collected = self.memory.collect(Limited::new(body, max));
        match timeout(self.server.config.body_within, collected).await {
            Ok(Ok(Some(body))) => Ok(body),
            Ok(Ok(None)) => Err(RequestRefusal::BodyMemory),
            Ok(Err(error)) if error.is::<LengthLimitError>() => Err(too_large()),
            Ok(Err(error)) if matches!(error.downcast_ref(), Some(BodyFailure::Late)) => {
                Err(RequestRefusal::slow_body())
            }
            Ok(Err(_)) => Err(RequestRefusal::body(
                StatusCode::BAD_REQUEST,
                "the body broke off",
            )),
            Err(_) => Err(RequestRefusal::slow_body()),
        }
    }
}
