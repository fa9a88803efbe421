//! The command `tidegate`: parses the arguments, runs a subcommand, and exits with its code.

mod args;
mod assemble;
mod colour;
mod command;
mod command_error;
mod config;
mod control;
mod deployment;
mod dev;

mod file;
mod grant;
mod hex;
mod key;
#[cfg(test)]
mod limits_reference;
mod line_queue;
mod listen;
mod logging;
mod memory;
mod memory_limit;
mod play;
mod printable;
mod problem;
mod progress;
mod quantity;
#[cfg(test)]
mod reference;
mod report;
mod script;
mod tail;
mod template;

use args::{Args, Command};
use clap::Parser as _;
use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let args = Args::parse();
    let format = args.log.log_format;
    colour::choose(args.log.color);
    let is_server = matches!(args.command, Command::Serve(_) | Command::Dev(_));
    if is_server {
        memory::avoid_huge_pages();
    }
    logging::start(args.log.log, format, is_server);
    let outcome = match args.command {
        Command::New(args) => command::new::run(&args),
        Command::Dev(args) => command::dev::run(&args, format),
        Command::Serve(args) => command::serve::run(&args, format),
        Command::Check(args) => command::check::run(&args),
        Command::Explain { codes } => command::explain::run(&codes),
        Command::Routes(args) => command::routes::run(&args),
        Command::Compile(args) => command::compile::run(&args),
        Command::Test(args) => command::test::run(&args),
        Command::Connect(args) => command::connect::run(&args),
        Command::Completions { shell } => command::shell::completions(shell),
        Command::Man { to } => command::shell::man(&to),
        Command::Tail(args) => command::tail::run(&args),
        Command::Reload(args) => command::reload::run(&args),
        Command::Data(args) => command::data::run(&args),
    };
    let code = match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.print(),
    };
    logging::finish();
    code
}
