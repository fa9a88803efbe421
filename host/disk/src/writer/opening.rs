//! Opens the directory: once, or repeatedly while a server waits for its disk.

use super::{CLOSED_PAUSE, Order, WriteLoop, pause::Pause};
use crate::{
    OpenError, clock,
    directory::{Directory, Make},
    doubt::Doubt,
    generation::{CurrentGeneration, Generation, Journals},
    guarded::guarded,
    journal,
    open_error::Why,
    space::Space,
    tables::Tables,
};
use std::{
    path::{Path, PathBuf},
    sync::Arc,
    thread,
};
use tokio::sync::mpsc::{Receiver, error::TryRecvError};

/// A storage that has not been opened yet.
pub(super) struct UnopenedStorage {
    pub(super) path: PathBuf,
    pub(super) make: Make,
    /// True if a disk that fails is waited for.
    pub(super) waits: bool,
    pub(super) shared: Arc<CurrentGeneration>,
    /// The directory, once it is locked.
    pub(super) directory: Option<Directory>,
    /// True if a try has failed: the kernel may show what that try wrote and the disk lacks.
    pub(super) has_failed: bool,
    pub(super) pause: Pause,
}

impl UnopenedStorage {
    pub(super) fn new(path: &Path, make: Make, waits: bool) -> UnopenedStorage {
        UnopenedStorage {
            path: path.to_owned(),
            make,
            waits,
            shared: Arc::new(CurrentGeneration::closed("it is being opened".into())),
            directory: None,
            has_failed: false,
            pause: Pause::begin(clock::now()),
        }
    }

    /// One try. If it succeeds, but the current generation has to be written anew and the disk
    /// fails meanwhile, the storage is closed.
    pub(super) fn open(&mut self) -> Result<WriteLoop, OpenError> {
        let mut directory = match self.directory.take() {
            Some(directory) => directory,
            None => Directory::open(&self.path, self.make)?,
        };
        match load(&mut directory) {
            Ok(loaded) => self.begin(directory, loaded),
            Err(error) => {
                self.directory = Some(directory);
                Err(error)
            }
        }
    }

    pub(super) fn begin(
        &self,
        directory: Directory,
        loaded: LoadedGeneration,
    ) -> Result<WriteLoop, OpenError> {
        let in_doubt = loaded.in_doubt || self.has_failed;
        let mut work = WriteLoop::new(directory, loaded, self.shared.clone());
        if !in_doubt {
            self.shared.set(Ok(work.generation.clone()));
            return Ok(work);
        }
        tracing::info!(
            "a write of the storage had failed: everything that was acknowledged is written to new files"
        );
        // The journals have been cut.
        if let Err(error) = work.renew(Journals::Below(u64::MAX)) {
            let error = OpenError::of_engine(&self.path, error);
            if !self.waits || !error.is_passing() {
                return Err(error);
            }
            work.stay_closed(error.to_string(), u64::MAX);
        }
        Ok(work)
    }

    pub(super) fn fail(&mut self, error: OpenError) {
        if !self.has_failed {
            tracing::error!("the storage is closed, and opens by itself: {error}");
        } else {
            tracing::warn!("the storage can't be opened yet: {error}");
        }
        self.has_failed = true;
        self.shared.set(Err(error.to_string()));
        self.pause.grow(clock::now());
    }

    /// Tries until the storage is open, or its owner has gone. Orders are refused meanwhile.
    pub(super) fn wait(mut self, orders: &mut Receiver<Order>) -> Option<WriteLoop> {
        loop {
            match orders.try_recv() {
                Ok(Order::Commit(_, done) | Order::Compact(done)) => {
                    _ = done.send(self.shared.generation().map(|_| ()));
                }
                Err(TryRecvError::Disconnected) => return None,
                Err(TryRecvError::Empty) if !self.pause.is_over(clock::now()) => {
                    thread::sleep(CLOSED_PAUSE)
                }
                Err(TryRecvError::Empty) => match self.open() {
                    Ok(work) => {
                        if work.closed.is_none() {
                            tracing::info!("the storage is open");
                        }
                        return Some(work);
                    }
                    Err(error) => self.fail(error),
                },
            }
        }
    }
}

/// The current generation, open.
pub(super) struct LoadedGeneration {
    pub(super) generation: Generation,
    /// True if one of its writes had failed; the refused batches have been cut off.
    pub(super) in_doubt: bool,
    pub(super) next: u64,
    pub(super) written: u64,
    pub(super) space: Space,
    pub(super) file_bytes: u64,
}

/// Opens the current generation, or makes the first one.
fn load(directory: &mut Directory) -> Result<LoadedGeneration, OpenError> {
    let path = directory.path().to_owned();
    let io = |error| OpenError::new(&path, Why::Io(error));
    let engine = |error| OpenError::of_engine(&path, error);
    directory.remove_leftovers();
    let space = Space::of(&path).map_err(io)?;
    let file_bytes = space.measure().map_err(engine)?.file_bytes();
    let (generation, in_doubt) = match directory.current() {
        Some(current) => open(&path, &current, file_bytes)?,
        None => (make(directory, file_bytes)?, false),
    };
    Ok(LoadedGeneration {
        next: generation.tables.next_number().map_err(engine)?,
        written: journal::allocated_bytes(generation.path()).map_err(io)?,
        generation,
        in_doubt,
        space,
        file_bytes,
    })
}

/// Opens a generation. Also returns true if one of its writes had failed; the refused batches are
/// then cut off first.
fn open(
    directory: &Path,
    generation: &Path,
    file_bytes: u64,
) -> Result<(Generation, bool), OpenError> {
    let fail = |error| OpenError::of_part(directory, error);
    let (doubt, from) = Doubt::open(generation).map_err(fail)?;
    if let Some(from) = from {
        journal::cut(generation, from).map_err(fail)?;
    }
    let tables = Tables::open(generation, directory, file_bytes)?;
    Ok((Generation::new(generation, tables, doubt), from.is_some()))
}

/// Makes the first generation of a directory.
fn make(directory: &mut Directory, file_bytes: u64) -> Result<Generation, OpenError> {
    let at = directory.path().to_owned();
    let io = |error| OpenError::new(&at, Why::Io(error));
    directory.begin_anew().map_err(io)?;
    let (number, path) = directory.next().map_err(io)?;
    let tables = guarded(|| Tables::create(&path, file_bytes))
        .map_err(|error| OpenError::of_engine(&at, error))?;
    let doubt = Doubt::create(&path).map_err(io)?;
    directory.set_current(number).map_err(io)?;
    Ok(Generation::new(&path, tables, doubt))
}
