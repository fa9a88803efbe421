//! The other side: WebSockets (RFC 6455) over plain TCP or over a pipe, and requests over a pipe. For `tidegate connect` and `tidegate test`.

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
/// use tidegate_edge::client::{Client, Received};
/// let mut client = Client::connect("ws://127.0.0.1:8080/echo", &[], &[]).await?;
/// client.send(tidegate_hub::Message::text("hi")).await?;
/// assert!(matches!(client.receive().await, Received::Message(_)));
/// # Ok(())
/// # }
/// ```
pub struct Client<Io = TcpStream> {
    stream: WebSocketStream<Io>,
    protocol: Option<String>,
    /// Time of the last frame of the server.
    heard: Instant,
    /// Number of pings since then.
    pings: u32,
}

/// What the server did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Received {
    /// A message, whole.
    Message(Message),
    /// The end: the code and reason of its close frame, 1005 where that had none, 1006 where there was no such frame.
    Closed(Close),
}

/// Why there is no WebSocket.
#[derive(Debug)]
pub enum ClientError {
    /// Not a URL of a WebSocket.
    Url(String),
    /// A header or subprotocol that none can be.
    Header(String),
    /// The server can't be reached, or went away.
    Io(io::Error),
    /// The server refused the upgrade: its status and the beginning of its answer.
    Refused(StatusCode, String),
    /// The server broke the protocol.
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

impl Client {
    /// Connects and completes the handshake. Headers are names and values; of the subprotocols the server picks one.
    pub async fn connect(
        url: &str,
        headers: &[(String, String)],
        protocols: &[String],
    ) -> Result<Client, ClientError> {
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
        Client::over(stream, url, headers, protocols).await
    }
}

impl<Io: AsyncRead + AsyncWrite + Unpin> Client<Io> {
    /// Completes the handshake on a connection that is there already.
    pub async fn over(
        io: Io,
        url: &str,
        headers: &[(String, String)],
        protocols: &[String],
    ) -> Result<Client<Io>, ClientError> {
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
        let (stream, response) = client_async(request, io).await.map_err(refused)?;
        let protocol = response
            .headers()
            .get(header::SEC_WEBSOCKET_PROTOCOL)
            .and_then(|value| value.to_str().ok())
            .map(str::to_owned);
        Ok(Client {
            stream,
            protocol,
            heard: Instant::now(),
            pings: 0,
        })
    }

    /// The subprotocol that the server picked.
    pub fn protocol(&self) -> Option<&str> {
        self.protocol.as_deref()
    }

    /// Sends a message.
    pub async fn send(&mut self, message: Message) -> Result<(), ClientError> {
        let message = match message {
            Message::Text(text) => tungstenite::Message::text(text.to_string()),
            Message::Binary(bytes) => tungstenite::Message::Binary(bytes),
        };
        self.stream.send(message).await.map_err(refused)
    }

    /// Begins the close handshake; the server's half is received as any other close.
    pub async fn close(&mut self, close: Close) {
        _ = self
            .stream
            .close(Some(CloseFrame {
                code: close.code.into(),
                reason: close.reason.into(),
            }))
            .await;
    }

    /// As [`receive`](Client::receive), and sends a ping when no frame has come for `every`. If two pings bring none either, the connection
    /// counts as lost (1006). Dropping the future loses nothing.
    pub async fn receive_or_ping(&mut self, every: Duration) -> Received {
        loop {
            let due = self.heard + every * (self.pings + 1);
            match timeout_at(due, self.receive()).await {
                Ok(received) => return received,
                // A ping or pong has come meanwhile.
                Err(_) if self.heard + every * (self.pings + 1) > due => {}
                Err(_) if self.pings == 2 => {
                    return Received::Closed(Close {
                        code: 1006,
                        reason: format!("nothing came for {} s", (every * 3).as_secs()),
                    });
                }
                Err(_) => {
                    self.pings += 1;
                    // Also a connection that takes no more bytes is found by the time alone.
                    _ = timeout_at(
                        due + every,
                        self.stream.send(tungstenite::Message::Ping(Bytes::new())),
                    )
                    .await;
                }
            }
        }
    }

    /// The next message, or the end. Dropping the future loses nothing.
    pub async fn receive(&mut self) -> Received {
        let gone = || {
            Received::Closed(Close {
                code: 1006,
                reason: String::new(),
            })
        };
        loop {
            let next = self.stream.next().await;
            (self.heard, self.pings) = (Instant::now(), 0);
            match next {
                Some(Ok(tungstenite::Message::Text(text))) => {
                    return Received::Message(Message::text(text.to_string()));
                }
                Some(Ok(tungstenite::Message::Binary(bytes))) => {
                    return Received::Message(Message::Binary(bytes));
                }
                Some(Ok(tungstenite::Message::Close(frame))) => {
                    // Polled on, so that our half is written.
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
                    return Received::Closed(close);
                }
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return gone(),
            }
        }
    }
}

fn refused(error: tungstenite::Error) -> ClientError {
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

/// The answer to a request, its body still to come.
pub struct Answer {
    /// Status.
    pub status: StatusCode,
    /// All headers.
    pub headers: HeaderMap,
    body: Incoming,
}

/// Sends a request on a connection that is there already, and is of no use for others then.
///
/// # Errors
/// If the server can't be understood, or went away.
pub async fn request<Io>(io: Io, request: http::Request<Bytes>) -> Result<Answer, ClientError>
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
    Ok(Answer {
        status: parts.status,
        headers: parts.headers,
        body,
    })
}

impl Answer {
    /// The next piece of the body; none at its end.
    ///
    /// # Errors
    /// If it broke off.
    pub async fn piece(&mut self) -> Result<Option<Bytes>, ClientError> {
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
pub struct Event {
    /// Its name, where it has one.
    pub name: Option<String>,
    /// Its data, lines joined by LF.
    pub data: String,
}

impl Event {
    /// Takes the first whole event from what was read of a stream; comments, and blocks without data, are none.
    ///
    /// ```
    /// use tidegate_edge::client::Event;
    /// let mut read = ":\n\nid: 7\nevent: tick\ndata: a\ndata:b\n\ndata: half".to_owned();
    /// assert_eq!(Event::take(&mut read), Some(Event { name: Some("tick".into()), data: "a\nb".into() }));
    /// assert_eq!((Event::take(&mut read), &*read), (None, "data: half"));
    /// ```
    pub fn take(read: &mut String) -> Option<Event> {
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
                return Some(Event {
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
            Client::over(near, "ws://x/", &[], &[])
        );
        let (mut server, mut client) = (server.unwrap(), client.unwrap());
        let every = Duration::from_millis(20);
        // A server that is read answers: more pings than would be missed.
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
            received = client.receive_or_ping(every) => assert_eq!(received, Received::Message(Message::text("late"))),
            next = pings => panic!("{next:?} instead of the message"),
        }
        let lost = client.receive_or_ping(every).await;
        assert!(
            matches!(&lost, Received::Closed(close) if close.code == 1006),
            "{lost:?}"
        );
    }
}
