//! `tidegate reload`: replaces the app of a running server.

use crate::{args::ReloadArgs, command_error::CommandError, control};

/// Sends the request to the server with this data directory, and prints its response.
pub(crate) fn run(args: &ReloadArgs) -> Result<(), CommandError> {
    let done = control::reload(&args.data, args.rollback)?;
    super::print(&format!("{done}\n"))
}
