//! Progress of long work: a temporary line on stderr if stderr is a terminal.

use indicatif::{ProgressBar, ProgressStyle};
use std::time::Duration;

/// Time between two updates of the line while the work reports nothing.
const TICK: Duration = Duration::from_millis(100);

/// The line of one piece of work. Dropping the value removes the line. Nothing is written if stderr
/// is not a terminal.
pub(crate) struct ProgressLine(ProgressBar);

impl ProgressLine {
    /// Starts a line for work of unknown length, with a label such as "compiling".
    pub(crate) fn unknown(what: &str) -> ProgressLine {
        ProgressLine::begin(
            ProgressBar::new_spinner(),
            "{spinner} {msg}, {elapsed}",
            what,
        )
    }

    /// Starts a line for work of about `steps` steps.
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

    /// Adds finished steps.
    pub(crate) fn step(&self, steps: u64) {
        self.0.inc(steps);
    }
}

impl Drop for ProgressLine {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}
