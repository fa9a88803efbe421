//! What a guest prints goes to the log, a line at a time.

use std::{
    io,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll},
};
use tokio::io::AsyncWrite;
use wasmtime_wasi::cli::{IsTerminal, StdoutStream};

/// A longer line is cut into pieces of this size.
const LINE_BYTES_MAX: usize = 8 << 10;

#[derive(Clone, Copy)]
pub(crate) enum Channel {
    Out,
    Err,
}

/// Standard output or error of one instance.
#[derive(Clone)]
pub(crate) struct GuestOutput {
    channel: Channel,
    line: Arc<Mutex<Vec<u8>>>,
}

impl GuestOutput {
    pub(crate) fn new(channel: Channel) -> GuestOutput {
        GuestOutput { channel, line: Arc::default() }
    }

    fn log(&self, line: &mut Vec<u8>) {
        let text = String::from_utf8_lossy(line);
        match self.channel {
            Channel::Out => tracing::info!(target: "app", "{text}"),
            Channel::Err => tracing::warn!(target: "app", "{text}"),
        }
        line.clear();
    }
}

impl IsTerminal for GuestOutput {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdoutStream for GuestOutput {
    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        Box::new(self.clone())
    }
}

impl AsyncWrite for GuestOutput {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let mut line = self.line.lock().expect("nothing panics while it holds a line");
        for byte in bytes {
            match byte {
                b'\n' => self.log(&mut line),
                byte => line.push(*byte),
            }
            if line.len() >= LINE_BYTES_MAX {
                self.log(&mut line);
            }
        }
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut line = self.line.lock().expect("nothing panics while it holds a line");
        if !line.is_empty() {
            self.log(&mut line);
        }
        Poll::Ready(Ok(()))
    }
}
