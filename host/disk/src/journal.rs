//! The store's journals, as far as this host has to know them: where a batch begins, and its sequence number.
//!
//! After a failed write or fsync, a journal may hold the whole of a batch that was refused: the kernel keeps what was written, and
//! the store would replay it. So everything from the first refused batch on is cut off before the store reads the file.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, BufRead, BufReader, ErrorKind, Read},
    path::Path,
};

const START: u8 = 1;
const ITEM: u8 = 2;
const END: u8 = 3;
const CLEAR: u8 = 4;
/// Checksum and trailer.
const END_BYTES: u64 = 8 + 4;
/// Number of a table.
const CLEAR_BYTES: u64 = 8;

/// Cuts each journal of a closed generation before its first batch whose sequence number is `from` or higher. Durable when it returns.
pub(crate) fn cut(generation: &Path, from: u64) -> io::Result<()> {
    for entry in fs::read_dir(generation)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "jnl") {
            let file = OpenOptions::new().read(true).write(true).open(&path)?;
            if let Some(position) = find(BufReader::new(&file), from)? {
                file.set_len(position)?;
            }
            file.sync_all()?;
        }
    }
    sync(generation)
}

/// Bytes that the journals of a generation take on the disk.
pub(crate) fn allocated_bytes(generation: &Path) -> io::Result<u64> {
    use std::os::unix::fs::MetadataExt as _;
    let mut bytes = 0;
    for entry in fs::read_dir(generation)? {
        let entry = entry?;
        if Path::new(&entry.file_name()).extension().is_some_and(|extension| extension == "jnl") {
            bytes += entry.metadata()?.blocks() * 512;
        }
    }
    Ok(bytes)
}

fn sync(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

/// Position of the first batch whose sequence number is `from` or higher; none if there is no such batch before the end, or before
/// bytes that are no journal: the store stops there, too.
fn find(mut journal: impl BufRead, from: u64) -> io::Result<Option<u64>> {
    let mut position = 0;
    loop {
        let read = read_entry(&mut journal);
        match read {
            Ok(Some(Entry { sequence: Some(sequence), .. })) if sequence >= from => return Ok(Some(position)),
            Ok(Some(Entry { bytes, .. })) => position += bytes,
            Ok(None) => return Ok(None),
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(None),
            Err(error) => return Err(error),
        }
    }
}

struct Entry {
    /// Sequence number of the batch that begins with this entry, if one does.
    sequence: Option<u64>,
    /// Length of the entry.
    bytes: u64,
}

/// None if there is no entry.
fn read_entry(journal: &mut impl Read) -> io::Result<Option<Entry>> {
    let [tag] = read(journal)?;
    let entry = match tag {
        START => {
            let _count: [u8; 4] = read(journal)?;
            Entry { sequence: Some(u64::from_le_bytes(read(journal)?)), bytes: 1 + 4 + 8 }
        }
        ITEM => {
            let [_kind, _compression]: [u8; 2] = read(journal)?;
            let _table: [u8; 8] = read(journal)?;
            let key = u16::from_le_bytes(read(journal)?);
            let _value: [u8; 4] = read(journal)?;
            let value = u32::from_le_bytes(read(journal)?);
            let content = u64::from(key) + u64::from(value);
            skip(journal, content)?;
            Entry { sequence: None, bytes: 1 + 2 + 8 + 2 + 4 + 4 + content }
        }
        END => {
            skip(journal, END_BYTES)?;
            Entry { sequence: None, bytes: 1 + END_BYTES }
        }
        CLEAR => {
            skip(journal, CLEAR_BYTES)?;
            Entry { sequence: None, bytes: 1 + CLEAR_BYTES }
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

    /// Reads journals that the store itself wrote: a version of it that writes another format fails here.
    #[test]
    fn a_cut_takes_the_batches_from_a_number_on_and_leaves_those_before_it() {
        let place = tempfile::tempdir().unwrap();
        let origin = place.path().join("origin");
        let store = Database::builder(&origin).open().unwrap();
        let table = store.keyspace("table", KeyspaceCreateOptions::default).unwrap();
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
            let copy = place.path().join(kept.to_string());
            copy_all(&origin, &copy);
            cut(&copy, *from).unwrap();
            let store = Database::builder(&copy).open().unwrap();
            let table = store.keyspace("table", KeyspaceCreateOptions::default).unwrap();
            assert_eq!(table.iter().count(), 2 * kept, "cut at {from}");
        }
    }

    #[test]
    fn bytes_that_are_no_journal_end_it() {
        let start = |sequence: u64| [&[START, 1, 0, 0, 0][..], &sequence.to_le_bytes()].concat();
        let end = [&[END][..], &[0; 12]].concat();
        let whole = [start(7), end.clone(), start(8), end].concat();
        let cases = [(7, Some(0)), (8, Some(26)), (9, None)];
        for (from, expected) in cases {
            assert_eq!(find(&whole[..], from).unwrap(), expected);
            assert_eq!(find(&[&whole[..], &[0; 100]].concat()[..], from).unwrap(), expected);
        }
        assert_eq!(find(&[&[0][..], &whole].concat()[..], 7).unwrap(), None);
        assert!((0..26).all(|length| find(&whole[..length], 8).unwrap().is_none()));
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
