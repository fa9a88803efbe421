//! First byte: from a request on a fresh connection to the first byte of its answer, one after the
//! other.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::outcome::{Figure, Outcome, median};
use crate::request::request;
use crate::server::Server;

/// Before anything counts: the server's first instances are made then.
const WARM_UP: usize = 10;

/// Pause between two requests, after which the work of the earlier one is over.
const PAUSE: Duration = Duration::from_millis(50);

/// Asks `times`; each answer has to begin with 200, and is left at its first bytes.
pub async fn run(times: usize, server: &Server, path: &str) -> Result<Outcome> {
    for _ in 0..WARM_UP {
        first_byte(server, path).await?;
    }
    let mut taken_ms = Vec::new();
    for _ in 0..times {
        taken_ms.push(first_byte(server, path).await?.as_secs_f64() * 1e3);
    }
    let middle = median(&mut taken_ms);
    let p99 = taken_ms[taken_ms.len() * 99 / 100];
    Ok(Outcome(vec![
        Figure::new("p99 ms", p99),
        Figure::cost("ms to the first byte", middle),
    ]))
}

async fn first_byte(server: &Server, path: &str) -> Result<Duration> {
    tokio::time::sleep(PAUSE).await;
    let mut stream = TcpStream::connect(server.address).await?;
    stream.set_nodelay(true)?;
    let began = Instant::now();
    stream
        .write_all(request(server.address, path).as_bytes())
        .await?;
    let mut start = [0; 16];
    let count = stream.read(&mut start).await?;
    let taken = began.elapsed();
    ensure!(
        start[..count].starts_with(b"HTTP/1.1 200"),
        "the answer begins with {:?}",
        String::from_utf8_lossy(&start[..count])
    );
    Ok(taken)
}
