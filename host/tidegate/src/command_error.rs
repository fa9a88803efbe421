//! How a command that failed tells it: a line or a report on stderr, and an exit code.

use crate::{colour, logging, problem::Rejection};
use std::{fmt, process::ExitCode};

/// Why a command failed.
pub(crate) enum CommandError {
    /// What was typed, or written in `tidegate.toml`: exit code 2, as for any other wrong argument.
    Usage(anyhow::Error),
    /// The app can't be served. Exit code 1.
    Rejected(Rejection),
    /// Everything else: the port, the data, the disk. Exit code 1.
    Run(anyhow::Error),
    /// It was told already. Exit code 1.
    AlreadyReported,
}

impl CommandError {
    /// A mistake in what was typed or written.
    pub(crate) fn usage(what: impl fmt::Display) -> CommandError {
        CommandError::Usage(anyhow::anyhow!("{what}"))
    }

    /// For people: the report on an app, or a line.
    pub(crate) fn report(&self) -> String {
        match self {
            CommandError::Rejected(rejection) => rejection.report(colour::is_on()),
            CommandError::AlreadyReported => String::new(),
            other => format!("error: {other}\n"),
        }
    }

    /// Writes the report; the exit code.
    pub(crate) fn print(self) -> ExitCode {
        logging::say(&self.report());
        ExitCode::from(if matches!(self, CommandError::Usage(_)) {
            2
        } else {
            1
        })
    }
}

/// In short, with the causes.
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
