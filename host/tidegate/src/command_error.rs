//! The error of a subcommand: a line or a report on stderr, and an exit code.

use crate::{colour, logging, problem::Rejection};
use std::{fmt, process::ExitCode};

/// Error of a subcommand.
pub(crate) enum CommandError {
    /// Wrong arguments or settings. Exit code 2, as clap uses for wrong arguments.
    Usage(anyhow::Error),
    /// The app can't be served. Exit code 1.
    Rejected(Rejection),
    /// Any other error, such as one of the port, the data or the disk. Exit code 1.
    Run(anyhow::Error),
    /// The report is already on stdout or stderr. Exit code 1.
    AlreadyReported,
}

impl CommandError {
    /// An error in arguments or settings.
    pub(crate) fn usage(what: impl fmt::Display) -> CommandError {
        CommandError::Usage(anyhow::anyhow!("{what}"))
    }

    /// Returns the text for people: the report on an app, or one line.
    pub(crate) fn report(&self) -> String {
        match self {
            CommandError::Rejected(rejection) => rejection.report(colour::is_on()),
            CommandError::AlreadyReported => String::new(),
            other => format!("error: {other}\n"),
        }
    }

    /// Writes the report to stderr, and returns the exit code.
    pub(crate) fn print(self) -> ExitCode {
        logging::print(&self.report());
        ExitCode::from(if matches!(self, CommandError::Usage(_)) {
            2
        } else {
            1
        })
    }
}

/// Formats the error with its causes, in one line where possible.
impl fmt::Display for CommandError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CommandError::Usage(error) | CommandError::Run(error) => write!(f, "{error:#}"),
            CommandError::Rejected(rejection) => rejection.fmt(f),
            CommandError::AlreadyReported => Ok(()),
        }
    }
}

impl<E: Into<anyhow::Error>> From<E> for CommandError {
    fn from(error: E) -> CommandError {
        CommandError::Run(error.into())
    }
}
