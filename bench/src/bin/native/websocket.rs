//! Upgrades every request to a WebSocket and hands it to a conversation.

use std::convert::Infallible;

use anyhow::Result;
use http_body_util::Empty;
use hyper::body::{Bytes, Incoming};
use hyper::header::{CONNECTION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, UPGRADE};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::spawn_local;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};

/// One WebSocket of a server.
pub(crate) type Socket = WebSocketStream<TokioIo<Upgraded>>;

const READ_BUFFER_BYTES: usize = 4096;
const WRITE_BUFFER_BYTES: usize = 8192;

/// Accepts for ever; `talk` has each socket until it ends.
pub(crate) async fn serve<T>(
    listener: TcpListener,
    talk: impl Fn(Socket) -> T + Clone + 'static,
) -> Result<()>
where
    T: Future<Output = ()> + 'static,
{
    loop {
        let stream = crate::listen::accept(&listener).await?;
        spawn_local(upgrade(stream, talk.clone()));
    }
}

async fn upgrade<T>(stream: TcpStream, talk: impl Fn(Socket) -> T + Clone + 'static)
where
    T: Future<Output = ()> + 'static,
{
    let service = service_fn(move |mut request: Request<Incoming>| {
        let Some(key) = request.headers().get(SEC_WEBSOCKET_KEY) else {
            return std::future::ready(Ok::<_, Infallible>(refusal()));
        };
        let accepted = acceptance(&derive_accept_key(key.as_bytes()));
        spawn_local(converse(hyper::upgrade::on(&mut request), talk.clone()));
        std::future::ready(Ok(accepted))
    });
    // A connection that fails has ended, and that is all there is to know of it here.
    let _ = http1::Builder::new()
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades()
        .await;
}

async fn converse<T: Future<Output = ()>>(upgrading: OnUpgrade, talk: impl Fn(Socket) -> T) {
    let Ok(upgraded) = upgrading.await else {
        return;
    };
    let config = WebSocketConfig::default()
        .read_buffer_size(READ_BUFFER_BYTES)
        .write_buffer_size(WRITE_BUFFER_BYTES);
    talk(
        WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Server, Some(config)).await,
    )
    .await;
}

fn acceptance(accept_key: &str) -> Response<Empty<Bytes>> {
    Response::builder()
        .status(StatusCode::SWITCHING_PROTOCOLS)
        .header(UPGRADE, "websocket")
        .header(CONNECTION, "upgrade")
        .header(SEC_WEBSOCKET_ACCEPT, accept_key)
        .body(Empty::new())
        .expect("a base64 key is a header value")
}

fn refusal() -> Response<Empty<Bytes>> {
    let mut response = Response::new(Empty::new());
    *response.status_mut() = StatusCode::UPGRADE_REQUIRED;
    response
}
