//! The only route is `GET /fetch?scheme=http&authority=127.0.0.1:80`.

use wasip3::{
    exports::http::handler::Guest,
    http::{
        client,
        types::{ErrorCode, Fields, Request, Response, Scheme},
    },
    spawn_local, wit_future, wit_stream,
};

wasip3::http::service::export!(Errand);

struct Errand;

impl Guest for Errand {
    async fn handle(request: Request) -> Result<Response, ErrorCode> {
        let target = request.get_path_with_query().unwrap_or_default();
        let parameter = |name: &str| {
            let query = target.split_once('?').map_or("", |(_, query)| query);
            query
                .split('&')
                .find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='))
                .unwrap_or_default()
        };
        let scheme = if parameter("scheme") == "https" {
            Scheme::Https
        } else {
            Scheme::Http
        };
        let (status, text) = match fetch(scheme, parameter("authority")).await {
            Ok(text) => (200, text),
            Err(text) => (502, text),
        };
        Ok(respond(status, text))
    }
}

async fn fetch(scheme: Scheme, authority: &str) -> Result<String, String> {
    let (_trailers, none) = wit_future::new(|| Ok(None));
    let (request, _sent) = Request::new(Fields::new(), None, none, None);
    request
        .set_scheme(Some(&scheme))
        .map_err(|()| "the scheme")?;
    request
        .set_authority(Some(authority))
        .map_err(|()| "the authority")?;
    request
        .set_path_with_query(Some("/errand"))
        .map_err(|()| "the path")?;
    let response = client::send(request)
        .await
        .map_err(|code| format!("{code:?}"))?;
    let status = response.get_status_code();
    let (_done, result) = wit_future::new(|| Ok(()));
    let (mut body, trailers) = Response::consume_body(response, result);
    let mut text = Vec::new();
    loop {
        let (outcome, piece) = body.read(Vec::with_capacity(4096)).await;
        text.extend(piece);
        if !matches!(outcome, wasip3::wit_bindgen::StreamResult::Complete(_)) {
            break;
        }
    }
    // A truncated body is reported here.
    trailers.await.map_err(|code| format!("{code:?}"))?;
    Ok(format!("{status} {}", String::from_utf8_lossy(&text)))
}

fn respond(status: u16, text: String) -> Response {
    let (mut body, reader) = wit_stream::new();
    spawn_local(async move {
        body.write_all(text.into_bytes()).await;
    });
    let (_trailers, none) = wit_future::new(|| Ok(None));
    let (response, _sent) = Response::new(Fields::new(), Some(reader), none);
    response
        .set_status_code(status)
        .expect("the status is valid");
    response
}
