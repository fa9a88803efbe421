//! Storage recovers from a failure without a restart.
//!
//! While the server runs, a preloaded library fails the C library's calls on the data directory, as
//! the test requests. A small disk is a tmpfs of the test; without the right to mount one, its test
//! is skipped.

use crate::support::{
    Build, Tidegate,
    client::{Socket, get, soon},
    component, component_of, run, tidegate,
};
use rustix::process::Signal;
use std::{
    fs::{self, File},
    io::Write as _,
    os::unix::fs::FileExt as _,
    path::PathBuf,
    process::Command,
    time::Duration,
};
use tempfile::TempDir;

/// Faults of the preloaded library: a name, the number of the call, and the error; 1 << 32 is a
/// short write.
const FAULTS: [(&str, u64, u64); 6] = [
    ("write fails", 0, EIO),
    ("no space is left", 0, ENOSPC),
    ("writes are short", 0, 1 << 32),
    ("fsync fails", 1, EIO),
    ("fsync finds no space", 1, ENOSPC),
    ("there are no descriptors", 2, EMFILE),
];
const EIO: u64 = 5;
const EMFILE: u64 = 24;
const ENOSPC: u64 = 28;
const ROOMS: usize = 3;
/// Time between two tries at a closed storage.
const PAUSE: Duration = Duration::from_millis(20);

/// A server on a disk that fails as the test requests.
struct Faulty {
    dir: TempDir,
    control: File,
    /// Number of acknowledged lines of each room; no other line may be stored.
    acknowledged: [usize; ROOMS],
    /// Number of bytes that each line has besides its number.
    line_bytes: usize,
    disk: Option<SmallDisk>,
}

/// A tmpfs, unmounted when it is dropped.
struct SmallDisk(PathBuf);

impl SmallDisk {
    /// Returns none if this process may not mount one.
    fn mount(at: PathBuf, bytes: u64) -> Option<SmallDisk> {
        fs::create_dir(&at).unwrap();
        let mounted = Command::new("mount")
            .args([
                "-t",
                "tmpfs",
                "-o",
                &format!("size={bytes},mode=700"),
                "tmpfs",
            ])
            .arg(&at)
            .output();
        match mounted {
            Ok(output) if output.status.success() => Some(SmallDisk(at)),
            refused => {
                eprintln!(
                    "skipped: this process may not mount a tmpfs, which takes root: {refused:?}"
                );
                None
            }
        }
    }

    /// Fills the remaining space with a file that may exist already; removing it frees the space.
    fn fill(&self) -> PathBuf {
        let path = self.0.join("hog");
        let mut hog = File::options()
            .append(true)
            .create(true)
            .open(&path)
            .unwrap();
        while hog.write_all(&[0; 4096]).is_ok() {}
        path
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

impl Faulty {
    fn new() -> Faulty {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("control"), [0; 128]).unwrap();
        let control = File::options()
            .write(true)
            .open(dir.path().join("control"))
            .unwrap();
        Faulty {
            dir,
            control,
            acknowledged: [0; ROOMS],
            line_bytes: 0,
            disk: None,
        }
    }

    /// Uses a disk of `disk_bytes`; returns none if this process may not mount one.
    fn small(disk_bytes: u64, line_bytes: usize) -> Option<Faulty> {
        let faulty = Faulty::new();
        let disk = SmallDisk::mount(faulty.dir.path().join("disk"), disk_bytes)?;
        Some(Faulty {
            line_bytes,
            disk: Some(disk),
            ..faulty
        })
    }

    fn data(&self) -> PathBuf {
        self.disk
            .as_ref()
            .map_or(self.dir.path(), |disk| &disk.0)
            .join("data")
    }

    fn line(&self, number: usize) -> String {
        format!("line {number}{}", "x".repeat(self.line_bytes))
    }

    fn serve(&self) -> Tidegate {
        let mut command = tidegate();
        command
            .arg("serve")
            .arg(component("rogue"))
            .args(["--listen", "127.0.0.1:0", "--data"])
            .arg(self.data());
        command
            .env("LD_PRELOAD", component_of(Build::Library, "faulty"))
            .env("FAULTY_DIR", self.data());
        command.env("FAULTY_CONTROL", self.dir.path().join("control"));
        Tidegate::spawn(command)
    }

    fn set(&self, call: u64, error: u64) {
        self.control
            .write_all_at(&error.to_ne_bytes(), 8 * call)
            .unwrap();
    }

    /// Posts the next line to a room; returns the status.
    async fn post(&mut self, server: &Tidegate, room: usize) -> u16 {
        let body = self.line(self.acknowledged[room]);
        let request = reqwest::Client::new()
            .post(server.url(&format!("/rooms/{room}")))
            .body(body);
        let answer = soon("an answer", request.send()).await.unwrap();
        let status = answer.status().as_u16();
        match status {
            200 => self.acknowledged[room] += 1,
            503 => assert!(answer.headers().contains_key("retry-after")),
            500 => {}
            other => panic!("{other} from a disk that fails"),
        }
        status
    }

    /// Posts to all rooms until one answers with this status.
    async fn post_until(&mut self, server: &Tidegate, expected: u16) {
        let posting = async {
            for room in (0..ROOMS).cycle() {
                match self.post(server, room).await {
                    status if status == expected => return,
                    200 => {}
                    _ => tokio::time::sleep(PAUSE).await,
                }
            }
        };
        soon("a storage that opens or closes", posting).await;
    }

    /// Makes this call fail, and checks that the storage closes to writes and reads.
    async fn fail_until_closed(&mut self, server: &Tidegate, what: &str, call: u64, error: u64) {
        self.set(call, error);
        self.post_until(server, 503).await;
        assert_eq!(
            get(server, "/rooms/0").await.0,
            503,
            "{what}: reads as well"
        );
        let (status, why) = get(server, "/__tidegate/health").await;
        assert!(
            status == 503 && why.starts_with("the storage of rooms is closed: "),
            "{what}: {why}"
        );
    }

    /// Checks that every acknowledged line is stored, and nothing else.
    async fn check(&self, server: &Tidegate, what: &str) {
        for (room, acknowledged) in self.acknowledged.into_iter().enumerate() {
            let expected: Vec<String> = (0..acknowledged).map(|number| self.line(number)).collect();
            let (status, stored) = get(server, &format!("/rooms/{room}")).await;
            let is_whole = stored == format!("{acknowledged}\n{}", expected.join("\n"));
            assert!(
                status == 200 && is_whole,
                "{what}, room {room}: {status} {}",
                stored.chars().take(300).collect::<String>()
            );
        }
    }

    fn verify(&self, what: &str) {
        let verified = run(&["data", "verify", "--data", self.data().to_str().unwrap()]);
        assert!(
            String::from_utf8_lossy(&verified.stdout).ends_with("no problems found\n"),
            "{what}: {verified:?}"
        );
    }
}

/// Returns the faults after which a commit can't be acknowledged.
fn closing() -> impl Iterator<Item = (&'static str, u64, u64)> {
    FAULTS
        .into_iter()
        .filter(|(_, call, error)| *error != 1 << 32 && *call < 2)
}

#[tokio::test]
async fn failed_storage_is_closed_and_reopens_while_connections_stay() {
    let mut disk = Faulty::new();
    let server = disk.serve();
    for (what, call, error) in closing() {
        disk.post_until(&server, 200).await;
        let mut ann = Socket::connect(server.ws("/socket")).await;
        let id = ann.ask("id").await;
        let mut bob = Socket::connect(server.ws("/rooms/0")).await;
        bob.ask("members").await;
        disk.fail_until_closed(&server, what, call, error).await;
        let refused = Socket::try_connect(server.ws("/rooms/0"))
            .await
            .err()
            .unwrap();
        assert_eq!(refused.status(), 503, "{what}");
        bob.send("a line that does not happen").await;
        assert_eq!(bob.closed().await.0, 1013, "{what}");
        assert_eq!(
            get(&server, "/calm").await,
            (200, "calm".into()),
            "{what}: the rest is served"
        );
        disk.set(call, 0);
        disk.post_until(&server, 200).await;
        assert_eq!(
            get(&server, "/__tidegate/health").await,
            (200, "ok\n".into()),
            "{what}"
        );
        assert_eq!(ann.ask("id").await, id, "{what}: the connection stayed");
        disk.check(&server, what).await;
    }
    assert_eq!(server.stop().status.code(), Some(0));
    disk.verify("at the end");
}

#[tokio::test]
async fn acknowledged_writes_survive_and_refused_writes_vanish_over_faults_and_kills() {
    let mut disk = Faulty::new();
    let mut server = disk.serve();
    for (what, call, error) in FAULTS {
        for is_mended in [false, true] {
            disk.set(call, error);
            for post in 0..30 {
                disk.post(&server, post % ROOMS).await;
            }
            if is_mended {
                disk.set(call, 0);
                disk.post_until(&server, 200).await;
                disk.check(&server, what).await;
                continue;
            }
            server.signal(Signal::KILL);
            assert!(!server.wait().stderr.contains("panicked"), "{what}");
            disk.set(call, 0);
            server = disk.serve();
            disk.check(&server, what).await;
            disk.post_until(&server, 200).await;
        }
    }
    server.stop();
    disk.verify("at the end");
}

#[tokio::test]
async fn a_start_with_a_failing_disk_serves_and_opens_storage_later() {
    /// Content of the data directory at the start.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    enum Store {
        /// The directory does not exist.
        None,
        /// The last process ended without a fault.
        Well,
        /// The last process was killed after a failed write, so the store has to be written anew.
        InDoubt,
    }
    for store in [Store::None, Store::Well, Store::InDoubt] {
        for (number, (what, call, error)) in (0_u64..).zip(FAULTS) {
            let what = format!("{store:?}, {what}");
            let mut disk = Faulty::new();
            if store != Store::None {
                let server = disk.serve();
                disk.post_until(&server, 200).await;
                let mut ann = Socket::connect(server.ws("/guests/tea?name=ann")).await;
                assert!(ann.text().await.contains("snapshot"), "{what}");
                assert_eq!(ann.ask("alarm 500").await, "done alarm 500", "{what}");
                if store == Store::InDoubt {
                    disk.set(number % 2, EIO);
                    disk.post_until(&server, 503).await;
                    server.signal(Signal::KILL);
                    server.wait();
                    disk.set(number % 2, 0);
                } else {
                    drop(ann);
                    server.stop();
                }
            }
            disk.set(call, error);
            let server = disk.serve();
            let health = get(&server, "/__tidegate/health").await;
            let is_closed = health.0 == 503;
            // A short write is no error, and an undamaged store has nothing to write.
            let may_be_open = error == 1 << 32 || store == Store::Well;
            assert!(is_closed || may_be_open, "{what}: {health:?}");
            if is_closed {
                assert!(
                    health.1.starts_with("the storage of rooms is closed: "),
                    "{what}: {}",
                    health.1
                );
                assert_eq!(get(&server, "/rooms/0").await.0, 503, "{what}: reads");
                assert_eq!(disk.post(&server, 0).await, 503, "{what}: writes");
                let refused = Socket::try_connect(server.ws("/rooms/0")).await;
                assert_eq!(refused.err().unwrap().status(), 503, "{what}");
            }
            assert_eq!(get(&server, "/calm").await, (200, "calm".into()), "{what}");
            let mut ann = Socket::connect(server.ws("/socket")).await;
            let id = ann.ask("id").await;
            disk.set(call, 0);
            disk.post_until(&server, 200).await;
            assert_eq!(ann.ask("id").await, id, "{what}: the connection stayed");
            assert_eq!(
                get(&server, "/__tidegate/health").await,
                (200, "ok\n".into()),
                "{what}"
            );
            if store != Store::None {
                let ringing = async {
                    while !get(&server, "/guests/tea").await.1.contains("alarm 1") {
                        tokio::time::sleep(PAUSE).await;
                    }
                };
                soon("an alarm that was stored before", ringing).await;
            }
            disk.check(&server, &what).await;
            drop(ann);
            assert!(!server.stop().stderr.contains("panicked"), "{what}");
            disk.verify(&what);
        }
    }
}

#[tokio::test]
async fn a_process_without_descriptors_refuses_writes_and_recovers() {
    let mut disk = Faulty::new();
    let server = disk.serve();
    // These values make the store flush, which needs new files.
    let big = "x".repeat(1_000_000);
    let client = reqwest::Client::new();
    disk.set(2, EMFILE);
    let mut accepted = 0;
    for _ in 0..40 {
        let answer = soon(
            "an answer",
            client
                .post(server.url("/rooms/big"))
                .body(big.clone())
                .send(),
        )
        .await
        .unwrap();
        accepted += usize::from(answer.status() == 200);
    }
    disk.set(2, 0);
    disk.post_until(&server, 200).await;
    let answer = soon(
        "an answer",
        client
            .post(server.url("/rooms/big"))
            .body(big.clone())
            .send(),
    )
    .await
    .unwrap();
    assert_eq!(
        answer.text().await.unwrap(),
        accepted.to_string(),
        "all stored lines are counted"
    );
    disk.check(&server, "after descriptors ran out").await;
    server.stop();
    disk.verify("at the end");
}

/// Another program takes the space for a copy while the storage is closed.
#[tokio::test]
async fn a_small_disk_recovers_without_a_copy_and_loses_no_acknowledged_write() {
    const DISK_BYTES: u64 = 64 << 20;
    const LINE_BYTES: usize = 30_000;
    /// Each line is stored twice: as an entry, and in the room's history.
    const LINES: usize = 120;
    /// Less than the data, and enough for the journals.
    const LEFT_BYTES: u64 = 13 << 20;
    let Some(mut disk) = Faulty::small(DISK_BYTES, LINE_BYTES) else {
        return;
    };
    let mut server = disk.serve();
    let mut ann = Socket::connect(server.ws("/socket")).await;
    let id = ann.ask("id").await;
    for post in 0..ROOMS * LINES {
        assert_eq!(disk.post(&server, post % ROOMS).await, 200, "post {post}");
    }
    for (what, call, error) in closing() {
        disk.fail_until_closed(&server, what, call, error).await;
        let hog = disk.disk.as_ref().unwrap().fill();
        let hog_bytes = fs::metadata(&hog).unwrap().len();
        // The file is closed at once: an open file keeps its space when it is removed.
        let resized = File::options().write(true).open(&hog).unwrap();
        resized
            .set_len(hog_bytes.saturating_sub(LEFT_BYTES))
            .unwrap();
        drop(resized);
        disk.set(call, 0);
        soon("a storage that opens without a copy", async {
            while get(&server, "/__tidegate/health").await.0 != 200 {
                tokio::time::sleep(PAUSE).await;
            }
        })
        .await;
        fs::remove_file(hog).unwrap();
        disk.post_until(&server, 200).await;
        assert_eq!(ann.ask("id").await, id, "{what}: the connection stayed");
        disk.check(&server, what).await;
    }
    server.wait_for("there is no space for a copy");
    for (what, call, error) in FAULTS {
        disk.set(call, error);
        for room in 0..ROOMS {
            disk.post(&server, room).await;
        }
        server.signal(Signal::KILL);
        assert!(!server.wait().stderr.contains("panicked"), "{what}");
        disk.set(call, 0);
        server = disk.serve();
        disk.check(&server, what).await;
        let mut hog = disk.disk.as_ref().unwrap().fill();
        // The storage may free space of its own.
        while disk.post(&server, 0).await != 503 {
            hog = disk.disk.as_ref().unwrap().fill();
        }
        assert_eq!(
            get(&server, "/__tidegate/health").await,
            (200, "ok\n".into()),
            "{what}: a full disk closes nothing"
        );
        server.signal(Signal::KILL);
        server.wait();
        server = disk.serve();
        assert_eq!(
            get(&server, "/__tidegate/health").await,
            (200, "ok\n".into()),
            "{what}: a start on a full disk"
        );
        fs::remove_file(hog).unwrap();
        disk.post_until(&server, 200).await;
        disk.check(&server, what).await;
    }
    server.stop();
    disk.verify("at the end");
}
