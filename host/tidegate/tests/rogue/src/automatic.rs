//! The auto-response of a connection or a room, as both sockets and rooms set it.

use tidegate::prelude::*;

/// "ping pong" sets "pong" as the response to "ping"; an empty text clears the auto-response.
pub(crate) fn automatic(with: &str) -> Result {
    match with.split_once(' ') {
        Some((request, response)) => tidegate::set_auto_response(request, response),
        None => {
            tidegate::clear_auto_response();
            Ok(())
        }
    }
}
