//! Compares the guide's page of commands with `--help`, or rewrites it.

use crate::args::Args;
use clap::{ColorChoice, Command, CommandFactory as _};
use std::{env, fmt::Write as _, fs, path::Path};

const PAGE: &str = "../../docs/src/reference/command.md";

#[test]
fn the_guide_has_the_help_of_every_command() {
    let mut page = String::from(
        "# The command\n\nThe output of `tidegate --help`, and the help of each subcommand.\n",
    );
    let mut command = Args::command().color(ColorChoice::Never);
    command.build();
    describe(&mut command, "", &mut page);
    assert_page_is(PAGE, &page);
}

/// Checks that a page, relative to this crate, has this content; with `TIDEGATE_GOLDEN`, writes it.
pub(crate) fn assert_page_is(page: &str, expected: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(page);
    if env::var_os("TIDEGATE_GOLDEN").is_some() {
        fs::write(&path, expected).expect("the page is written");
    }
    assert_eq!(
        fs::read_to_string(&path).expect("the page exists"),
        expected,
        "run this test with TIDEGATE_GOLDEN=1 to rewrite {page}"
    );
}

/// Appends a heading and the help of a command, then those of its subcommands.
fn describe(command: &mut Command, above: &str, page: &mut String) {
    let name = format!("{above}{}", command.get_name());
    let help = command.render_help().to_string();
    // The section about the log is the same for all commands, so only the first has it.
    let own = if above.is_empty() {
        help.clone()
    } else {
        without_log(&help)
    };
    _ = write!(page, "\n## {name}\n\n```text\n{}\n```\n", own.trim_end());
    for sub in command.get_subcommands_mut() {
        describe(sub, &format!("{name} "), page);
    }
}

/// Returns the help without its section about the log.
fn without_log(help: &str) -> String {
    let sections = help
        .split("\n\n")
        .filter(|section| !section.starts_with("Log (on stderr):"));
    sections.collect::<Vec<_>>().join("\n\n")
}
