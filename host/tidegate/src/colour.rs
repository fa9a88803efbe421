//! Whether what people read has colours.

use clap::ColorChoice;
use std::{
    io::{IsTerminal, stderr, stdout},
    sync::OnceLock,
};

static CHOICE: OnceLock<ColorChoice> = OnceLock::new();

/// What was typed about colours.
pub(crate) fn choose(choice: ColorChoice) {
    _ = CHOICE.set(choice);
}

/// Whether what is written to stderr has colours: as was typed, or else on a terminal, unless NO_COLOR is set (https://no-color.org).
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
        _ => output.is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty()),
    }
}
