//! The one thread that writes: takes every commit that waits, and makes them durable by one fsync.

use crate::{
    OpenError,
    guarded::guarded,
    open_error::Why,
    row::{Row, entry_key, room_key, room_of, slot_key},
    rows::Rows,
    tables::Tables,
};
use fjall::{OwnedWriteBatch as WriteBatch, PersistMode};
use std::{
    collections::HashMap,
    fs::File,
    ops::Bound,
    path::Path,
    sync::Arc,
    thread::{self, JoinHandle},
    time::SystemTime,
};
use tidegate_hub::{Batch, EngineError, RoomId, Stored};
use tokio::sync::{
    mpsc::{self, Receiver, Sender, error::TryRecvError},
    oneshot,
};

/// Commits that wait in the queue; whoever comes behind them waits for a place.
const QUEUE_MAX: usize = 4096;
/// Commits and bytes that one fsync is for, at most.
const GROUP_MAX: usize = 1024;
const GROUP_BYTES_MAX: usize = 64 << 20;
/// Free space below which nothing is written any more: the store can't go back once the disk has refused a write.
const RESERVE_BYTES: u64 = 32 << 20;
/// Entries of garbage that are deleted at a time, while nobody waits.
const SWEEP: usize = 1000;

/// Milliseconds between two rounds through all rooms for histories that are too old.
const SWEEP_EVERY: u64 = 300_000;

/// A commit, and who waits for it.
pub(crate) struct Order {
    pub(crate) batch: Batch,
    pub(crate) done: oneshot::Sender<Result<(), EngineError>>,
}

/// The thread's handle; dropping it lets the thread finish what was asked.
pub(crate) struct Writer {
    queue: Option<Sender<Order>>,
    thread: Option<JoinHandle<()>>,
}

impl Writer {
    pub(crate) fn start(directory: &Path, tables: Tables, rows: Arc<Rows>) -> Result<Writer, OpenError> {
        let io = |error| OpenError::new(directory, Why::Io(error));
        let next = tables.next_number().map_err(|error| OpenError::new(directory, Why::Corrupt(error.to_string())))?;
        let place = File::open(directory).map_err(io)?;
        let (queue, orders) = mpsc::channel(QUEUE_MAX);
        let mut work = Work { tables, rows, place, next, swept: Vec::new(), sweep_at: 0, closed: None };
        let thread = thread::Builder::new().name("storage".into()).spawn(move || work.run(orders)).map_err(io)?;
        Ok(Writer { queue: Some(queue), thread: Some(thread) })
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

struct Work {
    tables: Tables,
    rows: Arc<Rows>,
    /// The directory, to ask how much room is left.
    place: File,
    next: u64,
    /// Up to here rooms were looked at for histories that are too old; empty between two rounds.
    swept: Vec<u8>,
    /// When the next round begins, in Unix milliseconds.
    sweep_at: u64,
    /// Why nothing is written any more.
    closed: Option<String>,
}

impl Work {
    fn run(&mut self, mut orders: Receiver<Order>) {
        loop {
            let first = match orders.try_recv() {
                Ok(first) => first,
                Err(TryRecvError::Disconnected) => return,
                // Nobody waits: time for what nobody waits for.
                Err(TryRecvError::Empty) if self.sweep() => continue,
                Err(TryRecvError::Empty) => match orders.blocking_recv() {
                    Some(first) => first,
                    None => return,
                },
            };
            self.commit(gather(first, &mut orders));
        }
    }

    fn commit(&mut self, group: Vec<Order>) {
        let (batches, waiting): (Vec<Batch>, Vec<_>) = group.into_iter().map(|order| (order.batch, order.done)).unzip();
        let outcome = self.write(batches);
        for done in waiting {
            _ = done.send(outcome.clone());
        }
    }

    fn write(&mut self, batches: Vec<Batch>) -> Result<(), EngineError> {
        if let Some(why) = &self.closed {
            return Err(EngineError::Closed(why.clone()));
        }
        let bytes: usize = batches.iter().map(weight).sum();
        self.check_space(bytes as u64)?;
        let (batch, rows) = self.prepare(batches, Some(PersistMode::SyncData))?;
        guarded(|| batch.commit()).inspect_err(|error| self.close(error))?;
        rows.iter().for_each(|(room, row)| self.rows.set(room, *row));
        Ok(())
    }

    /// A write has failed: what of it is on the disk nobody knows before the log is read again.
    fn close(&mut self, error: &EngineError) {
        tracing::error!("the storage takes no more writes: {error}; restart the host when that is mended");
        self.closed = Some(error.to_string());
    }

    /// Twice the bytes: they stand in the log and, for a while, in a table.
    fn check_space(&self, bytes: u64) -> Result<(), EngineError> {
        let space = rustix::fs::fstatvfs(&self.place).map_err(|error| EngineError::Io(error.to_string()))?;
        let free = space.f_bavail * space.f_frsize;
        if free < RESERVE_BYTES + 2 * bytes {
            return Err(EngineError::Full(format!("{} MiB are left, {} are kept free", free >> 20, RESERVE_BYTES >> 20)));
        }
        Ok(())
    }

    fn prepare(
        &mut self,
        batches: Vec<Batch>,
        durability: Option<PersistMode>,
    ) -> Result<(WriteBatch, HashMap<RoomId, Option<Row>>), EngineError> {
        let mut write = self.tables.store.batch().durability(durability);
        let mut rows = HashMap::<RoomId, Option<Row>>::new();
        let next = self.next;
        for batch in batches {
            let before = match rows.get(&batch.room) {
                Some(row) => *row,
                None => self.rows.find(&self.tables, &batch.room)?,
            };
            let after = self.add(&mut write, &batch, before);
            rows.insert(batch.room, after);
        }
        if self.next != next {
            write.insert(&self.tables.meta, "next", self.next.to_be_bytes());
        }
        Ok((write, rows))
    }

    /// Adds one room's changes; what is known of it then.
    fn add(&mut self, write: &mut WriteBatch, batch: &Batch, before: Option<Row>) -> Option<Row> {
        let tables = &self.tables;
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
            write.insert(&tables.entries, entry_key(log, &slot_key(*slot)), &publication[..]);
        }
        let room = room_key(&batch.room);
        match (before.and_then(|row| row.stored.alarm), batch.stored.alarm) {
            (None, Some(_)) => write.insert(&tables.alarms, &room[..], []),
            (Some(_), None) => write.remove(&tables.alarms, &room[..]),
            _ => {}
        }
        if batch.stored == Stored::default() {
            write.remove(&tables.rooms, room);
            return None;
        }
        let row = Row { number, log, stored: batch.stored };
        write.insert(&self.tables.rooms, room, row.encode());
        Some(row)
    }

    /// Deletes some of what nobody needs; whether there may be more.
    fn sweep(&mut self) -> bool {
        if self.closed.is_some() {
            return false;
        }
        let swept = self.sweep_garbage().and_then(|more| if more { Ok(true) } else { self.forget_histories(unix_ms()) });
        swept.inspect_err(|error| self.close(error)).unwrap_or(false)
    }

    /// Entries and logs that rooms have given up.
    fn sweep_garbage(&self) -> Result<bool, EngineError> {
        guarded(|| {
            let Some(number) = self.tables.garbage.first_key_value().map(|guard| guard.key()).transpose()? else { return Ok(false) };
            let mut write = self.tables.store.batch();
            let keys: fjall::Result<Vec<_>> = self.tables.entries.prefix(&number).take(SWEEP).map(|guard| guard.key()).collect();
            let keys = keys?;
            if keys.len() < SWEEP {
                write.remove(&self.tables.garbage, number);
            }
            keys.into_iter().for_each(|key| write.remove(&self.tables.entries, key));
            write.commit()?;
            Ok(true)
        })
    }

    /// Gives up histories that are too old to be of use, and rooms that kept nothing else: some rooms at a time, all of them every
    /// few minutes.
    fn forget_histories(&mut self, now: u64) -> Result<bool, EngineError> {
        if self.swept.is_empty() && now < self.sweep_at {
            return Ok(false);
        }
        let behind = (Bound::Excluded(self.swept.clone()), Bound::Unbounded);
        let page: Vec<_> = guarded(|| self.tables.rooms.range::<Vec<u8>, _>(behind).take(SWEEP).map(|guard| guard.into_inner()).collect())?;
        self.swept = page.last().filter(|_| page.len() == SWEEP).map_or_else(Vec::new, |(key, _)| key.to_vec());
        self.sweep_at = now + SWEEP_EVERY;
        let rows = page.iter().filter_map(|(key, row)| Some((room_of(key)?, Row::decode(row)?)));
        let old = rows.filter(|(_, row)| row.stored.history.is_some_and(|history| history.expires <= now));
        let batches = old.map(|(room, row)| Batch::new(room, Stored { history: None, ..row.stored })).collect();
        let (batch, rows) = self.prepare(batches, None)?;
        guarded(|| batch.commit())?;
        rows.iter().for_each(|(room, row)| self.rows.set(room, *row));
        Ok(!self.swept.is_empty())
    }
}

/// Everything that waits, up to a group's bounds. There is no waiting for more: while one group is on its way to the disk
/// the next one gathers by itself.
fn gather(first: Order, orders: &mut Receiver<Order>) -> Vec<Order> {
    let mut bytes = weight(&first.batch);
    let mut group = vec![first];
    while group.len() < GROUP_MAX && bytes < GROUP_BYTES_MAX {
        let Ok(order) = orders.try_recv() else { break };
        bytes += weight(&order.batch);
        group.push(order);
    }
    group
}

fn unix_ms() -> u64 {
    SystemTime::UNIX_EPOCH.elapsed().map_or(0, |since| since.as_millis() as u64)
}

/// About what it takes on the disk.
fn weight(batch: &Batch) -> usize {
    let writes = batch.writes.iter().map(|(key, value)| key.len() + value.as_ref().map_or(0, |value| value.len()) + 64);
    let log = batch.log.iter().map(|(_, publication)| publication.len() + 64);
    writes.chain(log).sum::<usize>() + 256
}
