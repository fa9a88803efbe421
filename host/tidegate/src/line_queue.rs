//! A bounded queue of lines for stderr, written by a thread of its own.
//!
//! A server must never wait for the reader of its log: a full pipe would block every worker. So all
//! threads append lines to a shared buffer, and only the log thread writes to the output.
//!
//! Owner: `logging` has the one queue of the process. Its thread lives as long as the process.
//!
//! State: `waiting` are bytes of whole lines to be written; `writing` counts the bytes that the
//! thread has taken. Both together are bounded. A line beyond the bound is dropped and counted;
//! when a write succeeds again, one line reports the number of missing lines. While the reader is
//! gone (a closed pipe, a full disk) lines are dropped when their write fails, and counted too.
//!
//! Invariant: only the log thread touches the output, and it holds no lock while it writes.
//!
//! At the end of the process [`drain`](LineQueue::drain) waits for the queued lines, for a bounded
//! time.

use std::{
    io::Write,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    thread,
    time::Duration,
};

/// Number of bytes of lines that wait or are being written.
pub(crate) const QUEUE_BYTES_MAX: usize = 4 << 20;

/// Number of further bytes for the reports of the server's start and end.
const IMPORTANT_BYTES_MAX: usize = 64 << 10;

/// Capacity of an empty buffer, in bytes; a larger one is shrunk.
const BUFFER_BYTES_KEPT: usize = 64 << 10;

/// A queue of lines. Clones share it.
#[derive(Clone)]
pub(crate) struct LineQueue(Arc<Inner>);

struct Inner {
    bytes_max: usize,
    state: Mutex<QueueState>,
    filled: Condvar,
    emptied: Condvar,
    dropped: AtomicU64,
}

#[derive(Default)]
struct QueueState {
    waiting: Vec<u8>,
    /// Number of bytes that the thread has taken but not yet written.
    writing: usize,
    /// True while the thread writes, or reports dropped lines.
    is_busy: bool,
    /// Number of dropped lines that no line has reported yet.
    unreported: u64,
    /// True if the last write failed. The number of missing lines is logged when a write succeeds
    /// again.
    is_broken: bool,
}

impl QueueState {
    fn has_work(&self) -> bool {
        !self.waiting.is_empty() || (self.unreported > 0 && !self.is_broken)
    }
}

impl LineQueue {
    /// Starts the thread that writes to `output`. It calls `report_dropped` with a number of
    /// dropped lines once other lines were written; that line is queued like any other.
    pub(crate) fn start(
        bytes_max: usize,
        output: impl Write + Send + 'static,
        report_dropped: fn(u64),
    ) -> LineQueue {
        let (state, filled, emptied, dropped) = Default::default();
        let queue = LineQueue(Arc::new(Inner {
            bytes_max,
            state,
            filled,
            emptied,
            dropped,
        }));
        let shared = queue.0.clone();
        // If this thread can't start, the workers can't start either, and their error ends the
        // process.
        _ = thread::Builder::new()
            .name("log".into())
            .spawn(move || shared.write_all(output, report_dropped));
        queue
    }

    /// Queues whole lines with their line ends. Never waits.
    pub(crate) fn push(&self, lines: &[u8]) {
        self.0.push(lines, self.0.bytes_max);
    }

    /// Like [`push`](LineQueue::push), for reports of the server's start and end, which may use
    /// [`IMPORTANT_BYTES_MAX`] more.
    pub(crate) fn push_important(&self, lines: &[u8]) {
        self.0.push(lines, self.0.bytes_max + IMPORTANT_BYTES_MAX);
    }

    /// Returns the number of lines dropped since the start.
    pub(crate) fn dropped(&self) -> u64 {
        self.0.dropped.load(Relaxed)
    }

    /// Waits until all lines are written, or for `within`.
    pub(crate) fn drain(&self, within: Duration) {
        let has_work = |state: &mut QueueState| state.has_work() || state.is_busy;
        drop(
            self.0
                .emptied
                .wait_timeout_while(self.0.state(), within, has_work),
        );
    }
}

impl Inner {
    fn push(&self, lines: &[u8], bytes_max: usize) {
        let mut state = self.state();
        if state.waiting.len() + state.writing + lines.len() > bytes_max {
            self.drop_lines(&mut state, lines);
            return;
        }
        let was_idle = state.waiting.is_empty();
        state.waiting.extend_from_slice(lines);
        drop(state);
        if was_idle {
            self.filled.notify_one();
        }
    }

    fn drop_lines(&self, state: &mut QueueState, lines: &[u8]) {
        let count = lines.iter().filter(|byte| **byte == b'\n').count() as u64;
        state.unreported += count;
        self.dropped.fetch_add(count, Relaxed);
    }

    fn write_all(&self, mut output: impl Write, report_dropped: fn(u64)) {
        let mut batch = Vec::new();
        loop {
            let unreported = self.take(&mut batch);
            if unreported > 0 {
                report_dropped(unreported);
            }
            let written = output.write_all(&batch).and_then(|()| output.flush());
            let mut state = self.state();
            state.writing = 0;
            state.is_busy = false;
            state.is_broken = written.is_err();
            if written.is_err() {
                self.drop_lines(&mut state, &batch);
            }
            let is_done = !state.has_work();
            drop(state);
            if is_done {
                self.emptied.notify_all();
            }
            batch.clear();
            batch.shrink_to(BUFFER_BYTES_KEPT);
        }
    }

    /// Waits for lines and moves them to `batch`. If there are none, returns the number of dropped
    /// lines to report.
    fn take(&self, batch: &mut Vec<u8>) -> u64 {
        let waiting = self
            .filled
            .wait_while(self.state(), |state| !state.has_work());
        let mut state = waiting.unwrap_or_else(PoisonError::into_inner);
        state.is_busy = true;
        if state.waiting.is_empty() {
            return std::mem::take(&mut state.unreported);
        }
        std::mem::swap(batch, &mut state.waiting);
        state.writing = batch.len();
        0
    }

    fn state(&self) -> MutexGuard<'_, QueueState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        io,
        sync::mpsc::{Receiver, SyncSender, sync_channel},
    };

    /// A pipe of which each write waits for a read, and fails once the reader is gone.
    struct Pipe(SyncSender<Vec<u8>>);

    impl Write for Pipe {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            if bytes.is_empty() {
                return Ok(0);
            }
            self.0
                .send(bytes.to_vec())
                .map_err(|_| io::ErrorKind::BrokenPipe)?;
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn queue(report_dropped: fn(u64)) -> (LineQueue, Receiver<Vec<u8>>) {
        let (sender, receiver) = sync_channel(0);
        (
            LineQueue::start(100, Pipe(sender), report_dropped),
            receiver,
        )
    }

    const FOREVER: Duration = Duration::from_secs(60);

    #[test]
    fn lines_keep_their_order() {
        let (queue, output) = queue(|_| {});
        queue.push(b"one\n");
        queue.push(b"two\n");
        let mut read = Vec::new();
        while read.len() < 8 {
            read.extend(output.recv_timeout(FOREVER).unwrap());
        }
        assert_eq!(read, b"one\ntwo\n");
        queue.drain(FOREVER);
        assert_eq!(queue.dropped(), 0);
    }

    #[test]
    fn a_stalled_reader_blocks_no_push_and_dropped_lines_are_reported() {
        static SAID: AtomicU64 = AtomicU64::new(0);
        let (queue, output) = queue(|lines| _ = SAID.fetch_add(lines, Relaxed));
        for _ in 0..30 {
            queue.push(b"ten bytes\n");
        }
        assert_eq!(queue.dropped(), 20);
        queue.push_important(b"stopped\n");
        queue.drain(Duration::ZERO); // does not wait for the reader
        assert_eq!(SAID.load(Relaxed), 0);
        let mut read = Vec::new();
        while !read.ends_with(b"stopped\n") {
            read.extend(output.recv_timeout(FOREVER).unwrap());
        }
        assert_eq!(read.len(), 108);
        queue.drain(FOREVER);
        assert_eq!(SAID.load(Relaxed), 20);
    }

    #[test]
    fn without_a_reader_lines_are_dropped_and_drain_returns() {
        let (queue, output) = queue(|_| unreachable!("nothing was written"));
        drop(output);
        for number in 1..=3 {
            queue.push(b"lost\n");
            queue.drain(FOREVER);
            assert_eq!(queue.dropped(), number);
        }
    }
}
