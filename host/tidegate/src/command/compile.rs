//! `tidegate compile`: compiles an app ahead of time, so that a start needs no compiler.

use crate::{
    args::CompileArgs, command::print, command_error::CommandError, problem::Rejection,
    progress::ProgressLine,
};
use std::time::Instant;

/// Writes the compiled file, and prints its size.
pub(crate) fn run(args: &CompileArgs) -> Result<(), CommandError> {
    let config = args.load.config()?;
    let (app, began) = (&args.load.app, Instant::now());
    let to = args
        .output
        .clone()
        .unwrap_or_else(|| app.with_extension("tide"));
    if to == *app {
        return Err(CommandError::usage(format!(
            "the output would overwrite {}: choose another file with -o",
            app.display()
        )));
    }
    let progress = ProgressLine::unknown(&format!("compiling {}", app.display()));
    let bytes = tidegate_wasm::compile(app, &to, &config.app)
        .map_err(|error| CommandError::Rejected(Rejection::load(app, &error)))?;
    drop(progress);
    let (mib, took) = (
        bytes as f64 / (1 << 20) as f64,
        began.elapsed().as_secs_f64(),
    );
    print(&format!(
        "{}: {mib:.1} MiB, compiled in {took:.1} s, for this version of tidegate on this kind of processor\n",
        to.display()
    ))
}
