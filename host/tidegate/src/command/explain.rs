//! `tidegate explain`: explains codes of reports.

use crate::{command::print, command_error::CommandError, problem};

/// Prints the explanations of the codes, or all titles if none is given.
pub(crate) fn run(codes: &[String]) -> Result<(), CommandError> {
    if codes.is_empty() {
        let titles: String = problem::titles()
            .map(|title| format!("{title}\n"))
            .collect();
        return print(&titles);
    }
    let explained: Result<Vec<_>, _> = codes
        .iter()
        .map(|code| {
            problem::explain(code).ok_or_else(|| {
                CommandError::usage(format!(
                    "there is no code {code}: `tidegate explain` lists all codes"
                ))
            })
        })
        .collect();
    print(&(explained?.join("\n\n") + "\n"))
}
