//! Many WebSockets, opened a few at a time so that no listener's backlog overflows.

use std::net::SocketAddr;

use anyhow::Result;
use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};

use crate::connection::Connection;

const HANDSHAKES_AT_ONCE_MAX: usize = 50;

/// Opens `count` connections to one path.
pub async fn open(address: SocketAddr, path: &str, count: usize) -> Result<Vec<Connection>> {
    stream::iter(0..count).map(|_| Connection::open(address, path)).buffer_unordered(HANDSHAKES_AT_ONCE_MAX).try_collect().await
}
