//! The storage on a real disk: what every engine must do, restarts, other processes, damage, and
//! what an operator does with it.

use bytes::Bytes;
use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};
use tempfile::TempDir;
use tidegate_disk::Storage;
use tidegate_hub::{
    Alarm, Batch, Engine, EngineError, Position, RoomId, RoomRecord,
    rooms::storage::{Commit, LogHead, Range},
    testing::suite,
};

fn run(commit: Commit) -> Result<(), EngineError> {
    runtime().block_on(commit)
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap()
}

struct TestDir(TempDir);

impl TestDir {
    fn new() -> TestDir {
        TestDir(tempfile::tempdir().unwrap())
    }

    fn data(&self) -> PathBuf {
        self.0.path().join("data")
    }

    fn open(&self) -> Storage {
        Storage::open(&self.data()).unwrap_or_else(|error| panic!("{error}"))
    }
}

fn room(name: &str) -> RoomId {
    RoomId::new("chat", name).unwrap()
}

/// Writes one key, with the size that this makes.
fn put(storage: &Storage, name: &str, key: &str, value: &str) -> Result<(), EngineError> {
    let room = room(name);
    let before = storage
        .get(&room, key)?
        .map_or(0, |old| key.len() + old.len());
    let RoomRecord { bytes, alarm, .. } = storage.stored(&room)?;
    let bytes = bytes + (key.len() + value.len() - before) as u64;
    let writes = BTreeMap::from([(key.to_owned(), Some(Bytes::from(value.to_owned())))]);
    run(storage.commit(Batch {
        writes,
        ..Batch::new(
            room,
            RoomRecord {
                bytes,
                alarm,
                history: None,
            },
        )
    }))
}

#[test]
fn the_disk_passes_the_suite_of_engines() {
    suite(&TestDir::new().open(), run);
}

#[test]
fn commits_survive_a_restart() {
    let dir = TestDir::new();
    for round in 0..3 {
        let storage = dir.open();
        for earlier in 0..round {
            assert_eq!(
                storage.get(&room("tea"), &earlier.to_string()),
                Ok(Some("x".into()))
            );
        }
        put(&storage, "tea", &round.to_string(), "x").unwrap();
        put(&storage, &format!("new {round}"), "k", "v").unwrap();
    }
    let storage = dir.open();
    assert_eq!(storage.rooms(None, None, 9).unwrap().len(), 4);
    assert_eq!(storage.verify(|| {}).unwrap().wrong, [""; 0]);
}

#[test]
fn a_cleared_room_is_empty_after_a_restart() {
    let dir = TestDir::new();
    let storage = dir.open();
    for key in 0..2500 {
        put(&storage, "tea", &format!("{key}"), "x").unwrap();
    }
    let clear = Batch {
        clear: true,
        ..Batch::new(room("tea"), RoomRecord::default())
    };
    run(storage.commit(clear)).unwrap();
    put(&storage, "milk", "k", "v").unwrap();
    drop(storage);
    let storage = dir.open();
    put(&storage, "tea", "new", "x").unwrap();
    assert_eq!(
        storage.range(&room("tea"), &Range::all(9)).unwrap().len(),
        1
    );
    assert_eq!(storage.get(&room("milk"), "k"), Ok(Some("v".into())));
    assert_eq!(storage.verify(|| {}).unwrap().wrong, [""; 0]);
}

#[test]
fn an_expired_history_is_removed_with_its_otherwise_empty_room() {
    let dir = TestDir::new();
    let storage = dir.open();
    let logged = |expires| {
        Some(LogHead {
            position: Position {
                epoch: 7,
                sequence: 1,
            },
            expires,
        })
    };
    for (name, bytes, expires) in [
        ("old", 0, 1),
        ("old with a key", 4, 1),
        ("new", 0, u64::MAX),
    ] {
        let writes = if bytes > 0 {
            BTreeMap::from([("k".to_owned(), Some(Bytes::from_static(b"old")))])
        } else {
            BTreeMap::new()
        };
        let batch = Batch::new(
            room(name),
            RoomRecord {
                bytes,
                alarm: None,
                history: logged(expires),
            },
        );
        run(storage.commit(Batch {
            writes,
            log: vec![(1, "said".into())],
            ..batch
        }))
        .unwrap();
    }
    drop(storage);
    let storage = dir.open(); // which looks at all rooms once it has nothing else to do
    let deadline = Instant::now() + Duration::from_secs(20);
    while storage.rooms(None, None, 9).unwrap().len() > 2
        || !storage.log(&room("old with a key")).unwrap().is_empty()
    {
        assert!(Instant::now() < deadline, "the old room is still there");
        thread::yield_now();
    }
    assert_eq!(storage.log(&room("new")), Ok(vec!["said".into()]));
    assert_eq!(
        storage.get(&room("old with a key"), "k"),
        Ok(Some("old".into()))
    );
    assert_eq!(
        storage.stored(&room("new")).unwrap().history,
        logged(u64::MAX)
    );
    assert_eq!(storage.verify(|| {}).unwrap().wrong, [""; 0]);
}

#[test]
fn another_process_is_refused_with_the_name_of_the_directory() {
    let dir = TestDir::new();
    let _open = dir.open();
    let error = Storage::open(&dir.data()).err().unwrap().to_string();
    assert!(
        error.contains("another process has") && error.contains(&dir.data().display().to_string()),
        "{error}"
    );
}

#[test]
fn an_unusable_directory_is_one_error_line() {
    let dir = TestDir::new();
    let file = dir.0.path().join("file");
    fs::write(&file, "x").unwrap();
    let open = dir.0.path().join("open");
    fs::create_dir(&open).unwrap();
    fs::set_permissions(&open, std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
    for (directory, expected) in [
        (file.join("data"), "can't use"),
        (open, "others than its owner may write there"),
    ] {
        let error = Storage::open(&directory).err().unwrap().to_string();
        assert!(
            error.contains(expected) && error.lines().count() == 1,
            "{error}"
        );
    }
}

#[test]
fn a_backup_is_consistent_and_replaces_nothing() {
    let dir = TestDir::new();
    let storage = Arc::new(dir.open());
    for number in 0..200 {
        put(
            &storage,
            &format!("{}", number % 7),
            &number.to_string(),
            "x",
        )
        .unwrap();
    }
    let alarm = Some(Alarm { at: 5, attempt: 1 });
    run(storage.commit(Batch::new(
        room("alarm"),
        RoomRecord {
            alarm,
            ..RoomRecord::default()
        },
    )))
    .unwrap();
    let copy = dir.0.path().join("copy");
    storage.backup(&copy, || {}).unwrap();
    put(&storage, "0", "later", "x").unwrap();
    assert!(
        storage
            .backup(&copy, || {})
            .unwrap_err()
            .to_string()
            .contains("exists already")
    );
    let copied = Storage::open(&copy).unwrap();
    let verified = copied.verify(|| {}).unwrap();
    assert_eq!(
        (verified.rooms, verified.entries, verified.wrong),
        (8, 200, vec![])
    );
    assert_eq!(
        (
            copied.get(&room("0"), "later"),
            copied.alarms().unwrap().len()
        ),
        (Ok(None), 1)
    );
    put(&copied, "new", "k", "v").unwrap();
    assert_eq!(
        copied.verify(|| {}).unwrap().wrong,
        [""; 0],
        "a new room gets a number of its own"
    );
}

#[test]
fn rooms_are_listed_in_pages_deleted_and_compacted() {
    let dir = TestDir::new();
    let storage = dir.open();
    for name in ["a", "b", "c", "d"] {
        put(&storage, name, "k", "value").unwrap();
    }
    let names = |after: Option<&RoomId>, limit| {
        let page = storage.rooms(Some("chat"), after, limit).unwrap();
        page.iter()
            .map(|(room, stored)| format!("{} {}", room.name(), stored.bytes))
            .collect::<Vec<_>>()
            .join(",")
    };
    assert_eq!(
        (names(None, 2), names(Some(&room("b")), 9)),
        ("a 6,b 6".into(), "c 6,d 6".into())
    );
    let delete = |name| runtime().block_on(storage.delete(&room(name)));
    assert_eq!((delete("b"), delete("b")), (Ok(true), Ok(false)));
    storage.compact().unwrap();
    assert_eq!(
        (
            names(None, 9),
            storage.rooms(Some("cha"), None, 9).unwrap().len()
        ),
        ("a 6,c 6,d 6".into(), 0)
    );
    assert_eq!(storage.verify(|| {}).unwrap().wrong, [""; 0]);
}

/// Every file of the directory, in the same order each time.
fn files(directory: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut open = vec![directory.to_owned()];
    while let Some(directory) = open.pop() {
        for entry in fs::read_dir(directory).unwrap().map(Result::unwrap) {
            let list = if entry.file_type().unwrap().is_dir() {
                &mut open
            } else {
                &mut files
            };
            list.push(entry.path());
        }
    }
    files.sort();
    files
}

fn copy(from: &Path, to: &Path) -> io::Result<()> {
    for file in files(from) {
        let target = to.join(file.strip_prefix(from).unwrap());
        fs::create_dir_all(target.parent().unwrap())?;
        fs::copy(file, target)?;
    }
    Ok(())
}

#[test]
fn damage_is_refused_or_found_by_verify_or_has_no_effect() {
    let dir = TestDir::new();
    let storage = dir.open();
    for number in 0..300 {
        put(&storage, "tea", &format!("{number:03}"), &"x".repeat(200)).unwrap();
    }
    storage.compact().unwrap();
    for number in 300..320 {
        put(&storage, "tea", &format!("{number:03}"), &"x".repeat(200)).unwrap();
    }
    drop(storage);
    let names = files(&dir.data());
    for (index, name) in names.iter().enumerate() {
        let length = fs::metadata(name).unwrap().len();
        for damage in [
            Damage::Cut(length / 2),
            Damage::Cut(0),
            Damage::Flip(length / 3),
            Damage::Flip(7),
            Damage::Gone,
        ] {
            let damaged = dir.0.path().join(format!("damaged {index} {damage:?}"));
            copy(&dir.data(), &damaged).unwrap();
            damage.apply(
                &damaged.join(name.strip_prefix(dir.data()).unwrap()),
                length,
            );
            check_damaged(&damaged, name, &damage);
            fs::remove_dir_all(&damaged).unwrap();
        }
    }
}

#[derive(Debug)]
enum Damage {
    Cut(u64),
    Flip(u64),
    Gone,
}

impl Damage {
    fn apply(&self, file: &Path, length: u64) {
        match self {
            Damage::Cut(at) => fs::OpenOptions::new()
                .write(true)
                .open(file)
                .unwrap()
                .set_len(*at)
                .unwrap(),
            Damage::Gone => fs::remove_file(file).unwrap(),
            Damage::Flip(at) if *at < length => {
                let mut bytes = fs::read(file).unwrap();
                bytes[*at as usize] ^= 0x10;
                fs::write(file, bytes).unwrap();
            }
            Damage::Flip(_) => {}
        }
    }
}

/// Never a panic, never another value than the one that was written.
fn check_damaged(directory: &Path, name: &Path, damage: &Damage) {
    let storage = match Storage::open(directory) {
        Ok(storage) => storage,
        Err(error) => return assert_eq!(error.to_string().lines().count(), 1, "{error}"),
    };
    for number in 0..320 {
        if let Ok(Some(value)) = storage.get(&room("tea"), &format!("{number:03}")) {
            assert_eq!(value, "x".repeat(200), "{} {damage:?}", name.display());
        }
    }
    _ = storage.verify(|| {});
}
