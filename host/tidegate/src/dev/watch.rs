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
    places: ProjectPaths,
    scan: Arc<RwLock<Scan>>,
    snapshot: Snapshot,
    /// Kinds of found changes that [`changes`](FileWatcher::changes) has not returned yet.
    changed: BTreeSet<FileKind>,
}

impl FileWatcher {
    /// Starts the watch. `changed` is called for each event that may change a file at these paths.
    pub(crate) fn new(
        places: ProjectPaths,
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
            places,
            scan,
            snapshot: Snapshot::default(),
            changed: BTreeSet::new(),
        };
        watch.snapshot = watch.read()?;
        Ok(watch)
    }

    /// Returns the kinds of the files whose content changed since the last call.
    pub(crate) fn changes(&mut self) -> Result<BTreeSet<FileKind>, CommandError> {
        self.follow(self.places.clone(), &[])?;
        Ok(mem::take(&mut self.changed))
    }

    pub(crate) fn places(&self) -> &ProjectPaths {
        &self.places
    }

    /// Watches other paths from now on. Files that only one set of paths contains are not changes,
    /// nor are files that the build wrote (`made`).
    pub(crate) fn follow(
        &mut self,
        places: ProjectPaths,
        made: &[PathBuf],
    ) -> Result<(), CommandError> {
        let before = mem::replace(&mut self.places, places);
        let next = self.read()?;
        self.changed
            .extend(self.snapshot.changes(&next, &before.scan(), made));
        self.snapshot = next;
        Ok(())
    }

    /// Watches all folders, then reads the files.
    fn read(&mut self) -> Result<Snapshot, CommandError> {
        let mut scan = self.places.scan();
        for _ in 0..SCANS_MAX {
            *self.scan.write().unwrap_or_else(PoisonError::into_inner) = scan.clone();
            self.watch(scan.watched())?;
            let next = self.places.scan();
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
mod tests {
    use super::{super::tree::Sources, *};
    use std::{
        fs::{self, Permissions},
        os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink},
        path::Path,
        sync::mpsc,
        time::{Duration, Instant, SystemTime},
    };
    use tempfile::TempDir;

    /// For an event that will come.
    const PATIENCE: Duration = Duration::from_secs(60);

    /// A project in `app`, with a path dependency in `lib`, and other folders.
    struct Fixture {
        place: TempDir,
        watch: FileWatcher,
        events: mpsc::Receiver<()>,
    }

    fn write(place: &Path, file: &str, text: &str) {
        let file = place.join(file);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, text).unwrap();
    }

    fn places(place: &Path) -> ProjectPaths {
        let path = |path: &str| place.join(path);
        let log = path("app/said.txt").metadata().unwrap();
        ProjectPaths {
            sources: Sources {
                packages: [path("app"), path("lib"), path("later/lib")].into(),
                files: [
                    "app/.cargo/config.toml",
                    "app/Cargo.lock",
                    "read/by/compiler.txt",
                    "app/assets/index.html",
                    "app/out/made.rs",
                ]
                .map(path)
                .into(),
            },
            settings: path("app/src/../../settings/dev.toml"),
            assets: Some(path("app/assets")),
            written: ["app/out", "app/data", "app/src/uploads"].map(path).into(),
            logs: vec![(log.dev(), log.ino())],
        }
    }

    /// Writes all files of a project, with links.
    fn write_project(root: &Path) {
        for file in [
            "app/Cargo.toml",
            "app/Cargo.lock",
            "app/src/lib.rs",
            "lib/src/lib.rs",
            "settings/dev.toml",
            "read/by/compiler.txt",
        ] {
            write(root, file, "first");
        }
        for file in [
            "app/assets/style.css",
            "app/assets/index.html",
            "linked/file.rs",
            "linked/folder/a.rs",
            "app/said.txt",
        ] {
            write(root, file, "first");
        }
        symlink("../../linked/file.rs", root.join("app/src/linked.rs")).unwrap();
        symlink(root.join("linked/folder"), root.join("app/src/folder")).unwrap();
    }

    impl Fixture {
        fn new() -> Fixture {
            let place = tempfile::tempdir().unwrap();
            write_project(place.path());
            let (tell, events) = mpsc::channel();
            let watch = FileWatcher::new(places(place.path()), move || _ = tell.send(()))
                .unwrap_or_else(|failure| panic!("{failure}"));
            Fixture {
                place,
                watch,
                events,
            }
        }

        fn changes(&mut self) -> BTreeSet<FileKind> {
            self.watch
                .changes()
                .unwrap_or_else(|failure| panic!("{failure}"))
        }

        /// Looks at the files after each event until all of these kinds were seen.
        fn sees(&mut self, kinds: &[FileKind], what: &str) {
            let (wanted, mut seen) = (
                kinds.iter().copied().collect::<BTreeSet<_>>(),
                BTreeSet::new(),
            );
            let end = Instant::now() + PATIENCE;
            while !seen.is_superset(&wanted) {
                let left = end.saturating_duration_since(Instant::now());
                self.events
                    .recv_timeout(left)
                    .unwrap_or_else(|_| panic!("{what}: {seen:?}, not {wanted:?}"));
                seen.extend(self.changes());
            }
            assert_eq!(seen, wanted, "{what}");
        }
    }

    /// Words for what is done, the kinds of change that it is, and how it is done.
    type Case = (&'static str, &'static [FileKind], fn(&Path));

    const CHANGES: [Case; 34] = [
        ("a source is written", &[FileKind::Source], |place| {
            write(place, "app/src/lib.rs", "other")
        }),
        (
            "a source is written again, as long as before",
            &[FileKind::Source],
            |place| write(place, "app/src/lib.rs", "OTHER"),
        ),
        ("a source is new", &[FileKind::Source], |place| {
            write(place, "app/src/new.rs", "")
        }),
        ("a source is removed", &[FileKind::Source], |place| {
            fs::remove_file(place.join("app/src/new.rs")).unwrap()
        }),
        ("a folder is new", &[FileKind::Source], |place| {
            write(place, "app/templates/deep/a.html", "a")
        }),
        (
            "a file of a new folder is written",
            &[FileKind::Source],
            |place| write(place, "app/templates/deep/a.html", "b"),
        ),
        (
            "a file is renamed over a source",
            &[FileKind::Source],
            |place| {
                write(place, "app/src/.lib.rs.1234", "by an editor");
                fs::rename(
                    place.join("app/src/.lib.rs.1234"),
                    place.join("app/src/lib.rs"),
                )
                .unwrap();
            },
        ),
        (
            "a folder is removed and made again",
            &[FileKind::Source],
            |place| {
                fs::remove_dir_all(place.join("app/templates")).unwrap();
                write(place, "app/templates/deep/a.html", "c");
            },
        ),
        (
            "a file of a folder that was made again is written",
            &[FileKind::Source],
            |place| write(place, "app/templates/deep/a.html", "d"),
        ),
        (
            "a folder takes the place of another",
            &[FileKind::Source],
            |place| {
                write(place, "next/deep/a.html", "e");
                fs::rename(place.join("app/templates"), place.join("before")).unwrap();
                fs::rename(place.join("next"), place.join("app/templates")).unwrap();
            },
        ),
        (
            "a file of that folder is written",
            &[FileKind::Source],
            |place| write(place, "app/templates/deep/a.html", "f"),
        ),
        ("a folder is removed", &[FileKind::Source], |place| {
            fs::remove_dir_all(place.join("app/templates")).unwrap()
        }),
        (
            "a hidden file that is listed is new",
            &[FileKind::Source],
            |place| write(place, "app/.cargo/config.toml", "[build]"),
        ),
        (
            "a path dependency is written",
            &[FileKind::Source],
            |place| write(place, "lib/src/lib.rs", "other"),
        ),
        (
            "a path dependency is removed",
            &[FileKind::Source],
            |place| fs::remove_dir_all(place.join("lib")).unwrap(),
        ),
        (
            "a path dependency comes back",
            &[FileKind::Source],
            |place| write(place, "lib/src/lib.rs", "third"),
        ),
        (
            "a path dependency is written after that",
            &[FileKind::Source],
            |place| write(place, "lib/src/lib.rs", "fourth"),
        ),
        (
            "a path dependency comes that was not there",
            &[FileKind::Source],
            |place| write(place, "later/lib/src/lib.rs", ""),
        ),
        (
            "a file that the compiler read is written",
            &[FileKind::Source],
            |place| write(place, "read/by/compiler.txt", "other"),
        ),
        ("its folders are removed", &[FileKind::Source], |place| {
            fs::remove_dir_all(place.join("read")).unwrap()
        }),
        ("its folders come back", &[FileKind::Source], |place| {
            write(place, "read/by/compiler.txt", "third")
        }),
        (
            "the target of a link is written",
            &[FileKind::Source],
            |place| write(place, "linked/file.rs", "other"),
        ),
        (
            "the target of a link is replaced",
            &[FileKind::Source],
            |place| {
                write(place, "linked/next.rs", "third");
                fs::rename(place.join("linked/next.rs"), place.join("linked/file.rs")).unwrap();
            },
        ),
        ("a link is replaced", &[FileKind::Source], |place| {
            write(place, "linked/elsewhere/file.rs", "fourth");
            fs::remove_file(place.join("app/src/linked.rs")).unwrap();
            symlink(
                place.join("linked/elsewhere/file.rs"),
                place.join("app/src/linked.rs"),
            )
            .unwrap();
        }),
        (
            "the target of that link is written",
            &[FileKind::Source],
            |place| write(place, "linked/elsewhere/file.rs", "fifth"),
        ),
        (
            "a file in a linked folder is written",
            &[FileKind::Source],
            |place| write(place, "linked/folder/a.rs", "other"),
        ),
        (
            "a file in a linked folder is new",
            &[FileKind::Source],
            |place| write(place, "linked/folder/deep/b.rs", ""),
        ),
        ("the settings are written", &[FileKind::Config], |place| {
            write(place, "settings/dev.toml", "[app]")
        }),
        (
            "the folder of the settings is removed",
            &[FileKind::Config],
            |place| fs::remove_dir_all(place.join("settings")).unwrap(),
        ),
        ("the settings come back", &[FileKind::Config], |place| {
            write(place, "settings/dev.toml", "[server]")
        }),
        ("a style is written", &[FileKind::Style], |place| {
            write(place, "app/assets/style.css", "p {}")
        }),
        ("an asset is new", &[FileKind::Asset], |place| {
            write(place, "app/assets/.well-known/x.log", "")
        }),
        (
            "an asset that the compiler read is written",
            &[FileKind::Source, FileKind::Asset],
            |place| write(place, "app/assets/index.html", "other"),
        ),
        (
            "the assets are removed and made again",
            &[FileKind::Style, FileKind::Asset],
            |place| {
                fs::remove_dir_all(place.join("app/assets")).unwrap();
                write(place, "app/assets/index.html", "other");
            },
        ),
    ];

    #[test]
    fn each_change_of_a_file_is_seen_wherever_it_is() {
        let mut scene = Fixture::new();
        assert_eq!(scene.changes(), [].into(), "files that were there before");
        for (what, kinds, act) in CHANGES {
            act(scene.place.path());
            scene.sees(kinds, what);
        }
    }

    /// A name that is swapped, such as that of the current release, is often not that of the project
    /// itself.
    #[test]
    fn a_replaced_parent_folder_is_seen() {
        let outer = tempfile::tempdir().unwrap();
        let (above, aside) = (outer.path().join("above"), outer.path().join("aside"));
        let place = above.join("between");
        write_project(&place);
        let (tell, events) = mpsc::channel();
        let watch = FileWatcher::new(places(&place), move || _ = tell.send(()))
            .unwrap_or_else(|failure| panic!("{failure}"));
        let mut scene = Fixture {
            place: outer,
            watch,
            events,
        };
        let other = scene.place.path().join("other");
        write_project(&other.join("between"));
        write(&other, "between/app/src/lib.rs", "other");
        fs::rename(&above, &aside).unwrap();
        fs::rename(&other, &above).unwrap();
        scene.sees(&[FileKind::Source], "another folder of this name");
        write(&place, "app/src/lib.rs", "again");
        scene.sees(&[FileKind::Source], "a file in the other folder");
    }

    type NoChange = (&'static str, fn(&Path));

    const NO_CHANGES: [NoChange; 26] = [
        ("the mode changes", |place| {
            fs::set_permissions(place.join("app/src/lib.rs"), Permissions::from_mode(0o600))
                .unwrap()
        }),
        ("the same is written", |place| {
            write(place, "app/src/lib.rs", "first")
        }),
        ("the times change", |place| {
            let file = fs::File::options()
                .append(true)
                .open(place.join("app/src/lib.rs"))
                .unwrap();
            file.set_modified(SystemTime::UNIX_EPOCH).unwrap();
        }),
        ("a file is another for a moment", |place| {
            write(place, "app/src/lib.rs", "other");
            write(place, "app/src/lib.rs", "first");
        }),
        ("a file comes and goes", |place| {
            write(place, "app/src/new.rs", "");
            fs::remove_file(place.join("app/src/new.rs")).unwrap();
        }),
        ("a folder goes and comes back", |place| {
            fs::rename(place.join("app/src"), place.join("app/elsewhere")).unwrap();
            fs::rename(place.join("app/elsewhere"), place.join("app/src")).unwrap();
        }),
        ("a folder is empty", |place| {
            fs::create_dir_all(place.join("app/empty/deep")).unwrap()
        }),
        ("Vim tries to write", |place| {
            write(place, "app/src/4913", "")
        }),
        ("Vim tries another number", |place| {
            write(place, "app/src/5036", "")
        }),
        ("Vim swaps", |place| {
            write(place, "app/src/.lib.rs.swp", "b0VIM")
        }),
        ("an editor keeps the file before", |place| {
            write(place, "app/src/lib.rs~", "before")
        }),
        ("Emacs saves", |place| {
            write(place, "app/src/#lib.rs#", "half")
        }),
        ("Emacs locks", |place| {
            symlink("me@here.1", place.join("app/src/.#lib.rs")).unwrap()
        }),
        ("JetBrains writes", |place| {
            write(place, "app/src/lib.rs___jb_tmp___", "half")
        }),
        ("JetBrains keeps", |place| {
            write(place, "app/assets/style.css___jb_old___", "before")
        }),
        ("Cargo builds", |place| {
            write(place, "app/target/debug/build.rs", "made")
        }),
        ("Cargo builds elsewhere", |place| {
            write(
                place,
                "app/crates/x/build-here/CACHEDIR.TAG",
                "Signature: 8a477f597d28d172789f06886806bc55",
            );
            write(place, "app/crates/x/build-here/debug/build.rs", "made");
        }),
        ("Cargo builds where it is set to", |place| {
            write(place, "app/out/made.rs", "made")
        }),
        ("a room writes", |place| {
            write(place, "app/data/0.jnl", "data")
        }),
        ("the app writes", |place| {
            write(place, "app/src/uploads/deep/a.rs", "data")
        }),
        ("the host logs", |place| {
            write(place, "app/said.txt", "listening")
        }),
        ("the app logs", |place| write(place, "app/dev.log", "line")),
        ("logs are rotated", |place| {
            write(place, "app/logs/dev.log.1", "line")
        }),
        ("npm installs", |place| {
            write(place, "app/node_modules/x/index.js", "x")
        }),
        ("git commits", |place| write(place, "app/.git/index", "x")),
        ("a program writes next to other files", |place| {
            write(place, "settings/other.toml", "x");
            write(place, "read/by/none.txt", "x");
            write(place, "linked/other.rs", "x");
            write(place, "beside/lib.rs", "x");
        }),
    ];

    #[test]
    fn nothing_else_is_a_change() {
        let mut scene = Fixture::new();
        for (index, (what, act)) in NO_CHANGES.into_iter().enumerate() {
            act(scene.place.path());
            // The kind of this one is another: if the files have changed, they have before it.
            write(
                scene.place.path(),
                "app/assets/style.css",
                &format!("p {{ order: {index} }}"),
            );
            scene.sees(&[FileKind::Style], what);
        }
    }

    #[test]
    fn ignored_files_are_sources_only_if_the_compiler_reads_them() {
        let mut scene = Fixture::new();
        let place = scene.place.path().to_owned();
        write(&place, "app/.gitignore", "/scratch\n*.gen.rs\n/assets\n");
        write(&place, "app/scratch/a.rs", "x");
        write(&place, "app/src/a.gen.rs", "x");
        write(&place, "app/assets/style.css", "p {}");
        scene.sees(&[FileKind::Style], "files that are ignored");
        let mut places = places(&place);
        places.sources.files.insert(place.join("app/src/a.gen.rs"));
        scene
            .watch
            .follow(places, &[])
            .unwrap_or_else(|failure| panic!("{failure}"));
        assert_eq!(scene.changes(), [].into(), "a file that was there");
        write(&place, "app/src/a.gen.rs", "y");
        scene.sees(&[FileKind::Source], "a file that the compiler read");
    }

    #[test]
    fn files_that_a_build_writes_are_no_change() {
        let mut scene = Fixture::new();
        let place = scene.place.path().to_owned();
        write(&place, "new/lib/src/lib.rs", "x");
        let mut after = places(&place);
        after.sources.packages.insert(place.join("new/lib"));
        after.sources.packages.remove(&place.join("lib"));
        let made = [place.join("app/Cargo.lock")];
        let mut follow = |text: &str, source: &str| {
            write(&place, "app/Cargo.lock", text);
            write(&place, "app/src/lib.rs", source);
            scene
                .watch
                .follow(after.clone(), &made)
                .unwrap_or_else(|failure| panic!("{failure}"));
            scene.changes()
        };
        assert_eq!(follow("made", "first"), [].into());
        assert_eq!(follow("made again", "other"), [FileKind::Source].into());
        write(&place, "new/lib/src/lib.rs", "y");
        scene.sees(&[FileKind::Source], "a new path dependency");
        write(&place, "app/Cargo.lock", "by hand");
        scene.sees(&[FileKind::Source], "the lock file between two builds");
    }
}
