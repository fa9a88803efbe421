//! Watches the files of a project, and finds the files that changed.
//!
//! Owner: `tidegate dev` has one [`FileWatcher`] in a mutex. `notify` runs the callback of each
//! event on a thread of its own, which shares only `scan` with the rest.
//!
//! State: the watched folders, the paths of the project, and a snapshot of the digests of all
//! files. An event only wakes the session; `changes` reads the files and compares the digests.
//!
//! Invariant: when `changes` returns, every folder that may hold a file of the project was watched
//! before the files were read. So a change after that read causes another event. Folders may appear
//! while others are being watched, so scan and watch repeat until a scan finds nothing new.
//!
//! `tree` decides which files belong to the project and which kind each has.

use super::tree::{FileKind, ProjectPaths, Scan, Snapshot};
use crate::command_error::CommandError;
use anyhow::Context as _;
use notify::{
    ErrorKind, EventKind, RecommendedWatcher, RecursiveMode, Watcher as _, event::ModifyKind,
};
use std::{
    collections::BTreeSet,
    mem,
    path::PathBuf,
    sync::{Arc, PoisonError, RwLock},
};

/// Number of repeated scans while folders appear. After the last one, an event of such a folder
/// triggers the next scan.
const SCANS_MAX: usize = 10;

/// Calls back when files may have changed, until it is dropped, and finds the changed files.
pub(crate) struct FileWatcher {
    watcher: RecommendedWatcher,
    watched: BTreeSet<PathBuf>,
    paths: ProjectPaths,
    scan: Arc<RwLock<Scan>>,
    snapshot: Snapshot,
    /// Kinds of found changes that [`changes`](FileWatcher::changes) has not returned yet.
    changed: BTreeSet<FileKind>,
}

impl FileWatcher {
    /// Starts the watch. `changed` is called for each event that may change a file at these paths.
    pub(crate) fn new(
        paths: ProjectPaths,
        changed: impl Fn() + Send + 'static,
    ) -> Result<FileWatcher, CommandError> {
        let scan = Arc::<RwLock<Scan>>::default();
        let concerned = scan.clone();
        let handle = move |event: notify::Result<notify::Event>| {
            let concerns = |event: &notify::Event| {
                let scan = concerned.read().unwrap_or_else(PoisonError::into_inner);
                event.need_rescan()
                    || may_change_content(&event.kind)
                        && event.paths.iter().any(|path| scan.concerns(path))
            };
            // After an error, such as a full queue, events may be missing.
            if event.as_ref().map_or(true, concerns) {
                changed();
            }
        };
        let watcher = notify::recommended_watcher(handle).context("can't watch files")?;
        let mut watch = FileWatcher {
            watcher,
            watched: BTreeSet::new(),
            paths,
            scan,
            snapshot: Snapshot::default(),
            changed: BTreeSet::new(),
        };
        watch.snapshot = watch.read()?;
        Ok(watch)
    }

    /// Returns the kinds of the files whose content changed since the last call.
    pub(crate) fn changes(&mut self) -> Result<BTreeSet<FileKind>, CommandError> {
        self.follow(self.paths.clone(), &[])?;
        Ok(mem::take(&mut self.changed))
    }

    pub(crate) fn paths(&self) -> &ProjectPaths {
        &self.paths
    }

    /// Watches other paths from now on. Files that only one set of paths contains are not changes,
    /// nor are files that the build wrote (`made`).
    pub(crate) fn follow(
        &mut self,
        paths: ProjectPaths,
        made: &[PathBuf],
    ) -> Result<(), CommandError> {
        let before = mem::replace(&mut self.paths, paths);
        let next = self.read()?;
        self.changed
            .extend(self.snapshot.changes(&next, &before.scan(), made));
        self.snapshot = next;
        Ok(())
    }

    /// Watches all folders, then reads the files.
    fn read(&mut self) -> Result<Snapshot, CommandError> {
        let mut scan = self.paths.scan();
        for _ in 0..SCANS_MAX {
            *self.scan.write().unwrap_or_else(PoisonError::into_inner) = scan.clone();
            self.watch(scan.watched())?;
            let next = self.paths.scan();
            if next == scan {
                break;
            }
            scan = next;
        }
        Ok(self.snapshot.next(&scan))
    }

    fn watch(&mut self, folders: BTreeSet<PathBuf>) -> Result<(), CommandError> {
        for gone in self.watched.difference(&folders) {
            // The watch of a removed folder may have ended already, so an error is ignored.
            _ = self.watcher.unwatch(gone);
        }
        // Each call watches all folders again: the watch of a replaced folder has ended.
        for folder in &folders {
            match self.watcher.watch(folder, RecursiveMode::NonRecursive) {
                Err(error) if matches!(error.kind, ErrorKind::MaxFilesWatch) => {
                    return Err(anyhow::anyhow!(
                        "can't watch {} folders: raise fs.inotify.max_user_watches (sysctl)",
                        folders.len()
                    )
                    .into());
                }
                // A folder that was removed since the scan, or can't be read, has no sources.
                Ok(()) | Err(_) => {}
            }
        }
        self.watched = folders;
        Ok(())
    }
}

/// False for reads, and for changes of modes and times.
fn may_change_content(kind: &EventKind) -> bool {
    !matches!(
        kind,
        EventKind::Access(_) | EventKind::Modify(ModifyKind::Metadata(_))
    )
}

#[cfg(test)]
mod tests;
