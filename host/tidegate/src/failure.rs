//! How a command that failed tells it: one line on stderr, and an exit code.

use std::{fmt, io::Write as _, process::ExitCode};

/// Why a command failed.
pub(crate) enum Failure {
    /// What was typed, or written in `tidegate.toml`: exit code 2, as for any other wrong argument.
    Usage(anyhow::Error),
    /// Everything else: the app, its rules, the port. Exit code 1.
    Run(anyhow::Error),
}

impl Failure {
    /// A mistake in what was typed or written.
    pub(crate) fn usage(what: impl fmt::Display) -> Failure {
        Failure::Usage(anyhow::anyhow!("{what}"))
    }

    /// Writes the line; the exit code.
    pub(crate) fn tell(self) -> ExitCode {
        let code = match self {
            Failure::Usage(_) => 2,
            Failure::Run(_) => 1,
        };
        // Nobody may be there to read it any more.
        _ = writeln!(std::io::stderr(), "error: {self}");
        ExitCode::from(code)
    }
}

/// The error with its causes.
impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Failure::Usage(error) | Failure::Run(error)) = self;
        write!(f, "{error:#}")
    }
}

impl<E: Into<anyhow::Error>> From<E> for Failure {
    fn from(error: E) -> Failure {
        Failure::Run(error.into())
    }
}
