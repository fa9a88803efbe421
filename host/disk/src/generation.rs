//! One generation of the store, open; and the one that counts now, which reads and commits share.
//!
//! All handles are replaced at once. Each read takes the current generation when it starts and holds it until it ends. The memory of a
//! generation contains exactly the acknowledged batches, also after a failed write, because the store applies a batch only after its
//! write has succeeded. So a failed generation is closed for every reader except the copy into the next one.

use crate::{directory, doubt::Doubt, guarded::guarded, rows::Rows, tables::Tables};
use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::{Arc, RwLock},
    thread,
    time::{Duration, Instant},
};
use tidegate_hub::{EngineError, EngineStatus};

/// Time to wait for a generation that has been replaced to be removed; after it that goes on in its own thread.
const RETIRE_WITHIN: Duration = Duration::from_secs(5);
/// Time between two checks whether a replaced generation is still read.
const RETIRE_PAUSE: Duration = Duration::from_millis(5);
/// Rows between two checks that there is space for more of a copy.
const CHECK_EVERY: usize = 256;

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
        Generation { path: path.to_owned(), tables, rows: Rows::default(), doubt }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Copies everything as it is at one moment into a new generation at `path`, an empty directory: in new files, all of them
    /// synced. `each` is called with each row, and `may_go_on` now and then: its error ends the copy.
    pub(crate) fn copy(
        &self,
        path: &Path,
        mut each: impl FnMut(),
        mut may_go_on: impl FnMut() -> Result<(), EngineError>,
    ) -> Result<Generation, EngineError> {
        let snapshot = self.tables.store.snapshot();
        let copy = guarded(|| Tables::create(path))?;
        for (from, to) in self.tables.all().into_iter().zip(copy.all()) {
            let mut rows = fjall::Readable::iter(&snapshot, from).peekable();
            if rows.peek().is_none() {
                continue;
            }
            // Sorted rows go into tables at once, without a journal.
            let mut ingestion = guarded(|| to.start_ingestion())?;
            for (number, guard) in rows.enumerate() {
                if number % CHECK_EVERY == 0 {
                    may_go_on()?;
                }
                guarded(|| {
                    let (key, value) = guard.into_inner()?;
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
}

/// The generation that counts, or why there is none for now.
pub(crate) struct Shared(RwLock<Result<Arc<Generation>, String>>);

impl Shared {
    pub(crate) fn new(generation: Arc<Generation>) -> Shared {
        Shared(RwLock::new(Ok(generation)))
    }

    /// Returns the current generation for one read, or an error while the storage is closed.
    pub(crate) fn generation(&self) -> Result<Arc<Generation>, EngineError> {
        self.0.read().expect("nothing panics while it holds the generation").clone().map_err(EngineError::Closed)
    }

    pub(crate) fn status(&self) -> EngineStatus {
        match &*self.0.read().expect("nothing panics while it holds the generation") {
            Ok(_) => EngineStatus::Open,
            Err(why) => EngineStatus::Closed(why.clone()),
        }
    }

    /// Sets the current generation, or the reason why there is none.
    pub(crate) fn set(&self, generation: Result<Arc<Generation>, String>) {
        let before = std::mem::replace(&mut *self.0.write().expect("nothing panics while it holds the generation"), generation);
        drop(before); // outside of the lock: it may be the last handle
    }
}

/// Closes a replaced generation and removes its files as soon as no read uses it, in a thread of its own. Waits a while for that thread,
/// because the space is needed.
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
            tracing::warn!("can't remove {}, which the next start does: {error}", path.display());
        }
    };
    match thread::Builder::new().name("retire".into()).spawn(remove) {
        Ok(removing) => {
            let deadline = Instant::now() + RETIRE_WITHIN;
            while !removing.is_finished() && Instant::now() < deadline {
                thread::sleep(RETIRE_PAUSE);
            }
        }
        Err(error) => tracing::warn!("a replaced generation of the storage is removed at the next start: {error}"),
    }
}
