//! The free space of the disk, and its users.
//!
//! The store's own threads flush and merge without asking for space, and end with their first error. So commits ask for them: a commit
//! is refused unless there is space for it and for what the store has yet to flush and may merge, or at least a reserve. Another
//! generation of the store, which gives back more than it takes, may use most of that.

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
/// Bytes of a table's latest writes that are kept in memory before they are flushed, and size of the files of a table: one part in
/// `FILE_PARTS` of a small disk, so that a flush or a merge needs little space at a time.
pub(crate) const FILE_BYTES_MAX: u64 = 16 << 20;
const FILE_BYTES_MIN: u64 = 1 << 20;
const FILE_PARTS: u64 = 64;
/// Free space that the small files of a generation take at most.
const SMALL_FILES_BYTES: u64 = 512 << 10;
/// Free space with which a commit does not look at how much the store may flush and merge.
const PLENTY_BYTES: u64 = 2 << 30;

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
        let space =
            rustix::fs::fstatvfs(&self.0).map_err(|error| EngineError::Io(error.to_string()))?;
        Ok(Measured {
            free: space.f_bavail * space.f_frsize,
            total: space.f_blocks * space.f_frsize,
        })
    }

    /// Refuses a copy of the store that would use up the disk with its next `bytes` bytes.
    pub(crate) fn check_copy(&self, bytes: u64) -> Result<(), EngineError> {
        let measured = self.measure()?;
        measured.check(measured.reserve() / COPY_LEAVES + bytes)
    }

    /// Refuses `bytes` bytes of files that give back space as soon as they are complete, if the disk lacks space for them.
    pub(crate) fn check_files(&self, bytes: u64) -> Result<(), EngineError> {
        self.measure()?.check(SMALL_FILES_BYTES + bytes)
    }
}

impl Measured {
    /// Refuses a commit of so many bytes if it would leave less than the reserve, or less than `flushed` returns: the bytes that the store
    /// has yet to flush and may merge. The bytes count twice: they stand in the journal and, for a while, in a table.
    pub(crate) fn check_commit(
        &self,
        bytes: u64,
        flushed: impl FnOnce() -> u64,
    ) -> Result<(), EngineError> {
        if self.free >= PLENTY_BYTES + 2 * bytes {
            return Ok(());
        }
        self.check(self.reserve().max(flushed()) + 2 * bytes)
    }

    /// Size at which the store flushes a table's latest writes, and of the files of a table.
    pub(crate) fn file_bytes(&self) -> u64 {
        (self.total / FILE_PARTS).clamp(FILE_BYTES_MIN, FILE_BYTES_MAX)
    }

    pub(crate) fn free(&self) -> u64 {
        self.free
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
            free if free < needed => Err(EngineError::Full(format!(
                "{} MiB are free, {} are needed",
                free >> 20,
                needed.div_ceil(1 << 20)
            ))),
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
            // total, free, bytes, flushed, is taken
            (1 << 40, 64 * MIB, 0, 0, true),
            (1 << 40, 64 * MIB - 1, 0, 0, false),
            (1 << 40, 66 * MIB, MIB, 0, true),
            (1 << 40, 66 * MIB - 1, MIB, 0, false),
            (1 << 40, 75 * MIB, MIB, 73 * MIB, true),
            (1 << 40, 75 * MIB - 1, MIB, 73 * MIB, false),
            (1 << 40, 3 << 30, MIB, 3 << 30, true),
            (80 * MIB, 10 * MIB, 0, 0, true),
            (80 * MIB, 10 * MIB - 1, 0, 0, false),
        ];
        for (total, free, bytes, flushed, taken) in cases {
            let checked = Measured { free, total }.check_commit(bytes, || flushed);
            assert_eq!(
                checked.is_ok(),
                taken,
                "{bytes} and {flushed} with {free} of {total}"
            );
        }
        let file_bytes = |total| Measured { free: 0, total }.file_bytes();
        assert_eq!(
            (
                file_bytes(16 * MIB),
                file_bytes(128 * MIB),
                file_bytes(1 << 40)
            ),
            (MIB, 2 * MIB, 16 * MIB)
        );
        let rewrite_after = |total| Measured { free: 0, total }.rewrite_after();
        assert_eq!(
            (rewrite_after(80 * MIB), rewrite_after(1 << 30)),
            (Some(10 * MIB), None)
        );
    }
}
