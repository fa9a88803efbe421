//! The log of the process: lines on stderr, as text or JSON, and the live log of `tidegate tail`.
//!
//! A server writes through [`LineQueue`], so that no thread waits for the reader of stderr. Other
//! commands write directly, and wait. Lines contain text of clients and guests, so control
//! characters are escaped, and a line has at most [`LINE_BYTES_MAX`] bytes.

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

/// Number of bytes of a line. A longer line of text is cut; a longer line of JSON is dropped, and a
/// warning reports it.
const LINE_BYTES_MAX: usize = 128 << 10;

/// Time for writing the queued lines at the end of the process.
const DRAIN_WITHIN: Duration = Duration::from_secs(2);

/// Pause before a write is repeated, if stderr is full and in non-blocking mode.
const FULL_PAUSE: Duration = Duration::from_millis(10);

/// The queue of a server. Other commands have none: they write directly, and wait for the reader.
static QUEUE: OnceLock<LineQueue> = OnceLock::new();

/// Format of the lines of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    // No doc comments here: with them clap prints the long help, of four screens.
    Text,
    Json,
}

/// Installs the log as the subscriber of `tracing`. A server (`is_server`) never waits for the
/// reader of its log.
pub(crate) fn start(filter: EnvFilter, format: LogFormat, is_server: bool) {
    if is_server {
        _ = QUEUE.set(LineQueue::start(QUEUE_BYTES_MAX, Stderr, report_dropped));
        panic::set_hook(Box::new(log_panic));
    }
    let writer = LogWriter {
        format,
        is_coloured: colour::is_on(),
    };
    // An error of a write, such as a closed pipe, must not end the server, so it is ignored.
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

/// Writes whole lines of the command's own output to stderr, in order with the log.
pub(crate) fn print(text: &str) {
    match QUEUE.get() {
        Some(queue) => queue.push_important(text.as_bytes()),
        // The reader may have closed the pipe: then the text is lost.
        None => _ = stderr().write_all(text.as_bytes()),
    }
}

/// Returns the number of lines dropped since the start.
pub(crate) fn dropped() -> u64 {
    QUEUE.get().map_or(0, LineQueue::dropped)
}

/// Waits for the queued lines, for at most [`DRAIN_WITHIN`]. Called at the end of the process.
pub(crate) fn finish() {
    if let Some(queue) = QUEUE.get() {
        queue.drain(DRAIN_WITHIN);
    }
}

fn report_dropped(lines: u64) {
    tracing::warn!(
        lines,
        "lines of the log were dropped: their reader is too slow"
    );
}

/// Replaces the standard panic hook, which writes to stderr directly and so may wait for ever.
fn log_panic(info: &panic::PanicHookInfo<'_>) {
    let thread = thread::current();
    let thread = thread.name().unwrap_or("unnamed").to_owned();
    let backtrace = Backtrace::capture();
    let backtrace =
        (backtrace.status() == BacktraceStatus::Captured).then(|| backtrace.to_string());
    tracing::error!(thread, backtrace, "{info}");
}

/// Writer of formatted lines.
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
    /// Writes one line with its line end, with control characters escaped.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(bytes);
        let text = text.strip_suffix('\n').unwrap_or(&text);
        let line = match (self.format, self.is_coloured) {
            (LogFormat::Text, false) => printable::escaped(text),
            // Escape sequences in fields are escaped already by the formatter; only its own colours
            // remain.
            (LogFormat::Text, true) => printable::escaped_coloured(text),
            (LogFormat::Json, _) if text.len() > LINE_BYTES_MAX => {
                tracing::warn!(
                    bytes = text.len(),
                    "a line of the log was dropped: it is too long"
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

/// Stderr without the lock of the standard library, which a waiting writer would hold.
struct Stderr;

impl Write for Stderr {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            match rustix::io::write(stderr(), bytes) {
                // Another process with the same terminal or pipe may have set the non-blocking
                // mode.
                Err(Errno::AGAIN) => thread::sleep(FULL_PAUSE),
                written => return Ok(written?),
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
