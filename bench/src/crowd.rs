//! Many WebSockets, opened a few at a time so that no listener's backlog overflows.

use std::net::SocketAddr;

use anyhow::Result;
use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};

use crate::connection::Connection;

const HANDSHAKES_AT_ONCE_MAX: usize = 50;

/// Opens `count` connections to one path, or in turn to each of as many as the path says:
/// `/kept/{50}` is `/kept/0` to `/kept/49`.
pub async fn open(address: SocketAddr, path: &str, count: usize) -> Result<Vec<Connection>> {
    let open = |index| async move { Connection::open(address, &path_of(path, index)).await };
    stream::iter(0..count)
        .map(open)
        .buffer_unordered(HANDSHAKES_AT_ONCE_MAX)
        .try_collect()
        .await
}

/// The path of one of the connections.
pub fn path_of(path: &str, index: usize) -> String {
    let parts = path.split_once('{').and_then(|(before, rest)| {
        let (count, after) = rest.split_once('}')?;
        Some((before, count.parse::<usize>().ok()?.max(1), after))
    });
    parts.map_or_else(
        || path.to_owned(),
        |(before, count, after)| format!("{before}{}{after}", index % count),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_go_to_the_paths_in_turn() {
        assert_eq!(
            [0, 1, 2].map(|index| path_of("/kept/{2}", index)),
            ["/kept/0", "/kept/1", "/kept/0"]
        );
        assert_eq!(path_of("/echo", 7), "/echo");
        assert_eq!(path_of("/{x}", 7), "/{x}");
    }
}
