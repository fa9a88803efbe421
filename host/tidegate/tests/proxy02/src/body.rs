//! The body of an answer, from its beginning to its end.

use wasip2::{
    http::types::{OutgoingBody, OutgoingResponse, ResponseOutparam},
    io::streams::OutputStream,
};

/// Longer than any test lasts.
pub(crate) fn wait() {
    wasip2::clocks::monotonic_clock::subscribe_duration(3_600_000_000_000).block();
}

pub(crate) fn begin(
    answer: ResponseOutparam,
    response: OutgoingResponse,
) -> (OutgoingBody, OutputStream) {
    let body = response.body().expect("it is taken once");
    let stream = body.write().expect("it is taken once");
    ResponseOutparam::set(answer, Ok(response));
    (body, stream)
}

/// An error means that the client has disconnected, and is ignored.
pub(crate) fn end(body: OutgoingBody, stream: OutputStream) {
    drop(stream);
    _ = OutgoingBody::finish(body, None);
}

/// A client that disconnects is not an error.
pub(crate) fn write(stream: &OutputStream, bytes: &[u8]) {
    for piece in bytes.chunks(4096) {
        if stream.blocking_write_and_flush(piece).is_err() {
            return;
        }
    }
}
