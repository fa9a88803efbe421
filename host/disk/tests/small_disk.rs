//! The storage on a small disk of its own: journals and what was overwritten give their space back
//! before commits are refused.

use bytes::Bytes;
use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::Write as _,
    path::PathBuf,
    process::Command,
    thread,
    time::{Duration, Instant},
};
use tempfile::TempDir;
use tidegate_disk::Storage;
use tidegate_hub::{Batch, Engine as _, EngineError, RoomId, RoomRecord};

const MIB: u64 = 1 << 20;
const VALUE_BYTES: usize = 10_000;
/// For what takes far less: only a storage that never has space again reaches it.
const PATIENCE: Duration = Duration::from_secs(30);
/// Refused writes after which a disk counts as full.
const REFUSED: u32 = 200;

/// A tmpfs, unmounted when it is dropped.
struct Disk(TempDir);

impl Disk {
    /// None where the process may not mount: the test is skipped then.
    fn new(bytes: u64) -> Option<Disk> {
        let dir = tempfile::tempdir().unwrap();
        let mounted = Command::new("mount")
            .args([
                "-t",
                "tmpfs",
                "-o",
                &format!("size={bytes},mode=700"),
                "tmpfs",
            ])
            .arg(dir.path())
            .output();
        match mounted {
            Ok(output) if output.status.success() => Some(Disk(dir)),
            refused => {
                eprintln!(
                    "skipped: this process may not mount a tmpfs, which takes root: {refused:?}"
                );
                None
            }
        }
    }

    fn open(&self) -> Storage {
        Storage::open(&self.0.path().join("data")).unwrap_or_else(|error| panic!("{error}"))
    }

    /// Takes all the space that is left; removing the file gives it back.
    fn fill(&self) -> PathBuf {
        let path = self.0.path().join("hog");
        let mut file = File::create(&path).unwrap();
        while file.write_all(&[0; 4096]).is_ok() {}
        path
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        _ = Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

/// Acknowledged writes: for each key the number of its latest value.
#[derive(Default)]
struct Model(BTreeMap<u64, u64>);

impl Model {
    fn room(key: u64) -> RoomId {
        RoomId::new("chat", &(key % 5).to_string()).unwrap()
    }

    fn put(&mut self, storage: &Storage, key: u64, number: u64) -> Result<(), EngineError> {
        let (room, name, value) = (
            Model::room(key),
            key.to_string(),
            format!("{number} {}", "x".repeat(VALUE_BYTES)),
        );
        let before = storage
            .get(&room, &name)?
            .map_or(0, |old| name.len() + old.len());
        let bytes =
            storage.stored(&room)?.bytes + (name.len() + value.len()) as u64 - before as u64;
        let writes = BTreeMap::from([(name, Some(Bytes::from(value)))]);
        let commit = storage.commit(Batch {
            writes,
            ..Batch::new(
                room,
                RoomRecord {
                    bytes,
                    ..RoomRecord::default()
                },
            )
        });
        tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap()
            .block_on(commit)?;
        self.0.insert(key, number);
        Ok(())
    }

    /// As `put`, again and again while the storage gives back space.
    fn put_soon(&mut self, storage: &Storage, key: u64, number: u64) {
        let deadline = Instant::now() + PATIENCE;
        while let Err(error) = self.put(storage, key, number) {
            assert!(
                matches!(error, EngineError::Full(_)) && Instant::now() < deadline,
                "write {number}: {error}"
            );
            thread::yield_now();
        }
    }

    fn check(&self, storage: &Storage) {
        for (key, number) in &self.0 {
            let value = storage
                .get(&Model::room(*key), &key.to_string())
                .unwrap()
                .unwrap();
            assert!(
                value.starts_with(format!("{number} ").as_bytes()),
                "key {key} has not value {number}"
            );
        }
        assert_eq!(storage.verify(|| {}).unwrap().wrong, [""; 0]);
    }
}

#[test]
fn endless_overwriting_needs_bounded_space() {
    // Bytes that live: a small part of the disk, and nearly as much as has space for a copy.
    for (disk_bytes, live) in [(32 * MIB, 50), (80 * MIB, 2500)] {
        let Some(disk) = Disk::new(disk_bytes) else {
            return;
        };
        let storage = disk.open();
        let mut model = Model::default();
        let writes = live + 2 * disk_bytes / VALUE_BYTES as u64;
        for number in 0..writes {
            model.put_soon(&storage, number * 7919 % live, number);
        }
        model.check(&storage);
        drop(storage);
        model.check(&disk.open());
    }
}

#[test]
fn a_full_disk_refuses_commits_only_while_it_is_full() {
    let Some(disk) = Disk::new(64 * MIB) else {
        return;
    };
    let storage = disk.open();
    let mut model = Model::default();
    let live = 2500;
    for key in 0..live {
        model.put(&storage, key, key).unwrap();
    }
    for round in 1..5 {
        let hog = disk.fill();
        for key in 0..20 {
            let put = model.put(&storage, key, live * round + key);
            assert!(
                matches!(put, Ok(()) | Err(EngineError::Full(_))),
                "round {round}: {put:?}"
            );
        }
        model.check(&storage);
        fs::remove_file(hog).unwrap();
        (0..2000).for_each(|number| {
            model.put_soon(&storage, number * 7919 % live, live * round + number)
        });
    }
    model.check(&storage);
}

/// Rooms fill the disk with values of many sizes, overwrites and deletes until writes are refused.
/// Then deleting some of them has to bring writes back, again and again. The long form, with disks
/// of more sizes, runs if `TIDEGATE_LONG_TESTS` is set.
#[test]
fn deletes_on_a_full_disk_make_room_for_writes() {
    let is_long = std::env::var_os("TIDEGATE_LONG_TESTS").is_some();
    let (sizes, rounds) = match is_long {
        true => (&[64, 128, 300][..], 4),
        false => (&[64][..], 2),
    };
    for mib in sizes {
        let Some(disk) = Disk::new(mib * MIB) else {
            return;
        };
        let mut storage = disk.open();
        let mut rooms = Filling::new(mib * MIB);
        for round in 0..rounds {
            rooms.fill(&storage);
            match round % 2 {
                0 => rooms.delete_a_third(&storage),
                _ => rooms.clear_some(&storage),
            }
            rooms.write_soon(&storage);
            if round % 2 == 1 {
                drop(storage);
                storage = disk.open();
            }
            rooms.check(&storage);
        }
    }
}

/// Acknowledged values of random sizes, by room and key.
struct Filling {
    random: u64,
    values: BTreeMap<(u64, u64), (u64, usize)>,
    disk_bytes: u64,
    number: u64,
}

impl Filling {
    fn new(seed: u64) -> Filling {
        Filling {
            random: seed | 1,
            values: BTreeMap::new(),
            disk_bytes: seed,
            number: 0,
        }
    }

    fn next(&mut self, below: u64) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random % below
    }

    fn value(number: u64, bytes: usize) -> String {
        let mut value = format!("{number} ");
        let mut state = number;
        // Bytes that no compression makes smaller.
        while value.len() < bytes {
            state = state
                .wrapping_mul(6364136223846793005)
                .wrapping_add(1442695040888963407);
            value.push_str(&format!("{state:016x}"));
        }
        value
    }

    /// Writes or deletes one key.
    fn set(
        &mut self,
        storage: &Storage,
        key: (u64, u64),
        bytes: Option<usize>,
    ) -> Result<(), EngineError> {
        let room = RoomId::new("chat", &key.0.to_string()).unwrap();
        let name = format!("{:06}", key.1);
        self.number += 1;
        let value = bytes.map(|bytes| Bytes::from(Filling::value(self.number, bytes)));
        let old = storage
            .get(&room, &name)?
            .map_or(0, |old| name.len() + old.len());
        let new = value.as_ref().map_or(0, |value| name.len() + value.len());
        let stored = RoomRecord {
            bytes: storage.stored(&room)?.bytes + new as u64 - old as u64,
            ..RoomRecord::default()
        };
        let commit = storage.commit(Batch {
            writes: BTreeMap::from([(name, value)]),
            ..Batch::new(room, stored)
        });
        tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap()
            .block_on(commit)?;
        match bytes {
            Some(bytes) => self.values.insert(key, (self.number, bytes)),
            None => self.values.remove(&key),
        };
        Ok(())
    }

    fn set_soon(&mut self, storage: &Storage, key: (u64, u64), bytes: usize) {
        let deadline = Instant::now() + PATIENCE;
        while let Err(error) = self.set(storage, key, Some(bytes)) {
            assert!(
                matches!(error, EngineError::Full(_)) && Instant::now() < deadline,
                "{} MiB, a write after deletes: {error}",
                self.disk_bytes >> 20
            );
            thread::yield_now();
        }
    }

    fn size(&mut self) -> usize {
        match self.next(40) {
            0..10 => 100,
            10..20 => 1000,
            20..30 => 10_000,
            30..39 => 60_000,
            _ => 1_000_000,
        }
    }

    /// Writes and deletes until many writes were refused. No delete may be.
    fn fill(&mut self, storage: &Storage) {
        let mut refused = 0;
        while refused < REFUSED {
            let key = (self.next(7), self.next(self.disk_bytes / 10_000));
            let bytes = (self.next(8) != 0).then(|| self.size());
            match self.set(storage, key, bytes) {
                Ok(()) => {}
                Err(EngineError::Full(_)) if bytes.is_some() => refused += 1,
                Err(error) => panic!("{} MiB, {bytes:?}: {error}", self.disk_bytes >> 20),
            }
        }
        let live: usize = self.values.values().map(|(_, bytes)| bytes).sum();
        assert!(
            live as u64 > self.disk_bytes / 3,
            "{} MiB are full with {} MiB",
            self.disk_bytes >> 20,
            live >> 20
        );
    }

    fn delete_a_third(&mut self, storage: &Storage) {
        let keys: Vec<_> = self.values.keys().copied().collect();
        for key in keys {
            if self.next(3) == 0 {
                self.set(storage, key, None).expect("a delete has space");
            }
        }
    }

    fn clear_some(&mut self, storage: &Storage) {
        for room in 0..3 {
            let id = RoomId::new("chat", &room.to_string()).unwrap();
            let deleted = tokio::runtime::Builder::new_current_thread()
                .build()
                .unwrap()
                .block_on(storage.delete(&id));
            assert_eq!(deleted, Ok(true), "a room's deletion has space");
            self.values.retain(|(of, _), _| *of != room);
        }
    }

    /// A fifteenth of the disk in new values.
    fn write_soon(&mut self, storage: &Storage) {
        for _ in 0..self.disk_bytes / 15 / 20_000 {
            let key = (self.next(7), self.next(self.disk_bytes / 10_000));
            self.set_soon(storage, key, 20_000);
        }
    }

    fn check(&self, storage: &Storage) {
        for ((room, key), (number, bytes)) in &self.values {
            let room = RoomId::new("chat", &room.to_string()).unwrap();
            let value = storage.get(&room, &format!("{key:06}")).unwrap();
            assert!(
                value.is_some_and(|value| value == Filling::value(*number, *bytes)),
                "{room} {key} has not value {number}"
            );
        }
        let found = storage.verify(|| {}).unwrap();
        assert_eq!(
            (found.wrong, found.entries),
            (Vec::new(), self.values.len())
        );
    }
}
