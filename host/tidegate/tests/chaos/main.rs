//! A storm over the real server: kills, faults of disk, descriptors and clock, slow and vanishing
//! clients, and overload, all at once.
//!
//! A storm has eras, an era has lives, and a life is one process. A life starts on the data of the
//! life before it and has clients and faults for a while. Then it is killed in the middle, drained
//! (in the middle, or after the clients), or left in quiet and checked. At the end of an era, the
//! stored state of its rooms is compared with the answers that the clients received. An era has
//! rooms of its own.
//!
//! | variable | meaning | default |
//! |---|---|---|
//! | `TIDEGATE_CHAOS_SECONDS` | how long | 10 |
//! | `TIDEGATE_CHAOS_KILLS` | and at least so many kills | 1 |
//! | `TIDEGATE_CHAOS_SEED` | seed of the decisions of plan, faults and clients | the time |
//! | `TIDEGATE_CHAOS_FAULTS` | names of `faults::KINDS` with commas, "all", or "" for none | all |

#[path = "../support/mod.rs"]
mod support;

mod checker;
mod clients;
mod faults;
mod random;
mod record;

use checker::Ledger;
use clients::Life;
use faults::{Control, KINDS, Kind};
use random::Random;
use record::{PlainRecord, Record, RoomRecord};
use rustix::process::Signal;
use std::{
    env,
    os::unix::process::ExitStatusExt as _,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};
use support::{Build, PATIENCE, Stopped, Tidegate, component, component_of, tidegate};
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
    time::{self, sleep, timeout},
};

const ROOMS: usize = 4;
const LIVES_OF_AN_ERA: u64 = 12;
/// One in so many lives ends in quiet, one in so many by a drain, and the others by a kill.
const QUIET: u64 = 6;
const DRAIN: u64 = 5;
/// Number of problems after which the storm stops.
const WRONG_MAX: usize = 20;
/// Maximum wait for a room's report. A room that does not answer is asked again.
const LEDGER_WITHIN: Duration = Duration::from_secs(10);
/// Time between two checks of a condition that becomes true soon.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// Number of problems of one check that are shown; more of them are repetitions.
const TOLD: usize = 8;
/// Text of the log line that counts the on-close events that a drain did not deliver.
const UNDELIVERED: &str = "on-close events that were not delivered within --drain: ";
/// Counters of the last log line for clients that made no progress or sent too much.
const CUT_OFF: [&str; 4] = [
    "late_heads",
    "stalled_uploads",
    "stalled_readers",
    "control_floods",
];
const LIMITS: [&str; 10] = [
    "room_idle_max=150ms",
    "rooms_awake_max=3",
    "room_inbox_max=200",
    "history_messages_max=4",
    "outbox_bytes_max=256KiB",
    "pong_within=60s",
    "header_within=400ms",
    "read_within=400ms",
    "write_within=400ms",
    "control_frames_max=20",
];

struct Settings {
    time: Duration,
    kills: u64,
    seed: u64,
    kinds: Vec<Kind>,
}

struct Storm {
    settings: Settings,
    app: PathBuf,
    library: PathBuf,
    dir: tempfile::TempDir,
    control: Control,
    record: Arc<Mutex<Record>>,
    http: reqwest::Client,
    begun: Instant,
    era: u64,
    life: u64,
    tally: Tally,
    wrong: Vec<String>,
}

#[derive(Debug, Default)]
struct Tally {
    kills: u64,
    drains: u64,
    quiets: u64,
    faults: u64,
    /// Number of clients that the server cut off in lives that ended by a drain; only a drain
    /// reports it.
    cut_off: u64,
    done: usize,
    refused: usize,
    unknown: usize,
    alarms: usize,
}

/// The end of a life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Kill,
    Drain,
    Quiet,
}

impl Settings {
    fn from_environment() -> Settings {
        let number = |name: &str, default: u64| {
            env::var(name)
                .ok()
                .and_then(|value| value.parse().ok())
                .unwrap_or(default)
        };
        let time = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| since.as_secs());
        let names = env::var("TIDEGATE_CHAOS_FAULTS").unwrap_or_else(|_| "all".into());
        let is_wanted = |name: &str| {
            names
                .split(',')
                .any(|wanted| wanted == name || wanted == "all")
        };
        let kinds = KINDS
            .iter()
            .filter(|(name, _)| is_wanted(name))
            .map(|(_, kind)| *kind)
            .collect();
        Settings {
            time: Duration::from_secs(number("TIDEGATE_CHAOS_SECONDS", 10)),
            kills: number("TIDEGATE_CHAOS_KILLS", 1),
            seed: number("TIDEGATE_CHAOS_SEED", time),
            kinds,
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_storm_of_faults_loses_no_acknowledged_write() {
    let settings = Settings::from_environment();
    println!(
        "TIDEGATE_CHAOS_SEED={} with {:?}",
        settings.seed, settings.kinds
    );
    let mut storm = Storm::new(settings);
    while !storm.is_over() {
        storm.era().await;
    }
    println!(
        "{:?} in {:.0} s, {:?} injected",
        storm.tally,
        storm.begun.elapsed().as_secs_f64(),
        storm.control.injected()
    );
    let (wrong, seed) = (&storm.wrong, storm.settings.seed);
    assert!(
        wrong.is_empty(),
        "TIDEGATE_CHAOS_SEED={seed} showed {} faults:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
    assert!(
        storm.tally.done > 0 && storm.tally.kills > 0,
        "nothing was tried: {:?}",
        storm.tally
    );
}

impl Storm {
    fn new(settings: Settings) -> Storm {
        let dir = tempfile::tempdir().expect("a directory");
        Storm {
            app: component("chaos-guest"),
            library: component_of(Build::Library, "faulty"),
            control: Control::new(dir.path()),
            record: Arc::default(),
            http: reqwest::Client::new(),
            begun: Instant::now(),
            settings,
            dir,
            era: 0,
            life: 0,
            tally: Tally::default(),
            wrong: Vec::new(),
        }
    }

    fn is_over(&self) -> bool {
        let is_done =
            self.begun.elapsed() >= self.settings.time && self.tally.kills >= self.settings.kills;
        is_done || self.wrong.len() >= WRONG_MAX
    }

    /// Runs some lives with the same rooms; the last life is checked in quiet.
    async fn era(&mut self) {
        self.era += 1;
        self.record(|record| {
            record.rooms = (0..ROOMS).map(|_| RoomRecord::default()).collect();
            record.drains.clear();
        });
        for number in 1..=LIVES_OF_AN_ERA {
            let mut random = Random::new(self.settings.seed).fork(self.life + 1);
            let is_last = number == LIVES_OF_AN_ERA || self.is_over();
            let end = match (random.below(QUIET), random.below(DRAIN)) {
                _ if is_last => End::Quiet,
                (0, _) => End::Quiet,
                (_, 0) => End::Drain,
                _ => End::Kill,
            };
            self.live(end, random).await;
            if is_last {
                break;
            }
        }
        self.count();
        println!(
            "era {}: {:?} in {:.0} s",
            self.era,
            self.tally,
            self.begun.elapsed().as_secs_f64()
        );
    }

    fn record<T>(&self, write: impl FnOnce(&mut Record) -> T) -> T {
        write(&mut self.record.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn count(&mut self) {
        use record::Outcome::{Done, Refused, Unknown};
        let record = self.record.lock().unwrap_or_else(PoisonError::into_inner);
        let outcomes = |of| {
            record
                .rooms
                .iter()
                .flat_map(|room| room.lines.values())
                .filter(|outcome| **outcome == of)
                .count()
        };
        self.tally.done += outcomes(Done);
        self.tally.refused += outcomes(Refused);
        self.tally.unknown += outcomes(Unknown);
        self.tally.alarms += record
            .rooms
            .iter()
            .flat_map(|room| room.alarms.values())
            .filter(|outcome| **outcome == Done)
            .count();
    }

    fn serve(&self) -> Result<Tidegate, String> {
        let mut command = tidegate();
        let data = self.dir.path().join("data");
        command
            .arg("serve")
            .arg(&self.app)
            .args(["--listen", "127.0.0.1:0", "--instances", "12", "--data"])
            .arg(&data);
        command
            .args(["--env", &format!("LIFE={}", self.life)])
            .args(["--drain", "20s", "--wall", "10s"]);
        for limit in LIMITS {
            command.args(["--limit", limit]);
        }
        command
            .env("LD_PRELOAD", &self.library)
            .env("FAULTY_DIR", &data)
            .env("FAULTY_CONTROL", self.control.path());
        Tidegate::try_spawn(command)
    }

    /// Runs one process, from its start to its end.
    async fn live(&mut self, end: End, mut random: Random) {
        self.life += 1;
        self.control.calm();
        self.record(|record| record.plain = PlainRecord::default());
        let server = match self.serve() {
            Ok(server) => server,
            Err(log) => return self.report(vec![format!("it does not start:\n{log}")], ""),
        };
        let (quiet, is_quiet) = watch::channel(false);
        let (held, mut to_hold) = mpsc::unbounded_channel();
        let life = Arc::new(Life {
            number: self.life,
            address: server.address().to_owned(),
            era: self.era,
            record: self.record.clone(),
            quiet: is_quiet,
            held,
            http: self.http.clone(),
            flushes: self.settings.kinds.contains(&Kind::Flush),
        });
        let mut watching = JoinSet::new();
        match clients::watch(life.clone()).await {
            Some(watch) => drop(watching.spawn(watch)),
            None => self.record(|record| record.plain.is_incomplete = true),
        }
        let mut clients = clients::start(&life, ROOMS, &random);
        let until = time::Instant::now() + Duration::from_millis(random.between(100, 1500));
        let path = life.path(random.below(ROOMS as u64) as usize);
        self.tally.faults += self
            .control
            .rage(&self.settings.kinds, until, &random, &server, &path)
            .await;
        let mut holding = JoinSet::new();
        let is_in_the_middle = random.one_in(2);
        let wrong = match end {
            // Kills, and one half of the drains, happen in the middle of faults and clients.
            End::Kill => Vec::new(),
            End::Drain if is_in_the_middle => {
                server.signal(Signal::TERM);
                sleep(Duration::from_millis(random.below(300))).await;
                self.control.end(&server);
                Vec::new()
            }
            End::Drain => self.settle(&server, &quiet, &mut clients).await,
            End::Quiet => {
                let mut wrong = self.settle(&server, &quiet, &mut clients).await;
                while let Ok(held) = to_hold.try_recv() {
                    holding.spawn(clients::hold(life.clone(), held));
                }
                wrong.extend(self.check(&life).await);
                self.tally.quiets += 1;
                wrong
            }
        };
        match end {
            // A second signal would end a drain that has begun.
            End::Drain if is_in_the_middle => {}
            End::Drain => server.signal(Signal::TERM),
            End::Kill | End::Quiet => server.signal(Signal::KILL),
        }
        let stopped = tokio::task::spawn_blocking(|| server.wait()).await;
        // The clients are dropped only after the server has stopped: a client must not record the
        // end of a killed server as its own.
        drop((clients, holding, watching, to_hold));
        match (end, stopped) {
            (_, Err(_)) => self.report(vec!["it did not end".into()], ""),
            (_, Ok(stopped)) => {
                self.record(|record| {
                    record
                        .rooms
                        .iter_mut()
                        .for_each(|room| room.resolve(&stopped.stderr))
                });
                let is_expected = if end == End::Drain {
                    stopped.status.success()
                } else {
                    stopped.status.signal() == Some(9)
                };
                let died = (!is_expected)
                    .then(|| format!("it ended by itself, or not well: {:?}", stopped.status));
                let panicked = stopped
                    .stderr
                    .lines()
                    .find(|line| line.starts_with("thread '"))
                    .map(|line| format!("the host panicked: {line}"));
                if end == End::Drain {
                    let undelivered = stopped
                        .stderr
                        .lines()
                        .find_map(|line| line.split_once(UNDELIVERED))
                        .map_or("0", |(_, count)| count);
                    let undelivered = undelivered.trim().parse().expect("it is a number");
                    self.record(|record| record.drains.insert(life.number, undelivered));
                    let counters = stopped.counters();
                    self.tally.cut_off += CUT_OFF
                        .iter()
                        .filter_map(|name| counters.get(name))
                        .sum::<u64>();
                }
                self.tally.kills += u64::from(end != End::Drain);
                self.tally.drains += u64::from(end == End::Drain);
                self.report(
                    wrong.into_iter().chain(died).chain(panicked).collect(),
                    &tail(&stopped),
                );
            }
        }
    }

    /// Removes all faults and waits for the clients to end. Clients with an open socket hand it
    /// over.
    async fn settle(
        &self,
        server: &Tidegate,
        quiet: &watch::Sender<bool>,
        clients: &mut JoinSet<()>,
    ) -> Vec<String> {
        self.control.end(server);
        quiet.send_replace(true);
        let ending = async { while clients.join_next().await.is_some() {} };
        match timeout(PATIENCE, ending).await {
            Ok(()) => Vec::new(),
            Err(_) => vec![format!(
                "{} clients wait for something after {PATIENCE:?}",
                clients.len()
            )],
        }
    }

    /// Checks every room until all conditions hold, or patience ends.
    async fn check(&self, life: &Life) -> Vec<String> {
        let end = Instant::now() + PATIENCE;
        let mut wrong = Vec::new();
        // Alarms that were set while the clock was ahead are due, too.
        self.control.let_alarms_ring();
        while Instant::now() < end {
            wrong.clear();
            let mut ledgers = Vec::new();
            for room in 0..ROOMS {
                match self.ledger(life, room).await {
                    Err(error) => wrong.push(format!("room {room} does not answer: {error}")),
                    Ok(ledger) => {
                        let (always, quiet) = self.record(|record| {
                            let record = &record.rooms[room];
                            (
                                checker::always(record, &ledger),
                                checker::quiet(record, &ledger, life.number),
                            )
                        });
                        let describe = |text| format!("room {}-{room}: {text}", self.era);
                        // Lost writes do not come back, so waiting longer is pointless.
                        if !always.is_empty() {
                            return always.into_iter().map(describe).collect();
                        }
                        wrong.extend(quiet.into_iter().map(describe));
                        ledgers.push(ledger);
                    }
                }
            }
            wrong.extend(self.record(|record| checker::plain(&record.plain)));
            wrong.extend(self.record(|record| checker::drained(&record.drains, &ledgers)));
            if wrong.is_empty() {
                return wrong;
            }
            sleep(LOOK_EVERY).await;
        }
        wrong
    }

    async fn ledger(&self, life: &Life, room: usize) -> Result<Ledger, String> {
        let url = format!("http://{}/ledger/{}-{room}", life.address, self.era);
        let answer = self
            .http
            .get(url)
            .timeout(LEDGER_WITHIN)
            .send()
            .await
            .map_err(|error| format!("{error:?}"))?;
        let status = answer.status();
        let text = answer.text().await.map_err(|error| format!("{error:?}"))?;
        if status != 200 {
            return Err(format!("{status} {text}"));
        }
        serde_json::from_str(&text).map_err(|error| format!("{error} in {text}"))
    }

    fn report(&mut self, mut wrong: Vec<String>, log: &str) {
        if wrong.is_empty() {
            return;
        }
        let life = self.life;
        if wrong.len() > TOLD {
            let more = wrong.split_off(TOLD).len();
            wrong.push(format!("and {more} more"));
        }
        println!("life {life}: {}\n--- its log\n{log}---", wrong.join("\n"));
        self.wrong
            .extend(wrong.into_iter().map(|text| format!("life {life}: {text}")));
    }
}

/// Returns the end of the log, without the lines that a client's request caused.
fn tail(stopped: &Stopped) -> String {
    const LINES: usize = 40;
    let lines: Vec<&str> = stopped
        .stderr
        .lines()
        .filter(|line| !line.contains("as the client asked"))
        .collect();
    lines[lines.len().saturating_sub(LINES)..]
        .iter()
        .map(|line| format!("{line}\n"))
        .collect()
}
