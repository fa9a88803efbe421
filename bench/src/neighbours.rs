//! How much of the machine other processes took meanwhile: figures of a busy machine are not worth
//! keeping.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use nix::sys::resource::{Usage, UsageWho, getrusage};
use nix::sys::time::TimeVal;

/// `USER_HZ`, the unit of `/proc/stat`, which is 100 on every Linux that we know.
const TICKS_PER_SECOND: f64 = 100.0;

/// Processor time from here on.
#[derive(Debug)]
pub struct Neighbours {
    at: Instant,
    machine: Duration,
    own: Duration,
}

impl Neighbours {
    /// Begins to count.
    pub fn watch() -> Result<Self> {
        Ok(Self {
            at: Instant::now(),
            machine: machine_time()?,
            own: own_time()?,
        })
    }

    /// How many cores others had on average; servers that have ended count as ours.
    pub fn cores_used(&self) -> Result<f64> {
        let machine = machine_time()?.saturating_sub(self.machine);
        let own = own_time()?.saturating_sub(self.own);
        Ok(machine.saturating_sub(own).as_secs_f64() / self.at.elapsed().as_secs_f64())
    }
}

fn machine_time() -> Result<Duration> {
    let stat = fs::read_to_string("/proc/stat")?;
    let ticks = busy_ticks(&stat).context("/proc/stat has no line of all cores")?;
    Ok(Duration::from_secs_f64(ticks as f64 / TICKS_PER_SECOND))
}

/// User, nice, system, then, after idle and waiting, the two kinds of interrupts.
fn busy_ticks(stat: &str) -> Option<u64> {
    let mut fields = stat
        .lines()
        .next()?
        .strip_prefix("cpu ")?
        .split_whitespace()
        .map_while(|field| field.parse::<u64>().ok());
    let worked: u64 = fields.by_ref().take(3).sum();
    let interrupted: u64 = fields.skip(2).take(2).sum();
    Some(worked + interrupted)
}

fn own_time() -> Result<Duration> {
    Ok(used(&getrusage(UsageWho::RUSAGE_SELF)?) + used(&getrusage(UsageWho::RUSAGE_CHILDREN)?))
}

fn used(usage: &Usage) -> Duration {
    duration(usage.user_time()) + duration(usage.system_time())
}

fn duration(time: TimeVal) -> Duration {
    Duration::new(time.tv_sec().unsigned_abs(), time.tv_usec() as u32 * 1_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn idle_and_stolen_time_is_not_work() {
        assert_eq!(
            busy_ticks("cpu  1 20 300 9999 9999 4000 50000 9999 0 0\ncpu0 1 1 1"),
            Some(54_321)
        );
        assert_eq!(busy_ticks("intr 1 2"), None);
    }
}
