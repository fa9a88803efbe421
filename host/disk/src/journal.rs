//! The store's journals, as far as this host has to know them: where a batch begins, and its
//! sequence number.
//!
//! After a failed write or fsync, a journal may hold the whole of a batch that was refused: the
//! kernel keeps what was written, and the store would replay it. So everything from the first
//! refused batch on is cut off before the store reads the file.

use crate::directory::sync;
use std::{
    fs::{self, File, OpenOptions},
    io::{self, BufRead, BufReader, ErrorKind, Read, Seek as _, Write as _},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

const START: u8 = 1;
const ITEM: u8 = 2;
const END: u8 = 3;
const CLEAR: u8 = 4;
/// Checksum and trailer.
const END_BYTES: u64 = 8 + 4;
/// Number of a table.
const CLEAR_BYTES: u64 = 8;
/// Bytes that are copied at a time.
const COPY_BYTES: usize = 256 << 10;

/// Cuts each journal of a closed generation before its first batch whose sequence number is `from`
/// or higher. Durable when it returns.
pub(crate) fn cut(generation: &Path, from: u64) -> io::Result<()> {
    for path in paths(generation)? {
        let file = OpenOptions::new().read(true).write(true).open(&path)?;
        file.set_len(end(BufReader::new(&file), from)?)?;
        file.sync_all()?;
    }
    sync(generation)
}

/// Copies the complete batches of each journal whose sequence number is below `from` into new files
/// in `to`, with the same names. The files are synced; their directory is not.
///
/// A journal that the store removes meanwhile is left out: its batches are in tables.
pub(crate) fn copy(generation: &Path, to: &Path, from: u64) -> io::Result<()> {
    for path in paths(generation)? {
        let mut journal = match File::open(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            journal => journal?,
        };
        let bytes = end(BufReader::new(&journal), from)?;
        journal.rewind()?;
        let mut copy = File::create_new(to.join(path.file_name().unwrap_or_default()))?;
        write_all(journal.take(bytes), &mut copy)?;
        copy.sync_all()?;
    }
    Ok(())
}

/// As `io::copy`, which lets some file systems share the blocks of both files instead: then the
/// copy, too, might lack on the disk what the kernel shows.
fn write_all(mut from: impl Read, to: &mut File) -> io::Result<()> {
    let mut buffer = vec![0; COPY_BYTES];
    loop {
        match from.read(&mut buffer)? {
            0 => return Ok(()),
            bytes => to.write_all(&buffer[..bytes])?,
        }
    }
}

/// Makes one empty journal in `to`, for a generation whose tables contain every batch. Without any
/// journal, the store would count its sequence numbers from the start again.
pub(crate) fn create_empty(to: &Path) -> io::Result<()> {
    File::create_new(to.join("0.jnl"))?.sync_all()
}

/// Bytes that the journals of a generation take on the disk.
pub(crate) fn allocated_bytes(generation: &Path) -> io::Result<u64> {
    let mut bytes = 0;
    for path in paths(generation)? {
        match fs::metadata(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            metadata => bytes += metadata?.blocks() * 512,
        }
    }
    Ok(bytes)
}

fn paths(generation: &Path) -> io::Result<Vec<PathBuf>> {
    let paths = fs::read_dir(generation)?
        .map(|entry| Ok(entry?.path()))
        .collect::<io::Result<Vec<_>>>()?;
    Ok(paths
        .into_iter()
        .filter(|path| path.extension().is_some_and(|extension| extension == "jnl"))
        .collect())
}

/// Position after the last complete batch that stands before the first one whose sequence number is
/// `from` or higher, and before the first bytes that are no journal: the store stops there, too.
fn end(mut journal: impl BufRead, from: u64) -> io::Result<u64> {
    let (mut position, mut complete) = (0, 0);
    loop {
        match read_entry(&mut journal) {
            Ok(Some(JournalEntry {
                sequence: Some(sequence),
                ..
            })) if sequence >= from => return Ok(complete),
            Ok(Some(JournalEntry { bytes, ends, .. })) => {
                position += bytes;
                if ends {
                    complete = position;
                }
            }
            Ok(None) => return Ok(complete),
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(complete),
            Err(error) => return Err(error),
        }
    }
}

/// The head of an entry in a journal of the store.
struct JournalEntry {
    /// Sequence number of the batch that begins with this entry, if one does.
    sequence: Option<u64>,
    /// Length of the entry.
    bytes: u64,
    /// True if a batch ends with this entry.
    ends: bool,
}

/// None if there is no entry.
fn read_entry(journal: &mut impl Read) -> io::Result<Option<JournalEntry>> {
    let [tag] = read(journal)?;
    let entry = match tag {
        START => {
            let _count: [u8; 4] = read(journal)?;
            JournalEntry {
                sequence: Some(u64::from_le_bytes(read(journal)?)),
                bytes: 1 + 4 + 8,
                ends: false,
            }
        }
        ITEM => {
            let [_kind, _compression]: [u8; 2] = read(journal)?;
            let _table: [u8; 8] = read(journal)?;
            let key = u16::from_le_bytes(read(journal)?);
            let _value: [u8; 4] = read(journal)?;
            let value = u32::from_le_bytes(read(journal)?);
            let content = u64::from(key) + u64::from(value);
            skip(journal, content)?;
            JournalEntry {
                sequence: None,
                bytes: 1 + 2 + 8 + 2 + 4 + 4 + content,
                ends: false,
            }
        }
        END => {
            skip(journal, END_BYTES)?;
            JournalEntry {
                sequence: None,
                bytes: 1 + END_BYTES,
                ends: true,
            }
        }
        CLEAR => {
            skip(journal, CLEAR_BYTES)?;
            JournalEntry {
                sequence: None,
                bytes: 1 + CLEAR_BYTES,
                ends: false,
            }
        }
        _ => return Ok(None),
    };
    Ok(Some(entry))
}

fn read<const N: usize>(journal: &mut impl Read) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    journal.read_exact(&mut bytes)?;
    Ok(bytes)
}

fn skip(journal: &mut impl Read, bytes: u64) -> io::Result<()> {
    match io::copy(&mut journal.take(bytes), &mut io::sink())? {
        skipped if skipped == bytes => Ok(()),
        _ => Err(ErrorKind::UnexpectedEof.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fjall::{Database, KeyspaceCreateOptions, PersistMode};

    /// Reads journals that the store itself wrote: a version of it that writes another format fails
    /// here.
    #[test]
    fn a_cut_removes_the_batches_from_a_number_on() {
        let dir = tempfile::tempdir().unwrap();
        let origin = dir.path().join("origin");
        let store = Database::builder(&origin).open().unwrap();
        let table = store
            .keyspace("table", KeyspaceCreateOptions::default)
            .unwrap();
        let mut before = Vec::new();
        for number in 0..20_u8 {
            before.push(store.visible_seqno());
            let mut batch = store.batch().durability(Some(PersistMode::SyncAll));
            batch.insert(&table, [number], vec![number; 3000]);
            batch.insert(&table, [number, 1], "");
            batch.commit().unwrap();
        }
        drop((table, store));
        for (kept, from) in before.iter().enumerate() {
            let copy = dir.path().join(kept.to_string());
            copy_all(&origin, &copy);
            let rewritten = dir.path().join(format!("{kept} rewritten"));
            copy_all(&origin, &rewritten);
            paths(&rewritten)
                .unwrap()
                .iter()
                .for_each(|path| fs::remove_file(path).unwrap());
            super::copy(&copy, &rewritten, *from).unwrap();
            cut(&copy, *from).unwrap();
            for copy in [copy, rewritten] {
                let store = Database::builder(&copy).open().unwrap();
                let table = store
                    .keyspace("table", KeyspaceCreateOptions::default)
                    .unwrap();
                assert_eq!(table.iter().count(), 2 * kept, "cut at {from} in {copy:?}");
            }
        }
    }

    #[test]
    fn a_journal_ends_after_its_last_complete_batch() {
        let start = |sequence: u64| [&[START, 1, 0, 0, 0][..], &sequence.to_le_bytes()].concat();
        let last = [&[END][..], &[0; 12]].concat();
        let whole = [start(7), last.clone(), start(8), last].concat();
        let cases = [(7, 0), (8, 26), (9, 52), (u64::MAX, 52)];
        for (from, expected) in cases {
            assert_eq!(end(&whole[..], from).unwrap(), expected);
            assert_eq!(
                end(&[&whole[..], &[0; 100]].concat()[..], from).unwrap(),
                expected
            );
        }
        assert_eq!(end(&[&[0][..], &whole].concat()[..], 7).unwrap(), 0);
        for length in 0..whole.len() {
            assert_eq!(
                end(&whole[..length], 9).unwrap(),
                if length < 26 { 0 } else { 26 },
                "of {length} bytes"
            );
        }
    }

    fn copy_all(from: &Path, to: &Path) {
        fs::create_dir_all(to).unwrap();
        for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
            let target = to.join(entry.file_name());
            match entry.file_type().unwrap().is_dir() {
                true => copy_all(&entry.path(), &target),
                false => _ = fs::copy(entry.path(), target).unwrap(),
            }
        }
    }
}
