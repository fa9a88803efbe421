//! `/end/{how}?length=…`: answers that end in each way in which a guest may end one, or fail to.
//! Without `length` they have no Content-Length.

use crate::{
    body::{respond, wait},
    excess,
};
use std::{cell::RefCell, mem};
use wasip3::{
    http::types::{ErrorCode, Fields, Request, Response},
    spawn_local,
    wit_bindgen::StreamWriter,
    wit_future, wit_stream,
};

thread_local! {
    /// A body that an earlier request left open.
    static OPEN: RefCell<Option<StreamWriter<u8>>> = const { RefCell::new(None) };
}

pub(crate) fn answer(how: &str, length: Option<&str>) -> Response {
    let headers = Fields::new();
    if let Some(length) = length {
        headers
            .set("content-length", &[length.as_bytes().to_vec()])
            .expect("the name is allowed");
    }
    if how == "bodiless" {
        let (_trailers, none) = wit_future::new(|| Ok(None));
        return Response::new(headers, None, none).0;
    }
    if let Some(which) = how.strip_prefix("trailers-") {
        return with_trailers(which, headers);
    }
    let (mut body, reader) = wit_stream::new();
    let how = how.to_owned();
    spawn_local(async move {
        body.write_all(b"hello".to_vec()).await;
        match how.as_str() {
            "finish" => {}
            "trap" => panic!("a secret"),
            "spin" => excess::spin(),
            "memory" => excess::grow(),
            "exit" => std::process::exit(0),
            "leak" => mem::forget(body),
            "keep" => OPEN.set(Some(body)),
            "more" => {
                body.write_all(b" and more".to_vec()).await;
            }
            "finish-trap" => {
                drop(body);
                wasip3::clocks::monotonic_clock::wait_for(1_000_000).await;
                panic!("a secret");
            }
            "finish-wait" => {
                drop(body);
                wait().await;
            }
            "finish-spin" => {
                drop(body);
                wasip3::clocks::monotonic_clock::wait_for(1_000_000).await;
                excess::spin();
            }
            _ => panic!("an answer does not end like {how}"),
        }
    });
    respond(headers, reader)
}

/// Answers with the body that an earlier request left open, and writes to it, if there is one.
pub(crate) async fn write_to_open() -> bool {
    let Some(mut body) = OPEN.take() else {
        return false;
    };
    body.write_all(b" of another request".to_vec()).await;
    true
}

fn with_trailers(which: &str, headers: Fields) -> Response {
    let (mut body, reader) = wit_stream::new();
    let (trailers, result) = wit_future::new::<Result<Option<Fields>, ErrorCode>>(|| Ok(None));
    let fails = which == "error";
    spawn_local(async move {
        body.write_all(b"hello".to_vec()).await;
        drop(body);
        if fails {
            _ = trailers
                .write(Err(ErrorCode::InternalError(Some("a secret".into()))))
                .await;
        } else {
            mem::forget(trailers);
        }
    });
    Response::new(headers, Some(reader), result).0
}

/// Sends the trailers that the query names, after a body; with `announced`, their names are in the
/// head. With `size`, the body has about as many bytes more. With `read`, the first bytes of the
/// request's body are read before.
pub(crate) async fn trailers(query: &str, request: Request) -> Response {
    let headers = Fields::new();
    let (query, size) = query.split_once("&size=").unwrap_or((query, "0"));
    let (query, reads) = match query.strip_suffix("&read") {
        Some(query) => (query, true),
        None => (query, false),
    };
    if reads {
        let (_done, result) = wit_future::new(|| Ok(()));
        let (mut incoming, _trailers) = Request::consume_body(request, result);
        _ = incoming.read(Vec::with_capacity(1)).await;
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
    let fields = Fields::new();
    for name in names.split('&') {
        // Some headers may be refused here already.
        _ = fields.set(name, &[b"1".to_vec()]);
    }
    let (mut body, reader) = wit_stream::new();
    let (trailers, result) = wit_future::new::<Result<Option<Fields>, ErrorCode>>(|| Ok(None));
    let size: usize = size.parse().expect("a number");
    spawn_local(async move {
        body.write_all("hello".repeat(size / 5 + 1).into_bytes())
            .await;
        drop(body);
        _ = trailers.write(Ok(Some(fields))).await;
    });
    Response::new(headers, Some(reader), result).0
}

/// Sets headers that an app may not set.
pub(crate) fn headers() -> Response {
    let headers = Fields::new();
    let refused = excess::refused(|name| headers.set(name, &[b"guest".to_vec()]).is_err());
    let text = refused;
    let (mut body, reader) = wit_stream::new();
    spawn_local(async move {
        body.write_all(text.into_bytes()).await;
    });
    respond(headers, reader)
}

/// Answers with the request's own body, unread: the host forwards it. With `traps`, it traps after
/// that.
pub(crate) fn pass(request: Request, traps: bool) -> Response {
    let (_done, result) = wit_future::new(|| Ok(()));
    let (body, trailers) = Request::consume_body(request, result);
    if traps {
        spawn_local(async {
            wasip3::clocks::monotonic_clock::wait_for(1_000_000).await;
            panic!("a secret");
        });
    }
    Response::new(Fields::new(), Some(body), trailers).0
}
