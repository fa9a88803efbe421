//! The storage on a small disk of its own: journals and what was overwritten give their space back before commits are refused.

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

/// A tmpfs, unmounted when it is dropped.
struct Disk(TempDir);

impl Disk {
    /// None where the process may not mount: the test is skipped then.
    fn new(bytes: u64) -> Option<Disk> {
        let place = tempfile::tempdir().unwrap();
        let mounted = Command::new("mount")
            .args([
                "-t",
                "tmpfs",
                "-o",
                &format!("size={bytes},mode=700"),
                "tmpfs",
            ])
            .arg(place.path())
            .output();
        match mounted {
            Ok(output) if output.status.success() => Some(Disk(place)),
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
fn overwriting_needs_no_more_space_however_long_it_goes_on() {
    // Bytes that live: a small part of the disk, and so much of it that a copy has no space.
    for (disk_bytes, live) in [(32 * MIB, 50), (80 * MIB, 4000)] {
        let Some(disk) = Disk::new(disk_bytes) else {
            return;
        };
        let storage = disk.open();
        let mut model = Model::default();
        let writes = live + 4 * disk_bytes / VALUE_BYTES as u64;
        for number in 0..writes {
            model.put_soon(&storage, number * 7919 % live, number);
        }
        model.check(&storage);
        drop(storage);
        model.check(&disk.open());
    }
}

#[test]
fn a_disk_that_fills_and_empties_refuses_commits_meanwhile_and_nothing_else() {
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
