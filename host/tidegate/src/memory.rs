//! Watches the memory of the process, and frees memory when it runs short.
//!
//! Owner: a thread of its own, so that it runs also while every worker is busy with guests. It
//! measures the anonymous memory of the process (which includes memory that no reservation counts),
//! and asks the hub's [`Budget`] for the stage. It measures more often while more than half of the
//! budget is in use.
//!
//! States (`MemoryStage`): in `Calm` nothing happens. From `Shed` on, idle instances, rooms and histories
//! are dropped, and every thread's allocator returns free pages to the system. From `Refuse` on,
//! the budget refuses new work. In `Close`, or if work was refused for [`REFUSE_WITHIN`], the
//! largest consumers are closed, since refusing alone frees nothing while clients keep their
//! memory.
//!
//! Invariant: one action of a kind at a time. After each, its pause lets the freed memory show in
//! the next measurement.
//!
//! The budget decides and counts; this module only measures and acts.

use crate::deployment::Deployment;
use std::{
    fs::File,
    io,
    os::unix::fs::FileExt as _,
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant},
};
use tidegate_hub::{Budget, budget::MemoryStage};
use tokio::runtime::Handle;

/// Time between two measurements while less than half of the budget is used.
const CALM_INTERVAL: Duration = Duration::from_millis(100);
/// Time between two measurements otherwise. Uncounted memory may grow by about 2 MiB per
/// millisecond.
const INTERVAL: Duration = Duration::from_millis(10);
/// Time between two rounds in which idle memory is dropped.
const SHED_EVERY: Duration = Duration::from_millis(200);
/// The same in the stages `Refuse` and `Close`.
const SHED_FAST: Duration = Duration::from_millis(50);
/// Time between two closes, in which a closed consumer releases its memory.
const CLOSE_EVERY: Duration = Duration::from_millis(50);
/// Time of continuous refusals after which the largest consumers are closed, so that work is not
/// refused for ever.
const REFUSE_WITHIN: Duration = Duration::from_secs(2);
/// Time between two such closes; also the time without a refusal that ends a period of refusals.
const RELIEF_EVERY: Duration = Duration::from_secs(1);
/// Time between two closes of connections that wait for a request.
const HURRY_EVERY: Duration = Duration::from_millis(250);
/// Idle time of rooms that are dropped in the stage `Shed`. Later stages drop all idle rooms.
const ROOM_IDLE: Duration = Duration::from_secs(1);
/// Time between two log lines about the same stage.
const LOG_EVERY: Duration = Duration::from_secs(10);

/// Disables transparent huge pages for this process and its children. The allocator asks for huge
/// pages, of which the first byte of a buffer occupies 2 MiB: a client that announces a large
/// message would occupy memory for bytes that it never sends, and no reservation would count it.
/// Must be called before much memory is allocated.
pub(crate) fn avoid_huge_pages() {
    // On an error the server runs too: it only measures more memory than it counts.
    _ = rustix::thread::disable_transparent_huge_pages(true);
}

/// Starts the thread, which ends with the deployment. `workers` are the threads whose allocators
/// keep free pages.
pub(crate) fn watch(deployment: &Arc<Deployment>, workers: &[Handle]) -> io::Result<()> {
    let budget = deployment.hub().budget().clone();
    if budget.bytes_max() == 0 {
        return Ok(());
    }
    let (statm, deployment) = (File::open("/proc/self/statm")?, Arc::downgrade(deployment));
    let collecting = workers
        .iter()
        .map(|worker| (worker.clone(), Arc::default()))
        .collect();
    let mut monitor = MemoryMonitor {
        budget,
        statm,
        deployment,
        collecting,
        shed: None,
        closed: None,
        hurried: None,
        refusing: RefusalClock::default(),
        logged: None,
    };
    thread::Builder::new()
        .name("memory".into())
        .spawn(move || while monitor.check() {})?;
    Ok(())
}

struct MemoryMonitor {
    budget: Arc<Budget>,
    statm: File,
    deployment: Weak<Deployment>,
    /// The workers; true while a request to collect is pending.
    collecting: Vec<(Handle, Arc<AtomicBool>)>,
    shed: Option<Instant>,
    closed: Option<Instant>,
    hurried: Option<Instant>,
    refusing: RefusalClock,
    logged: Option<(Instant, MemoryStage)>,
}

impl MemoryMonitor {
    /// Measures, acts, and sleeps until the next measurement. Returns false when the deployment is
    /// gone.
    fn check(&mut self) -> bool {
        let Some(deployment) = self.deployment.upgrade() else {
            return false;
        };
        let measured = anonymous(&self.statm).unwrap_or(0);
        let stage = self.budget.look(measured);
        let now = Instant::now();
        if stage >= MemoryStage::Shed {
            let is_urgent = stage >= MemoryStage::Refuse;
            if is_due(
                &mut self.shed,
                now,
                if is_urgent { SHED_FAST } else { SHED_EVERY },
            ) {
                deployment.shed(if is_urgent { Duration::ZERO } else { ROOM_IDLE });
                self.collect();
            }
        } else if self.shed.take().is_some() {
            allocator::set_purge_delay(allocator::PURGE_DELAY);
        }
        let is_relief_due = self
            .refusing
            .is_relief_due(stage, self.budget.refusals(), now);
        if stage == MemoryStage::Close && is_due(&mut self.closed, now, CLOSE_EVERY) {
            self.close_largest(self.budget.excess(measured));
        } else if is_relief_due {
            self.close_largest(self.budget.relief());
        }
        let is_crowded = stage >= MemoryStage::Shed && self.budget.is_crowded();
        if (is_crowded || self.refusing.is_refusing(now))
            && is_due(&mut self.hurried, now, HURRY_EVERY)
        {
            self.budget.hurry();
        }
        self.log(stage, measured, now);
        drop(deployment);
        thread::sleep(if measured < self.budget.bytes_max() / 2 {
            CALM_INTERVAL
        } else {
            INTERVAL
        });
        true
    }

    fn close_largest(&self, bytes: usize) {
        let (count, bytes) = self.budget.close_largest(bytes);
        tracing::debug!(
            "closed {count} consumers of memory, with {} KiB",
            bytes >> 10
        );
    }

    /// Makes every allocator return its free pages. Each thread has its own allocator, which no
    /// other thread may touch.
    fn collect(&self) {
        allocator::set_purge_delay(0);
        allocator::collect();
        for (worker, is_asked) in &self.collecting {
            if !is_asked.swap(true, Relaxed) {
                let is_asked = is_asked.clone();
                worker.spawn(async move {
                    allocator::collect();
                    is_asked.store(false, Relaxed);
                });
            }
        }
    }

    fn log(&mut self, stage: MemoryStage, measured: usize, now: Instant) {
        let worst = self.logged.map_or(MemoryStage::Calm, |(_, worst)| worst);
        let is_old = self.logged.is_none_or(|(at, _)| now >= at + LOG_EVERY);
        if stage <= worst && !is_old {
            return;
        }
        let what = match stage {
            MemoryStage::Calm => {
                self.logged = None;
                return;
            }
            MemoryStage::Shed => "idle instances and histories are dropped",
            MemoryStage::Refuse => "new work is refused",
            MemoryStage::Close => "the largest consumers are closed",
        };
        self.logged = Some((now, stage));
        let (max, refusals, evictions) = (
            self.budget.bytes_max() >> 20,
            self.budget.refusals(),
            self.budget.evictions(),
        );
        let reserved = self.budget.to_string();
        tracing::warn!(
            refusals,
            evictions,
            reserved,
            "{} of {max} MiB (memory_max) are used: {what}",
            measured >> 20
        );
    }
}

/// Measures for how long work has been refused. While clients keep their reservations, and the
/// process stays below the stage `Close`, refusing alone frees nothing.
#[derive(Default)]
struct RefusalClock {
    /// Number of refused reservations at the last measurement.
    count: u64,
    /// Begin and end of the current period of refusals.
    time: Option<(Instant, Instant)>,
    /// Time of the last relief.
    relieved: Option<Instant>,
}

impl RefusalClock {
    /// True if the largest consumers should be closed now. `count` is the number of refused
    /// reservations so far.
    fn is_relief_due(&mut self, stage: MemoryStage, count: u64, now: Instant) -> bool {
        // In the stage `Calm` enough memory is free: a refused reservation is larger than the
        // budget.
        let is_refusing =
            stage >= MemoryStage::Refuse || (stage == MemoryStage::Shed && count != self.count);
        self.count = count;
        self.time = match self.time {
            Some((_, last)) if now >= last + RELIEF_EVERY => None,
            time => time,
        };
        if is_refusing {
            self.time = Some((self.time.map_or(now, |(since, _)| since), now));
        }
        let is_late = self.is_refusing(now)
            && self
                .time
                .is_some_and(|(since, _)| now >= since + REFUSE_WITHIN);
        is_late && is_due(&mut self.relieved, now, RELIEF_EVERY)
    }

    /// True if work was refused at the measurement of `now`.
    fn is_refusing(&self, now: Instant) -> bool {
        self.time.is_some_and(|(_, last)| last == now)
    }
}

/// True if `last` is at least `every` ago; then sets it to `now`.
fn is_due(last: &mut Option<Instant>, now: Instant, every: Duration) -> bool {
    let is_due = last.is_none_or(|last| now >= last + every);
    if is_due {
        *last = Some(now);
    }
    is_due
}

/// Returns the bytes of anonymous memory of this process: resident pages that belong to no file
/// (proc(5), `statm`).
fn anonymous(statm: &File) -> io::Result<usize> {
    let mut bytes = [0; 128];
    let length = statm.read_at(&mut bytes, 0)?;
    let text = String::from_utf8_lossy(&bytes[..length]);
    let mut pages = text
        .split(' ')
        .skip(1)
        .map_while(|pages| pages.parse::<usize>().ok());
    let (resident, of_files) = (pages.next().unwrap_or(0), pages.next().unwrap_or(0));
    Ok(resident.saturating_sub(of_files) * rustix::param::page_size())
}

/// The controls of mimalloc, which keeps free pages for a while for the thread that freed them.
#[allow(unsafe_code)]
mod allocator {
    use std::ffi::c_long;

    /// Time that a free page is kept while memory is not scarce, in milliseconds: the allocator's
    /// default.
    pub(super) const PURGE_DELAY: c_long = 1000;
    /// `mi_option_purge_delay` of mimalloc.h, which the bindings lack.
    const OPTION: libmimalloc_sys::mi_option_t = 15;

    /// Returns the free pages of this thread, and of no thread, to the system.
    pub(super) fn collect() {
        // SAFETY: mi_collect may be called at any time; it touches the calling thread's heap and
        // shared pages.
        unsafe { libmimalloc_sys::mi_collect(true) }
    }

    pub(super) fn set_purge_delay(milliseconds: c_long) {
        // SAFETY: the option exists, any value is valid, and mimalloc reads it at each purge.
        unsafe { libmimalloc_sys::mi_option_set(OPTION, milliseconds) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_period_of_refusals_is_relieved_once_a_second() {
        let began = Instant::now();
        let relieved = |looks: &[(u64, MemoryStage, u64)]| {
            let mut refusing = RefusalClock::default();
            let due = |(at, stage, count): &(u64, MemoryStage, u64)| {
                refusing
                    .is_relief_due(*stage, *count, began + Duration::from_millis(*at))
                    .then_some(*at)
            };
            looks.iter().filter_map(due).collect::<Vec<u64>>()
        };
        let every = |step: u64, stage: MemoryStage, refused: u64| {
            (0..50)
                .map(|look| (look * step, stage, look * refused))
                .collect::<Vec<_>>()
        };
        assert_eq!(
            relieved(&every(100, MemoryStage::Refuse, 0)),
            [2000, 3000, 4000]
        );
        assert_eq!(
            relieved(&every(100, MemoryStage::Shed, 1)),
            [2100, 3100, 4100]
        );
        assert_eq!(relieved(&every(100, MemoryStage::Shed, 0)), [0; 0]);
        // In the stage `Calm` a refused reservation is larger than the budget.
        assert_eq!(relieved(&every(100, MemoryStage::Calm, 1)), [0; 0]);
        // A second without a refusal ends the period.
        assert_eq!(relieved(&every(1100, MemoryStage::Shed, 1)), [0; 0]);
    }

    #[test]
    fn anonymous_memory_grows_with_written_pages() {
        let statm = File::open("/proc/self/statm").unwrap();
        let before = anonymous(&statm).unwrap();
        let written = vec![1u8; 64 << 20];
        let after = anonymous(&statm).unwrap();
        assert!(
            before > 0 && after > before + (48 << 20),
            "{before} {after} {}",
            written.len()
        );
    }
}
