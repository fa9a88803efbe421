//! The output of a guest goes to the log, one line at a time.
//!
//! An [`Output`] belongs to one instance. It knows what the event that runs is about, and keeps the begun line of each of its
//! two channels. A write is done when it returns: no task stands between guest and log, so a line can't come when the event is
//! over. Invariant: before the instance is given another event, and when it is dropped, what was begun is logged; so one line
//! never has output of two events. Lines that an instance, or all of them together, print beyond their rate are dropped and
//! counted, in [`AppOutput`].

use crate::Options;
use std::{
    future::ready,
    io,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    task::{Context, Poll},
    time::{Duration, Instant},
};
use tidegate_hub::{Conn, Hub, RoomId};
use tidegate_routing::Manifest;
use tokio::io::AsyncWrite;
use tracing::field::display;
use wasmtime_wasi::{
    cli::{IsTerminal, StdoutStream},
    p2::{DynFuture, OutputStream, Pollable, StreamResult},
};

/// A longer line is cut into pieces of this size.
const LINE_BYTES_MAX: usize = 8 << 10;
/// Cost of a line beside its own bytes, in bytes: its time, level and place in the log.
const LINE_BYTES_MORE: usize = 64;
/// Bytes that a guest may write at once.
const WRITE_BYTES_MAX: usize = 64 << 10;
/// The time for which rates count.
const SECOND: Duration = Duration::from_secs(1);

#[derive(Clone, Copy, Debug)]
pub(crate) enum OutputChannel {
    Out,
    Err,
}

/// Connection, room and route of an event, for its log lines.
#[derive(Clone, Default)]
pub(crate) struct EventContext {
    pub(crate) conn: Option<Arc<Conn>>,
    pub(crate) room: Option<RoomId>,
    /// Index into the manifest's routes, then its pages, of a request.
    pub(crate) route: Option<u32>,
}

/// Bytes that may be printed in a second.
struct Rate {
    max: usize,
    /// Start of the current second, and the number of bytes printed in it.
    second: Mutex<Option<(Instant, usize)>>,
}

impl Rate {
    fn new(max: usize) -> Rate {
        Rate {
            max,
            second: Mutex::default(),
        }
    }

    /// Whether so many bytes more may be printed now; then they count.
    fn admit(&self, bytes: usize, now: Instant) -> bool {
        let mut second = self
            .second
            .lock()
            .expect("nothing panics while it holds a rate");
        let (began, used) = second
            .filter(|(began, _)| now.duration_since(*began) < SECOND)
            .unwrap_or((now, 0));
        let is_admitted = used + bytes <= self.max;
        *second = Some((began, if is_admitted { used + bytes } else { used }));
        is_admitted
    }
}

/// Output of all instances of an app together: its rate, and the number of dropped lines.
pub(crate) struct AppOutput {
    rate: Rate,
    rate_max: usize,
    instance_rate_max: usize,
    /// Lines that were dropped since the log last said so.
    dropped: AtomicU64,
    said: Mutex<Option<Instant>>,
}

impl AppOutput {
    pub(crate) fn new(options: &Options) -> Arc<AppOutput> {
        let (rate_max, instance_rate_max) = (options.output_rate, options.instance_output_rate);
        Arc::new(AppOutput {
            rate: Rate::new(rate_max),
            rate_max,
            instance_rate_max,
            dropped: AtomicU64::new(0),
            said: Mutex::default(),
        })
    }

    /// Says how many lines were dropped, at once the first time, then once a second.
    pub(crate) fn say_dropped(&self, now: Instant) {
        if self.dropped.load(Relaxed) == 0 {
            return;
        }
        let mut said = self
            .said
            .lock()
            .expect("nothing panics while it holds a time");
        if said.is_some_and(|said| now.duration_since(said) < SECOND) {
            return;
        }
        *said = Some(now);
        drop(said);
        self.log_dropped();
    }

    fn log_dropped(&self) {
        let lines = self.dropped.swap(0, Relaxed);
        if lines > 0 {
            let AppOutput {
                rate_max,
                instance_rate_max,
                ..
            } = self;
            tracing::warn!(
                lines,
                "lines of the app's output were left out: it may print {rate_max} bytes a second (output_rate), one instance {instance_rate_max} (instance_output_rate)"
            );
        }
    }
}

impl Drop for AppOutput {
    fn drop(&mut self) {
        self.log_dropped();
    }
}

/// Standard output and error of one instance.
pub(crate) struct Output {
    app: Arc<AppOutput>,
    rate: Rate,
    hub: Option<Arc<Hub>>,
    manifest: Option<Arc<Manifest>>,
    /// Description of the running event.
    about: Mutex<EventContext>,
    /// By channel: a line that has begun.
    lines: [Mutex<Vec<u8>>; 2],
    /// Whether any has.
    is_begun: AtomicBool,
}

impl Output {
    pub(crate) fn new(
        app: &Arc<AppOutput>,
        hub: Option<Arc<Hub>>,
        manifest: Option<Arc<Manifest>>,
    ) -> Arc<Output> {
        let (about, lines, is_begun) = Default::default();
        Arc::new(Output {
            app: app.clone(),
            rate: Rate::new(app.instance_rate_max),
            hub,
            manifest,
            about,
            lines,
            is_begun,
        })
    }

    /// Ends the output of the last event and starts that of the next, if there is one. Text printed without a line's end is logged as a
    /// line of its own.
    pub(crate) fn begin(&self, about: EventContext) {
        self.end_lines();
        *self.about.lock().expect("nothing panics while it holds it") = about;
    }

    /// Logs what has begun.
    pub(crate) fn end_lines(&self) {
        if !self.is_begun.load(Relaxed) {
            return;
        }
        self.is_begun.store(false, Relaxed);
        for channel in [OutputChannel::Out, OutputChannel::Err] {
            let mut line = self.line(channel);
            if !line.is_empty() {
                self.log(channel, &line);
                // Not cleared: a long one would be kept by an instance that never prints again.
                *line = Vec::new();
            }
        }
    }

    fn write(&self, channel: OutputChannel, bytes: &[u8]) {
        let mut line = self.line(channel);
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            let (mut part, ends) = match part.strip_suffix(b"\n") {
                Some(part) => (part, true),
                None => (part, false),
            };
            while line.len() + part.len() > LINE_BYTES_MAX {
                let (now, later) = part.split_at(LINE_BYTES_MAX.saturating_sub(line.len()));
                line.extend_from_slice(now);
                // A character is not cut in two.
                let whole = whole_characters(&line);
                let rest = line.split_off(whole);
                self.log(channel, &line);
                *line = rest;
                part = later;
            }
            line.extend_from_slice(part);
            if ends {
                self.log(channel, &line);
                line.clear();
            }
        }
        if !line.is_empty() {
            self.is_begun.store(true, Relaxed);
        }
    }

    fn log(&self, channel: OutputChannel, line: &[u8]) {
        let (now, bytes) = (Instant::now(), line.len() + LINE_BYTES_MORE);
        let is_admitted = self.rate.admit(bytes, now) && self.app.rate.admit(bytes, now);
        if !is_admitted {
            self.app.dropped.fetch_add(1, Relaxed);
            if let Some(hub) = &self.hub {
                hub.counters().output_dropped.add(1);
            }
        }
        self.app.say_dropped(now);
        if !is_admitted {
            return;
        }
        let text = text(line);
        let EventContext { conn, room, route } = self
            .about
            .lock()
            .expect("nothing panics while it holds it")
            .clone();
        let by_connection = || Some(conn.as_ref()?.route()?.pattern.as_str());
        let by_index = |index| self.manifest.as_ref()?.pattern(index);
        let route = route.and_then(by_index).or_else(by_connection);
        let (connection, room) = (
            conn.as_ref().map(|conn| display(conn.id())),
            room.as_ref().map(display),
        );
        match channel {
            OutputChannel::Out => tracing::info!(target: "app", connection, room, route, "{text}"),
            OutputChannel::Err => tracing::warn!(target: "app", connection, room, route, "{text}"),
        }
    }

    fn line(&self, channel: OutputChannel) -> std::sync::MutexGuard<'_, Vec<u8>> {
        self.lines[channel as usize]
            .lock()
            .expect("nothing panics while it holds a line")
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        self.end_lines();
    }
}

/// Bytes at the beginning of a line that end with a whole character; all of them if its end is no part of one.
fn whole_characters(line: &[u8]) -> usize {
    let is_begun = |at: &usize| {
        std::str::from_utf8(&line[*at..])
            .is_err_and(|error| error.valid_up_to() == 0 && error.error_len().is_none())
    };
    (line.len().saturating_sub(3)..line.len())
        .find(is_begun)
        .unwrap_or(line.len())
}

/// Bytes that are no UTF-8 are shown as `\xNN`; control characters are left to the log's writer, which knows its format.
fn text(line: &[u8]) -> String {
    let mut text = String::with_capacity(line.len());
    for chunk in line.utf8_chunks() {
        text.push_str(chunk.valid());
        for byte in chunk.invalid() {
            text.push_str(&format!("\\x{byte:02x}"));
        }
    }
    text
}

/// One channel of an instance's output, as WASI wants it.
#[derive(Clone)]
pub(crate) struct GuestOutput {
    channel: OutputChannel,
    output: Arc<Output>,
}

impl GuestOutput {
    pub(crate) fn new(channel: OutputChannel, output: &Arc<Output>) -> GuestOutput {
        GuestOutput {
            channel,
            output: output.clone(),
        }
    }
}

impl IsTerminal for GuestOutput {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdoutStream for GuestOutput {
    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        Box::new(self.clone())
    }

    /// Not the default, which has a task that writes later: maybe during the next event.
    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(self.clone())
    }
}

impl OutputStream for GuestOutput {
    fn write(&mut self, bytes: bytes::Bytes) -> StreamResult<()> {
        self.output.write(self.channel, &bytes);
        Ok(())
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        Ok(WRITE_BYTES_MAX)
    }
}

impl Pollable for GuestOutput {
    // As `async_trait` has it.
    fn ready<'a, 'b>(&'a mut self) -> DynFuture<'b>
    where
        'a: 'b,
        Self: 'b,
    {
        Box::pin(ready(()))
    }
}

impl AsyncWrite for GuestOutput {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.output.write(self.channel, bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_cut_between_characters_if_it_has_any() {
        let cases: [(&[u8], usize); 8] = [
            (b"abc", 3),
            ("aé".as_bytes(), 3),
            (&"aé".as_bytes()[..2], 1),
            (&"a€".as_bytes()[..3], 1),
            (&"ab😀".as_bytes()[..5], 2),
            (b"ab\xff", 3),
            (b"a\x80\x80\x80", 4),
            (b"", 0),
        ];
        for (line, expected) in cases {
            assert_eq!(whole_characters(line), expected, "{line:?}");
        }
    }

    #[test]
    fn bytes_that_are_no_text_are_shown() {
        assert_eq!(text(b"a\xff\xfe \xc3\xa9\xc3"), "a\\xff\\xfe é\\xc3");
    }

    #[test]
    fn a_rate_holds_for_each_second() {
        let rate = Rate::new(100);
        let began = Instant::now();
        let at = |ms| began + Duration::from_millis(ms);
        let cases = [
            (60, 0, true),
            (60, 1, false),
            (40, 2, true),
            (1, 999, false),
            (100, 1000, true),
            (1, 1999, false),
            (101, 5000, false),
        ];
        for (bytes, ms, expected) in cases {
            assert_eq!(rate.admit(bytes, at(ms)), expected, "{bytes} at {ms}");
        }
    }
}
