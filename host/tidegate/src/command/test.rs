//! `tidegate test`: runs scripted conversations with an app, without a network.

use super::{plural, print};
use crate::{
    args::TestArgs,
    command_error::CommandError,
    play::{StepFailure, play},
    script,
};
use std::path::Path;

/// Runs every test of every script, and prints each result. Returns an error if a test failed.
pub(crate) fn run(args: &TestArgs) -> Result<(), CommandError> {
    let config = args.load.config()?;
    let (mut passed, mut failures) = (0, Vec::new());
    let read: Result<Vec<_>, CommandError> = args
        .scripts
        .iter()
        .map(|file| Ok((file, read(file)?)))
        .collect();
    for (file, tests) in read? {
        print(&format!("{}\n", file.display()))?;
        for test in &tests {
            let outcome = play(&args.load.app, &config, test);
            print(&format!(
                "  {} {}\n",
                if outcome.is_ok() { "ok    " } else { "FAILED" },
                test.name
            ))?;
            match outcome {
                Ok(()) => passed += 1,
                Err(StepFailure { line, what }) => {
                    failures.push(format!("{}:{line}: {what}", file.display()))
                }
            }
        }
    }
    let list: String = failures
        .iter()
        .map(|failure| format!("\n{failure}\n"))
        .collect();
    print(&format!(
        "{list}\n{} passed, {} failed\n",
        plural(passed, "test"),
        failures.len()
    ))?;
    if failures.is_empty() {
        Ok(())
    } else {
        Err(CommandError::AlreadyReported)
    }
}

fn read(file: &Path) -> Result<Vec<script::Test>, CommandError> {
    let text = std::fs::read_to_string(file);
    let text = text.map_err(|error| {
        CommandError::usage(format!("can't read the script {}: {error}", file.display()))
    })?;
    let base = file.parent().unwrap_or(Path::new(""));
    script::parse(&text, base)
        .map_err(|wrong| CommandError::usage(format!("{}:{wrong}", file.display())))
}
