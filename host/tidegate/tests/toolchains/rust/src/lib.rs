//! The probe in Rust: its TCP connections are those of `std::net`.

use std::net::TcpStream;
use wasip2::{
    exports::http::incoming_handler::Guest,
    http::types::{Fields, IncomingRequest, OutgoingBody, OutgoingResponse, ResponseOutparam},
    io::streams::{OutputStream, StreamError},
};

wasip2::http::proxy::export!(Probe);

struct Probe;

impl Guest for Probe {
    fn handle(request: IncomingRequest, answer: ResponseOutparam) {
        let response = OutgoingResponse::new(Fields::new());
        let body = response.body().expect("a new response has a body");
        let out = body.write().expect("a new body has a stream");
        ResponseOutparam::set(answer, Ok(response));
        let outcome = match request.path_with_query().unwrap_or_default().as_str() {
            "/echo" => echo(&request, &out),
            "/connect" => {
                out.blocking_write_and_flush(if TcpStream::connect("127.0.0.1:9").is_err() {
                    b"refused"
                } else {
                    b"connected"
                })
            }
            _ => out.blocking_write_and_flush(b"hello"),
        };
        drop(out);
        if outcome.is_ok() {
            OutgoingBody::finish(body, None).expect("no length was promised");
        }
    }
}

fn echo(request: &IncomingRequest, out: &OutputStream) -> Result<(), StreamError> {
    let body = request.consume().expect("it is read once");
    let stream = body.stream().expect("it is read once");
    while let Ok(piece) = stream.blocking_read(4096) {
        out.blocking_write_and_flush(&piece)?;
    }
    Ok(())
}
