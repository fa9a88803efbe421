//! One generation of the store, open; and the one that counts now, which reads and commits share.
//!
//! All handles are replaced at once. Each read takes the current generation when it starts and
//! holds it until it ends. The memory of a generation contains exactly the acknowledged batches,
//! also after a failed write, because the store applies a batch only after its write has succeeded.
//! So a failed generation is closed for every reader except the copy into the next one.
//!
//! The next generation is a copy of every row, or, where a copy has no space, it *adopts* the files
//! of the one before it: hard links to the files of tables, and copies of everything else. A file
//! of a table never changes and was synced before the store counted it, so it can't have lost a
//! write. Journals may have, so their batches are always written to new files and synced.

use crate::{directory, doubt::Doubt, guarded::guarded, journal, rows::Rows, tables::Tables};
use std::{
    collections::BTreeMap,
    ffi::OsString,
    fs::{self, File},
    io::{self, ErrorKind, Write as _},
    path::{Path, PathBuf},
    sync::{Arc, RwLock},
    thread,
    time::{Duration, Instant},
};
use tidegate_hub::{EngineError, EngineStatus};

/// Time to wait for a generation that has been replaced to be removed; after it that goes on in its
/// own thread.
const RETIRE_WITHIN: Duration = Duration::from_secs(5);
/// Time between two checks whether a replaced generation is still read.
const RETIRE_PAUSE: Duration = Duration::from_millis(5);
/// Rows between two checks that there is space for more of a copy.
const CHECK_EVERY: usize = 256;
/// Tries to adopt the files of a generation while its own threads replace some of them.
const ADOPT_TRIES: usize = 20;
/// Names within a generation that the store gives: the mark of a store, its lock, and a directory
/// for each table with a list of its files (`v7`), the number of the list that counts, and the
/// files.
const STORE_MARK: &str = "version";
const STORE_LOCK: &str = "lock";
const TABLES: &str = "keyspaces";
const LIST_CURRENT: &str = "current";
const FILES: &str = "tables";

/// Batches of the journals that a generation keeps when it adopts the files of another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Journals {
    /// Those with a sequence number below this one.
    Below(u64),
    /// None: all of them are in tables.
    Flushed,
}

/// Handles of one generation.
pub(crate) struct Generation {
    path: PathBuf,
    pub(crate) tables: Tables,
    pub(crate) rows: Rows,
    pub(crate) doubt: Doubt,
}

impl Generation {
    /// Opens one that is complete and whose journal is to be believed.
    pub(crate) fn new(path: &Path, tables: Tables, doubt: Doubt) -> Generation {
        Generation {
            path: path.to_owned(),
            tables,
            rows: Rows::default(),
            doubt,
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Copies everything as it is at one moment into a new generation at `path`, an empty
    /// directory: in new files, all of them synced. `each` is called with each row, and `may_go_on`
    /// now and then: its error ends the copy.
    pub(crate) fn copy(
        &self,
        path: &Path,
        file_bytes: u64,
        mut each: impl FnMut(),
        mut may_go_on: impl FnMut() -> Result<(), EngineError>,
    ) -> Result<Generation, EngineError> {
        let snapshot = self.tables.store.snapshot();
        let copy = guarded(|| Tables::create(path, file_bytes))?;
        for (from, to) in self.tables.all().into_iter().zip(copy.all()) {
            let mut rows = fjall::Readable::iter(&snapshot, from).peekable();
            if rows.peek().is_none() {
                continue;
            }
            // Sorted rows go into tables at once, without a journal.
            let mut ingestion = guarded(|| to.start_ingestion())?;
            let mut bytes = 0;
            for (number, guard) in rows.enumerate() {
                if number % CHECK_EVERY == 0 {
                    may_go_on()?;
                }
                if bytes >= file_bytes {
                    // The store would make files of 64 MiB, and could merge them only as a whole.
                    guarded(|| ingestion.finish())?;
                    ingestion = guarded(|| to.start_ingestion())?;
                    bytes = 0;
                }
                guarded(|| {
                    let (key, value) = guard.into_inner()?;
                    bytes += (key.len() + value.len()) as u64;
                    ingestion.write(key, value)
                })?;
                each();
            }
            guarded(|| ingestion.finish())?;
        }
        guarded(|| copy.store.persist(fjall::PersistMode::SyncAll))?;
        let io = |error: io::Error| EngineError::Io(error.to_string());
        let doubt = Doubt::create(path).map_err(io)?;
        directory::sync(path).map_err(io)?;
        Ok(Generation::new(path, copy, doubt))
    }

    /// Makes a new generation at `path`, an empty directory, from the files of this one. Takes
    /// space for the batches of the journals, and none for tables. Fails where the file system has
    /// no hard links.
    pub(crate) fn adopt(
        &self,
        path: &Path,
        file_bytes: u64,
        journals: Journals,
    ) -> Result<Generation, EngineError> {
        guarded(|| {
            for _ in 0..ADOPT_TRIES {
                let lists = lists(&self.path)?;
                let linked = link(&self.path, path, &lists, journals);
                // The store's threads may replace files of this generation meanwhile, or remove
                // journals whose batches are in tables. If all tables still have the same files,
                // then none of those was missed.
                if lists == self::lists(&self.path)? {
                    return Ok(linked?);
                }
                fs::remove_dir_all(path)?;
                fs::create_dir(path)?;
            }
            Err(io::Error::other("its files change too fast").into())
        })?;
        let doubt = guarded(|| Ok(Doubt::create(path)?))?;
        guarded(|| Ok(directory::sync(path)?))?;
        Ok(Generation::new(
            path,
            guarded(|| Tables::create(path, file_bytes))?,
            doubt,
        ))
    }
}

/// Content of the file that names the current list of files, for each table by the name of its
/// directory.
fn lists(generation: &Path) -> io::Result<BTreeMap<OsString, Vec<u8>>> {
    let tables = fs::read_dir(generation.join(TABLES))?;
    tables
        .map(|entry| {
            entry.and_then(|entry| {
                Ok((
                    entry.file_name(),
                    fs::read(entry.path().join(LIST_CURRENT))?,
                ))
            })
        })
        .collect()
}

/// Adopts the files of the generation `from` with these lists. All but `to` itself is synced.
fn link(
    from: &Path,
    to: &Path,
    lists: &BTreeMap<OsString, Vec<u8>>,
    journals: Journals,
) -> io::Result<()> {
    fs::create_dir(to.join(TABLES))?;
    for (table, current) in lists {
        let name = Path::new(TABLES).join(table);
        let (from, to) = (from.join(&name), to.join(&name));
        fs::create_dir_all(to.join(FILES))?;
        for file in fs::read_dir(from.join(FILES))? {
            let file = file?;
            match fs::hard_link(file.path(), to.join(FILES).join(file.file_name())) {
                Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        let number = current
            .first_chunk()
            .map(|number| u64::from_le_bytes(*number))
            .ok_or(ErrorKind::InvalidData)?;
        let list = format!("v{number}");
        write(&to.join(&list), &fs::read(from.join(&list))?)?;
        write(&to.join(LIST_CURRENT), current)?;
        directory::sync(&to.join(FILES))?;
        directory::sync(&to)?;
    }
    directory::sync(&to.join(TABLES))?;
    match journals {
        Journals::Below(number) => journal::copy(from, to, number)?,
        Journals::Flushed => journal::create_empty(to)?,
    }
    write(&to.join(STORE_LOCK), &[])?;
    write(&to.join(STORE_MARK), &fs::read(from.join(STORE_MARK))?)
}

/// Writes a new file. Durable when it returns, except for its name.
fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = File::create_new(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// The generation that counts, or why there is none for now.
pub(crate) struct CurrentGeneration(RwLock<Result<Arc<Generation>, String>>);

impl CurrentGeneration {
    /// Closed for this reason.
    pub(crate) fn closed(why: String) -> CurrentGeneration {
        CurrentGeneration(RwLock::new(Err(why)))
    }

    /// Returns the current generation for one read, or an error while the storage is closed.
    pub(crate) fn generation(&self) -> Result<Arc<Generation>, EngineError> {
        self.0
            .read()
            .expect("nothing panics while it holds the generation")
            .clone()
            .map_err(EngineError::Closed)
    }

    pub(crate) fn status(&self) -> EngineStatus {
        match &*self
            .0
            .read()
            .expect("nothing panics while it holds the generation")
        {
            Ok(_) => EngineStatus::Open,
            Err(why) => EngineStatus::Closed(why.clone()),
        }
    }

    /// Sets the current generation, or the reason why there is none.
    pub(crate) fn set(&self, generation: Result<Arc<Generation>, String>) {
        let before = std::mem::replace(
            &mut *self
                .0
                .write()
                .expect("nothing panics while it holds the generation"),
            generation,
        );
        drop(before); // outside of the lock: it may be the last handle
    }
}

/// Closes a replaced generation and removes its files as soon as no read uses it, in a thread of
/// its own. Waits a while for that thread, because the space is needed.
pub(crate) fn retire(generation: Arc<Generation>) {
    let remove = move || {
        let mut generation = generation;
        let generation = loop {
            match Arc::try_unwrap(generation) {
                Ok(last) => break last,
                Err(shared) => generation = shared,
            }
            thread::sleep(RETIRE_PAUSE);
        };
        let path = generation.path.clone();
        drop(generation);
        if let Err(error) = fs::remove_dir_all(&path) {
            tracing::warn!(
                "can't remove {}, which the next start does: {error}",
                path.display()
            );
        }
    };
    match thread::Builder::new().name("retire".into()).spawn(remove) {
        Ok(removing) => {
            let deadline = Instant::now() + RETIRE_WITHIN;
            while !removing.is_finished() && Instant::now() < deadline {
                thread::sleep(RETIRE_PAUSE);
            }
        }
        Err(error) => tracing::warn!(
            "a replaced generation of the storage is removed at the next start: {error}"
        ),
    }
}
