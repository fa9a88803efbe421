//! The log: lines on stderr, for people or for machines.

use crate::args::{LogArgs, LogFormat};
use std::io::{IsTerminal as _, stderr};

/// From now on what the walls trace is written.
pub(crate) fn start(args: LogArgs) {
    // A reader of the log that went away must not bring the server down: errors of writing are left alone.
    let lines = tracing_subscriber::fmt().with_writer(stderr).with_env_filter(args.log).with_ansi(is_coloured()).log_internal_errors(false);
    match args.log_format {
        LogFormat::Text => lines.init(),
        LogFormat::Json => lines.json().flatten_event(true).init(),
    }
}

/// Whether what is written to stderr has colours: on a terminal, unless NO_COLOR is set (https://no-color.org).
pub(crate) fn is_coloured() -> bool {
    stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}
