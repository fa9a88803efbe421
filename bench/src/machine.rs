//! The machine below: which core a thread runs on, how many files it may open, and its name for the
//! record.

use std::fs;

use anyhow::{Context as _, Result};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::unistd::Pid;

/// Which core each side has to itself.
#[derive(Clone, Copy, Debug)]
pub struct Cores {
    /// The load generator's.
    pub client: usize,
    /// The server's, with all of its threads.
    pub server: usize,
}

/// Keeps the calling thread, and every process and thread that it starts, on one core.
pub fn pin(core: usize) -> Result<()> {
    let mut cores = CpuSet::new();
    cores.set(core)?;
    sched_setaffinity(Pid::from_raw(0), &cores).with_context(|| format!("there is no core {core}"))
}

/// Raises the soft limit on open files to the hard one; servers that we start inherit it.
pub fn raise_open_files() -> Result<()> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    Ok(setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?)
}

/// Processor, cores and kernel, in one line.
pub fn describe() -> String {
    let cpus = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    format!(
        "{}, {} cores, Linux {}",
        model(&cpus),
        cpus.matches("processor\t").count(),
        kernel.trim()
    )
}

fn model(cpus: &str) -> &str {
    let line = cpus.lines().find(|line| line.starts_with("model name"));
    line.and_then(|line| line.split_once(": "))
        .map_or("unknown processor", |(_, model)| model.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_model_is_the_first_name_in_the_list() {
        assert_eq!(
            model("processor\t: 0\nmodel name\t: AMD EPYC\nmodel name\t: other\n"),
            "AMD EPYC"
        );
        assert_eq!(model(""), "unknown processor");
    }
}
