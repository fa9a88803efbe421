//! Where, when and of what the figures are.

use std::env;
use std::process::Command;

use tidegate_bench::machine;

/// The lines above the tables; `others_cores` is what other processes took.
pub(crate) fn of_this_run(others_cores: f64) -> String {
    let invoked: Vec<String> = env::args().skip(1).collect();
    format!(
        "- machine: {}\n- date: {}\n- commit: {}\n- tools: {}, {}\n- command: `bench/run {}`\n- other processes used {others_cores:.2} cores meanwhile\n",
        machine::describe(),
        output_of("date", &["-u", "+%F %H:%M UTC"]),
        output_of("git", &["describe", "--always", "--dirty"]),
        output_of("rustc", &["--version"]),
        output_of("wasmtime", &["--version"]),
        invoked.join(" "),
    )
}

/// Returns the output of a program, or that the program is missing.
fn output_of(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program)
        .args(arguments)
        .output()
        .ok()
        .filter(|output| output.status.success());
    let line = output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
    line.unwrap_or_else(|| format!("(no answer from {program})"))
}
