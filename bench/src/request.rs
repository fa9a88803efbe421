//! Requests: each connection asks for one path again and again, one request at a time.

use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Instant;

use anyhow::{Result, ensure};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use crate::answer::Answer;
use crate::board::{Board, Window};
use crate::inbox::Inbox;
use crate::outcome::Outcome;
use crate::server::Server;
use crate::talks::Talks;

/// Runs the load; every answer has to be 200 with a body as long as the first one's.
pub async fn run(
    connections: usize,
    server: &Server,
    path: &str,
    window: Window,
) -> Result<Outcome> {
    let body_bytes = Asker::open(server.address, path)
        .await?
        .ask()
        .await?
        .body_bytes;
    let board = Rc::new(Board::new());
    let mut talks = Talks::default();
    for _ in 0..connections {
        let asker = Asker::open(server.address, path).await?;
        talks.start(talk(asker, body_bytes, board.clone()));
    }
    let outcome = talks.during(board.watch(window, &server.process)).await?;
    talks.finish().await?;
    Ok(outcome)
}

async fn talk(mut asker: Asker, body_bytes: usize, board: Rc<Board>) -> Result<()> {
    while !board.is_over() {
        let began = Instant::now();
        let answer = asker.ask().await?;
        ensure!(
            answer.body_bytes == body_bytes,
            "a body of {} bytes, not {body_bytes}",
            answer.body_bytes
        );
        board.record(began.elapsed(), 1);
    }
    Ok(())
}

/// One kept connection and the request that it repeats.
struct Asker {
    stream: TcpStream,
    inbox: Inbox,
    request: String,
}

impl Asker {
    async fn open(address: SocketAddr, path: &str) -> Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self {
            stream,
            inbox: Inbox::new(),
            request: request(address, path),
        })
    }

    async fn ask(&mut self) -> Result<Answer> {
        self.stream.write_all(self.request.as_bytes()).await?;
        loop {
            self.inbox.fill(&mut self.stream).await?;
            if let Some(answer) = Answer::parse(self.inbox.bytes())? {
                ensure!(answer.status == 200, "status {}", answer.status);
                self.inbox.take(answer.wire_bytes);
                ensure!(
                    self.inbox.bytes().is_empty(),
                    "the server sent more than an answer"
                );
                return Ok(answer);
            }
        }
    }
}

/// A request with the headers that every client sends.
pub(crate) fn request(address: SocketAddr, path: &str) -> String {
    format!(
        "GET {path} HTTP/1.1\r\nHost: {address}\r\nUser-Agent: tidegate-bench\r\nAccept: */*\r\n\r\n"
    )
}
