//! `tidegate reload`: another version of a running server's app, without losing a connection.

use crate::{args::ReloadArgs, control, failure::Failure};

/// Asks the server that has this data, and tells what it says.
pub(crate) fn run(args: &ReloadArgs) -> Result<(), Failure> {
    let done = control::reload(&args.data, args.rollback)?;
    super::say(&format!("{done}\n"))
}
