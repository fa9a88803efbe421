//! Makes new generations: after a failure, and to give back space before a commit is refused.

use super::WriteLoop;
use crate::{
    clock,
    generation::{Generation, Journals, retire},
    guarded::guarded,
    journal,
    space::{Measured, Purpose},
};
use std::{fs, io, path::Path, sync::Arc, time::Duration};
use tidegate_hub::EngineError;

/// Bytes that must have been written before a rewrite can give back space that is worth it.
const REWRITE_BYTES_MIN: u64 = 4 << 20;
/// Pause after a rewrite, unless another one is likely to give back more.
const REWRITE_PAUSE: Duration = Duration::from_secs(2);
/// Times that tables are flushed and merged for one commit.
const GIVE_BACK_ROUNDS: usize = 3;

/// The last try to give back space.
#[derive(Clone, Copy)]
pub(super) struct Rewrite {
    /// Time of the next one, by [`clock::now`].
    pub(super) next: Duration,
    /// Free bytes after it.
    pub(super) free: u64,
    /// True if it gave back enough for the commit that it was made for.
    pub(super) was_enough: bool,
}

impl WriteLoop {
    /// Replaces a store whose own threads have failed. No batch has, so reads go on meanwhile, and
    /// also after an error.
    pub(super) fn replace_store(&mut self, error: &EngineError) -> Result<(), EngineError> {
        tracing::warn!("the store could not flush or merge its tables, and is replaced: {error}");
        self.renew(Journals::Below(u64::MAX))
    }

    /// Makes a new generation, by a copy if there is space for one.
    pub(super) fn renew(&mut self, journals: Journals) -> Result<(), EngineError> {
        let why = match self.copy() {
            Err(EngineError::Full(why)) => why,
            copied => return copied,
        };
        tracing::info!(
            "the storage keeps the files of its tables, since there is no space for a copy: {why}"
        );
        self.adopt(journals).map_err(|error| match error {
            EngineError::Full(_) => error,
            error => EngineError::Full(format!("{why}, and without a copy: {error}")),
        })
    }

    /// Makes a new generation by a copy of all rows.
    pub(super) fn copy(&mut self) -> Result<(), EngineError> {
        self.space.check_copy(
            self.generation.tables.bytes() + self.generation.tables.unflushed_bytes(),
        )?;
        self.replace(|work, path| {
            work.generation
                .copy(path, work.file_bytes, || {}, || work.space.check_copy(0))
        })
    }

    /// Makes a new generation from the files of the tables and new journals.
    pub(super) fn adopt(&mut self, journals: Journals) -> Result<(), EngineError> {
        let bytes = match journals {
            Journals::Below(_) => {
                guarded(|| Ok(journal::allocated_bytes(self.generation.path())?))?
            }
            Journals::Flushed => 0,
        };
        self.space.check_files(bytes)?;
        self.replace(|work, path| work.generation.adopt(path, work.file_bytes, journals))
    }

    /// Lets a new generation count. After an error the one before it still does, and is closed if
    /// it is not known which of the two would count after a crash.
    pub(super) fn replace(
        &mut self,
        make: impl FnOnce(&WriteLoop, &Path) -> Result<Generation, EngineError>,
    ) -> Result<(), EngineError> {
        let io = |error: io::Error| EngineError::Io(error.to_string());
        let (number, path) = self.directory.next().map_err(io)?;
        let next = make(self, &path).inspect_err(|_| _ = fs::remove_dir_all(&path))?;
        if let Err(error) = self.directory.set_current(number) {
            if self.closed.is_none() {
                // It is unknown which of the two generations the next start opens, and later
                // commits would be in only one of them.
                _ = self.close(
                    error.to_string(),
                    self.generation.tables.store.visible_seqno(),
                );
            }
            return Err(io(error));
        }
        self.written = guarded(|| Ok(journal::allocated_bytes(next.path())?)).unwrap_or(0);
        let before = std::mem::replace(&mut self.generation, Arc::new(next));
        self.shared.set(Ok(self.generation.clone()));
        retire(before);
        Ok(())
    }

    /// Refuses a commit of so many bytes if the disk lacks space for it, after journals and what
    /// was overwritten or deleted have given their space back.
    pub(super) fn make_space(&mut self, bytes: u64, purpose: Purpose) -> Result<(), EngineError> {
        let mut measured = self.space.measure()?;
        let mut checked = self.check_measured(measured, bytes, purpose);
        if checked.is_err() {
            // A merge takes space before it gives some back.
            _ = self.generation.tables.finish_merges();
            measured = self.space.measure()?;
            checked = self.check_measured(measured, bytes, purpose);
        }
        let is_due = match (&checked, measured.rewrite_after()) {
            (Err(_), _) => true,
            (Ok(()), Some(after)) => self.written >= after.max(REWRITE_BYTES_MIN),
            (Ok(()), None) => false,
        };
        if is_due && !self.is_rewrite_hopeless(measured.free()) {
            if let Err(error) = self.give_back(bytes, purpose) {
                tracing::debug!("the storage could give back no space: {error}");
            }
            measured = self.space.measure()?;
            checked = self.check_measured(measured, bytes, purpose);
            self.last_rewrite = Some(Rewrite {
                next: clock::now() + REWRITE_PAUSE,
                free: measured.free(),
                was_enough: checked.is_ok(),
            });
        }
        match (checked, purpose) {
            (Err(EngineError::Full(_)), Purpose::Delete) => self.check_last_delete(bytes),
            (checked, _) => checked,
        }
    }

    /// True if another rewrite would give back little or nothing: there is no more space than after
    /// the last one, which was not enough, or little was written since.
    pub(super) fn is_rewrite_hopeless(&self, free: u64) -> bool {
        self.last_rewrite.is_some_and(|last| {
            let is_as_before = if last.was_enough {
                self.written < self.file_bytes
            } else {
                free <= last.free
            };
            is_as_before && clock::now() < last.next
        })
    }

    pub(super) fn check_space(&self, bytes: u64, purpose: Purpose) -> Result<(), EngineError> {
        self.check_measured(self.space.measure()?, bytes, purpose)
    }

    pub(super) fn check_measured(
        &self,
        measured: Measured,
        bytes: u64,
        purpose: Purpose,
    ) -> Result<(), EngineError> {
        let usage = || self.generation.tables.usage(self.file_bytes);
        measured.check_commit(bytes, purpose, usage)
    }

    /// Refuses a commit that only deletes, if it has no space though all was given back that could
    /// be.
    pub(super) fn check_last_delete(&self, bytes: u64) -> Result<(), EngineError> {
        let usage = self.generation.tables.usage(self.file_bytes);
        self.space.measure()?.check_last_delete(bytes, usage)
    }

    /// Merges tables as long as there is space for it. If that fails, the store is replaced.
    pub(super) fn merge(&mut self) -> Result<(), EngineError> {
        let tables = &self.generation.tables;
        let has_space = || {
            self.space
                .measure()
                .is_ok_and(|measured| measured.free() >= tables.merging_bytes(self.file_bytes))
        };
        let Err(error) = tables.merge(has_space) else {
            return Ok(());
        };
        self.replace_store(&error)
    }

    /// Gives back the space of journals and of what was overwritten or deleted, until there is
    /// enough for a commit of so many bytes. If a thread of the store has failed, gives back what
    /// it has left.
    pub(super) fn give_back(&mut self, bytes: u64, purpose: Purpose) -> Result<(), EngineError> {
        if let Err(error) = self.generation.tables.wait_for_flushes() {
            return self.replace_store(&error);
        }
        // A copy has these entries, too.
        if let Err(error) = self.sweep_all_garbage() {
            self.check_open()?;
            tracing::debug!("some garbage is left: {error}");
        }
        match self.copy() {
            Err(EngineError::Full(_)) => {}
            copied => return copied,
        }
        for _ in 0..GIVE_BACK_ROUNDS {
            self.space
                .check_files(self.generation.tables.unflushed_bytes())?;
            if let Err(error) = self.generation.tables.flush() {
                return self.replace_store(&error);
            }
            self.adopt(Journals::Flushed)?;
            self.merge()?;
            if self.check_space(bytes, purpose).is_ok() {
                break;
            }
        }
        Ok(())
    }
}
