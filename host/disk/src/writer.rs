//! The one thread that writes: takes every commit that waits, and makes them durable by one fsync.
//!
//! It is open or closed. A write that fails closes it: at once nothing can be read or written, and the store's journal gets a note
//! from which batch on it must not be believed ([`Doubt`]); only then are the commits of that group refused. The store's own threads
//! end with their first error, too; that is found before the next commit. Closed, it tries again and again, with pauses that grow,
//! to make a new generation of everything that was acknowledged, all of it synced; then that generation counts, and the thread is open.
//! No file that failed is used again: after a failed fsync the kernel shows data that the disk may not have.
//!
//! A server's thread may also start closed, if the disk is full or fails at that moment. It holds the lock of the directory, and tries to
//! load the current generation with the same pauses. After such a failure, what was loaded is written to new files as well.
//!
//! A new generation is a copy of all rows, or, without space for that, adopts the files of the tables and has new journals. It also
//! gives back the space of journals, and a copy that of what was overwritten, before a lack of space refuses commits.

use crate::{
    OpenError, clock,
    directory::{Directory, Make},
    doubt::Doubt,
    generation::{Generation, Journals, Shared, retire},
    guarded::guarded,
    journal,
    open_error::Why,
    row::{Row, entry_key, room_key, room_of, slot_key},
    space::{Measured, Purpose, Space},
    tables::Tables,
};
use fjall::{OwnedWriteBatch as WriteBatch, PersistMode, Slice};
use std::{
    collections::{HashMap, HashSet},
    fs, io,
    ops::Bound,
    path::{Path, PathBuf},
    sync::Arc,
    thread::{self, JoinHandle},
    time::{Duration, SystemTime},
};
use tidegate_hub::{Batch, EngineError, RoomId, RoomRecord};
use tokio::sync::{
    mpsc::{self, Receiver, Sender, error::TryRecvError},
    oneshot,
};

/// Commits that wait in the queue; further ones wait for a place in it.
const QUEUE_MAX: usize = 4096;
/// Commits and bytes that one fsync is for, at most.
const GROUP_MAX: usize = 1024;
const GROUP_BYTES_MAX: usize = 64 << 20;
/// Entries of garbage that are deleted at a time, while no commit waits.
const SWEEP: usize = 1000;
/// Time between two rounds through all rooms for histories that are too old.
const SWEEP_EVERY: Duration = Duration::from_secs(300);
/// Pause before the first try to open again, and the longest: each is twice the one before.
const REOPEN_PAUSE: Duration = Duration::from_millis(100);
const REOPEN_PAUSE_MAX: Duration = Duration::from_secs(5);
/// Time between two checks for commits that still arrive while the storage is closed.
const CLOSED_PAUSE: Duration = Duration::from_millis(20);
/// Bytes that must have been written before a rewrite can give back space that is worth it.
const REWRITE_BYTES_MIN: u64 = 4 << 20;
/// Bytes that deleting one entry takes, about.
const SWEPT_BYTES: u64 = 256;
/// Pause after a rewrite, unless another one is likely to give back more.
const REWRITE_PAUSE: Duration = Duration::from_secs(2);
/// Times that tables are flushed and merged for one commit.
const GIVE_BACK_ROUNDS: usize = 3;

/// Request to the writer thread, with the sender for its outcome.
pub(crate) enum Order {
    Commit(Batch, Done),
    Compact(Done),
}

type Done = oneshot::Sender<Result<(), EngineError>>;

/// The thread's handle; dropping it lets the thread finish what was asked.
pub(crate) struct Writer {
    queue: Option<Sender<Order>>,
    thread: Option<JoinHandle<()>>,
}

impl Writer {
    /// Opens the directory and starts the thread. If `waits` and the error may pass, the storage is closed until then.
    pub(crate) fn start(
        directory: &Path,
        make: Make,
        waits: bool,
    ) -> Result<(Writer, Arc<Shared>), OpenError> {
        let mut opening = Opening::new(directory, make, waits);
        let shared = opening.shared.clone();
        let opened = match opening.open() {
            Err(error) if !waits || !error.is_passing() => return Err(error),
            opened => opened.map_err(|error| opening.fail(error)).ok(),
        };
        let (queue, mut orders) = mpsc::channel(QUEUE_MAX);
        let thread = thread::Builder::new()
            .name("storage".into())
            .spawn(move || {
                if let Some(mut work) = opened.or_else(|| opening.wait(&mut orders)) {
                    work.run(orders);
                }
            });
        let thread = thread.map_err(|error| OpenError::new(directory, Why::Io(error)))?;
        Ok((
            Writer {
                queue: Some(queue),
                thread: Some(thread),
            },
            shared,
        ))
    }

    pub(crate) fn queue(&self) -> Sender<Order> {
        self.queue.clone().expect("it is there until the drop")
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.queue = None;
        if let Some(thread) = self.thread.take() {
            _ = thread.join();
        }
    }
}

/// A storage that has not been opened yet.
struct Opening {
    path: PathBuf,
    make: Make,
    /// True if a disk that fails is waited for.
    waits: bool,
    shared: Arc<Shared>,
    /// The directory, once it is locked.
    directory: Option<Directory>,
    /// True if a try has failed: the kernel may show what that try wrote and the disk lacks.
    has_failed: bool,
    pause: Pause,
}

impl Opening {
    fn new(path: &Path, make: Make, waits: bool) -> Opening {
        Opening {
            path: path.to_owned(),
            make,
            waits,
            shared: Arc::new(Shared::closed("it is being opened".into())),
            directory: None,
            has_failed: false,
            pause: Pause::begin(clock::now()),
        }
    }

    /// One try. If it succeeds, but the current generation has to be written anew and the disk fails meanwhile, the storage is closed.
    fn open(&mut self) -> Result<Work, OpenError> {
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

    fn begin(&self, directory: Directory, loaded: Loaded) -> Result<Work, OpenError> {
        let in_doubt = loaded.in_doubt || self.has_failed;
        let mut work = Work::new(directory, loaded, self.shared.clone());
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

    fn fail(&mut self, error: OpenError) {
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
    fn wait(mut self, orders: &mut Receiver<Order>) -> Option<Work> {
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

/// Time of the next try to open, and the pause if that fails.
struct Pause {
    /// By [`clock::now`].
    until: Duration,
    length: Duration,
}

impl Pause {
    fn begin(now: Duration) -> Pause {
        Pause {
            until: now + REOPEN_PAUSE,
            length: REOPEN_PAUSE,
        }
    }

    fn is_over(&self, now: Duration) -> bool {
        now >= self.until
    }

    fn grow(&mut self, now: Duration) {
        self.length = (2 * self.length).min(REOPEN_PAUSE_MAX);
        self.until = now + self.length;
    }
}

struct Work {
    space: Space,
    /// Size of the files of a table.
    file_bytes: u64,
    shared: Arc<Shared>,
    /// The current generation. While the storage is closed, the one that failed: its memory contains exactly the acknowledged batches.
    generation: Arc<Generation>,
    /// Number of the next room.
    next: u64,
    /// Up to here rooms were looked at for histories that are too old; empty between two rounds.
    swept: Vec<u8>,
    /// Start of the next round, by [`clock::now`].
    sweep_at: Duration,
    /// Why nothing is read or written, and how it goes on.
    closed: Option<Closed>,
    /// Bytes that were written since the generation was made, about.
    written: u64,
    last_rewrite: Option<Rewrite>,
    /// The last to be dropped: then another process may have it.
    directory: Directory,
}

/// The last try to give back space.
#[derive(Clone, Copy)]
struct Rewrite {
    /// Time of the next one, by [`clock::now`].
    next: Duration,
    /// Free bytes after it.
    free: u64,
    /// True if it gave back enough for the commit that it was made for.
    was_enough: bool,
}

struct Closed {
    why: String,
    /// Number of the first batch that was refused.
    from: u64,
    pause: Pause,
}

impl Work {
    /// The storage is closed: nothing is shared yet.
    fn new(directory: Directory, loaded: Loaded, shared: Arc<Shared>) -> Work {
        Work {
            next: loaded.next,
            written: loaded.written,
            shared,
            directory,
            space: loaded.space,
            file_bytes: loaded.file_bytes,
            generation: Arc::new(loaded.generation),
            swept: Vec::new(),
            sweep_at: clock::now(),
            closed: None,
            last_rewrite: None,
        }
    }

    fn run(&mut self, mut orders: Receiver<Order>) {
        loop {
            let order = match orders.try_recv() {
                Ok(order) => order,
                Err(TryRecvError::Disconnected) => return,
                Err(TryRecvError::Empty) if self.closed.is_some() => {
                    self.reopen_if_due();
                    continue;
                }
                // No commit waits: time for what can wait.
                Err(TryRecvError::Empty) if self.sweep() => continue,
                Err(TryRecvError::Empty) if self.closed.is_some() => continue,
                Err(TryRecvError::Empty) => match orders.blocking_recv() {
                    Some(order) => order,
                    None => return,
                },
            };
            self.obey(order, &mut orders);
        }
    }

    fn obey(&mut self, order: Order, orders: &mut Receiver<Order>) {
        let mut compact = None;
        match order {
            Order::Commit(batch, done) => {
                let group = gather((batch, done), orders, &mut compact);
                let (batches, waiting): (Vec<Batch>, Vec<Done>) = group.into_iter().unzip();
                for (done, outcome) in waiting.into_iter().zip(self.write_group(batches)) {
                    _ = done.send(outcome);
                }
            }
            Order::Compact(done) => compact = Some(done),
        }
        if let Some(done) = compact {
            _ = done.send(self.check_open().and_then(|()| self.copy()));
        }
    }

    fn check_open(&self) -> Result<(), EngineError> {
        self.closed.as_ref().map_or(Ok(()), |closed| {
            Err(EngineError::Closed(closed.why.clone()))
        })
    }

    /// The outcome for each batch. If there is no space for all of them, those that only delete are
    /// written without the others.
    fn write_group(&mut self, batches: Vec<Batch>) -> Vec<Result<(), EngineError>> {
        let purpose = match batches.iter().all(only_deletes) {
            true => Purpose::Delete,
            false => Purpose::Write,
        };
        let count = batches.len();
        let space = self.make_space_for(&batches, purpose);
        if purpose == Purpose::Delete || !matches!(space, Err(EngineError::Full(_))) {
            return vec![space.and_then(|()| self.write(batches)); count];
        }
        let (numbers, deletes) = independent_deletes(batches);
        let mut outcomes = vec![space; count];
        if !deletes.is_empty() {
            let deleted = self
                .make_space_for(&deletes, Purpose::Delete)
                .and_then(|()| self.write(deletes));
            numbers
                .into_iter()
                .for_each(|number| outcomes[number] = deleted.clone());
        }
        outcomes
    }

    fn make_space_for(&mut self, batches: &[Batch], purpose: Purpose) -> Result<(), EngineError> {
        self.check_open()?;
        self.make_space(batches.iter().map(weight).sum::<usize>() as u64, purpose)
    }

    /// Writes batches for which there is space.
    fn write(&mut self, batches: Vec<Batch>) -> Result<(), EngineError> {
        let bytes = batches.iter().map(weight).sum::<usize>() as u64;
        self.check_open()?; // a rewrite may have closed it
        if self.generation.tables.are_merges_due(self.file_bytes) {
            self.merge()?;
        }
        self.check_store()?;
        let (batch, rows) = self.prepare(batches, Some(PersistMode::SyncData))?;
        self.commit(batch)?;
        self.written += bytes;
        rows.iter()
            .for_each(|(room, row)| self.generation.rows.set(room, *row));
        Ok(())
    }

    /// Hands a batch to the store. If that fails the storage is closed, and the error says what became of the batch.
    fn commit(&mut self, batch: WriteBatch) -> Result<(), EngineError> {
        // The batch gets this number or a higher one, and everything that was acknowledged has a lower one.
        let number = self.generation.tables.store.visible_seqno();
        let Err(error) = guarded(|| batch.commit()) else {
            return Ok(());
        };
        let noted = self.close(error.to_string(), number);
        match (error, noted) {
            // It was refused before anything was written.
            (EngineError::Closed(why), _) => Err(EngineError::Closed(why)),
            (error, Ok(())) => Err(EngineError::Io(error.to_string())),
            (error, Err(_)) => Err(EngineError::Unknown(error.to_string())),
        }
    }

    /// The store's own threads may have failed since the last commit: then it is replaced before this one.
    fn check_store(&mut self) -> Result<(), EngineError> {
        let Err(error) = self.generation.tables.wait_for_flushes() else {
            return Ok(());
        };
        if let Err(why) = self.replace_store(&error)
            && self.closed.is_none()
        {
            _ = self.close(
                format!("{error}; {why}"),
                self.generation.tables.store.visible_seqno(),
            );
        }
        self.check_open()
    }

    /// Replaces a store whose own threads have failed. No batch has, so reads go on meanwhile, and also after an error.
    fn replace_store(&mut self, error: &EngineError) -> Result<(), EngineError> {
        tracing::warn!("the store could not flush or merge its tables, and is replaced: {error}");
        self.renew(Journals::Below(u64::MAX))
    }

    /// From now on nothing is read or written, and batches from this number on have been refused: the error if that could not be
    /// noted on the disk.
    fn close(&mut self, why: String, number: u64) -> io::Result<()> {
        self.stay_closed(why, number);
        let noted = self.generation.doubt.set(number);
        if let Err(error) = &noted {
            tracing::error!(
                "the disk may have kept what was refused, and takes no note of it: {error}"
            );
        }
        noted
    }

    /// As [`close`](Work::close), if the disk has the note already.
    fn stay_closed(&mut self, why: String, number: u64) {
        tracing::error!("the storage is closed, and opens again by itself: {why}");
        self.shared.set(Err(why.clone()));
        self.closed = Some(Closed {
            why,
            from: number,
            pause: Pause::begin(clock::now()),
        });
    }

    fn reopen_if_due(&mut self) {
        match &self.closed {
            Some(closed) if closed.pause.is_over(clock::now()) => self.reopen(),
            _ => thread::sleep(CLOSED_PAUSE),
        }
    }

    fn reopen(&mut self) {
        let Some(Closed { from, .. }) = self.closed else {
            return;
        };
        let renewed = self.renew(Journals::Below(from));
        let Some(closed) = &mut self.closed else {
            return;
        };
        match renewed {
            Ok(()) => {
                self.closed = None;
                tracing::info!("the storage is open again");
            }
            Err(error) => {
                tracing::warn!("the storage can't be opened again yet: {error}");
                self.shared.set(Err(format!(
                    "{}; it can't be opened again yet: {error}",
                    closed.why
                )));
                closed.pause.grow(clock::now());
            }
        }
    }

    /// Makes a new generation, by a copy if there is space for one.
    fn renew(&mut self, journals: Journals) -> Result<(), EngineError> {
        let why = match self.copy() {
            Err(EngineError::Full(why)) => why,
            copied => return copied,
        };
        tracing::info!(
            "the storage keeps the files of its tables, since there is no space for a copy: {why}"
        );
        self.adopt(journals).map_err(|error| match error {
            EngineError::Full(_) => error,
            error => EngineError::Full(format!("{why}, and without a copy: {error}")),
        })
    }

    /// Makes a new generation by a copy of all rows.
    fn copy(&mut self) -> Result<(), EngineError> {
        self.space.check_copy(
            self.generation.tables.bytes() + self.generation.tables.unflushed_bytes(),
        )?;
        self.replace(|work, path| {
            work.generation
                .copy(path, work.file_bytes, || {}, || work.space.check_copy(0))
        })
    }

    /// Makes a new generation from the files of the tables and new journals.
    fn adopt(&mut self, journals: Journals) -> Result<(), EngineError> {
        let bytes = match journals {
            Journals::Below(_) => {
                guarded(|| Ok(journal::allocated_bytes(self.generation.path())?))?
            }
            Journals::Flushed => 0,
        };
        self.space.check_files(bytes)?;
        self.replace(|work, path| work.generation.adopt(path, work.file_bytes, journals))
    }

    /// Lets a new generation count. After an error the one before it still does, and is closed if it is not known which of the two would
    /// count after a crash.
    fn replace(
        &mut self,
        make: impl FnOnce(&Work, &Path) -> Result<Generation, EngineError>,
    ) -> Result<(), EngineError> {
        let io = |error: io::Error| EngineError::Io(error.to_string());
        let (number, path) = self.directory.next().map_err(io)?;
        let next = make(self, &path).inspect_err(|_| _ = fs::remove_dir_all(&path))?;
        if let Err(error) = self.directory.set_current(number) {
            if self.closed.is_none() {
                // It is unknown which of the two generations the next start opens, and later commits would be in only one of them.
                _ = self.close(
                    error.to_string(),
                    self.generation.tables.store.visible_seqno(),
                );
            }
            return Err(io(error));
        }
        self.written = guarded(|| Ok(journal::allocated_bytes(next.path())?)).unwrap_or(0);
        let before = std::mem::replace(&mut self.generation, Arc::new(next));
        self.shared.set(Ok(self.generation.clone()));
        retire(before);
        Ok(())
    }

    /// Refuses a commit of so many bytes if the disk lacks space for it, after journals and what was
    /// overwritten or deleted have given their space back.
    fn make_space(&mut self, bytes: u64, purpose: Purpose) -> Result<(), EngineError> {
        let mut measured = self.space.measure()?;
        let mut checked = self.check_measured(measured, bytes, purpose);
        if checked.is_err() {
            // A merge takes space before it gives some back.
            _ = self.generation.tables.finish_merges();
            measured = self.space.measure()?;
            checked = self.check_measured(measured, bytes, purpose);
        }
        let is_due = match (&checked, measured.rewrite_after()) {
            (Err(_), _) => true,
            (Ok(()), Some(after)) => self.written >= after.max(REWRITE_BYTES_MIN),
            (Ok(()), None) => false,
        };
        if is_due && !self.is_rewrite_hopeless(measured.free()) {
            if let Err(error) = self.give_back(bytes, purpose) {
                tracing::debug!("the storage could give back no space: {error}");
            }
            measured = self.space.measure()?;
            checked = self.check_measured(measured, bytes, purpose);
            self.last_rewrite = Some(Rewrite {
                next: clock::now() + REWRITE_PAUSE,
                free: measured.free(),
                was_enough: checked.is_ok(),
            });
        }
        match (checked, purpose) {
            (Err(EngineError::Full(_)), Purpose::Delete) => self.check_last_delete(bytes),
            (checked, _) => checked,
        }
    }

    /// True if another rewrite would give back little or nothing: there is no more space than after
    /// the last one, which was not enough, or little was written since.
    fn is_rewrite_hopeless(&self, free: u64) -> bool {
        self.last_rewrite.is_some_and(|last| {
            let is_as_before = if last.was_enough {
                self.written < self.file_bytes
            } else {
                free <= last.free
            };
            is_as_before && clock::now() < last.next
        })
    }

    fn check_space(&self, bytes: u64, purpose: Purpose) -> Result<(), EngineError> {
        self.check_measured(self.space.measure()?, bytes, purpose)
    }

    fn check_measured(
        &self,
        measured: Measured,
        bytes: u64,
        purpose: Purpose,
    ) -> Result<(), EngineError> {
        let usage = || self.generation.tables.usage(self.file_bytes);
        measured.check_commit(bytes, purpose, usage)
    }

    /// Refuses a commit that only deletes, if it has no space though all was given back that could be.
    fn check_last_delete(&self, bytes: u64) -> Result<(), EngineError> {
        let usage = self.generation.tables.usage(self.file_bytes);
        self.space.measure()?.check_last_delete(bytes, usage)
    }

    /// Merges tables as long as there is space for it. If that fails, the store is replaced.
    fn merge(&mut self) -> Result<(), EngineError> {
        let tables = &self.generation.tables;
        let has_space = || {
            self.space
                .measure()
                .is_ok_and(|measured| measured.free() >= tables.merging_bytes(self.file_bytes))
        };
        let Err(error) = tables.merge(has_space) else {
            return Ok(());
        };
        self.replace_store(&error)
    }

    /// Gives back the space of journals and of what was overwritten or deleted, until there is enough
    /// for a commit of so many bytes. If a thread of the store has failed, gives back what it has left.
    fn give_back(&mut self, bytes: u64, purpose: Purpose) -> Result<(), EngineError> {
        if let Err(error) = self.generation.tables.wait_for_flushes() {
            return self.replace_store(&error);
        }
        // A copy has these entries, too.
        if let Err(error) = self.sweep_all_garbage() {
            self.check_open()?;
            tracing::debug!("some garbage is left: {error}");
        }
        match self.copy() {
            Err(EngineError::Full(_)) => {}
            copied => return copied,
        }
        for _ in 0..GIVE_BACK_ROUNDS {
            self.space
                .check_files(self.generation.tables.unflushed_bytes())?;
            if let Err(error) = self.generation.tables.flush() {
                return self.replace_store(&error);
            }
            self.adopt(Journals::Flushed)?;
            self.merge()?;
            if self.check_space(bytes, purpose).is_ok() {
                break;
            }
        }
        Ok(())
    }

    fn prepare(
        &mut self,
        batches: Vec<Batch>,
        durability: Option<PersistMode>,
    ) -> Result<(WriteBatch, HashMap<RoomId, Option<Row>>), EngineError> {
        let mut write = self.generation.tables.store.batch().durability(durability);
        let mut rows = HashMap::<RoomId, Option<Row>>::new();
        let next = self.next;
        for batch in batches {
            let before = match rows.get(&batch.room) {
                Some(row) => *row,
                None => self
                    .generation
                    .rows
                    .find(&self.generation.tables, &batch.room)?,
            };
            let after = self.add(&mut write, &batch, before);
            rows.insert(batch.room, after);
        }
        if self.next != next {
            write.insert(
                &self.generation.tables.meta,
                "next",
                self.next.to_be_bytes(),
            );
        }
        Ok((write, rows))
    }

    /// Adds one room's changes; what is known of it then.
    fn add(&mut self, write: &mut WriteBatch, batch: &Batch, before: Option<Row>) -> Option<Row> {
        let generation = self.generation.clone();
        let tables = &generation.tables;
        let kept = before.filter(|_| !batch.clear);
        if let Some(cleared) = before.filter(|_| batch.clear) {
            write.insert(&tables.garbage, cleared.number.to_be_bytes(), []);
        }
        let mut fresh = || {
            self.next += 1;
            self.next - 1
        };
        let number = kept.map_or_else(&mut fresh, |row| row.number);
        let log = match (before.map_or(0, |row| row.log), batch.stored.history) {
            (0, Some(_)) => fresh(),
            (log, Some(_)) => log,
            (log, None) => {
                if log != 0 {
                    write.insert(&tables.garbage, log.to_be_bytes(), []);
                }
                0
            }
        };
        for (key, value) in &batch.writes {
            match value {
                Some(value) => write.insert(&tables.entries, entry_key(number, key), &value[..]),
                None => write.remove(&tables.entries, entry_key(number, key)),
            }
        }
        for (slot, publication) in &batch.log {
            write.insert(
                &tables.entries,
                entry_key(log, &slot_key(*slot)),
                &publication[..],
            );
        }
        let room = room_key(&batch.room);
        match (before.and_then(|row| row.stored.alarm), batch.stored.alarm) {
            (None, Some(_)) => write.insert(&tables.alarms, &room[..], []),
            (Some(_), None) => write.remove(&tables.alarms, &room[..]),
            _ => {}
        }
        if batch.stored == RoomRecord::default() {
            write.remove(&tables.rooms, room);
            return None;
        }
        let row = Row {
            number,
            log,
            stored: batch.stored,
        };
        write.insert(&self.generation.tables.rooms, room, row.encode());
        Some(row)
    }

    /// Deletes some of what no room needs; whether there may be more. Gives up quietly if the disk can't be read, or lacks space.
    fn sweep(&mut self) -> bool {
        let swept = self.sweep_garbage().and_then(|more| {
            if more {
                Ok(true)
            } else {
                self.forget_histories(unix_ms())
            }
        });
        swept
            .inspect_err(|error| tracing::debug!("nothing is swept for now: {error}"))
            .unwrap_or(false)
    }

    /// Entries and logs that rooms have given up.
    fn sweep_garbage(&mut self) -> Result<bool, EngineError> {
        if self.garbage()?.is_none() {
            return Ok(false);
        }
        self.prepare_sweep(SWEEP)?;
        self.delete_garbage()
    }

    /// As [`sweep_garbage`](Work::sweep_garbage), until nothing is left, and with the last space.
    fn sweep_all_garbage(&mut self) -> Result<(), EngineError> {
        while self.garbage()?.is_some() {
            self.check_last_delete(SWEPT_BYTES * SWEEP as u64)?;
            self.check_store()?;
            self.delete_garbage()?;
        }
        Ok(())
    }

    /// The first number whose entries are garbage.
    fn garbage(&self) -> Result<Option<Slice>, EngineError> {
        guarded(|| {
            let first = self.generation.tables.garbage.first_key_value();
            first.map(|guard| guard.key()).transpose()
        })
    }

    /// Deletes some entries of the first number whose entries are garbage; true if there is one.
    fn delete_garbage(&mut self) -> Result<bool, EngineError> {
        let Some(number) = self.garbage()? else {
            return Ok(false);
        };
        let tables = &self.generation.tables;
        let keys: Vec<_> = guarded(|| {
            tables
                .entries
                .prefix(&number)
                .take(SWEEP)
                .map(|guard| guard.key())
                .collect()
        })?;
        let mut write = tables.store.batch();
        if keys.len() < SWEEP {
            write.remove(&tables.garbage, number);
        }
        keys.into_iter()
            .for_each(|key| write.remove(&tables.entries, key));
        // Not synced: a commit after it syncs it, too, and if there is none it is swept again.
        self.commit(write)?;
        Ok(true)
    }

    /// Before a batch that sweeps up to so many entries is made: the store may be replaced for it.
    fn prepare_sweep(&mut self, entries: usize) -> Result<(), EngineError> {
        self.make_space(SWEPT_BYTES * entries as u64, Purpose::Delete)?;
        self.check_store()
    }

    /// Gives up histories that are too old to be of use, and rooms that kept nothing else: some rooms at a time, all of them every
    /// few minutes.
    fn forget_histories(&mut self, now: u64) -> Result<bool, EngineError> {
        if self.swept.is_empty() && clock::now() < self.sweep_at {
            return Ok(false);
        }
        let after = (Bound::Excluded(self.swept.clone()), Bound::Unbounded);
        let rooms = &self.generation.tables.rooms;
        let page: Vec<_> = guarded(|| {
            rooms
                .range::<Vec<u8>, _>(after)
                .take(SWEEP)
                .map(|guard| guard.into_inner())
                .collect()
        })?;
        self.swept = page
            .last()
            .filter(|_| page.len() == SWEEP)
            .map_or_else(Vec::new, |(key, _)| key.to_vec());
        self.sweep_at = clock::now() + SWEEP_EVERY;
        let rows = page
            .iter()
            .filter_map(|(key, row)| Some((room_of(key)?, Row::decode(row)?)));
        let old = rows.filter(|(_, row)| {
            row.stored
                .history
                .is_some_and(|history| history.expires <= now)
        });
        let batches: Vec<Batch> = old
            .map(|(room, row)| {
                Batch::new(
                    room,
                    RoomRecord {
                        history: None,
                        ..row.stored
                    },
                )
            })
            .collect();
        if !batches.is_empty() {
            self.prepare_sweep(batches.len())?;
            let (batch, rows) = self.prepare(batches, None)?;
            self.commit(batch)?;
            rows.iter()
                .for_each(|(room, row)| self.generation.rows.set(room, *row));
        }
        Ok(!self.swept.is_empty())
    }
}

/// The current generation, open.
struct Loaded {
    generation: Generation,
    /// True if one of its writes had failed; the refused batches have been cut off.
    in_doubt: bool,
    next: u64,
    written: u64,
    space: Space,
    file_bytes: u64,
}

/// Opens the current generation, or makes the first one.
fn load(directory: &mut Directory) -> Result<Loaded, OpenError> {
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
    Ok(Loaded {
        next: generation.tables.next_number().map_err(engine)?,
        written: journal::allocated_bytes(generation.path()).map_err(io)?,
        generation,
        in_doubt,
        space,
        file_bytes,
    })
}

/// Opens a generation. Also returns true if one of its writes had failed; the refused batches are then cut off first.
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

/// Every commit that waits, up to a group's bounds; ends at an order to compact. There is no waiting for more: while one group is on
/// its way to the disk the next one gathers by itself.
fn gather(
    first: (Batch, Done),
    orders: &mut Receiver<Order>,
    compact: &mut Option<Done>,
) -> Vec<(Batch, Done)> {
    let mut bytes = weight(&first.0);
    let mut group = vec![first];
    while group.len() < GROUP_MAX && bytes < GROUP_BYTES_MAX {
        match orders.try_recv() {
            Ok(Order::Commit(batch, done)) => {
                bytes += weight(&batch);
                group.push((batch, done));
            }
            Ok(Order::Compact(done)) => {
                *compact = Some(done);
                break;
            }
            Err(_) => break,
        }
    }
    group
}

fn unix_ms() -> u64 {
    SystemTime::UNIX_EPOCH
        .elapsed()
        .map_or(0, |since| since.as_millis() as u64)
}

/// True for a batch that deletes, and writes nothing but the room's row.
fn only_deletes(batch: &Batch) -> bool {
    let deletes = batch.clear || !batch.writes.is_empty();
    let writes = !batch.log.is_empty() || batch.writes.values().any(Option::is_some);
    deletes && !writes
}

/// The batches that only delete, and their numbers in the group. Left out are those after another
/// batch of their room, which they may depend on.
fn independent_deletes(batches: Vec<Batch>) -> (Vec<usize>, Vec<Batch>) {
    let mut left_out = HashSet::new();
    let deletes = batches.into_iter().enumerate().filter(|(_, batch)| {
        let deletes = only_deletes(batch) && !left_out.contains(&batch.room);
        if !deletes {
            left_out.insert(batch.room.clone());
        }
        deletes
    });
    deletes.unzip()
}

/// About what it takes on the disk.
fn weight(batch: &Batch) -> usize {
    let writes = batch
        .writes
        .iter()
        .map(|(key, value)| key.len() + value.as_ref().map_or(0, |value| value.len()) + 64);
    let log = batch
        .log
        .iter()
        .map(|(_, publication)| publication.len() + 64);
    writes.chain(log).sum::<usize>() + 256
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deletes_are_written_without_writes_unless_they_may_depend_on_one() {
        let batch = |room: &str, value: Option<&'static [u8]>| {
            let room = RoomId::new("chat", room).unwrap();
            let writes = [("key".to_owned(), value.map(bytes::Bytes::from_static))];
            Batch {
                writes: writes.into(),
                ..Batch::new(room, RoomRecord::default())
            }
        };
        let clear = Batch {
            clear: true,
            ..batch("cleared", None)
        };
        let only_row = Batch {
            writes: [].into(),
            ..batch("row", None)
        };
        let group = vec![
            batch("one", None),
            batch("two", Some(b"value")),
            batch("one", None),
            batch("two", None),
            clear,
            only_row,
            batch("one", Some(b"value")),
            batch("one", None),
        ];
        let (numbers, deletes) = independent_deletes(group);
        assert_eq!(numbers, [0, 2, 4]);
        assert!(deletes.iter().all(only_deletes));
    }

    #[test]
    fn pauses_double_up_to_a_maximum_and_end_on_a_clock_jump() {
        let mut now = Duration::from_secs(1000);
        let mut pause = Pause::begin(now);
        for milliseconds in [100, 200, 400, 800, 1600, 3200, 5000, 5000] {
            let length = Duration::from_millis(milliseconds);
            assert!(!pause.is_over(now + length - Duration::from_nanos(1)));
            now += length;
            assert!(pause.is_over(now), "{length:?}");
            pause.grow(now);
        }
        // The machine was suspended meanwhile.
        assert!(pause.is_over(now + Duration::from_secs(3600)));
    }
}
