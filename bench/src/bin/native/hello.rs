//! Hello: the least that an HTTP server can do.

use std::convert::Infallible;

use anyhow::Result;
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};

/// Answers every request with `hello`.
pub(crate) async fn serve(listener: TcpListener) -> Result<()> {
    loop {
        let stream = crate::listen::accept(&listener).await?;
        tokio::task::spawn_local(answer_all(stream));
    }
}

async fn answer_all(stream: TcpStream) {
    let service = service_fn(async |_: Request<Incoming>| Ok::<_, Infallible>(hello()));
    // A connection that fails has ended, and that is all there is to know of it here.
    let _ = http1::Builder::new()
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

fn hello() -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from_static(b"hello")));
    let text = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, text);
    response
}
