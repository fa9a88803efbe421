//! The subcommands, one per file, and their output.

pub(crate) mod check;
pub(crate) mod compile;
pub(crate) mod connect;
pub(crate) mod data;
pub(crate) mod dev;
pub(crate) mod explain;
pub(crate) mod new;
pub(crate) mod reload;
pub(crate) mod routes;
pub(crate) mod serve;
pub(crate) mod shell;
pub(crate) mod tail;
pub(crate) mod test;

use crate::command_error::CommandError;
use std::io::{self, ErrorKind, Write as _};

/// "1 route", "2 routes"
pub(crate) fn plural(count: usize, word: &str) -> String {
    format!("{count} {word}{}", if count == 1 { "" } else { "s" })
}

/// Writes to stdout. A reader that closed the pipe early is not an error.
fn print(text: &str) -> Result<(), CommandError> {
    let mut stdout = io::stdout().lock();
    match stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush())
    {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}
