//! The kernel's account of a process: the processor time that it used and the memory that it holds.

use std::fs;
use std::time::Duration;

use anyhow::{Context as _, Result};
use nix::time::ClockId;
use nix::unistd::Pid;

/// A process that is measured from outside.
#[derive(Clone, Copy, Debug)]
pub struct Process {
    pid: u32,
    clock: ClockId,
}

impl Process {
    /// The running process with this number.
    pub fn new(pid: u32) -> Result<Self> {
        let clock = ClockId::pid_cpu_clock_id(Pid::from_raw(i32::try_from(pid)?))?;
        Ok(Self { pid, clock })
    }

    /// User and system time of all of its threads, the ended ones included. This is its CPU clock:
    /// the sum that `/proc/PID/task/*/schedstat` gives in parts, in nanoseconds, where
    /// `/proc/PID/stat` counts ticks.
    pub fn cpu(&self) -> Result<Duration> {
        Ok(self.clock.now().context("the server has ended")?.into())
    }

    /// Resident memory, of shared pages the share (`Pss`): one page of code or of a guest's image
    /// that is mapped a thousand times is there once.
    pub fn resident_bytes(&self) -> Result<u64> {
        let maps = fs::read_to_string(format!("/proc/{}/smaps_rollup", self.pid))
            .context("the server has ended")?;
        resident_bytes(&maps).context("no Pss in the server's maps")
    }
}

fn resident_bytes(maps: &str) -> Option<u64> {
    let line = maps.lines().find_map(|line| line.strip_prefix("Pss:"))?;
    let kibibytes: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kibibytes * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resident_memory_is_read_from_the_maps() {
        assert_eq!(
            resident_bytes("Rss:   2000 kB\nPss:                1234 kB\nPss_Dirty:   1 kB\n"),
            Some(1234 * 1024)
        );
        assert_eq!(resident_bytes("Rss: 1 kB\n"), None);
    }

    #[test]
    fn a_process_reads_its_own_figures() {
        let process = Process::new(std::process::id()).unwrap();
        assert!(process.resident_bytes().unwrap() > 0);
        assert!(process.cpu().unwrap() > Duration::ZERO);
    }
}
