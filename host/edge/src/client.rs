//! The client's side: WebSockets (RFC 6455) over plain TCP or a pipe, and requests over a pipe.
//! `tidegate connect` and `tidegate test` use it.

use bytes::Bytes;
use futures_util::{SinkExt as _, StreamExt as _};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri, header};
use http_body_util::{BodyExt as _, Full};
use hyper::{body::Incoming, client::conn::http1};
use hyper_util::rt::TokioIo;
use std::{fmt, io, time::Duration};
use tidegate_hub::{Close, Message};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::{Instant, timeout_at},
};
use tokio_tungstenite::{
    WebSocketStream, client_async,
    tungstenite::{self, client::IntoClientRequest as _, protocol::CloseFrame},
};

/// A WebSocket whose handshake is complete.
///
/// ```no_run
/// # async fn example() -> Result<(), tidegate_edge::client::ClientError> {
/// use tidegate_edge::client::{ServerEvent, WebSocketClient};
/// let mut client = WebSocketClient::connect("ws://127.0.0.1:8080/echo", &[], &[]).await?;
/// client.send(tidegate_hub::Message::text("hi")).await?;
/// assert!(matches!(client.receive().await, ServerEvent::Message(_)));
/// # Ok(())
/// # }
/// ```
pub struct WebSocketClient<Io = TcpStream> {
    stream: WebSocketStream<Io>,
    protocol: Option<String>,
    /// Time of the last frame from the server.
    last_frame_at: Instant,
    /// Number of pings since then.
    pings: u32,
}

/// Event from the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ServerEvent {
    /// A whole message.
    Message(Message),
    /// The end: the code and reason of the close frame, 1005 if that frame has no code, or 1006 if
    /// there was no close frame.
    Closed(Close),
}

/// Error of a client: no WebSocket, or no answer.
#[derive(Debug)]
pub enum ClientError {
    /// The text is not a WebSocket URL.
    Url(String),
    /// The header or subprotocol is invalid.
    Header(String),
    /// The server can't be reached, or it closed the connection.
    Io(io::Error),
    /// The server refused the upgrade: its status and the beginning of its answer.
    Refused(StatusCode, String),
    /// The server violated the protocol.
    Protocol(String),
}

impl fmt::Display for ClientError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ClientError::Url(why) => write!(f, "{why}: write it as in ws://127.0.0.1:8080/echo"),
            ClientError::Header(what) => write!(
                f,
                "{what:?} is no header: write it as in \"authorization: Bearer x\""
            ),
            ClientError::Io(error) => write!(f, "{error}"),
            ClientError::Refused(status, text) => write!(f, "refused with {status}: {text}"),
            ClientError::Protocol(what) => write!(f, "the server broke the protocol: {what}"),
        }
    }
}

impl std::error::Error for ClientError {}

impl WebSocketClient {
    /// Connects and completes the handshake. Headers are pairs of name and value. The server
    /// selects one of the subprotocols.
    pub async fn connect(
        url: &str,
        headers: &[(String, String)],
        protocols: &[String],
    ) -> Result<WebSocketClient, ClientError> {
        let uri: Uri = url
            .parse()
            .map_err(|error| ClientError::Url(format!("{url:?} is no URL: {error}")))?;
        let host = match (uri.scheme_str(), uri.host()) {
            (Some("ws"), Some(host)) => host.trim_matches(['[', ']']).to_owned(),
            (Some("wss"), _) => {
                return Err(ClientError::Url(
                    "wss needs TLS, which is the proxy's".into(),
                ));
            }
            _ => {
                return Err(ClientError::Url(format!(
                    "{url:?} is no URL of a WebSocket"
                )));
            }
        };
        let stream = TcpStream::connect((host, uri.port_u16().unwrap_or(80)))
            .await
            .map_err(ClientError::Io)?;
        _ = stream.set_nodelay(true);
        WebSocketClient::over(stream, url, headers, protocols).await
    }
}

impl<Io: AsyncRead + AsyncWrite + Unpin> WebSocketClient<Io> {
    /// Completes the handshake on an existing connection.
    pub async fn over(
        io: Io,
        url: &str,
        headers: &[(String, String)],
        protocols: &[String],
    ) -> Result<WebSocketClient<Io>, ClientError> {
        let mut request = url
            .into_client_request()
            .map_err(|error| ClientError::Url(error.to_string()))?;
        for (name, value) in headers {
            let bad = || ClientError::Header(format!("{name}: {value}"));
            let name: HeaderName = name.parse().map_err(|_| bad())?;
            request
                .headers_mut()
                .append(name, HeaderValue::from_str(value).map_err(|_| bad())?);
        }
        if !protocols.is_empty() {
            let value = HeaderValue::from_str(&protocols.join(", "))
                .map_err(|_| ClientError::Header(protocols.join(", ")))?;
            request
                .headers_mut()
                .insert(header::SEC_WEBSOCKET_PROTOCOL, value);
        }
        let (stream, response) = client_async(request, io).await.map_err(client_error)?;
        let protocol = response
            .headers()
            .get(header::SEC_WEBSOCKET_PROTOCOL)
            .and_then(|value| value.to_str().ok())
            .map(str::to_owned);
        Ok(WebSocketClient {
            stream,
            protocol,
            last_frame_at: Instant::now(),
            pings: 0,
        })
    }

    /// Returns the subprotocol that the server selected.
    pub fn protocol(&self) -> Option<&str> {
        self.protocol.as_deref()
    }

    /// Sends a message.
    pub async fn send(&mut self, message: Message) -> Result<(), ClientError> {
        let message = match message {
            Message::Text(text) => tungstenite::Message::text(text.to_string()),
            Message::Binary(bytes) => tungstenite::Message::Binary(bytes),
        };
        self.stream.send(message).await.map_err(client_error)
    }

    /// Begins the close handshake. The server's close frame is then received like any other.
    pub async fn close(&mut self, close: Close) {
        _ = self
            .stream
            .close(Some(CloseFrame {
                code: close.code.into(),
                reason: close.reason.into(),
            }))
            .await;
    }

    /// Does the same as [`receive`](WebSocketClient::receive), and sends a ping if no frame has come for
    /// `every`. If two pings get no answer, the connection counts as lost (1006). Dropping the
    /// future loses nothing.
    pub async fn receive_or_ping(&mut self, every: Duration) -> ServerEvent {
        loop {
            let due = self.last_frame_at + every * (self.pings + 1);
            match timeout_at(due, self.receive()).await {
                Ok(received) => return received,
                // A ping or pong has come in the meantime.
                Err(_) if self.last_frame_at + every * (self.pings + 1) > due => {}
                Err(_) if self.pings == 2 => {
                    return ServerEvent::Closed(Close {
                        code: 1006,
                        reason: format!("nothing came for {} s", (every * 3).as_secs()),
                    });
                }
                Err(_) => {
                    self.pings += 1;
                    // The timeout also ends a connection that takes no more bytes.
                    _ = timeout_at(
                        due + every,
                        self.stream.send(tungstenite::Message::Ping(Bytes::new())),
                    )
                    .await;
                }
            }
        }
    }

    /// Returns the next message or the end. Dropping the future loses nothing.
    pub async fn receive(&mut self) -> ServerEvent {
        let gone = || {
            ServerEvent::Closed(Close {
                code: 1006,
                reason: String::new(),
            })
        };
        loop {
            let next = self.stream.next().await;
            (self.last_frame_at, self.pings) = (Instant::now(), 0);
            match next {
                Some(Ok(tungstenite::Message::Text(text))) => {
                    return ServerEvent::Message(Message::text(text.to_string()));
                }
                Some(Ok(tungstenite::Message::Binary(bytes))) => {
                    return ServerEvent::Message(Message::Binary(bytes));
                }
                Some(Ok(tungstenite::Message::Close(frame))) => {
                    // The stream is polled further so that our close frame is written.
                    while let Some(Ok(_)) = self.stream.next().await {}
                    let close = frame.map_or(
                        Close {
                            code: 1005,
                            reason: String::new(),
                        },
                        |frame| Close {
                            code: frame.code.into(),
                            reason: frame.reason.to_string(),
                        },
                    );
                    return ServerEvent::Closed(close);
                }
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return gone(),
            }
        }
    }
}

fn client_error(error: tungstenite::Error) -> ClientError {
    match error {
        tungstenite::Error::Http(response) => {
            let body = response.body().as_deref().unwrap_or_default();
            let text = String::from_utf8_lossy(&body[..body.len().min(1000)])
                .trim()
                .to_owned();
            ClientError::Refused(response.status(), text)
        }
        tungstenite::Error::Io(error) => ClientError::Io(error),
        other => ClientError::Protocol(other.to_string()),
    }
}

/// Head of the answer to a request, with a body that is still to be read.
pub struct HttpResponse {
    /// Status code.
    pub status: StatusCode,
    /// All headers.
    pub headers: HeaderMap,
    body: Incoming,
}

/// Sends a request on an existing connection. The connection can't be used for another request.
///
/// # Errors
/// Returns an error if the answer is invalid, or if the server closes the connection.
pub async fn request<Io>(io: Io, request: http::Request<Bytes>) -> Result<HttpResponse, ClientError>
where
    Io: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let broken = |error: hyper::Error| ClientError::Protocol(error.to_string());
    let (mut sender, connection) = http1::handshake(TokioIo::new(io)).await.map_err(broken)?;
    tokio::spawn(connection);
    let (parts, body) = sender
        .send_request(request.map(Full::new))
        .await
        .map_err(broken)?
        .into_parts();
    Ok(HttpResponse {
        status: parts.status,
        headers: parts.headers,
        body,
    })
}

impl HttpResponse {
    /// Returns the next piece of the body, or `None` at its end.
    ///
    /// # Errors
    /// Returns an error if the body breaks off.
    pub async fn next_piece(&mut self) -> Result<Option<Bytes>, ClientError> {
        loop {
            match self.body.frame().await {
                None => return Ok(None),
                Some(Err(error)) => {
                    return Err(ClientError::Protocol(format!(
                        "the answer broke off: {error}"
                    )));
                }
                Some(Ok(frame)) => {
                    if let Ok(bytes) = frame.into_data() {
                        return Ok(Some(bytes));
                    }
                }
            }
        }
    }
}

/// An event of an event stream (WHATWG HTML, section 9.2).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StreamEvent {
    /// Name of the event, if it has one.
    pub name: Option<String>,
    /// Data of the event; its lines are joined by LF.
    pub data: String,
}

impl StreamEvent {
    /// Takes the first whole event from the text read so far. Comments, and blocks without data,
    /// are not events.
    ///
    /// ```
    /// use tidegate_edge::client::StreamEvent;
    /// let mut read = ":\n\nid: 7\nevent: tick\ndata: a\ndata:b\n\ndata: half".to_owned();
    /// assert_eq!(StreamEvent::take(&mut read), Some(StreamEvent { name: Some("tick".into()), data: "a\nb".into() }));
    /// assert_eq!((StreamEvent::take(&mut read), &*read), (None, "data: half"));
    /// ```
    pub fn take(read: &mut String) -> Option<StreamEvent> {
        while let Some(end) = read.find("\n\n") {
            let block: String = read.drain(..end + 2).collect();
            let value = |line, field| {
                str::strip_prefix(line, field)?
                    .strip_prefix(':')
                    .map(|value| value.strip_prefix(' ').unwrap_or(value))
            };
            let of = |field| {
                block
                    .lines()
                    .filter_map(|line| value(line, field))
                    .collect::<Vec<_>>()
            };
            let (names, data) = (of("event"), of("data"));
            if !data.is_empty() {
                return Some(StreamEvent {
                    name: names.last().map(ToString::to_string),
                    data: data.join("\n"),
                });
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::duplex;

    #[tokio::test]
    async fn a_server_that_answers_no_ping_counts_as_lost() {
        let (near, far) = duplex(1000);
        let (server, client) = tokio::join!(
            tokio_tungstenite::accept_async(far),
            WebSocketClient::over(near, "ws://x/", &[], &[])
        );
        let (mut server, mut client) = (server.unwrap(), client.unwrap());
        let every = Duration::from_millis(20);
        // A server that still reads answers the pings. The loop has more of them than may be
        // missed.
        let pings = async {
            for _ in 0..5 {
                assert!(matches!(
                    server.next().await,
                    Some(Ok(tungstenite::Message::Ping(_)))
                ));
            }
            server
                .send(tungstenite::Message::text("late"))
                .await
                .unwrap();
            server.next().await
        };
        tokio::select! {
            received = client.receive_or_ping(every) => assert_eq!(received, ServerEvent::Message(Message::text("late"))),
            next = pings => panic!("{next:?} instead of the message"),
        }
        let lost = client.receive_or_ping(every).await;
        assert!(
            matches!(&lost, ServerEvent::Closed(close) if close.code == 1006),
            "{lost:?}"
        );
    }
}
