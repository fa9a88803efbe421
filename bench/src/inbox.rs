//! Bytes that a socket has delivered and that were not taken yet.

use anyhow::{Result, ensure};
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;

const INBOX_BYTES: usize = 4096;

/// A fixed buffer: one read is at most this long, and so is one frame or answer.
#[derive(Debug)]
pub struct Inbox {
    buffer: Box<[u8]>,
    filled: usize,
}

impl Inbox {
    /// An empty inbox.
    pub fn new() -> Self {
        Self {
            buffer: vec![0; INBOX_BYTES].into_boxed_slice(),
            filled: 0,
        }
    }

    /// Waits for more bytes; the end of the stream is an error, for here it is always too early.
    pub async fn fill(&mut self, stream: &mut TcpStream) -> Result<()> {
        ensure!(
            self.filled < self.buffer.len(),
            "more than {INBOX_BYTES} bytes in one frame or answer"
        );
        let count = stream.read(&mut self.buffer[self.filled..]).await?;
        ensure!(count > 0, "the server ended the connection");
        self.filled += count;
        Ok(())
    }

    /// All that arrived and was not taken.
    pub fn bytes(&self) -> &[u8] {
        &self.buffer[..self.filled]
    }

    /// Takes `count` bytes away from the front.
    pub fn take(&mut self, count: usize) {
        self.buffer.copy_within(count..self.filled, 0);
        self.filled -= count;
    }
}

impl Default for Inbox {
    fn default() -> Self {
        Self::new()
    }
}
