//! Pages: many that stream at once, each with values that say when they were made.

use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result, ensure};
use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use crate::board::{Board, Window};
use crate::inbox::Inbox;
use crate::outcome::{Figure, Outcome};
use crate::request::request;
use crate::server::Server;
use crate::talks::Talks;

const SETTLE: Duration = Duration::from_secs(3);
const OPENED_AT_ONCE_MAX: usize = 50;

/// Text before the time of a value (microseconds since 1970), and the byte after it.
const MARK: (&[u8], u8) = (b"[\"value\",\"live\",", b']');

/// Opens `pages` and reads them all through the window. The server is weighed before, at the
/// window's beginning and at its end. One page comes and goes before that: what is read into memory
/// to run its code is no page's.
pub async fn run(pages: usize, server: &Server, path: &str, window: Window) -> Result<Outcome> {
    drop(open(server.address, path).await?);
    tokio::time::sleep(SETTLE).await;
    let before = server.process.resident_bytes()?;
    let board = Rc::new(Board::new());
    let opened = stream::iter(0..pages).map(|_| open(server.address, path));
    let readers: Vec<Reader> = opened
        .buffer_unordered(OPENED_AT_ONCE_MAX)
        .try_collect()
        .await?;
    let mut talks = Talks::default();
    for reader in readers {
        talks.start(read(reader, board.clone()));
    }
    let watch = async {
        tokio::time::sleep(SETTLE.max(window.warm_up)).await;
        let begun = server.process.resident_bytes()?;
        let outcome = board
            .watch(
                Window {
                    warm_up: Duration::ZERO,
                    ..window
                },
                &server.process,
            )
            .await?;
        Ok((begun, server.process.resident_bytes()?, outcome))
    };
    let (begun, ended, outcome) = talks.during(watch).await?;
    talks.finish().await?;
    Ok(figures(pages, before, begun, ended, &outcome))
}

fn figures(pages: usize, before: u64, begun: u64, ended: u64, outcome: &Outcome) -> Outcome {
    let each = |bytes: u64| (bytes as f64 - before as f64) / pages as f64 / 1024.0;
    let shown = outcome.0.iter().filter(|figure| !figure.is_cost).cloned();
    let weights = [
        Figure::new("before MiB", before as f64 / f64::from(1 << 20)),
        Figure::new("KiB a page at the beginning", each(begun)),
        Figure::cost("KiB a page", each(ended)),
    ];
    Outcome(shown.chain(weights).collect())
}

/// A page that streams.
struct Reader {
    stream: TcpStream,
    inbox: Inbox,
}

/// The page, once its first value is there.
async fn open(address: SocketAddr, path: &str) -> Result<Reader> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(request(address, path).as_bytes()).await?;
    let mut reader = Reader {
        stream,
        inbox: Inbox::new(),
    };
    reader.next().await?;
    Ok(reader)
}

async fn read(mut reader: Reader, board: Rc<Board>) -> Result<()> {
    while !board.is_over() {
        let made = reader.next().await?;
        // The clocks of both sides are the same machine's.
        board.record(now().saturating_sub(made), 1);
    }
    Ok(())
}

fn now() -> Duration {
    SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default()
}

impl Reader {
    /// When the next value was made.
    async fn next(&mut self) -> Result<Duration> {
        loop {
            if let Some((made, bytes)) = value(self.inbox.bytes())? {
                self.inbox.take(bytes);
                return Ok(made);
            }
            self.inbox.fill(&mut self.stream).await?;
        }
    }
}

/// The time in the first value of these bytes, and where it ends; none if it is not there yet.
fn value(bytes: &[u8]) -> Result<Option<(Duration, usize)>> {
    let (before, behind) = MARK;
    let status = bytes
        .strip_prefix(b"HTTP/1.1 ")
        .and_then(|rest| rest.get(..3));
    ensure!(
        status.is_none_or(|status| status == b"200"),
        "{}",
        String::from_utf8_lossy(bytes)
    );
    let Some(at) = bytes
        .windows(before.len())
        .position(|window| window == before)
    else {
        return Ok(None);
    };
    let digits = &bytes[at + before.len()..];
    let Some(end) = digits.iter().position(|byte| *byte == behind) else {
        return Ok(None);
    };
    let micros = std::str::from_utf8(&digits[..end])?
        .parse()
        .context("a value that is no time")?;
    Ok(Some((
        Duration::from_micros(micros),
        at + before.len() + end,
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_of_a_value_is_that_of_its_last_byte() {
        let page = b"HTTP/1.1 200 OK\r\n\r\n<p><script>push([\"value\",\"live\",1234567])</script>";
        let end = page.windows(2).position(|window| window == b"7]").unwrap() + 1;
        for cut in 0..page.len() {
            let expected = (cut > end).then_some((Duration::from_micros(1_234_567), end));
            assert_eq!(value(&page[..cut]).unwrap(), expected, "{cut} bytes");
        }
        assert!(value(b"HTTP/1.1 503 Service Unavailable\r\n").is_err());
    }

    #[test]
    fn the_cost_of_a_page_is_the_growth_of_the_server() {
        let none = Outcome(vec![]);
        let outcome = figures(1024, 1 << 20, 3 << 20, 5 << 20, &none);
        assert_eq!((outcome.0[1].value, outcome.cost()), (2.0, 4.0));
    }
}
