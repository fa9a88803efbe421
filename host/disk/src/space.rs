//! The free space of the disk, and its users.
//!
//! The store's own threads flush and merge without asking for space, and end with their first
//! error. So commits ask for them: a commit is refused unless there is space for it and for what
//! the store has yet to flush and may merge, or at least a reserve. Another generation of the
//! store, which gives back more than it takes, may use most of that.
//!
//! On a small disk a commit also leaves space for a copy of all tables. Merges do not give back the
//! space of deleted entries as long as the levels of a table are below their targets, so only a
//! copy does. Commits that only delete may use the reserve: they are what makes the copy smaller.

use std::{fs::File, io, path::Path};
use tidegate_hub::EngineError;

/// Free space below which commits are refused. On a small disk an eighth of it is enough.
const RESERVE_BYTES: u64 = 64 << 20;
/// A disk below this size has its journals rewritten early, since full-grown ones would fill it,
/// and keeps space for a copy.
const SMALL_BYTES: u64 = 1 << 30;
/// On a small disk, one part in this many is the reserve, and as much is written before the
/// journals are rewritten.
const PARTS: u64 = 8;
/// A copy, and commits that only delete, leave one part in this many of the reserve free.
const RESERVE_PARTS: u64 = 4;
/// Bytes of a table's latest writes that are kept in memory before they are flushed, and size of
/// the files of a table: one part in
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

/// Bytes that the store takes, or may take by itself.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Usage {
    /// Bytes of the tables' files.
    pub(crate) tables: u64,
    /// Bytes of writes that are not in tables yet.
    pub(crate) unflushed: u64,
    /// Bytes that merges may take before they give back what they have merged.
    pub(crate) merging: u64,
}

/// Effect of a commit on the used space.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// It may take more.
    Write,
    /// It deletes, and writes nothing else.
    Delete,
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
        measured.check(measured.small_reserve() + bytes)
    }

    /// Refuses `bytes` bytes of files that give back space as soon as they are complete, if the
    /// disk lacks space for them.
    pub(crate) fn check_files(&self, bytes: u64) -> Result<(), EngineError> {
        self.measure()?.check(SMALL_FILES_BYTES + bytes)
    }
}

impl Measured {
    /// Refuses a commit of so many bytes if it would leave less than the reserve, less than what
    /// the store has yet to flush and may merge, or, on a small disk, less than a copy takes. The
    /// bytes count twice: they stand in the journal and, for a while, in a table.
    pub(crate) fn check_commit(
        &self,
        bytes: u64,
        purpose: Purpose,
        usage: impl FnOnce() -> Usage,
    ) -> Result<(), EngineError> {
        if self.free >= PLENTY_BYTES + 2 * bytes {
            return Ok(());
        }
        let usage = usage();
        let reserve = match purpose {
            Purpose::Write => self.reserve(),
            Purpose::Delete => self.small_reserve(),
        };
        let needed = if self.is_small() {
            reserve + usage.unflushed + usage.tables
        } else {
            reserve.max(usage.unflushed + usage.merging)
        };
        self.check(needed + 2 * bytes)
    }

    /// Refuses a commit that only deletes, after all space was given back that could be, if there
    /// is no space to flush it.
    pub(crate) fn check_last_delete(&self, bytes: u64, usage: Usage) -> Result<(), EngineError> {
        let flushed = if self.is_small() {
            self.small_reserve() + usage.unflushed
        } else {
            self.small_reserve().max(usage.unflushed + usage.merging)
        };
        self.check(flushed + 2 * bytes)
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
        self.is_small().then_some(self.total / PARTS)
    }

    fn is_small(&self) -> bool {
        self.total < SMALL_BYTES
    }

    fn reserve(&self) -> u64 {
        RESERVE_BYTES.min(self.total / PARTS)
    }

    /// The part of the reserve that only flushes and merges may use.
    fn small_reserve(&self) -> u64 {
        self.reserve() / RESERVE_PARTS
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
    fn commits_leave_a_reserve_and_on_a_small_disk_space_for_a_copy() {
        use Purpose::{Delete, Write};
        const MIB: u64 = 1 << 20;
        let usage = |tables, unflushed, merging| Usage {
            tables: tables * MIB,
            unflushed: unflushed * MIB,
            merging: merging * MIB,
        };
        let cases = [
            // Bytes of the disk, least free bytes for a commit of this size and purpose.
            (1 << 40, 64 * MIB, 0, Write, usage(0, 0, 0)),
            (1 << 40, 64 * MIB, 0, Write, usage(100, 10, 50)),
            (1 << 40, 66 * MIB, MIB, Write, usage(0, 0, 0)),
            (1 << 40, 75 * MIB, MIB, Write, usage(1000, 23, 50)),
            (1 << 40, 16 * MIB, 0, Delete, usage(100, 0, 10)),
            (1 << 40, 73 * MIB, 0, Delete, usage(1000, 23, 50)),
            (80 * MIB, 10 * MIB, 0, Write, usage(0, 0, 0)),
            (80 * MIB, 37 * MIB, MIB, Write, usage(20, 5, 12)),
            (
                80 * MIB,
                25 * MIB + MIB * 5 / 2,
                0,
                Delete,
                usage(20, 5, 12),
            ),
        ];
        for (total, free, bytes, purpose, usage) in cases {
            let check = |free| Measured { free, total }.check_commit(bytes, purpose, || usage);
            assert!(check(free).is_ok(), "{purpose:?} {bytes} with {usage:?}");
            assert!(
                check(free - 1).is_err(),
                "{purpose:?} {bytes} with {usage:?}"
            );
        }
        let plenty = Measured {
            free: 3 << 30,
            total: 1 << 40,
        };
        let unread = plenty.check_commit(MIB, Write, || unreachable!("there is plenty"));
        assert!(unread.is_ok());
        let last = |free| {
            Measured {
                free,
                total: 80 * MIB,
            }
            .check_last_delete(0, usage(50, 5, 12))
        };
        assert!(last(5 * MIB + MIB * 5 / 2).is_ok());
        assert!(last(5 * MIB + MIB * 5 / 2 - 1).is_err());
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
