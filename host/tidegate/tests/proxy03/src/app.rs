//! The same paths as those of `proxy02`, in the async interfaces of 0.3.

use crate::{
    body::{AN_HOUR, respond, wait},
    ends, world,
};
use wasip3::{
    exports::http::handler::Guest,
    http::types::{ErrorCode, Fields, Request, Response},
    spawn_local, wit_future, wit_stream,
};

wasip3::http::service::export!(Proxy);

struct Proxy;

impl Guest for Proxy {
    async fn handle(request: Request) -> Result<Response, ErrorCode> {
        let target = request.get_path_with_query().unwrap_or_default();
        match target.as_str() {
            "/echo" => Ok(echo(request)),
            "/wait" => {
                wait().await;
                Ok(whole("at last".to_owned()))
            }
            "/block" => {
                // This call blocks as in the contract: nothing else of this instance can run
                // meanwhile.
                std::thread::sleep(std::time::Duration::from_nanos(AN_HOUR));
                Ok(whole("at last".to_owned()))
            }
            "/collect" => {
                collect(request).await;
                Ok(whole("collected".to_owned()))
            }
            "/idle" => Ok(idle()),
            "/after" => {
                spawn_local(wait());
                Ok(whole("answered".to_owned()))
            }
            "/error" => Err(ErrorCode::InternalError(Some("a secret".to_owned()))),
            "/trap" => panic!("a secret"),
            "/half" => Ok(half()),
            "/part" => {
                eprint!("a part");
                Ok(whole("printed".into()))
            }
            "/line" => {
                eprintln!("a line");
                Ok(whole("printed".into()))
            }
            "/ever" => loop {
                std::hint::black_box(());
            },
            "/headers" => Ok(ends::headers()),
            _ if target.starts_with("/world/") => {
                Ok(whole(world::reach(&target["/world/".len()..]).await))
            }
            "/pass" => Ok(ends::pass(request, false)),
            "/pass-trap" => Ok(ends::pass(request, true)),
            "/write-to-open" => Ok(whole(
                if ends::write_to_open().await {
                    "written"
                } else {
                    "none is open"
                }
                .to_owned(),
            )),
            _ if target.starts_with("/status/") => {
                let response = whole("hello".to_owned());
                let status = target["/status/".len()..].parse().expect("a number");
                response.set_status_code(status).expect("it is one");
                Ok(response)
            }
            _ if target.starts_with("/trailers?") => {
                Ok(ends::trailers(&target["/trailers?".len()..], request).await)
            }
            _ if target.starts_with("/end/") => {
                let (how, query) = target["/end/".len()..]
                    .split_once('?')
                    .unwrap_or((&target["/end/".len()..], ""));
                Ok(ends::answer(how, query.strip_prefix("length=")))
            }
            _ => Ok(whole(format!(
                "{:?} {target} for {}",
                request.get_method(),
                request.get_authority().unwrap_or_default()
            ))),
        }
    }
}

/// Answers with a Content-Length.
fn whole(text: String) -> Response {
    let headers = Fields::new();
    headers
        .set("content-length", &[text.len().to_string().into_bytes()])
        .expect("the name is allowed");
    headers
        .set("x-version", &[b"0.3".to_vec()])
        .expect("the name is allowed");
    let (mut body, reader) = wit_stream::new();
    spawn_local(async move {
        body.write_all(text.into_bytes()).await;
    });
    respond(headers, reader)
}

/// Sends the request's body back, piece by piece as it arrives.
fn echo(request: Request) -> Response {
    let (_done, result) = wit_future::new(|| Ok(()));
    let (mut incoming, _trailers) = Request::consume_body(request, result);
    let (mut body, reader) = wit_stream::new();
    spawn_local(async move {
        loop {
            let (status, piece) = incoming.read(Vec::with_capacity(64 << 10)).await;
            if piece.is_empty() && !matches!(status, wasip3::wit_bindgen::StreamResult::Complete(_))
            {
                return;
            }
            if !body.write_all(piece).await.is_empty() {
                return; // the client has disconnected
            }
        }
    });
    respond(Fields::new(), reader)
}

/// Completes when the request's body has ended.
async fn collect(request: Request) {
    let (_done, result) = wit_future::new(|| Ok(()));
    let (mut incoming, _trailers) = Request::consume_body(request, result);
    while let (wasip3::wit_bindgen::StreamResult::Complete(_), _) =
        incoming.read(Vec::with_capacity(64 << 10)).await
    {}
}

/// Sends a first piece, and then nothing for as long as the host allows it. It does not read the
/// request's body.
fn idle() -> Response {
    let (mut body, reader) = wit_stream::new();
    spawn_local(async move {
        body.write_all(b"a first piece".to_vec()).await;
        wait().await;
        body.write_all(b"a second".to_vec()).await;
    });
    respond(Fields::new(), reader)
}

/// Announces more bytes than it sends, and then traps.
fn half() -> Response {
    let headers = Fields::new();
    headers
        .set("content-length", &[b"100".to_vec()])
        .expect("the name is allowed");
    let (mut body, reader) = wit_stream::new();
    spawn_local(async move {
        body.write_all(b"the first half".to_vec()).await;
        panic!("a secret");
    });
    respond(headers, reader)
}
