//! Tests of the file watcher: each kind of change, and events that are no change.

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
    root: TempDir,
    watch: FileWatcher,
    events: mpsc::Receiver<()>,
}

fn write(root: &Path, file: &str, text: &str) {
    let file = root.join(file);
    fs::create_dir_all(file.parent().unwrap()).unwrap();
    fs::write(file, text).unwrap();
}

fn paths(root: &Path) -> ProjectPaths {
    let path = |path: &str| root.join(path);
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
        let root = tempfile::tempdir().unwrap();
        write_project(root.path());
        let (changed, events) = mpsc::channel();
        let watch = FileWatcher::new(paths(root.path()), move || _ = changed.send(()))
            .unwrap_or_else(|failure| panic!("{failure}"));
        Fixture {
            root,
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
    ("a source is written", &[FileKind::Source], |root| {
        write(root, "app/src/lib.rs", "other")
    }),
    (
        "a source is written again, as long as before",
        &[FileKind::Source],
        |root| write(root, "app/src/lib.rs", "OTHER"),
    ),
    ("a source is new", &[FileKind::Source], |root| {
        write(root, "app/src/new.rs", "")
    }),
    ("a source is removed", &[FileKind::Source], |root| {
        fs::remove_file(root.join("app/src/new.rs")).unwrap()
    }),
    ("a folder is new", &[FileKind::Source], |root| {
        write(root, "app/templates/deep/a.html", "a")
    }),
    (
        "a file of a new folder is written",
        &[FileKind::Source],
        |root| write(root, "app/templates/deep/a.html", "b"),
    ),
    (
        "a file is renamed over a source",
        &[FileKind::Source],
        |root| {
            write(root, "app/src/.lib.rs.1234", "by an editor");
            fs::rename(
                root.join("app/src/.lib.rs.1234"),
                root.join("app/src/lib.rs"),
            )
            .unwrap();
        },
    ),
    (
        "a folder is removed and made again",
        &[FileKind::Source],
        |root| {
            fs::remove_dir_all(root.join("app/templates")).unwrap();
            write(root, "app/templates/deep/a.html", "c");
        },
    ),
    (
        "a file of a folder that was made again is written",
        &[FileKind::Source],
        |root| write(root, "app/templates/deep/a.html", "d"),
    ),
    (
        "a folder takes the place of another",
        &[FileKind::Source],
        |root| {
            write(root, "next/deep/a.html", "e");
            fs::rename(root.join("app/templates"), root.join("before")).unwrap();
            fs::rename(root.join("next"), root.join("app/templates")).unwrap();
        },
    ),
    (
        "a file of that folder is written",
        &[FileKind::Source],
        |root| write(root, "app/templates/deep/a.html", "f"),
    ),
    ("a folder is removed", &[FileKind::Source], |root| {
        fs::remove_dir_all(root.join("app/templates")).unwrap()
    }),
    (
        "a hidden file that is listed is new",
        &[FileKind::Source],
        |root| write(root, "app/.cargo/config.toml", "[build]"),
    ),
    (
        "a path dependency is written",
        &[FileKind::Source],
        |root| write(root, "lib/src/lib.rs", "other"),
    ),
    (
        "a path dependency is removed",
        &[FileKind::Source],
        |root| fs::remove_dir_all(root.join("lib")).unwrap(),
    ),
    (
        "a path dependency comes back",
        &[FileKind::Source],
        |root| write(root, "lib/src/lib.rs", "third"),
    ),
    (
        "a path dependency is written after that",
        &[FileKind::Source],
        |root| write(root, "lib/src/lib.rs", "fourth"),
    ),
    (
        "a path dependency comes that was not there",
        &[FileKind::Source],
        |root| write(root, "later/lib/src/lib.rs", ""),
    ),
    (
        "a file that the compiler read is written",
        &[FileKind::Source],
        |root| write(root, "read/by/compiler.txt", "other"),
    ),
    ("its folders are removed", &[FileKind::Source], |root| {
        fs::remove_dir_all(root.join("read")).unwrap()
    }),
    ("its folders come back", &[FileKind::Source], |root| {
        write(root, "read/by/compiler.txt", "third")
    }),
    (
        "the target of a link is written",
        &[FileKind::Source],
        |root| write(root, "linked/file.rs", "other"),
    ),
    (
        "the target of a link is replaced",
        &[FileKind::Source],
        |root| {
            write(root, "linked/next.rs", "third");
            fs::rename(root.join("linked/next.rs"), root.join("linked/file.rs")).unwrap();
        },
    ),
    ("a link is replaced", &[FileKind::Source], |root| {
        write(root, "linked/elsewhere/file.rs", "fourth");
        fs::remove_file(root.join("app/src/linked.rs")).unwrap();
        symlink(
            root.join("linked/elsewhere/file.rs"),
            root.join("app/src/linked.rs"),
        )
        .unwrap();
    }),
    (
        "the target of that link is written",
        &[FileKind::Source],
        |root| write(root, "linked/elsewhere/file.rs", "fifth"),
    ),
    (
        "a file in a linked folder is written",
        &[FileKind::Source],
        |root| write(root, "linked/folder/a.rs", "other"),
    ),
    (
        "a file in a linked folder is new",
        &[FileKind::Source],
        |root| write(root, "linked/folder/deep/b.rs", ""),
    ),
    ("the settings are written", &[FileKind::Config], |root| {
        write(root, "settings/dev.toml", "[app]")
    }),
    (
        "the folder of the settings is removed",
        &[FileKind::Config],
        |root| fs::remove_dir_all(root.join("settings")).unwrap(),
    ),
    ("the settings come back", &[FileKind::Config], |root| {
        write(root, "settings/dev.toml", "[server]")
    }),
    ("a style is written", &[FileKind::Style], |root| {
        write(root, "app/assets/style.css", "p {}")
    }),
    ("an asset is new", &[FileKind::Asset], |root| {
        write(root, "app/assets/.well-known/x.log", "")
    }),
    (
        "an asset that the compiler read is written",
        &[FileKind::Source, FileKind::Asset],
        |root| write(root, "app/assets/index.html", "other"),
    ),
    (
        "the assets are removed and made again",
        &[FileKind::Style, FileKind::Asset],
        |root| {
            fs::remove_dir_all(root.join("app/assets")).unwrap();
            write(root, "app/assets/index.html", "other");
        },
    ),
];

#[test]
fn each_change_of_a_file_is_seen_wherever_it_is() {
    let mut scene = Fixture::new();
    assert_eq!(scene.changes(), [].into(), "files that were there before");
    for (what, kinds, act) in CHANGES {
        act(scene.root.path());
        scene.sees(kinds, what);
    }
}

/// A name that is swapped, such as that of the current release, is often not that of the project
/// itself.
#[test]
fn a_replaced_parent_folder_is_seen() {
    let outer = tempfile::tempdir().unwrap();
    let (above, aside) = (outer.path().join("above"), outer.path().join("aside"));
    let root = above.join("between");
    write_project(&root);
    let (changed, events) = mpsc::channel();
    let watch = FileWatcher::new(paths(&root), move || _ = changed.send(()))
        .unwrap_or_else(|failure| panic!("{failure}"));
    let mut scene = Fixture {
        root: outer,
        watch,
        events,
    };
    let other = scene.root.path().join("other");
    write_project(&other.join("between"));
    write(&other, "between/app/src/lib.rs", "other");
    fs::rename(&above, &aside).unwrap();
    fs::rename(&other, &above).unwrap();
    scene.sees(&[FileKind::Source], "another folder of this name");
    write(&root, "app/src/lib.rs", "again");
    scene.sees(&[FileKind::Source], "a file in the other folder");
}

type NoChange = (&'static str, fn(&Path));

const NO_CHANGES: [NoChange; 26] = [
    ("the mode changes", |root| {
        fs::set_permissions(root.join("app/src/lib.rs"), Permissions::from_mode(0o600)).unwrap()
    }),
    ("the same is written", |root| {
        write(root, "app/src/lib.rs", "first")
    }),
    ("the times change", |root| {
        let file = fs::File::options()
            .append(true)
            .open(root.join("app/src/lib.rs"))
            .unwrap();
        file.set_modified(SystemTime::UNIX_EPOCH).unwrap();
    }),
    ("a file is another for a moment", |root| {
        write(root, "app/src/lib.rs", "other");
        write(root, "app/src/lib.rs", "first");
    }),
    ("a file comes and goes", |root| {
        write(root, "app/src/new.rs", "");
        fs::remove_file(root.join("app/src/new.rs")).unwrap();
    }),
    ("a folder goes and comes back", |root| {
        fs::rename(root.join("app/src"), root.join("app/elsewhere")).unwrap();
        fs::rename(root.join("app/elsewhere"), root.join("app/src")).unwrap();
    }),
    ("a folder is empty", |root| {
        fs::create_dir_all(root.join("app/empty/deep")).unwrap()
    }),
    ("Vim tries to write", |root| write(root, "app/src/4913", "")),
    ("Vim tries another number", |root| {
        write(root, "app/src/5036", "")
    }),
    ("Vim swaps", |root| {
        write(root, "app/src/.lib.rs.swp", "b0VIM")
    }),
    ("an editor keeps the file before", |root| {
        write(root, "app/src/lib.rs~", "before")
    }),
    ("Emacs saves", |root| {
        write(root, "app/src/#lib.rs#", "half")
    }),
    ("Emacs locks", |root| {
        symlink("me@here.1", root.join("app/src/.#lib.rs")).unwrap()
    }),
    ("JetBrains writes", |root| {
        write(root, "app/src/lib.rs___jb_tmp___", "half")
    }),
    ("JetBrains keeps", |root| {
        write(root, "app/assets/style.css___jb_old___", "before")
    }),
    ("Cargo builds", |root| {
        write(root, "app/target/debug/build.rs", "made")
    }),
    ("Cargo builds elsewhere", |root| {
        write(
            root,
            "app/crates/x/build-here/CACHEDIR.TAG",
            "Signature: 8a477f597d28d172789f06886806bc55",
        );
        write(root, "app/crates/x/build-here/debug/build.rs", "made");
    }),
    ("Cargo builds where it is set to", |root| {
        write(root, "app/out/made.rs", "made")
    }),
    ("a room writes", |root| {
        write(root, "app/data/0.jnl", "data")
    }),
    ("the app writes", |root| {
        write(root, "app/src/uploads/deep/a.rs", "data")
    }),
    ("the host logs", |root| {
        write(root, "app/said.txt", "listening")
    }),
    ("the app logs", |root| write(root, "app/dev.log", "line")),
    ("logs are rotated", |root| {
        write(root, "app/logs/dev.log.1", "line")
    }),
    ("npm installs", |root| {
        write(root, "app/node_modules/x/index.js", "x")
    }),
    ("git commits", |root| write(root, "app/.git/index", "x")),
    ("a program writes next to other files", |root| {
        write(root, "settings/other.toml", "x");
        write(root, "read/by/none.txt", "x");
        write(root, "linked/other.rs", "x");
        write(root, "beside/lib.rs", "x");
    }),
];

#[test]
fn nothing_else_is_a_change() {
    let mut scene = Fixture::new();
    for (index, (what, act)) in NO_CHANGES.into_iter().enumerate() {
        act(scene.root.path());
        // The kind of this one is another: if the files have changed, they have before it.
        write(
            scene.root.path(),
            "app/assets/style.css",
            &format!("p {{ order: {index} }}"),
        );
        scene.sees(&[FileKind::Style], what);
    }
}

#[test]
fn ignored_files_are_sources_only_if_the_compiler_reads_them() {
    let mut scene = Fixture::new();
    let root = scene.root.path().to_owned();
    write(&root, "app/.gitignore", "/scratch\n*.gen.rs\n/assets\n");
    write(&root, "app/scratch/a.rs", "x");
    write(&root, "app/src/a.gen.rs", "x");
    write(&root, "app/assets/style.css", "p {}");
    scene.sees(&[FileKind::Style], "files that are ignored");
    let mut paths = paths(&root);
    paths.sources.files.insert(root.join("app/src/a.gen.rs"));
    scene
        .watch
        .follow(paths, &[])
        .unwrap_or_else(|failure| panic!("{failure}"));
    assert_eq!(scene.changes(), [].into(), "a file that was there");
    write(&root, "app/src/a.gen.rs", "y");
    scene.sees(&[FileKind::Source], "a file that the compiler read");
}

#[test]
fn files_that_a_build_writes_are_no_change() {
    let mut scene = Fixture::new();
    let root = scene.root.path().to_owned();
    write(&root, "new/lib/src/lib.rs", "x");
    let mut after = paths(&root);
    after.sources.packages.insert(root.join("new/lib"));
    after.sources.packages.remove(&root.join("lib"));
    let made = [root.join("app/Cargo.lock")];
    let mut follow = |text: &str, source: &str| {
        write(&root, "app/Cargo.lock", text);
        write(&root, "app/src/lib.rs", source);
        scene
            .watch
            .follow(after.clone(), &made)
            .unwrap_or_else(|failure| panic!("{failure}"));
        scene.changes()
    };
    assert_eq!(follow("made", "first"), [].into());
    assert_eq!(follow("made again", "other"), [FileKind::Source].into());
    write(&root, "new/lib/src/lib.rs", "y");
    scene.sees(&[FileKind::Source], "a new path dependency");
    write(&root, "app/Cargo.lock", "by hand");
    scene.sees(&[FileKind::Source], "the lock file between two builds");
}
