//! One WebSocket as the load generator holds it: raw bytes out, whole messages in, pings answered.

use std::net::SocketAddr;

use anyhow::{Context as _, Result, bail, ensure};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use crate::frame::{self, Opcode};
use crate::inbox::Inbox;

/// The example key of RFC 6455 and the answer that it demands.
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";
const HEADERS_MAX: usize = 32;
const PONG_MASK: [u8; 4] = [0x5A, 0x3C, 0x96, 0x0F];

/// An open WebSocket.
#[derive(Debug)]
pub struct Connection {
    stream: TcpStream,
    inbox: Inbox,
    pongs: Vec<u8>,
}

impl Connection {
    /// Connects and shakes hands.
    pub async fn open(address: SocketAddr, path: &str) -> Result<Self> {
        let mut stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        stream
            .write_all(handshake(address, path).as_bytes())
            .await?;
        let mut inbox = Inbox::new();
        loop {
            inbox.fill(&mut stream).await?;
            if let Some(head_bytes) = accepted(inbox.bytes())? {
                inbox.take(head_bytes);
                return Ok(Self {
                    stream,
                    inbox,
                    pongs: Vec::new(),
                });
            }
        }
    }

    /// Sends frames that are encoded already.
    pub async fn write(&mut self, wire: &[u8]) -> Result<()> {
        Ok(self.stream.write_all(wire).await?)
    }

    /// Hands every whole message that has arrived to `each`, and waits for bytes only if no frame
    /// had; there may be no message among them.
    pub async fn read(&mut self, mut each: impl FnMut(&[u8]) -> Result<()>) -> Result<()> {
        if self.deliver(&mut each)? == 0 {
            self.inbox.fill(&mut self.stream).await?;
            self.deliver(&mut each)?;
        }
        if !self.pongs.is_empty() {
            self.stream.write_all(&self.pongs).await?;
            self.pongs.clear();
        }
        Ok(())
    }

    /// An error when the server has ended a connection that we left alone.
    pub fn check_open(&self) -> Result<()> {
        match self.stream.try_read(&mut [0; 256]) {
            Ok(0) => bail!("the server ended an idle connection"),
            Err(error) if error.kind() != std::io::ErrorKind::WouldBlock => Err(error.into()),
            _ => Ok(()),
        }
    }

    /// Takes whole frames out of the inbox; returns how many bytes they had.
    fn deliver(&mut self, each: &mut impl FnMut(&[u8]) -> Result<()>) -> Result<usize> {
        let mut taken = 0;
        while let Some(frame) = frame::parse(&self.inbox.bytes()[taken..])? {
            match frame.opcode {
                Opcode::Text | Opcode::Binary => each(frame.payload)?,
                Opcode::Ping => {
                    frame::encode(Opcode::Pong, frame.payload, PONG_MASK, &mut self.pongs)
                }
                Opcode::Pong => {}
                Opcode::Close => bail!("the server closed: {}", close_reason(frame.payload)),
            }
            taken += frame.wire_bytes;
        }
        self.inbox.take(taken);
        Ok(taken)
    }
}

fn handshake(address: SocketAddr, path: &str) -> String {
    format!(
        "GET {path} HTTP/1.1\r\nHost: {address}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: {KEY}\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )
}

/// The length of the answer's head once it is whole; an error unless it accepts our key.
fn accepted(wire: &[u8]) -> Result<Option<usize>> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut response = httparse::Response::new(&mut headers);
    let httparse::Status::Complete(head_bytes) =
        response.parse(wire).context("not an HTTP answer")?
    else {
        return Ok(None);
    };
    ensure!(
        response.code == Some(101),
        "the handshake was answered with {:?}",
        response.code
    );
    let accept = response
        .headers
        .iter()
        .find(|header| header.name.eq_ignore_ascii_case("sec-websocket-accept"));
    ensure!(
        accept.is_some_and(|accept| accept.value == ACCEPT.as_bytes()),
        "the handshake's accept key is wrong"
    );
    Ok(Some(head_bytes))
}

fn close_reason(payload: &[u8]) -> String {
    match payload.split_first_chunk() {
        Some((code, reason)) => format!(
            "{} {}",
            u16::from_be_bytes(*code),
            String::from_utf8_lossy(reason)
        ),
        None => "no code".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncReadExt as _;
    use tokio::net::TcpListener;

    const ACCEPTED: &str = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                            Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";

    /// A server that answers any request with `script`, and hands back what follows the request.
    async fn serve(listener: TcpListener, script: Vec<u8>, reply_bytes: usize) -> Vec<u8> {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut request = Vec::new();
        while !request.ends_with(b"\r\n\r\n") {
            request.push(stream.read_u8().await.unwrap());
        }
        stream.write_all(&script).await.unwrap();
        let mut reply = vec![0; reply_bytes];
        stream.read_exact(&mut reply).await.unwrap();
        reply
    }

    #[tokio::test]
    async fn early_frames_are_kept_and_pings_are_answered() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let frames = [0x81, 1, b'a', 0x89, 1, b'p', 0x82, 1, b'b'];
        let script = [ACCEPTED.as_bytes(), &frames, &[0x81, 1, b'c']].concat();
        let server = tokio::spawn(serve(listener, script, 7));
        let mut connection = Connection::open(address, "/").await.unwrap();
        let mut received = Vec::new();
        while received != b"abc" {
            let receive = |payload: &[u8]| {
                received.extend_from_slice(payload);
                Ok(())
            };
            connection.read(receive).await.unwrap();
        }
        let mut pong = Vec::new();
        frame::encode(Opcode::Pong, b"p", PONG_MASK, &mut pong);
        assert_eq!(server.await.unwrap(), pong);
    }

    #[test]
    fn only_the_right_accept_key_opens() {
        assert_eq!(accepted(ACCEPTED.as_bytes()).unwrap(), Some(ACCEPTED.len()));
        assert_eq!(accepted(&ACCEPTED.as_bytes()[..40]).unwrap(), None);
        assert!(accepted(ACCEPTED.replace("s3p", "S3P").as_bytes()).is_err());
        assert!(accepted(b"HTTP/1.1 200 OK\r\n\r\n").is_err());
    }

    #[test]
    fn a_close_is_reported_with_its_code() {
        assert_eq!(close_reason(&[0x03, 0xF5, b'n', b'o']), "1013 no");
        assert_eq!(close_reason(&[]), "no code");
    }
}
