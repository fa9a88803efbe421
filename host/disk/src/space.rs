//! How much space the disk has left, and who may use it.
//!
//! Commits leave a reserve, so that the store's own flushes don't meet a full disk; a copy of the store, which gives back more than it
//! takes, may use most of it.

use std::{fs::File, io, path::Path};
use tidegate_hub::EngineError;

/// Free space below which commits are refused. On a small disk an eighth of it is enough.
const RESERVE_BYTES: u64 = 64 << 20;
/// A disk below this size has its journals rewritten early: full-grown ones would fill it.
const SMALL_BYTES: u64 = 1 << 30;
/// On a small disk, one part in this many is the reserve, and as much is written before the journals are rewritten.
const PARTS: u64 = 8;
/// A copy leaves one part in this many of the reserve free.
const COPY_LEAVES: u64 = 4;

/// The disk that a directory is on.
pub(crate) struct Space(File);

/// Sizes in bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Measured {
    free: u64,
    total: u64,
}

impl Space {
    pub(crate) fn of(directory: &Path) -> io::Result<Space> {
        Ok(Space(File::open(directory)?))
    }

    pub(crate) fn measure(&self) -> Result<Measured, EngineError> {
        let space = rustix::fs::fstatvfs(&self.0).map_err(|error| EngineError::Io(error.to_string()))?;
        Ok(Measured { free: space.f_bavail * space.f_frsize, total: space.f_blocks * space.f_frsize })
    }

    /// Refuses a copy of the store that would use up the disk.
    pub(crate) fn check_copy(&self) -> Result<(), EngineError> {
        let measured = self.measure()?;
        measured.check(measured.reserve() / COPY_LEAVES)
    }
}

impl Measured {
    /// Refuses a commit of so many bytes if it would leave less than the reserve. They count twice: they stand in the journal and, for
    /// a while, in a table.
    pub(crate) fn check_commit(&self, bytes: u64) -> Result<(), EngineError> {
        self.check(self.reserve() + 2 * bytes)
    }

    /// Bytes of commits after which the journals of a small disk are rewritten; none for others.
    pub(crate) fn rewrite_after(&self) -> Option<u64> {
        (self.total < SMALL_BYTES).then_some(self.total / PARTS)
    }

    fn reserve(&self) -> u64 {
        RESERVE_BYTES.min(self.total / PARTS)
    }

    fn check(&self, needed: u64) -> Result<(), EngineError> {
        match self.free {
            free if free < needed => {
                Err(EngineError::Full(format!("{} MiB are free, {} are needed", free >> 20, needed.div_ceil(1 << 20))))
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commits_leave_a_reserve_that_is_a_part_of_a_small_disk() {
        const MIB: u64 = 1 << 20;
        let cases = [
            // total, free, bytes, is taken
            (1 << 40, 64 * MIB, 0, true),
            (1 << 40, 64 * MIB - 1, 0, false),
            (1 << 40, 66 * MIB, MIB, true),
            (1 << 40, 66 * MIB - 1, MIB, false),
            (80 * MIB, 10 * MIB, 0, true),
            (80 * MIB, 10 * MIB - 1, 0, false),
        ];
        for (total, free, bytes, taken) in cases {
            assert_eq!(Measured { free, total }.check_commit(bytes).is_ok(), taken, "{bytes} with {free} of {total}");
        }
        let rewrite_after = |total| Measured { free: 0, total }.rewrite_after();
        assert_eq!((rewrite_after(80 * MIB), rewrite_after(1 << 30)), (Some(10 * MIB), None));
    }
}
