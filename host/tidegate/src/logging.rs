//! The log: lines on stderr, for people or for machines, and for whoever looks on.

use crate::{
    colour,
    line_queue::{LineQueue, QUEUE_BYTES_MAX},
    printable, tail,
};
use clap::ValueEnum;
use rustix::io::Errno;
use std::{
    backtrace::{Backtrace, BacktraceStatus},
    io::{self, Write, stderr},
    panic,
    sync::OnceLock,
    thread,
    time::Duration,
};
use tracing_subscriber::{
    EnvFilter, Layer as _, fmt::MakeWriter, layer::SubscriberExt as _, registry,
    util::SubscriberInitExt as _,
};

/// Bytes of one line. A longer one is cut; as JSON, which can't be cut, it is dropped and counted.
const LINE_BYTES_MAX: usize = 128 << 10;

/// Time for writing the queued lines when the process ends, if their reader is slow.
const DRAIN_WITHIN: Duration = Duration::from_secs(2);

/// Time between two looks at a stderr that takes nothing now and was set not to block.
const FULL_PAUSE: Duration = Duration::from_millis(10);

/// The queue of a server; commands that end by themselves have none, and wait for their reader.
static QUEUE: OnceLock<LineQueue> = OnceLock::new();

/// The form of a line of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    // No doc comments here: with them clap writes a long help, of four screens.
    Text,
    Json,
}

/// Starts to write the events that `tracing` receives. A server (`is_server`) never waits for the reader of its log.
pub(crate) fn start(filter: EnvFilter, format: LogFormat, is_server: bool) {
    if is_server {
        _ = QUEUE.set(LineQueue::start(QUEUE_BYTES_MAX, Stderr, report_dropped));
        panic::set_hook(Box::new(log_panic));
    }
    let writer = LogWriter {
        format,
        is_coloured: colour::is_on(),
    };
    // A reader of the log that went away must not bring the server down: errors of writing are left alone.
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(writer)
        .with_ansi(writer.is_coloured)
        .log_internal_errors(false);
    let lines = match format {
        LogFormat::Text => lines.boxed(),
        LogFormat::Json => lines.json().flatten_event(true).boxed(),
    };
    registry()
        .with(lines.with_filter(filter))
        .with(tail::TailLayer.with_filter(tail::TailFilter))
        .init();
}

/// Writes text of our own to stderr, whole lines, as a part of the log or beside it.
pub(crate) fn say(text: &str) {
    match QUEUE.get() {
        Some(queue) => queue.push_important(text.as_bytes()),
        // Nobody may be there to read it any more.
        None => _ = stderr().write_all(text.as_bytes()),
    }
}

/// LogWriter that were dropped since the start.
pub(crate) fn dropped() -> u64 {
    QUEUE.get().map_or(0, LineQueue::dropped)
}

/// Waits for what is still queued, for a while. The last thing that the process does.
pub(crate) fn finish() {
    if let Some(queue) = QUEUE.get() {
        queue.drain(DRAIN_WITHIN);
    }
}

fn report_dropped(lines: u64) {
    tracing::warn!(
        lines,
        "lines of the log were dropped: they came faster than they were read"
    );
}

/// In place of the standard hook, which writes to stderr itself and so may wait for ever.
fn log_panic(info: &panic::PanicHookInfo<'_>) {
    let thread = thread::current();
    let thread = thread.name().unwrap_or("unnamed").to_owned();
    let backtrace = Backtrace::capture();
    let backtrace =
        (backtrace.status() == BacktraceStatus::Captured).then(|| backtrace.to_string());
    tracing::error!(thread, backtrace, "{info}");
}

/// Destination of formatted lines.
#[derive(Clone, Copy)]
struct LogWriter {
    format: LogFormat,
    is_coloured: bool,
}

impl<'a> MakeWriter<'a> for LogWriter {
    type Writer = LogWriter;

    fn make_writer(&'a self) -> LogWriter {
        *self
    }
}

impl Write for LogWriter {
    /// Takes a whole line with its end. A line may contain text from clients and guests, so control characters are escaped.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(bytes);
        let text = text.strip_suffix('\n').unwrap_or(&text);
        let line = match (self.format, self.is_coloured) {
            (LogFormat::Text, false) => printable::escaped(text),
            // Escape sequences of others are not in it: the formatter has shown them.
            (LogFormat::Text, true) => printable::escaped_coloured(text),
            (LogFormat::Json, _) if text.len() > LINE_BYTES_MAX => {
                tracing::warn!(
                    bytes = text.len(),
                    "a line of the log was too long, and is left out"
                );
                return Ok(bytes.len());
            }
            (LogFormat::Json, _) => printable::escaped_json(text),
        };
        let line = format!("{}\n", printable::cut(&line, LINE_BYTES_MAX));
        match QUEUE.get() {
            Some(queue) => queue.push(line.as_bytes()),
            None => _ = stderr().write_all(line.as_bytes()),
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Stderr without the lock of the standard library, which a writer that waits would hold.
struct Stderr;

impl Write for Stderr {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            match rustix::io::write(stderr(), bytes) {
                // Another process that has the same terminal or pipe may have set it so.
                Err(Errno::AGAIN) => thread::sleep(FULL_PAUSE),
                written => return Ok(written?),
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
