//! A `wasi:http` 0.2 component that answers `hello`, by the bindings alone: no executor, no
//! framework.

use wasip2::exports::http::incoming_handler::Guest;
use wasip2::http::types::{
    Fields, IncomingRequest, OutgoingBody, OutgoingResponse, ResponseOutparam,
};

const BODY: &[u8] = b"hello";

struct Hello;

wasip2::http::proxy::export!(Hello);

impl Guest for Hello {
    fn handle(_: IncomingRequest, answer: ResponseOutparam) {
        let headers = Fields::new();
        headers
            .set("content-type", &[b"text/plain; charset=utf-8".to_vec()])
            .expect("the name is allowed");
        headers
            .set("content-length", &[BODY.len().to_string().into_bytes()])
            .expect("the name is allowed");
        let response = OutgoingResponse::new(headers);
        let body = response.body().expect("the body was not taken before");
        ResponseOutparam::set(answer, Ok(response));
        let stream = body.write().expect("the stream was not taken before");
        stream
            .blocking_write_and_flush(BODY)
            .expect("the host takes five bytes");
        drop(stream);
        OutgoingBody::finish(body, None).expect("the length is what was promised");
    }
}
