//! An answer with a body, and the ways to delay it.

use wasip3::{
    http::types::{Fields, Response},
    wit_future,
};

/// Longer than any test lasts, in nanoseconds.
pub(crate) const AN_HOUR: u64 = 3_600_000_000_000;

pub(crate) async fn wait() {
    wasip3::clocks::monotonic_clock::wait_for(AN_HOUR).await;
}

pub(crate) fn respond(headers: Fields, body: wasip3::wit_bindgen::StreamReader<u8>) -> Response {
    let (_trailers, none) = wit_future::new(|| Ok(None));
    Response::new(headers, Some(body), none).0
}
