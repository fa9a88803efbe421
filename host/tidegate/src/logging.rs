//! The log: lines on stderr, for people or for machines.

use crate::{
    args::{LogArgs, LogFormat},
    colour,
};
use std::io::stderr;

/// From now on what the walls trace is written.
pub(crate) fn start(args: LogArgs) {
    // A reader of the log that went away must not bring the server down: errors of writing are left alone.
    let lines =
        tracing_subscriber::fmt().with_writer(stderr).with_env_filter(args.log).with_ansi(colour::is_on()).log_internal_errors(false);
    match args.log_format {
        LogFormat::Text => lines.init(),
        LogFormat::Json => lines.json().flatten_event(true).init(),
    }
}
