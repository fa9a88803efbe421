//! Idle: connections or feeds that were opened and do nothing, and the server's resident memory for
//! each of them.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Result, ensure};
use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use crate::crowd;
use crate::inbox::Inbox;
use crate::outcome::{Figure, Outcome};
use crate::request::request;
use crate::server::Server;

/// Also what rooms need to fall asleep that sleep after a second.
const SETTLE: Duration = Duration::from_secs(3);
const FEEDS_AT_ONCE_MAX: usize = 50;
const EVENT_END: &[u8] = b"\n\n";

/// Opens `connections` and weighs the server before and after. `earlier` connections come and go
/// before that: what the server keeps for its busiest moment (a pool's instances, the allocator's
/// pages) is no connection's.
pub async fn run(
    connections: usize,
    earlier: usize,
    server: &Server,
    path: &str,
) -> Result<Outcome> {
    drop(crowd::open(server.address, path, earlier).await?);
    tokio::time::sleep(SETTLE).await;
    let before = server.process.resident_bytes()?;
    let crowd = crowd::open(server.address, path, connections).await?;
    tokio::time::sleep(SETTLE).await;
    let after = server.process.resident_bytes()?;
    crowd
        .iter()
        .try_for_each(|connection| connection.check_open())?;
    Ok(outcome(connections, before, after))
}

/// The same for event streams, each open once its first event is there. One comes and goes before.
pub async fn feeds(feeds: usize, server: &Server, path: &str) -> Result<Outcome> {
    drop(open_feed(server.address, path).await?);
    tokio::time::sleep(SETTLE).await;
    let before = server.process.resident_bytes()?;
    let open = (0..feeds).map(|_| open_feed(server.address, path));
    let open: Vec<TcpStream> = stream::iter(open)
        .buffer_unordered(FEEDS_AT_ONCE_MAX)
        .try_collect()
        .await?;
    tokio::time::sleep(SETTLE).await;
    let after = server.process.resident_bytes()?;
    drop(open);
    Ok(outcome(feeds, before, after))
}

async fn open_feed(address: SocketAddr, path: &str) -> Result<TcpStream> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(request(address, path).as_bytes()).await?;
    let mut inbox = Inbox::new();
    while !inbox
        .bytes()
        .windows(EVENT_END.len())
        .any(|window| window == EVENT_END)
    {
        inbox.fill(&mut stream).await?;
    }
    ensure!(
        inbox.bytes().starts_with(b"HTTP/1.1 200"),
        "{}",
        String::from_utf8_lossy(inbox.bytes())
    );
    Ok(stream)
}

fn outcome(connections: usize, before: u64, after: u64) -> Outcome {
    let each = (after as f64 - before as f64) / connections as f64;
    Outcome(vec![
        Figure::new("connections", connections as f64),
        Figure::new("before MiB", before as f64 / f64::from(1 << 20)),
        Figure::new("after MiB", after as f64 / f64::from(1 << 20)),
        Figure::cost("KiB a connection", each / 1024.0),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cost_is_the_growth_for_each() {
        assert_eq!(outcome(1024, 1 << 20, 5 << 20).cost(), 4.0);
    }
}
