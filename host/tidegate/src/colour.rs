//! Decides whether the output has colours.

use clap::ColorChoice;
use std::{
    env::var_os,
    ffi::OsStr,
    io::{IsTerminal, stderr, stdout},
    sync::OnceLock,
};

static CHOICE: OnceLock<ColorChoice> = OnceLock::new();

/// Stores the value of `--color`.
pub(crate) fn choose(choice: ColorChoice) {
    _ = CHOICE.set(choice);
}

/// Returns true if stderr has colours: as `--color` says, or else on a terminal, unless NO_COLOR is
/// set (<https://no-color.org>) or TERM is `dumb`.
pub(crate) fn is_on() -> bool {
    has_colours(&stderr())
}

/// Returns true if stdout has colours, by the same rules.
pub(crate) fn is_on_stdout() -> bool {
    has_colours(&stdout())
}

fn has_colours(output: &impl IsTerminal) -> bool {
    match CHOICE.get() {
        Some(ColorChoice::Always) => true,
        Some(ColorChoice::Never) => false,
        _ => {
            output.is_terminal()
                && can_colour(var_os("NO_COLOR").as_deref(), var_os("TERM").as_deref())
        }
    }
}

fn can_colour(no_color: Option<&OsStr>, term: Option<&OsStr>) -> bool {
    no_color.is_none_or(OsStr::is_empty) && term != Some(OsStr::new("dumb"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_color_and_a_dumb_terminal_turn_colours_off() {
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
                can_colour(no_color.map(OsStr::new), term.map(OsStr::new)),
                expected,
                "{no_color:?} {term:?}"
            );
        }
    }
}
