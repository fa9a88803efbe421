//! The guide's page of commands is what their help says: this test compares it, or writes it anew.

use crate::args::Args;
use clap::{ColorChoice, Command, CommandFactory as _};
use std::{env, fmt::Write as _, fs, path::Path};

const PAGE: &str = "../../docs/src/reference/command.md";

#[test]
fn the_guide_has_every_command_as_its_help_tells_it() {
    let mut page = String::from(
        "# The command\n\nThe output of `tidegate --help`, and the help of each command.\n",
    );
    let mut command = Args::command().color(ColorChoice::Never);
    command.build();
    describe(&mut command, "", &mut page);
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(PAGE);
    if env::var_os("TIDEGATE_GOLDEN").is_some() {
        fs::write(&path, &page).expect("the page is written");
    }
    assert_eq!(
        fs::read_to_string(&path).expect("the page is there"),
        page,
        "with TIDEGATE_GOLDEN=1 this test writes {PAGE}"
    );
}

/// A heading and the help of a command, then of those below it.
fn describe(command: &mut Command, above: &str, page: &mut String) {
    let name = format!("{above}{}", command.get_name());
    let help = command.render_help().to_string();
    // The same for all; it stands at the top.
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

/// A help without its section about the log.
fn without_log(help: &str) -> String {
    let sections = help
        .split("\n\n")
        .filter(|section| !section.starts_with("Log (on stderr):"));
    sections.collect::<Vec<_>>().join("\n\n")
}
