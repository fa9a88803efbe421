//! `/end/{how}?length=…`: answers that end in each way in which a guest may end one, or fail to.
//! Without `length` they have no Content-Length.

use crate::{
    body::{begin, end, wait, write},
    excess,
};
use std::mem;
use wasip2::http::types::{
    Fields, IncomingRequest, OutgoingBody, OutgoingResponse, ResponseOutparam,
};

pub(crate) fn answer(how: &str, length: Option<&str>, answer: ResponseOutparam) {
    let headers = Fields::new();
    if let Some(length) = length {
        headers
            .set("content-length", &[length.as_bytes().to_vec()])
            .expect("the name is allowed");
    }
    let response = OutgoingResponse::new(headers);
    if how == "bodiless" {
        return ResponseOutparam::set(answer, Ok(response));
    }
    let Ok(body) = response.body() else {
        return ResponseOutparam::set(answer, Ok(response));
    };
    let out = body.write().expect("it is taken once");
    ResponseOutparam::set(answer, Ok(response));
    write(&out, b"hello");
    match how {
        "finish" => end(body, out),
        "trap" => panic!("a secret"),
        "spin" => excess::spin(),
        "memory" => excess::grow(),
        "exit" => std::process::exit(0),
        "drop" => drop((out, body)),
        "leak" => {
            drop(out);
            mem::forget(body);
        }
        "leak-stream" => mem::forget((out, body)),
        "more" => {
            write(&out, b" and more");
            end(body, out);
        }
        "finish-trap" => {
            end(body, out);
            panic!("a secret");
        }
        "finish-wait" => {
            end(body, out);
            wait();
        }
        "finish-spin" => {
            end(body, out);
            excess::spin();
        }
        _ => panic!("an answer does not end like {how}"),
    }
}

/// Sends the trailers that the query names, after a body; with `announced`, their names are in the
/// head. With `size`, the body has about as many bytes more. With `read`, the first bytes of the
/// request's body are read before.
pub(crate) fn trailers(query: &str, request: &IncomingRequest, answer: ResponseOutparam) {
    let headers = Fields::new();
    let (query, size) = query.split_once("&size=").unwrap_or((query, "0"));
    let (query, reads) = match query.strip_suffix("&read") {
        Some(query) => (query, true),
        None => (query, false),
    };
    if reads {
        let incoming = request.consume().expect("the body is consumed once");
        let stream = incoming.stream().expect("the stream is opened once");
        _ = stream.blocking_read(1);
    }
    let (names, is_announced) = match query.strip_prefix("announced&") {
        Some(names) => (names, true),
        None => (query, false),
    };
    if is_announced {
        headers
            .set("trailer", &[names.replace('&', ", ").into_bytes()])
            .expect("the name is allowed");
    }
    let (body, out) = begin(answer, OutgoingResponse::new(headers));
    let size: usize = size.parse().expect("a number");
    write(&out, "hello".repeat(size / 5 + 1).as_bytes());
    drop(out);
    let trailers = Fields::new();
    for name in names.split('&') {
        // Some headers may be refused here already.
        _ = trailers.set(name, &[b"1".to_vec()]);
    }
    _ = OutgoingBody::finish(body, Some(trailers));
}

/// Sets headers that an app may not set.
pub(crate) fn headers(answer: ResponseOutparam) {
    let headers = Fields::new();
    let refused = excess::refused(|name| headers.set(name, &[b"guest".to_vec()]).is_err());
    let (body, out) = begin(answer, OutgoingResponse::new(headers));
    write(&out, refused.as_bytes());
    end(body, out);
}
