//! The log: lines on stderr, for people or for machines, and for whoever looks on.

use crate::{
    args::{LogArgs, LogFormat},
    colour, tail,
};
use std::io::stderr;
use tracing_subscriber::{Layer as _, layer::SubscriberExt as _, registry, util::SubscriberInitExt as _};

/// From now on what the walls trace is written.
pub(crate) fn start(args: LogArgs) {
    // A reader of the log that went away must not bring the server down: errors of writing are left alone.
    let lines = tracing_subscriber::fmt::layer().with_writer(stderr).with_ansi(colour::is_on()).log_internal_errors(false);
    let lines = match args.log_format {
        LogFormat::Text => lines.boxed(),
        LogFormat::Json => lines.json().flatten_event(true).boxed(),
    };
    registry().with(lines.with_filter(args.log)).with(tail::Lines.with_filter(tail::IfWatched)).init();
}
