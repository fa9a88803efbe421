//! The one thread that writes: takes every commit that waits, and makes them durable by one fsync.
//!
//! It is open or closed. A write that fails closes it: at once nothing can be read or written, and
//! the store's journal gets a note from which batch on it must not be believed ([`Doubt`](crate::doubt::Doubt)); only
//! then are the commits of that group refused. The store's own threads end with their first error,
//! too; that is found before the next commit. Closed, it tries again and again, with pauses that
//! grow, to make a new generation of everything that was acknowledged, all of it synced; then that
//! generation counts, and the thread is open. No file that failed is used again: after a failed
//! fsync the kernel shows data that the disk may not have.
//!
//! A server's thread may also start closed, if the disk is full or fails at that moment. It holds
//! the lock of the directory, and tries to load the current generation with the same pauses. After
//! such a failure, what was loaded is written to new files as well.
//!
//! A new generation is a copy of all rows, or, without space for that, adopts the files of the
//! tables and has new journals. It also gives back the space of journals, and a copy that of what
//! was overwritten, before a lack of space refuses commits.

mod group;
mod opening;
mod pause;
mod renewal;
mod sweep;

use self::{
    group::{gather, independent_deletes, only_deletes, weight},
    opening::{LoadedGeneration, UnopenedStorage},
    pause::Pause,
    renewal::Rewrite,
};
use crate::{
    OpenError, clock,
    directory::{Directory, Make},
    generation::{CurrentGeneration, Generation, Journals},
    guarded::guarded,
    open_error::Why,
    row::{Row, entry_key, room_key, slot_key},
    space::{Purpose, Space},
};
use fjall::{OwnedWriteBatch as WriteBatch, PersistMode};
use std::{
    collections::HashMap,
    io,
    path::Path,
    sync::Arc,
    thread::{self, JoinHandle},
    time::Duration,
};
use tidegate_hub::{Batch, EngineError, RoomId, RoomRecord};
use tokio::sync::{
    mpsc::{self, Receiver, Sender, error::TryRecvError},
    oneshot,
};

/// Commits that wait in the queue; further ones wait for a place in it.
const QUEUE_MAX: usize = 4096;
/// Time between two checks for commits that still arrive while the storage is closed.
const CLOSED_PAUSE: Duration = Duration::from_millis(20);

/// Request to the writer thread, with the sender for its outcome.
pub(crate) enum Order {
    Commit(Batch, OutcomeSender),
    Compact(OutcomeSender),
}

type OutcomeSender = oneshot::Sender<Result<(), EngineError>>;

/// The thread's handle; dropping it lets the thread finish what was asked.
pub(crate) struct WriterThread {
    queue: Option<Sender<Order>>,
    thread: Option<JoinHandle<()>>,
}

impl WriterThread {
    /// Opens the directory and starts the thread. If `waits` and the error may pass, the storage is
    /// closed until then.
    pub(crate) fn start(
        directory: &Path,
        make: Make,
        waits: bool,
    ) -> Result<(WriterThread, Arc<CurrentGeneration>), OpenError> {
        let mut opening = UnopenedStorage::new(directory, make, waits);
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
            WriterThread {
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

impl Drop for WriterThread {
    fn drop(&mut self) {
        self.queue = None;
        if let Some(thread) = self.thread.take() {
            _ = thread.join();
        }
    }
}

/// The state of the thread, once the directory is open.
struct WriteLoop {
    space: Space,
    /// Size of the files of a table.
    file_bytes: u64,
    shared: Arc<CurrentGeneration>,
    /// The current generation. While the storage is closed, the one that failed: its memory
    /// contains exactly the acknowledged batches.
    generation: Arc<Generation>,
    /// Number of the next room.
    next: u64,
    /// Up to here rooms were looked at for histories that are too old; empty between two rounds.
    swept: Vec<u8>,
    /// Start of the next round, by [`clock::now`].
    sweep_at: Duration,
    /// Why nothing is read or written, and how it goes on.
    closed: Option<Closure>,
    /// Bytes that were written since the generation was made, about.
    written: u64,
    last_rewrite: Option<Rewrite>,
    /// The last to be dropped: then another process may have it.
    directory: Directory,
}

/// The reason why nothing is read or written, and the next attempt to change that.
struct Closure {
    why: String,
    /// Number of the first batch that was refused.
    from: u64,
    pause: Pause,
}

impl WriteLoop {
    /// The storage is closed: nothing is shared yet.
    fn new(
        directory: Directory,
        loaded: LoadedGeneration,
        shared: Arc<CurrentGeneration>,
    ) -> WriteLoop {
        WriteLoop {
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
                let (batches, waiting): (Vec<Batch>, Vec<OutcomeSender>) =
                    group.into_iter().unzip();
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

    /// Hands a batch to the store. If that fails the storage is closed, and the error says what
    /// became of the batch.
    fn commit(&mut self, batch: WriteBatch) -> Result<(), EngineError> {
        // The batch gets this number or a higher one, and everything that was acknowledged has a
        // lower one.
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

    /// The store's own threads may have failed since the last commit: then it is replaced before
    /// this one.
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

    /// From now on nothing is read or written, and batches from this number on have been refused:
    /// the error if that could not be noted on the disk.
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

    /// As [`close`](WriteLoop::close), if the disk has the note already.
    fn stay_closed(&mut self, why: String, number: u64) {
        tracing::error!("the storage is closed, and opens again by itself: {why}");
        self.shared.set(Err(why.clone()));
        self.closed = Some(Closure {
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
        let Some(Closure { from, .. }) = self.closed else {
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
}
