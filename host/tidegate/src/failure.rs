//! How a command that failed tells it: a line or a report on stderr, and an exit code.

use crate::{colour, logging, problem::Rejection};
use std::{fmt, process::ExitCode};

/// Why a command failed.
pub(crate) enum Failure {
    /// What was typed, or written in `tidegate.toml`: exit code 2, as for any other wrong argument.
    Usage(anyhow::Error),
    /// The app can't be served. Exit code 1.
    Rejected(Rejection),
    /// Everything else: the port, the data, the disk. Exit code 1.
    Run(anyhow::Error),
    /// It was told already. Exit code 1.
    AlreadyReported,
}

impl Failure {
    /// A mistake in what was typed or written.
    pub(crate) fn usage(what: impl fmt::Display) -> Failure {
        Failure::Usage(anyhow::anyhow!("{what}"))
    }

    /// For people: the report on an app, or a line.
    pub(crate) fn report(&self) -> String {
        match self {
            Failure::Rejected(rejection) => rejection.report(colour::is_on()),
            Failure::AlreadyReported => String::new(),
            other => format!("error: {other}\n"),
        }
    }

    /// Writes the report; the exit code.
    pub(crate) fn print(self) -> ExitCode {
        logging::say(&self.report());
        ExitCode::from(if matches!(self, Failure::Usage(_)) {
            2
        } else {
            1
        })
    }
}

/// In short, with the causes.
impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Usage(error) | Failure::Run(error) => write!(f, "{error:#}"),
            Failure::Rejected(rejection) => rejection.fmt(f),
            Failure::AlreadyReported => Ok(()),
        }
    }
}

impl<E: Into<anyhow::Error>> From<E> for Failure {
    fn from(error: E) -> Failure {
        Failure::Run(error.into())
    }
}
