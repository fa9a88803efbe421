//! `tidegate completions` and `tidegate man`: shell completions and manual pages, generated from
//! the definitions of `--help`.

use crate::{args::Args, command::print, command_error::CommandError};
use anyhow::Context as _;
use clap::CommandFactory as _;
use clap_complete::{Shell, generate};
use std::path::Path;

/// Writes the completions for a shell to stdout.
pub(crate) fn completions(shell: Shell) -> Result<(), CommandError> {
    let mut script = Vec::new();
    generate(shell, &mut Args::command(), "tidegate", &mut script);
    print(&String::from_utf8_lossy(&script))
}

/// Writes a manual page for each command to a directory, which is created if necessary.
pub(crate) fn man(to: &Path) -> Result<(), CommandError> {
    let write = || {
        std::fs::create_dir_all(to)?;
        clap_mangen::generate_to(Args::command(), to)
    };
    write().with_context(|| format!("can't write to {}", to.display()))?;
    print(&format!(
        "the manual pages are in {0}: man {0}/tidegate.1\n",
        to.display()
    ))
}
