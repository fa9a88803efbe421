//! `tidegate reload`: another version of a running server's app, without losing a connection.

use crate::{args::ReloadArgs, command_error::CommandError, control};

/// Asks the server that has this data, and tells what it says.
pub(crate) fn run(args: &ReloadArgs) -> Result<(), CommandError> {
    let done = control::reload(&args.data, args.rollback)?;
    super::say(&format!("{done}\n"))
}
