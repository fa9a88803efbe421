//! Pings of the app, in a socket and in a room.

use tidegate::prelude::*;

/// Pings with this payload, or sends the error.
pub(crate) fn ping(conn: &Conn, payload: &[u8]) -> Result {
    match conn.ping(payload) {
        Ok(()) => Ok(()),
        Err(error) => conn.send(error.to_string()),
    }
}
