//! Whether what people read has colours.

use clap::ColorChoice;
use std::{
    env::var_os,
    ffi::OsStr,
    io::{IsTerminal, stderr, stdout},
    sync::OnceLock,
};

static CHOICE: OnceLock<ColorChoice> = OnceLock::new();

/// What was typed about colours.
pub(crate) fn choose(choice: ColorChoice) {
    _ = CHOICE.set(choice);
}

/// Whether what is written to stderr has colours: as was typed, or else on a terminal, unless NO_COLOR is set (https://no-color.org) or the
/// terminal is a dumb one.
pub(crate) fn is_on() -> bool {
    is_on_at(&stderr())
}

/// The same for stdout.
pub(crate) fn is_on_stdout() -> bool {
    is_on_at(&stdout())
}

fn is_on_at(output: &impl IsTerminal) -> bool {
    match CHOICE.get() {
        Some(ColorChoice::Always) => true,
        Some(ColorChoice::Never) => false,
        _ => {
            output.is_terminal()
                && takes_colours(var_os("NO_COLOR").as_deref(), var_os("TERM").as_deref())
        }
    }
}

fn takes_colours(no_color: Option<&OsStr>, term: Option<&OsStr>) -> bool {
    no_color.is_none_or(OsStr::is_empty) && term != Some(OsStr::new("dumb"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dumb_terminal_and_one_whose_user_wants_none_have_no_colours() {
        let cases = [
            (None, Some("xterm-256color"), true),
            (None, None, true),
            (Some(""), Some("xterm"), true),
            (Some("1"), Some("xterm"), false),
            (None, Some("dumb"), false),
            (Some(""), Some("dumb"), false),
        ];
        for (no_color, term, expected) in cases {
            assert_eq!(
                takes_colours(no_color.map(OsStr::new), term.map(OsStr::new)),
                expected,
                "{no_color:?} {term:?}"
            );
        }
    }
}
