//! A note in each generation: from which batch on its journal must not be believed.
//!
//! It is written in place, by a descriptor that is open since the generation was made, so that
//! neither a full disk nor a lack of descriptors is in its way.

use std::{
    fs::{File, OpenOptions},
    io,
    os::unix::fs::FileExt as _,
    path::Path,
};

const NAME: &str = "doubt";
const BYTES: usize = 16;

/// The note of an open generation.
pub(crate) struct Doubt(File);

impl Doubt {
    /// Makes the file of a new generation, with nothing in doubt.
    pub(crate) fn create(generation: &Path) -> io::Result<Doubt> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .open(generation.join(NAME))?;
        file.write_all_at(&[0; BYTES], 0)?;
        file.sync_all()?;
        Ok(Doubt(file))
    }

    /// The note, and the sequence number of the first batch in doubt, if there is one.
    pub(crate) fn open(generation: &Path) -> io::Result<(Doubt, Option<u64>)> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .open(generation.join(NAME))?;
        let mut bytes = [0; BYTES];
        file.read_exact_at(&mut bytes, 0)?;
        match decode(bytes) {
            Some(from) => Ok((Doubt(file), from)),
            None => Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!("its file {NAME:?} can't be read"),
            )),
        }
    }

    /// Batches from this number on have been refused. Durable when it returns.
    pub(crate) fn set(&self, from: u64) -> io::Result<()> {
        self.0.write_all_at(&encode(from), 0)?;
        self.0.sync_data()
    }
}

/// The number, and its complement: sixteen zeros are never a number.
fn encode(from: u64) -> [u8; BYTES] {
    let mut bytes = [0; BYTES];
    bytes[..8].copy_from_slice(&from.to_be_bytes());
    bytes[8..].copy_from_slice(&(!from).to_be_bytes());
    bytes
}

/// None if it is not what [`encode`] made, nor zeros.
fn decode(bytes: [u8; BYTES]) -> Option<Option<u64>> {
    if bytes == [0; BYTES] {
        return Some(None);
    }
    let from = u64::from_be_bytes(*bytes.first_chunk()?);
    (encode(from) == bytes).then_some(Some(from))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_written_note_is_parsed() {
        let dir = tempfile::tempdir().unwrap();
        let doubt = Doubt::create(dir.path()).unwrap();
        assert_eq!(Doubt::open(dir.path()).unwrap().1, None);
        for from in [0, 1, 77, u64::MAX] {
            doubt.set(from).unwrap();
            assert_eq!(Doubt::open(dir.path()).unwrap().1, Some(from));
        }
        std::fs::write(dir.path().join(NAME), [1; BYTES]).unwrap();
        assert!(Doubt::open(dir.path()).is_err());
    }
}
