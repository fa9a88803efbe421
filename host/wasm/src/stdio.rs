//! What a guest prints goes to the log, a line at a time.

use std::{
    io,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll},
};
use tidegate_hub::{Conn, Manifest, RoomId};
use tokio::io::AsyncWrite;
use tracing::field::display;
use wasmtime_wasi::cli::{IsTerminal, StdoutStream};

/// A longer line is cut into pieces of this size.
const LINE_BYTES_MAX: usize = 8 << 10;

#[derive(Clone, Copy)]
pub(crate) enum Channel {
    Out,
    Err,
}

/// What an event is about.
#[derive(Clone, Default)]
pub(crate) struct About {
    pub(crate) conn: Option<Arc<Conn>>,
    pub(crate) room: Option<RoomId>,
    /// Of a request: index into the manifest's routes, and the pages behind them.
    pub(crate) route: Option<u32>,
}

/// What the event that runs in an instance is about.
pub(crate) type Now = Arc<Mutex<About>>;

/// Standard output or error of one instance.
#[derive(Clone)]
pub(crate) struct GuestOutput {
    channel: Channel,
    line: Arc<Mutex<Vec<u8>>>,
    now: Now,
    manifest: Option<Arc<Manifest>>,
}

impl GuestOutput {
    pub(crate) fn new(channel: Channel, now: &Now, manifest: Option<Arc<Manifest>>) -> GuestOutput {
        GuestOutput { channel, line: Arc::default(), now: now.clone(), manifest }
    }

    fn log(&self, line: &mut Vec<u8>) {
        let text = String::from_utf8_lossy(line);
        let About { conn, room, route } = self.now.lock().expect("nothing panics while it holds it").clone();
        let by_connection = || Some(conn.as_ref()?.route()?.pattern.as_str());
        let by_index = |index| self.manifest.as_ref()?.pattern(index);
        let route = route.and_then(by_index).or_else(by_connection);
        let (connection, room) = (conn.as_ref().map(|conn| display(conn.id())), room.as_ref().map(display));
        match self.channel {
            Channel::Out => tracing::info!(target: "app", connection, room, route, "{text}"),
            Channel::Err => tracing::warn!(target: "app", connection, room, route, "{text}"),
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
