//! The faults of the machine that a storm turns on and off: errors of calls, too few descriptors,
//! steps of the clock, stopped processes, reloads.

use crate::{random::Random, support::Tidegate};
use futures_util::future::join_all;
use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, prlimit};
use std::{
    cell::Cell,
    fs::{self, File},
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
    time::Duration,
};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep, sleep_until, timeout_at},
};

const EIO: u64 = 5;
const ENFILE: u64 = 23;
const EMFILE: u64 = 24;
const ENOSPC: u64 = 28;
/// Flag of the library for a short write: half of the bytes are written.
const SHORT: u64 = 1 << 32;
/// First of the library's numbers that count injected faults.
const INJECTED: u64 = 8;
const NUMBERS: u64 = 16;
const HOUR_MS: i64 = 3_600_000;
/// First part of a life's random decisions that belongs to a lane; the clients use the parts below
/// it.
const LANE_PART: u64 = 1 << 32;

/// A kind of fault, which lasts for a while.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    WriteFails,
    DiskFull,
    ShortWrites,
    SyncFails,
    OpenFails,
    AcceptFails,
    /// Limits the process to the descriptors that it has open, and a few more.
    FewDescriptors,
    ClockForward,
    ClockBack,
    /// Stops the process.
    Stop,
    /// Reloads the app.
    Reload,
    /// Requests occupy all instances.
    Overload,
    /// Not an injected fault: alarms are set in events that flush.
    Flush,
}

pub(crate) const KINDS: [(&str, Kind); 13] = [
    ("write", Kind::WriteFails),
    ("full", Kind::DiskFull),
    ("short", Kind::ShortWrites),
    ("sync", Kind::SyncFails),
    ("open", Kind::OpenFails),
    ("accept", Kind::AcceptFails),
    ("descriptors", Kind::FewDescriptors),
    ("forward", Kind::ClockForward),
    ("back", Kind::ClockBack),
    ("stop", Kind::Stop),
    ("reload", Kind::Reload),
    ("overload", Kind::Overload),
    ("flush", Kind::Flush),
];

/// Kinds of which at most one is injected at a time. Faults of different lanes overlap.
const LANES: [&[Kind]; 4] = [
    &[
        Kind::WriteFails,
        Kind::DiskFull,
        Kind::ShortWrites,
        Kind::SyncFails,
    ],
    &[Kind::OpenFails, Kind::AcceptFails, Kind::FewDescriptors],
    &[Kind::ClockForward, Kind::ClockBack],
    &[Kind::Stop, Kind::Reload, Kind::Overload],
];
/// Number of requests of one overload: sleepers that occupy the instances, or commands to one room,
/// more than its inbox holds.
const SLEEPERS_MAX: u64 = 30;
const COMMANDS_MAX: u64 = 300;

/// The fault numbers of the library `faulty`, in the order of their places.
#[derive(Clone, Copy)]
enum Number {
    Write = 0,
    Sync = 1,
    Open = 2,
    Accept = 3,
    Clock = 4,
}

/// The file by which the library is controlled.
pub(crate) struct Control {
    path: PathBuf,
    file: File,
    /// Maximum offset of the wall clock so far.
    ahead_max_ms: Cell<i64>,
}

impl Control {
    pub(crate) fn new(directory: &Path) -> Control {
        let path = directory.join("faults");
        let file = File::options()
            .read(true)
            .write(true)
            .create_new(true)
            .open(&path)
            .expect("a file for the faults");
        file.set_len(8 * NUMBERS).expect("a few bytes");
        Control {
            path,
            file,
            ahead_max_ms: Cell::new(0),
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    fn set(&self, number: Number, value: u64) {
        self.file
            .write_all_at(&value.to_ne_bytes(), 8 * number as u64)
            .expect("the file is there");
    }

    fn get(&self, index: u64) -> u64 {
        let mut bytes = [0; 8];
        self.file
            .read_exact_at(&mut bytes, 8 * index)
            .expect("the file is there");
        u64::from_ne_bytes(bytes)
    }

    /// Returns the number of calls that failed by injection: writes, syncs, opens, accepts.
    pub(crate) fn injected(&self) -> [u64; 4] {
        [Number::Write, Number::Sync, Number::Open, Number::Accept]
            .map(|number| self.get(INJECTED + number as u64))
    }

    /// Removes all faults of calls. The clock keeps its offset.
    pub(crate) fn calm(&self) {
        for number in [Number::Write, Number::Sync, Number::Open, Number::Accept] {
            self.set(number, 0);
        }
    }

    fn set_clock(&self, ahead_ms: i64) {
        self.ahead_max_ms.set(self.ahead_max_ms.get().max(ahead_ms));
        self.set(Number::Clock, ahead_ms as u64);
    }

    /// Sets the clock to a time at which every alarm set so far is due.
    pub(crate) fn let_alarms_ring(&self) {
        self.set_clock(self.ahead_max_ms.get() + 10_000);
    }

    /// Injects faults of these kinds until `until`, in all lanes at once; `room` is the path of a
    /// room. Returns the number of faults. A fault that has not ended by then continues: see
    /// [`Control::end`].
    pub(crate) async fn rage(
        &self,
        kinds: &[Kind],
        until: Instant,
        random: &Random,
        server: &Tidegate,
        room: &str,
    ) -> u64 {
        let count = Cell::new(0);
        let lanes = LANES.iter().zip(LANE_PART..).map(|(lane, part)| {
            let kinds: Vec<Kind> = lane
                .iter()
                .copied()
                .filter(|kind| kinds.contains(kind))
                .collect();
            let (count, mut random) = (&count, random.fork(part));
            async move {
                while !kinds.is_empty() {
                    sleep(Duration::from_millis(random.between(5, 400))).await;
                    count.set(count.get() + 1);
                    self.inflict(*random.pick(&kinds), &mut random, server, room)
                        .await;
                }
            }
        });
        _ = timeout_at(until, join_all(lanes)).await;
        sleep_until(until).await;
        count.get()
    }

    /// Ends all faults of this process. The clock keeps its offset.
    pub(crate) fn end(&self, server: &Tidegate) {
        self.calm();
        server.signal(Signal::CONT);
        limit_descriptors(server, None);
    }

    /// Begins a fault, waits, and ends it.
    async fn inflict(&self, kind: Kind, random: &mut Random, server: &Tidegate, room: &str) {
        let time = Duration::from_millis(random.between(5, 250));
        let mut requests = JoinSet::new();
        match kind {
            Kind::WriteFails => self.set(Number::Write, EIO),
            Kind::DiskFull => self.set(Number::Write, ENOSPC),
            Kind::ShortWrites => self.set(Number::Write, SHORT),
            Kind::SyncFails => self.set(Number::Sync, EIO),
            Kind::OpenFails => self.set(Number::Open, *random.pick(&[EMFILE, ENFILE])),
            Kind::AcceptFails => self.set(Number::Accept, *random.pick(&[EMFILE, ENFILE])),
            Kind::ClockForward => self.set_clock(random.between(1, HOUR_MS as u64) as i64),
            Kind::ClockBack => self.set_clock(-(random.between(1, HOUR_MS as u64) as i64)),
            Kind::FewDescriptors => limit_descriptors(server, Some(random.below(4))),
            Kind::Stop => server.signal(Signal::STOP),
            Kind::Reload => server.signal(Signal::HUP),
            Kind::Overload if random.one_in(2) => {
                for _ in 0..random.between(1, SLEEPERS_MAX) {
                    let request =
                        reqwest::get(server.url(&format!("/sleep/{}", random.below(300))));
                    requests.spawn(async { drop(request.await) });
                }
            }
            Kind::Overload => {
                let http = reqwest::Client::new();
                for _ in 0..random.between(1, COMMANDS_MAX) {
                    let request = http.post(server.url(room)).body("nonsense").send();
                    requests.spawn(async { drop(request.await) });
                }
            }
            Kind::Flush => {}
        }
        sleep(time).await;
        match kind {
            Kind::WriteFails | Kind::DiskFull | Kind::ShortWrites => self.set(Number::Write, 0),
            Kind::SyncFails => self.set(Number::Sync, 0),
            Kind::OpenFails => self.set(Number::Open, 0),
            Kind::AcceptFails => self.set(Number::Accept, 0),
            Kind::FewDescriptors => limit_descriptors(server, None),
            Kind::Stop => server.signal(Signal::CONT),
            // The clock keeps its offset until the next step.
            Kind::ClockForward | Kind::ClockBack | Kind::Reload | Kind::Flush => {}
            // Their clients disconnect, or keep waiting.
            Kind::Overload if random.one_in(2) => requests.detach_all(),
            Kind::Overload => {}
        }
    }
}

/// Sets the soft limit of the process: `more` above its open descriptors, or all that the hard
/// limit allows.
fn limit_descriptors(server: &Tidegate, more: Option<u64>) {
    let pid = Pid::from_raw(server.pid() as i32);
    let open = fs::read_dir(format!("/proc/{}/fd", server.pid()))
        .map_or(0, |entries| entries.count() as u64);
    let maximum = getrlimit(Resource::Nofile).maximum;
    let current = more.map_or(maximum, |more| Some(open + more));
    // The process may have ended already, which the storm detects.
    _ = prlimit(pid, Resource::Nofile, Rlimit { current, maximum });
}
