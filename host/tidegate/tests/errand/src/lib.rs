//! An app that sends a request to the authority in its query, and answers with the outcome.

use tidegate::prelude::*;

tidegate::serve!(app);

fn app() -> App {
    App::new().get("/fetch", async |req: Request| {
        let is_https = req.query_opt::<String>("scheme")?.as_deref() == Some("https");
        fetch(is_https, &req.query::<String>("authority")?)
    })
}

/// A native build has no outbound HTTP.
#[cfg(not(target_family = "wasm"))]
fn fetch(_: bool, _: &str) -> Result<String> {
    Err(Error::status(501, "only in wasm"))
}

#[cfg(target_family = "wasm")]
fn fetch(is_https: bool, authority: &str) -> Result<String> {
    use wasip2::{
        http::{
            outgoing_handler,
            types::{Fields, OutgoingRequest, Scheme},
        },
        io::streams::StreamError,
    };
    let refused = |what: &str| Error::status(502, what);
    let request = OutgoingRequest::new(Fields::new());
    request
        .set_scheme(Some(if is_https {
            &Scheme::Https
        } else {
            &Scheme::Http
        }))
        .map_err(|()| refused("the scheme"))?;
    request
        .set_authority(Some(authority))
        .map_err(|()| refused("the authority"))?;
    request
        .set_path_with_query(Some("/errand"))
        .map_err(|()| refused("the path"))?;
    let pending =
        outgoing_handler::handle(request, None).map_err(|code| refused(&code.to_string()))?;
    pending.subscribe().block();
    let answer = pending
        .get()
        .expect("it is ready")
        .expect("it is asked once");
    let response = answer.map_err(|code| refused(&code.to_string()))?;
    let body = response.consume().map_err(|()| refused("the body"))?;
    let stream = body.stream().map_err(|()| refused("the body"))?;
    let mut text = Vec::new();
    loop {
        match stream.blocking_read(4096) {
            Ok(piece) => text.extend(piece),
            Err(StreamError::Closed) => break,
            Err(StreamError::LastOperationFailed(error)) => {
                return Err(refused(&error.to_debug_string()));
            }
        }
    }
    Ok(format!(
        "{} {}",
        response.status(),
        String::from_utf8_lossy(&text)
    ))
}
