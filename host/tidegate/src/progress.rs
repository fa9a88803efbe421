//! How far long work is: a line on stderr that comes and goes, if somebody sits there.

use indicatif::{ProgressBar, ProgressStyle};
use std::time::Duration;

/// How often the line moves though nothing is told.
const TICK: Duration = Duration::from_millis(100);

/// Work under way; the line goes when this is dropped. Nothing is written if stderr is no terminal.
pub(crate) struct ProgressLine(ProgressBar);

impl ProgressLine {
    /// Work of which nobody knows how long it takes. `what`, as in "compiling".
    pub(crate) fn unknown(what: &str) -> ProgressLine {
        ProgressLine::begin(
            ProgressBar::new_spinner(),
            "{spinner} {msg}, {elapsed}",
            what,
        )
    }

    /// Work of about so many steps.
    pub(crate) fn of(what: &str, steps: u64) -> ProgressLine {
        ProgressLine::begin(
            ProgressBar::new(steps),
            "{bar:30} {percent}%  {msg}, {elapsed}",
            what,
        )
    }

    fn begin(bar: ProgressBar, template: &str, what: &str) -> ProgressLine {
        let bar = bar
            .with_style(ProgressStyle::with_template(template).expect("it is a template"))
            .with_message(what.to_owned());
        bar.enable_steady_tick(TICK);
        ProgressLine(bar)
    }

    /// So many steps more are done.
    pub(crate) fn step(&self, steps: u64) {
        self.0.inc(steps);
    }
}

impl Drop for ProgressLine {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}
