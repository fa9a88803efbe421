//! Clients of the tests: a WebSocket of tokio-tungstenite, and the bytes of a socket.

use super::PATIENCE;
use futures_util::{SinkExt as _, StreamExt as _, stream::BoxStream};
use std::{fmt::Debug, future::Future};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpSocket, TcpStream},
    time::timeout,
};
use tokio_tungstenite::{
    MaybeTlsStream, WebSocketStream, connect_async,
    tungstenite::{
        self, client::IntoClientRequest, handshake::client::Response, protocol::CloseFrame,
    },
};
pub(crate) use tungstenite::Message;

/// Waits for an event that should be near, or fails.
pub(crate) async fn soon<T>(what: impl Debug, future: impl Future<Output = T>) -> T {
    timeout(PATIENCE, future)
        .await
        .unwrap_or_else(|_| panic!("{what:?} took longer than {PATIENCE:?}"))
}

/// Requests a path, and returns the status and the body.
pub(crate) async fn get(server: &super::Tidegate, path: &str) -> (u16, String) {
    let answer = soon(path, reqwest::get(server.url(path))).await.unwrap();
    (
        answer.status().as_u16(),
        soon(path, answer.text()).await.unwrap(),
    )
}

/// A WebSocket whose handshake is complete.
pub(crate) struct Socket {
    stream: WebSocketStream<MaybeTlsStream<TcpStream>>,
    /// The server's half of the handshake.
    pub(crate) response: Response,
}

impl Socket {
    /// Connects; fails the test at a refusal.
    pub(crate) async fn connect(request: impl IntoClientRequest + Unpin + Debug) -> Socket {
        Socket::try_connect(request)
            .await
            .unwrap_or_else(|refusal| panic!("refused: {refusal:?}"))
    }

    /// Connects, or returns the refusal with its status and body.
    pub(crate) async fn try_connect(
        request: impl IntoClientRequest + Unpin + Debug,
    ) -> Result<Socket, Box<Response>> {
        match soon("the handshake", connect_async(request)).await {
            Ok((stream, response)) => Ok(Socket { stream, response }),
            Err(tungstenite::Error::Http(refusal)) => Err(refusal),
            Err(error) => panic!("neither a handshake nor a refusal: {error}"),
        }
    }

    /// Sends a message.
    pub(crate) async fn send(&mut self, message: impl Into<Message>) {
        soon("to send", self.stream.send(message.into()))
            .await
            .expect("the connection is open");
    }

    /// Returns the next message; fails the test at a close.
    pub(crate) async fn receive(&mut self) -> Message {
        match self.next().await {
            Some(Message::Close(frame)) => panic!("closed instead of a message: {frame:?}"),
            Some(message) => message,
            None => panic!("the connection ended instead of a message"),
        }
    }

    /// Returns the next frame of any kind. A ping is answered with the next frame that is sent.
    pub(crate) async fn frame(&mut self) -> Message {
        soon("a frame", self.stream.next())
            .await
            .expect("the connection is open")
            .expect("the frame is valid")
    }

    /// Returns the text of the next message.
    pub(crate) async fn text(&mut self) -> String {
        self.receive()
            .await
            .into_text()
            .expect("it is text")
            .to_string()
    }

    /// Sends a text, and returns the answer.
    pub(crate) async fn ask(&mut self, text: &str) -> String {
        self.send(text).await;
        self.text().await
    }

    /// Returns the close frame, which must be next, and completes the close handshake.
    pub(crate) async fn closed(&mut self) -> (u16, String) {
        let frame = match self.next().await {
            Some(Message::Close(Some(CloseFrame { code, reason }))) => {
                (code.into(), reason.to_string())
            }
            other => panic!("{other:?} instead of a close frame"),
        };
        assert!(
            self.next().await.is_none(),
            "no frame follows the close frame"
        );
        frame
    }

    /// Closes with 1000, and completes the close handshake.
    pub(crate) async fn close(mut self) {
        soon("to close", self.stream.close(None))
            .await
            .expect("the connection is open");
        while self.next().await.is_some() {}
    }

    /// Returns the next message or close and skips pings and pongs; returns none at the end.
    async fn next(&mut self) -> Option<Message> {
        // One deadline covers the whole wait: the host sends pings for as long as the connection is
        // open.
        soon("a message", async {
            loop {
                match self.stream.next().await? {
                    Ok(Message::Ping(_) | Message::Pong(_)) => {}
                    Ok(message) => return Some(message),
                    Err(_) => return None,
                }
            }
        })
        .await
    }
}

/// A connection that sends and receives raw bytes.
pub(crate) struct Raw {
    stream: TcpStream,
    /// Bytes that were read from the socket and not yet returned.
    unread: Vec<u8>,
}

impl Raw {
    /// Connects to "ip:port".
    pub(crate) async fn connect(address: &str) -> Raw {
        Raw {
            stream: TcpStream::connect(address)
                .await
                .expect("the server accepts"),
            unread: Vec::new(),
        }
    }

    /// Connects to "ip:port" from an IPv4 address of this machine.
    pub(crate) async fn connect_from(address: &str, from: &str) -> Raw {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(format!("{from}:0").parse().unwrap()).unwrap();
        let stream = soon("to connect", socket.connect(address.parse().unwrap()))
            .await
            .expect("it is accepted");
        Raw {
            stream,
            unread: Vec::new(),
        }
    }

    /// Connects, and sends these bytes.
    pub(crate) async fn send(address: &str, bytes: &str) -> Raw {
        let mut raw = Raw::connect(address).await;
        raw.write(bytes).await;
        raw
    }

    /// Sends these bytes.
    pub(crate) async fn write(&mut self, bytes: impl AsRef<[u8]>) {
        soon("to write", self.stream.write_all(bytes.as_ref()))
            .await
            .expect("the connection is open");
    }

    /// Returns everything up to and including this text.
    pub(crate) async fn until(&mut self, end: &str) -> String {
        let mut searched = 0;
        loop {
            let new = &self.unread[searched..];
            // The search in a text is compiled with optimisation, unlike that of windows, and some
            // tests read megabytes.
            if String::from_utf8_lossy(new).contains(end) {
                let at = new
                    .windows(end.len())
                    .position(|window| window == end.as_bytes())
                    .expect("it is there");
                let rest = self.unread.split_off(searched + at + end.len());
                return String::from_utf8_lossy(&std::mem::replace(&mut self.unread, rest))
                    .into_owned();
            }
            searched = (self.unread.len() + 1).saturating_sub(end.len());
            let read = soon(end, self.stream.read_buf(&mut self.unread)).await;
            if !matches!(read, Ok(1..)) {
                let tail = &self.unread[self.unread.len().saturating_sub(1000)..];
                panic!(
                    "{read:?} instead of {end:?} after {:?}",
                    String::from_utf8_lossy(tail)
                );
            }
        }
    }

    /// Writes these bytes, and discards all bytes that arrive meanwhile. Returns false if the
    /// connection has ended.
    pub(crate) async fn exchange(&mut self, bytes: &[u8]) -> bool {
        let (mut reader, mut writer) = self.stream.split();
        let mut write = std::pin::pin!(writer.write_all(bytes));
        let mut read = vec![0; 64 << 10];
        loop {
            tokio::select! {
                written = &mut write => return written.is_ok(),
                count = reader.read(&mut read) => if !matches!(count, Ok(1..)) { return false },
            }
        }
    }

    /// Resets the connection, so that the server learns that nothing will be read.
    pub(crate) fn reset(self) {
        self.stream.set_zero_linger().expect("it is open");
    }

    /// Sends these bytes, or returns false if the connection has ended.
    pub(crate) async fn try_write(&mut self, bytes: &[u8]) -> bool {
        soon("to write", self.stream.write_all(bytes)).await.is_ok()
    }

    /// Ends the sending side, and continues to read.
    pub(crate) async fn end_sending(&mut self) {
        self.stream
            .shutdown()
            .await
            .expect("the connection is open");
    }

    /// As [`rest`](Raw::rest), in bytes.
    pub(crate) async fn rest_bytes(&mut self) -> Vec<u8> {
        _ = soon("the end", self.stream.read_to_end(&mut self.unread)).await;
        std::mem::take(&mut self.unread)
    }

    /// Returns everything up to the end of the connection.
    pub(crate) async fn rest(&mut self) -> String {
        // A connection that is reset ends as well.
        _ = soon("the end", self.stream.read_to_end(&mut self.unread)).await;
        String::from_utf8_lossy(&std::mem::take(&mut self.unread)).into_owned()
    }
}

/// Serves the rogue app with one instance, and returns a request that occupies it: the guest
/// sleeps, for an hour at most.
pub(crate) async fn serve_sleeping_request(path: &str, args: &[&str]) -> (super::Tidegate, Raw) {
    let limits = [
        "--instances",
        "1",
        "--wall",
        "1h",
        "--limit",
        "half_close_within=300ms",
    ];
    let server = super::Tidegate::serve(&super::component("rogue"), &[&limits[..], args].concat());
    let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n");
    let raw = Raw::send(server.address(), &request).await;
    server.wait_for("about to sleep");
    (server, raw)
}

/// The client of a feed: reads until a text has arrived.
pub(crate) struct Reader {
    pieces: BoxStream<'static, reqwest::Result<Vec<u8>>>,
    received: String,
}

impl Reader {
    pub(crate) async fn follow(server: &super::Tidegate, topic: &str) -> Reader {
        let mut reader = Reader::open(server, &format!("/feed?topic={topic}"), None).await;
        assert_eq!(
            reader.until("second\n\n").await,
            "event: begun\ndata: first\ndata: second\n\n"
        );
        assert!(
            reader.until("-0\n\n").await.starts_with("id: "),
            "the feed begins with its position"
        );
        reader
    }

    /// `last` is the id of the last event that the client received.
    pub(crate) async fn open(server: &super::Tidegate, path: &str, last: Option<&str>) -> Reader {
        let request = reqwest::Client::new()
            .get(server.url(path))
            .header("accept", "text/event-stream");
        let request = last.into_iter().fold(request, |request, last| {
            request.header("last-event-id", last)
        });
        let answer = soon("the feed", request.send()).await.unwrap();
        let header = |name: &str| answer.headers()[name].to_str().unwrap().to_owned();
        assert_eq!(
            (answer.status().as_u16(), header("content-type").as_str()),
            (200, "text/event-stream")
        );
        assert_eq!(
            (
                header("cache-control").as_str(),
                header("x-accel-buffering").as_str()
            ),
            ("no-cache, no-transform", "no")
        );
        Reader {
            pieces: answer
                .bytes_stream()
                .map(|piece| piece.map(Into::into))
                .boxed(),
            received: String::new(),
        }
    }

    /// Returns the last id of the client when this text has arrived.
    pub(crate) async fn id_at(&mut self, end: &str) -> String {
        let event = self.until(end).await;
        event
            .lines()
            .filter_map(|line| line.strip_prefix("id: "))
            .next_back()
            .expect("an id")
            .to_owned()
    }

    /// Removes and returns everything up to and including this text.
    pub(crate) async fn until(&mut self, end: &str) -> String {
        while !self.received.contains(end) {
            let piece = soon(end, self.pieces.next())
                .await
                .unwrap_or_else(|| panic!("no {end:?} after {:?}", self.received))
                .unwrap();
            self.received += std::str::from_utf8(&piece).unwrap();
        }
        let rest = self
            .received
            .split_off(self.received.find(end).unwrap() + end.len());
        std::mem::replace(&mut self.received, rest)
    }
}
