//! Strong entity tags of files: a hash of the content, kept until the file system shows a change.

use std::{
    collections::HashMap,
    fs::{File, Metadata},
    io, mem,
    sync::{Arc, Mutex},
    time::{Duration, SystemTime},
};
use tokio::sync::Semaphore;
use xxhash_rust::xxh3::Xxh3;

/// Maximum number of files with a kept tag, in each of two generations.
const TAGS_MAX: usize = 4096;

/// Maximum number of files that are hashed at a time. Others wait, so that cold files do not take
/// all threads that may block on the disk.
const HASHES_MAX: usize = 2;

/// Time after a change in which a second change may leave no trace: clocks of file systems are
/// coarse.
const SETTLED_AFTER: Duration = Duration::from_secs(2);

const READ_BYTES: usize = 64 << 10;

/// State of a file, as far as the file system distinguishes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct FileState {
    device: u64,
    inode: u64,
    length: u64,
    modified: Option<SystemTime>,
    /// Time of the last change of content or attributes. It also shows a change whose author has
    /// restored the modification date.
    changed: (i64, i64),
}

/// Kept tags. When the younger generation is full, it becomes the older one, and the previous older
/// one is dropped.
pub(crate) struct Tags {
    kept: Mutex<[HashMap<FileState, Arc<str>>; 2]>,
    hashes: Semaphore,
}

impl Tags {
    pub(crate) fn new() -> Tags {
        Tags {
            kept: Mutex::default(),
            hashes: Semaphore::new(HASHES_MAX),
        }
    }

    /// Returns the tag of an open file, including its quotes. `metadata` was read just before.
    ///
    /// # Errors
    /// Returns an error if the file can't be read.
    pub(crate) async fn of(
        self: &Arc<Tags>,
        file: File,
        metadata: &Metadata,
    ) -> io::Result<(File, Arc<str>)> {
        let state = FileState::of(metadata);
        if let Some(tag) = self.kept(&state) {
            return Ok((file, tag));
        }
        let _hash = self.hashes.acquire().await.map_err(io::Error::other)?;
        // Another request may have hashed it in the meantime.
        if let Some(tag) = self.kept(&state) {
            return Ok((file, tag));
        }
        let tags = self.clone();
        let hash = move || {
            let tag = hash(&file)?;
            let is_settled = SystemTime::now()
                .duration_since(state.changed_at())
                .is_ok_and(|since| since >= SETTLED_AFTER);
            if is_settled && FileState::of(&file.metadata()?) == state {
                tags.keep(state, tag.clone());
            }
            Ok((file, tag))
        };
        tokio::task::spawn_blocking(hash)
            .await
            .map_err(io::Error::other)?
    }

    fn kept(&self, state: &FileState) -> Option<Arc<str>> {
        let mut kept = self
            .kept
            .lock()
            .expect("nothing panics while it holds the tags");
        if let Some(tag) = kept[0].get(state) {
            return Some(tag.clone());
        }
        let tag = kept[1].remove(state)?;
        insert(&mut kept, *state, tag.clone());
        Some(tag)
    }

    fn keep(&self, state: FileState, tag: Arc<str>) {
        insert(
            &mut self
                .kept
                .lock()
                .expect("nothing panics while it holds the tags"),
            state,
            tag,
        );
    }
}

fn insert(kept: &mut [HashMap<FileState, Arc<str>>; 2], state: FileState, tag: Arc<str>) {
    if kept[0].len() >= TAGS_MAX {
        kept[1] = mem::take(&mut kept[0]);
    }
    kept[0].insert(state, tag);
}

impl FileState {
    #[cfg(unix)]
    fn of(metadata: &Metadata) -> FileState {
        use std::os::unix::fs::MetadataExt as _;
        FileState {
            device: metadata.dev(),
            inode: metadata.ino(),
            length: metadata.len(),
            modified: metadata.modified().ok(),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }

    #[cfg(unix)]
    fn changed_at(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH
            + Duration::new(self.changed.0.max(0) as u64, self.changed.1.max(0) as u32)
    }
}

/// Returns XXH3 of 128 bits. It need not resist forgery: only the operator writes these files.
fn hash(file: &File) -> io::Result<Arc<str>> {
    use std::os::unix::fs::FileExt as _;
    let (mut hash, mut bytes, mut at) = (Xxh3::new(), vec![0; READ_BYTES], 0);
    loop {
        match file.read_at(&mut bytes, at) {
            Ok(0) => return Ok(format!("\"{:032x}\"", hash.digest128()).into()),
            Ok(read) => {
                hash.update(&bytes[..read]);
                at += read as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn tag(tags: &Arc<Tags>, path: &std::path::Path) -> Arc<str> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        let file = File::open(path).unwrap();
        let metadata = file.metadata().unwrap();
        runtime.block_on(tags.of(file, &metadata)).unwrap().1
    }

    #[test]
    fn a_tag_is_of_the_content_and_follows_every_change() {
        let path = std::env::temp_dir().join(format!("tidegate-tags-{}", std::process::id()));
        let tags = Arc::new(Tags::new());
        let mut seen = Vec::new();
        for content in ["one", "two", "six", "one"] {
            fs::write(&path, content).unwrap();
            // A file restored from a backup has its old date.
            File::options()
                .write(true)
                .open(&path)
                .unwrap()
                .set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000))
                .unwrap();
            seen.push(tag(&tags, &path));
            assert_eq!(tag(&tags, &path), seen[seen.len() - 1], "{content}");
        }
        assert!(
            seen[0] != seen[1] && seen[1] != seen[2] && seen[0] == seen[3] && seen[0].len() == 34,
            "{seen:?}"
        );
        fs::remove_file(path).unwrap();
    }

    #[test]
    fn the_number_of_tags_that_are_kept_is_bounded_and_those_in_use_stay() {
        let tags = Tags::new();
        let state = |number| FileState {
            device: 0,
            inode: number,
            length: 0,
            modified: None,
            changed: (0, 0),
        };
        tags.keep(state(0), "used".into());
        for number in 1..5 * TAGS_MAX as u64 {
            tags.keep(state(number), "other".into());
            assert_eq!(tags.kept(&state(0)).as_deref(), Some("used"), "{number}");
        }
        assert!(
            tags.kept
                .lock()
                .unwrap()
                .iter()
                .all(|kept| kept.len() <= TAGS_MAX)
        );
        assert_eq!(tags.kept(&state(1)), None);
    }
}
