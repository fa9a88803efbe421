//! Each path shows one thing that such a component may do, correctly or not.

use crate::{
    body::{begin, end, wait, write},
    ends, world,
};
use std::sync::atomic::{AtomicUsize, Ordering};
use wasip2::{
    exports::http::incoming_handler::Guest,
    http::types::{ErrorCode, Fields, IncomingRequest, OutgoingResponse, ResponseOutparam},
};

wasip2::http::proxy::export!(Proxy);

struct Proxy;

/// Number of requests that this instance has received.
static REQUESTS: AtomicUsize = AtomicUsize::new(0);

impl Guest for Proxy {
    fn handle(request: IncomingRequest, answer: ResponseOutparam) {
        let count = REQUESTS.fetch_add(1, Ordering::Relaxed) + 1;
        let target = request.path_with_query().unwrap_or_default();
        match target.as_str() {
            "/echo" => echo(&request, answer),
            "/wait" => {
                wait();
                whole(answer, 200, "at last");
            }
            "/collect" => collect(&request, answer),
            "/idle" => idle(answer),
            "/after" => {
                whole(answer, 200, "answered");
                wait();
            }
            "/count" => whole(answer, 200, &count.to_string()),
            "/keep-request" => {
                // It is never dropped, so that the next request of this instance would find it.
                std::mem::forget(request);
                whole(answer, 200, &count.to_string());
            }
            "/error" => ResponseOutparam::set(
                answer,
                Err(ErrorCode::InternalError(Some("a secret".to_owned()))),
            ),
            "/silent" => {}
            "/part" => {
                eprint!("a part");
                whole(answer, 200, "printed");
            }
            "/line" => {
                eprintln!("a line");
                whole(answer, 200, "printed");
            }
            "/trap" => panic!("a secret"),
            "/half" => half(answer),
            "/trailing-trap" => {
                whole(answer, 200, "all of it");
                panic!("a secret");
            }
            "/headers" => ends::headers(answer),
            _ if target.starts_with("/world/") => {
                whole(answer, 200, &world::reach(&target["/world/".len()..]))
            }
            _ if target.starts_with("/status/") => {
                let status = target["/status/".len()..].parse().expect("a number");
                whole(answer, status, "hello");
            }
            _ if target.starts_with("/trailers?") => {
                ends::trailers(&target["/trailers?".len()..], &request, answer)
            }
            _ if target.starts_with("/end/") => {
                let (how, query) = target["/end/".len()..]
                    .split_once('?')
                    .unwrap_or((&target["/end/".len()..], ""));
                ends::answer(how, query.strip_prefix("length="), answer);
            }
            _ => whole(
                answer,
                200,
                &format!(
                    "{:?} {target} for {}",
                    request.method(),
                    request.authority().unwrap_or_default()
                ),
            ),
        }
    }
}

/// Answers with a Content-Length.
fn whole(answer: ResponseOutparam, status: u16, text: &str) {
    let headers = Fields::new();
    headers
        .set("content-length", &[text.len().to_string().into_bytes()])
        .expect("the name is allowed");
    headers
        .set("x-version", &[b"0.2".to_vec()])
        .expect("the name is allowed");
    let response = OutgoingResponse::new(headers);
    response.set_status_code(status).expect("it is one");
    let (body, out) = begin(answer, response);
    write(&out, text.as_bytes());
    end(body, out);
}

/// Sends the request's body back, piece by piece as it arrives.
fn echo(request: &IncomingRequest, answer: ResponseOutparam) {
    let (body, out) = begin(answer, OutgoingResponse::new(Fields::new()));
    let incoming = request.consume().expect("the body is consumed once");
    let stream = incoming.stream().expect("the stream is opened once");
    while let Ok(piece) = stream.blocking_read(64 << 10) {
        write(&out, &piece);
    }
    end(body, out);
}

/// Answers when the request's body has ended.
fn collect(request: &IncomingRequest, answer: ResponseOutparam) {
    let incoming = request.consume().expect("the body is consumed once");
    let stream = incoming.stream().expect("the stream is opened once");
    while stream.blocking_read(64 << 10).is_ok() {}
    whole(answer, 200, "collected");
}

/// Sends a first piece, and then nothing for as long as the host allows it. It does not read the
/// request's body.
fn idle(answer: ResponseOutparam) {
    let (body, out) = begin(answer, OutgoingResponse::new(Fields::new()));
    write(&out, b"a first piece");
    wait();
    end(body, out);
}

/// Announces more bytes than it sends, and then traps.
fn half(answer: ResponseOutparam) {
    let headers = Fields::new();
    headers
        .set("content-length", &[b"100".to_vec()])
        .expect("the name is allowed");
    let (_body, out) = begin(answer, OutgoingResponse::new(headers));
    write(&out, b"the first half");
    panic!("a secret");
}
