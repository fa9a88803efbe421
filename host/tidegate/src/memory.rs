//! The memory of the process: how much it has, and what is done when it runs short.
//!
//! The hub's [`Budget`] decides; this is its eye and its hand. A thread of its own reads the anonymous memory of the process, also
//! while every worker is busy with guests, and more often the more there is. It drops what is idle, has the allocator give free pages
//! back to the system, and has the largest consumers closed.

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
use tidegate_hub::{Budget, budget::Stage};
use tokio::runtime::Handle;

/// Time between two looks while less than half of the budget is used.
const CALM_LOOK: Duration = Duration::from_millis(100);
/// Time between two looks otherwise. Uncounted memory may grow by about 2 MiB per millisecond.
const LOOK: Duration = Duration::from_millis(10);
/// Time between two rounds in which idle memory is dropped.
const SHED_EVERY: Duration = Duration::from_millis(200);
/// The same from the second stage on.
const SHED_FAST: Duration = Duration::from_millis(50);
/// Time between two closes, in which a closed consumer gives its memory back.
const CLOSE_EVERY: Duration = Duration::from_millis(50);
/// If work was refused for so long without a pause, the largest consumers are closed, so that it is not refused for ever.
const REFUSE_WITHIN: Duration = Duration::from_secs(2);
/// Time between two such closes, and without a refusal until the time counts anew.
const RELIEF_EVERY: Duration = Duration::from_secs(1);
/// Time between two closes of connections that wait for a request.
const HURRY_EVERY: Duration = Duration::from_millis(250);
/// A room that was idle for less is shed only from the second stage on.
const ROOM_IDLE: Duration = Duration::from_secs(1);
/// Time between two log lines about the same shortage.
const LOG_EVERY: Duration = Duration::from_secs(10);

/// Has the kernel give this process, and the children that it starts, only as much memory as they touch. The allocator asks for huge
/// pages, and then the first byte of a buffer takes 2 MiB: a client that announces a large message would hold what it never sends, and
/// no reservation would count it. To be called before much is allocated.
pub(crate) fn avoid_huge_pages() {
    // Without it the server runs as well: it only measures more than it counts.
    _ = rustix::thread::disable_transparent_huge_pages(true);
}

/// Looks after the memory of the process as long as the deployment is served. `workers` are the threads whose allocators have memory to
/// give back.
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
    let mut watch = MemoryMonitor {
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
        .spawn(move || while watch.look() {})?;
    Ok(())
}

struct MemoryMonitor {
    budget: Arc<Budget>,
    statm: File,
    deployment: Weak<Deployment>,
    /// The workers, and whether each has been asked to collect and has not done so yet.
    collecting: Vec<(Handle, Arc<AtomicBool>)>,
    shed: Option<Instant>,
    closed: Option<Instant>,
    hurried: Option<Instant>,
    refusing: RefusalClock,
    logged: Option<(Instant, Stage)>,
}

impl MemoryMonitor {
    /// One look, and the time until the next. Returns false when the deployment is gone.
    fn look(&mut self) -> bool {
        let Some(deployment) = self.deployment.upgrade() else {
            return false;
        };
        let measured = anonymous(&self.statm).unwrap_or(0);
        let stage = self.budget.look(measured);
        let now = Instant::now();
        if stage >= Stage::Shed {
            let is_urgent = stage >= Stage::Refuse;
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
        if stage == Stage::Close && is_due(&mut self.closed, now, CLOSE_EVERY) {
            self.close_largest(self.budget.excess(measured));
        } else if is_relief_due {
            self.close_largest(self.budget.relief());
        }
        let is_crowded = stage >= Stage::Shed && self.budget.is_crowded();
        if (is_crowded || self.refusing.is_refusing(now))
            && is_due(&mut self.hurried, now, HURRY_EVERY)
        {
            self.budget.hurry();
        }
        self.log(stage, measured, now);
        drop(deployment);
        thread::sleep(if measured < self.budget.bytes_max() / 2 {
            CALM_LOOK
        } else {
            LOOK
        });
        true
    }

    fn close_largest(&self, bytes: usize) {
        let (count, bytes) = self.budget.close_largest(bytes);
        tracing::debug!(
            "{count} consumers of memory are closed, with {} KiB",
            bytes >> 10
        );
    }

    /// Has every allocator give back its free pages. Each thread has its own allocator, which no other thread may touch.
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

    fn log(&mut self, stage: Stage, measured: usize, now: Instant) {
        let worst = self.logged.map_or(Stage::Calm, |(_, worst)| worst);
        let is_old = self.logged.is_none_or(|(at, _)| now >= at + LOG_EVERY);
        if stage <= worst && !is_old {
            return;
        }
        let what = match stage {
            Stage::Calm => {
                self.logged = None;
                return;
            }
            Stage::Shed => "idle instances and histories are dropped",
            Stage::Refuse => "new work is refused",
            Stage::Close => "the largest consumers are closed",
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
            "{} MiB of memory_max = {max} MiB are used: {what}",
            measured >> 20
        );
    }
}

/// For how long work has been refused. As long as clients keep what they have reserved, and so keep the process below the last stage,
/// refusing alone frees nothing.
#[derive(Default)]
struct RefusalClock {
    /// Refused reservations at the last look.
    count: u64,
    /// Begin and latest moment of the time in which work was refused, and the last relief in it.
    time: Option<(Instant, Instant)>,
    relieved: Option<Instant>,
}

impl RefusalClock {
    /// Asked at each look, with the reservations that were refused until then.
    fn is_relief_due(&mut self, stage: Stage, count: u64, now: Instant) -> bool {
        // In the first stage there is enough memory, so a reservation that was refused is larger than any can be.
        let is_refusing = stage >= Stage::Refuse || (stage == Stage::Shed && count != self.count);
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

    /// Whether work was refused at the look of that moment.
    fn is_refusing(&self, now: Instant) -> bool {
        self.time.is_some_and(|(_, last)| last == now)
    }
}

/// Whether it was not done for so long; then it counts as done.
fn is_due(last: &mut Option<Instant>, now: Instant, every: Duration) -> bool {
    let is_due = last.is_none_or(|last| now >= last + every);
    if is_due {
        *last = Some(now);
    }
    is_due
}

/// Returns the bytes of anonymous memory of this process: resident pages that belong to no file (proc(5), `statm`).
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

/// mimalloc keeps pages that are free, for a while, for the thread that freed them.
#[allow(unsafe_code)]
mod allocator {
    use std::ffi::c_long;

    /// Milliseconds that a free page is kept, unless memory is scarce: the allocator's default.
    pub(super) const PURGE_DELAY: c_long = 1000;
    /// `mi_option_purge_delay` of mimalloc.h, which the bindings lack.
    const OPTION: libmimalloc_sys::mi_option_t = 15;

    /// Gives back what this thread keeps, and what no thread owns.
    pub(super) fn collect() {
        // SAFETY: it may be called at any time, and touches the heap of the calling thread and what is shared.
        unsafe { libmimalloc_sys::mi_collect(true) }
    }

    pub(super) fn set_purge_delay(milliseconds: c_long) {
        // SAFETY: the option exists, and any value is valid; it is read anew at each purge.
        unsafe { libmimalloc_sys::mi_option_set(OPTION, milliseconds) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_that_is_refused_for_long_is_relieved_once_a_second() {
        let began = Instant::now();
        let relieved = |looks: &[(u64, Stage, u64)]| {
            let mut refusing = RefusalClock::default();
            let due = |(at, stage, count): &(u64, Stage, u64)| {
                refusing
                    .is_relief_due(*stage, *count, began + Duration::from_millis(*at))
                    .then_some(*at)
            };
            looks.iter().filter_map(due).collect::<Vec<u64>>()
        };
        let every = |step: u64, stage: Stage, refused: u64| {
            (0..50)
                .map(|look| (look * step, stage, look * refused))
                .collect::<Vec<_>>()
        };
        assert_eq!(relieved(&every(100, Stage::Refuse, 0)), [2000, 3000, 4000]);
        assert_eq!(relieved(&every(100, Stage::Shed, 1)), [2100, 3100, 4100]);
        assert_eq!(relieved(&every(100, Stage::Shed, 0)), [0; 0]);
        // Below the first stage a refused reservation is one that could never fit.
        assert_eq!(relieved(&every(100, Stage::Calm, 1)), [0; 0]);
        // A second without a refusal is a pause.
        assert_eq!(relieved(&every(1100, Stage::Shed, 1)), [0; 0]);
    }

    #[test]
    fn anonymous_memory_is_what_was_written_to() {
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
