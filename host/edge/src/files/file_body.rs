//! Body of an answer from a file: one piece of the file, or several with text between them.
//!
//! The body owns the open descriptor. It reads the next block when the connection polls for it, on
//! a thread that may block, so a slow client holds one block and not the file. The file must keep
//! the length that the head announced: if it has become shorter, the body fails and the connection
//! ends.

use bytes::Bytes;
use std::{
    collections::VecDeque,
    fs::File,
    future::Future,
    io,
    ops::Range,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};
use tokio::task::{JoinHandle, spawn_blocking};

/// Number of bytes in a read: as much as a connection may hold without an account.
const READ_BYTES: u64 = 16 << 10;

/// A piece of the body, in the order of sending.
#[derive(Debug)]
pub(crate) enum FilePiece {
    Text(Bytes),
    /// Range of the file, in bytes.
    Part(Range<u64>),
}

/// Reads a file at the speed of its client. It fails if the file has become shorter.
pub(crate) struct FileBody {
    file: Arc<File>,
    pieces: VecDeque<FilePiece>,
    length: u64,
    reading: Option<JoinHandle<io::Result<Bytes>>>,
}

impl FileBody {
    pub(crate) fn new(file: File, pieces: Vec<FilePiece>) -> FileBody {
        let length = pieces.iter().map(FilePiece::length).sum();
        FileBody {
            file: Arc::new(file),
            pieces: pieces.into(),
            length,
            reading: None,
        }
    }

    /// Returns the number of bytes that are still to be sent.
    pub(crate) fn length(&self) -> u64 {
        self.length
    }

    pub(crate) fn poll_bytes(&mut self, cx: &mut Context<'_>) -> Poll<Option<io::Result<Bytes>>> {
        loop {
            if let Some(reading) = &mut self.reading {
                let read = ready!(Pin::new(reading).poll(cx))
                    .unwrap_or_else(|error| Err(io::Error::other(error)));
                self.reading = None;
                self.length -= read.as_ref().map_or(0, |bytes| bytes.len() as u64);
                return Poll::Ready(Some(read));
            }
            match self.pieces.pop_front() {
                None => return Poll::Ready(None),
                Some(FilePiece::Text(text)) => {
                    self.length -= text.len() as u64;
                    return Poll::Ready(Some(Ok(text)));
                }
                Some(FilePiece::Part(part)) if part.is_empty() => {}
                Some(FilePiece::Part(part)) => {
                    let end = part.end.min(part.start + READ_BYTES);
                    self.pieces.push_front(FilePiece::Part(end..part.end));
                    let (file, part) = (self.file.clone(), part.start..end);
                    self.reading = Some(spawn_blocking(move || read(&file, part)));
                }
            }
        }
    }
}

impl FilePiece {
    fn length(&self) -> u64 {
        match self {
            FilePiece::Text(text) => text.len() as u64,
            FilePiece::Part(part) => part.end - part.start,
        }
    }
}

/// Returns this range of a file. It fails if the file is shorter.
pub(crate) fn read(file: &File, part: Range<u64>) -> io::Result<Bytes> {
    let mut bytes = vec![
        0;
        (part.end - part.start)
            .try_into()
            .map_err(io::Error::other)?
    ];
    read_exact_at(file, &mut bytes, part.start)?;
    Ok(bytes.into())
}

#[cfg(unix)]
fn read_exact_at(file: &File, bytes: &mut [u8], at: u64) -> io::Result<()> {
    std::os::unix::fs::FileExt::read_exact_at(file, bytes, at)
}

#[cfg(not(unix))]
fn read_exact_at(mut file: &File, bytes: &mut [u8], at: u64) -> io::Result<()> {
    use std::io::{Read as _, Seek as _, SeekFrom};
    file.seek(SeekFrom::Start(at))?;
    file.read_exact(bytes)
}
