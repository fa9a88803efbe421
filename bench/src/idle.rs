//! Idle: connections that were opened and do nothing, and the server's resident memory for each of them.

use std::time::Duration;

use anyhow::Result;

use crate::crowd;
use crate::outcome::{Figure, Outcome};
use crate::server::Server;

/// Also what rooms need to fall asleep that sleep after a second.
const SETTLE: Duration = Duration::from_secs(3);

/// Opens `connections` and weighs the server before and after. `earlier` connections come and go before that: what the server
/// keeps for its busiest moment (a pool's instances, the allocator's pages) is no connection's.
pub async fn run(connections: usize, earlier: usize, server: &Server, path: &str) -> Result<Outcome> {
    drop(crowd::open(server.address, path, earlier).await?);
    tokio::time::sleep(SETTLE).await;
    let before = server.process.resident_bytes()?;
    let crowd = crowd::open(server.address, path, connections).await?;
    tokio::time::sleep(SETTLE).await;
    let after = server.process.resident_bytes()?;
    crowd.iter().try_for_each(|connection| connection.check_open())?;
    Ok(outcome(connections, before, after))
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
