//! The files that a project is made of: where they are, of which kind each is, and which of them changed.
//!
//! `ProjectPaths` lists folders and single files; `ProjectPaths::scan` finds all files in them, and the folders that must be watched. A `Snapshot` holds
//! a digest of each file's content, and the difference between two of them is what changed. Events of the file system only say when to look
//! again. So files that were written with the same content, that only exist for a moment, or whose mode changed cause nothing, and events
//! that were lost or came in another order lose no change.

use ignore::{DirEntry, WalkBuilder};
use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsStr,
    fs::{File, Metadata},
    hash::{DefaultHasher, Hash as _, Hasher as _},
    io::{self, Read as _},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

/// Number of files in all folders together. Changes of further files are not seen.
const FILES_MAX: usize = 100_000;
/// Symbolic links from one to the next, as in Linux (path_resolution(7)).
const LINKS_MAX: usize = 40;
/// Size of a file, in bytes, above which its size and times stand for its content.
const DIGEST_BYTES_MAX: u64 = 16 << 20;
/// Age at which a file's times identify its content. A younger file may have changed again within the clock's resolution.
const SETTLED_AFTER: Duration = Duration::from_secs(2);

/// The kind of a file, which decides what follows when it changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum FileKind {
    /// The app is built again.
    Source,
    /// Settings are read again, and the app is loaded with them.
    Config,
    /// Pages take it in place.
    Style,
    /// Pages are notified.
    Asset,
}

/// The sources of a component, as far as Cargo knows them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sources {
    /// Folders of packages: the project's own, and those of its path dependencies; also folders and files of WIT elsewhere.
    pub(crate) packages: BTreeSet<PathBuf>,
    /// Single files, in these folders or not.
    pub(crate) files: BTreeSet<PathBuf>,
}

/// Where the files are that matter.
#[derive(Clone, Debug, Default)]
pub(crate) struct ProjectPaths {
    pub(crate) sources: Sources,
    pub(crate) settings: PathBuf,
    pub(crate) assets: Option<PathBuf>,
    /// Folders that Cargo, the host or the app write.
    pub(crate) written: BTreeSet<PathBuf>,
    /// Files that stdout and stderr lead to: device and inode.
    pub(crate) logs: Vec<(u64, u64)>,
}

/// A file, and why it matters: a file of the assets that is part of the component too is listed twice.
type WatchedFile = (FileKind, PathBuf);

/// All files of the places, and where changes of them show.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Scan {
    inputs: BTreeSet<WatchedFile>,
    /// Folders in which every entry matters, and whether they are of a package; without symbolic links in their paths.
    folders: BTreeMap<PathBuf, bool>,
    /// Single entries that matter, in folders in which the others don't.
    points: BTreeSet<PathBuf>,
}

/// The content of all files at one time.
#[derive(Debug, Default)]
pub(crate) struct Snapshot {
    files: BTreeMap<WatchedFile, FileDigest>,
}

#[derive(Clone, Debug)]
struct FileDigest {
    digest: u64,
    /// Device, inode, size, and the time of the last change.
    stamp: (u64, u64, u64, i64, i64),
    read_at: SystemTime,
}

impl ProjectPaths {
    /// Finds all files, in the state of this moment.
    pub(crate) fn scan(&self) -> Scan {
        let mut scan = Scan::default();
        let settings = entry(&self.settings);
        let written: BTreeSet<PathBuf> = self.written.iter().map(|path| real(path)).collect();
        let assets = self.assets.as_deref().map(real);
        scan.add(FileKind::Config, &self.settings);
        if let Some(assets) = &self.assets {
            self.walk(assets, false, &written, &mut scan, |path| {
                Some(
                    if path.extension().is_some_and(|extension| extension == "css") {
                        FileKind::Style
                    } else {
                        FileKind::Asset
                    },
                )
            });
        }
        for package in &self.sources.packages {
            self.walk(package, true, &written, &mut scan, |path| {
                let is_other = path == settings
                    || assets
                        .as_deref()
                        .is_some_and(|assets| path.starts_with(assets));
                (!is_other).then_some(FileKind::Source)
            });
        }
        for file in self
            .sources
            .files
            .iter()
            .filter(|file| entry(file) != settings && !is_below(&written, file))
        {
            scan.add(FileKind::Source, file);
        }
        scan
    }

    fn walk(
        &self,
        root: &Path,
        is_source: bool,
        written: &BTreeSet<PathBuf>,
        scan: &mut Scan,
        kind: impl Fn(&Path) -> Option<FileKind>,
    ) {
        scan.approach(root);
        let root = real(root);
        let skipped = written.clone();
        // Version control ignores what tools write; what the app serves may well be written by a tool.
        let mut walk = WalkBuilder::new(&root);
        walk.standard_filters(false)
            .git_ignore(is_source)
            .require_git(false)
            .follow_links(true);
        walk.filter_entry(move |entry| entry.depth() == 0 || is_wanted(entry, is_source, &skipped));
        // An entry that can't be read, or that leads in a circle, has nothing in it.
        for entry in walk.build().filter_map(Result::ok) {
            if scan.inputs.len() >= FILES_MAX {
                break;
            }
            let path = entry.path();
            if entry.path_is_symlink() {
                scan.approach(path);
            }
            if entry.file_type().is_some_and(|kind| kind.is_dir()) {
                scan.folders.insert(real(path), is_source);
            } else if let Some(kind) = kind(path) {
                let is_log = !self.logs.is_empty()
                    && path
                        .metadata()
                        .is_ok_and(|it| self.logs.contains(&(it.dev(), it.ino())));
                if !is_log {
                    scan.inputs.insert((kind, path.to_owned()));
                }
            }
        }
    }
}

fn is_below(folders: &BTreeSet<PathBuf>, file: &Path) -> bool {
    real(file)
        .ancestors()
        .any(|folder| folders.contains(folder))
}

fn is_wanted(entry: &DirEntry, is_source: bool, written: &BTreeSet<PathBuf>) -> bool {
    let is_folder = entry.file_type().is_some_and(|kind| kind.is_dir());
    let name = entry.file_name();
    if !is_folder {
        return !is_passing(name, is_source);
    }
    // The folders of Cargo have the tag, as soon as they have content.
    let is_made = || {
        is_source
            && (entry.depth() == 1 && is_made(name) || entry.path().join("CACHEDIR.TAG").is_file())
    };
    !is_hidden(name) && !is_made() && !written.contains(&real(entry.path()))
}

/// True for folders of a package that hold no sources.
fn is_made(folder: &OsStr) -> bool {
    ["target", "node_modules", "log", "logs"]
        .iter()
        .any(|name| folder == *name)
}

/// True for what editors and version control keep for themselves.
fn is_hidden(name: &OsStr) -> bool {
    let name = name.as_encoded_bytes();
    name.starts_with(b".") && name != b".well-known"
}

/// True for files of editors that exist for a moment, and for logs.
pub(crate) fn is_passing(file: &OsStr, is_source: bool) -> bool {
    let Some(name) = file.to_str() else {
        return is_hidden(file);
    };
    let of_editor = name.ends_with('~')
        || name.starts_with('#') && name.ends_with('#')
        || name.ends_with("___jb_tmp___")
        || name.ends_with("___jb_old___")
        // Vim tries whether it may make a file here: 4913, or a number that is larger by a multiple of 123.
        || name.parse::<u32>().is_ok_and(|number| number >= 4913 && (number - 4913) % 123 == 0)
        || [".swp", ".swo", ".swx", ".tmp"].iter().any(|ending| name.ends_with(ending));
    let is_log = || name == "nohup.out" || name.split('.').skip(1).any(|part| part == "log");
    is_hidden(file) || of_editor || is_source && is_log()
}

/// The path without symbolic links, as far as it exists.
pub(crate) fn real(path: &Path) -> PathBuf {
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    for folder in path.ancestors() {
        if let Ok(real) = folder.canonicalize() {
            return path.strip_prefix(folder).map_or_else(
                |_| real.clone(),
                |rest| {
                    if rest == "" {
                        real.clone()
                    } else {
                        real.join(rest)
                    }
                },
            );
        }
    }
    path
}

/// The path without symbolic links; the file itself may be one.
fn entry(file: &Path) -> PathBuf {
    let file = std::path::absolute(file).unwrap_or_else(|_| file.to_owned());
    match (file.parent(), file.file_name()) {
        (Some(folder), Some(name)) => real(folder).join(name),
        _ => file,
    }
}

impl Scan {
    fn add(&mut self, kind: FileKind, file: &Path) {
        self.approach(file);
        self.inputs.insert((kind, entry(file)));
    }

    /// Has the entry watched from its folder, so that it is seen when it comes, goes, or is replaced;
    /// the same for each folder above it, and for each symbolic link on the way to its target.
    fn approach(&mut self, path: &Path) {
        let mut path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        for _ in 0..LINKS_MAX {
            // The first part that is not there, if one isn't, is what has to come first.
            let there = path.ancestors().skip(1).find(|folder| folder.is_dir());
            let Some(folder) = there.and_then(|folder| Some((folder, folder.canonicalize().ok()?)))
            else {
                return;
            };
            let Ok(rest) = path.strip_prefix(folder.0) else {
                return;
            };
            let Some(name) = rest.components().next() else {
                return;
            };
            // A folder above may be renamed, and another may take its name.
            let above = folder.1.ancestors().filter(|it| it.parent().is_some());
            self.points.extend(above.map(Path::to_owned));
            let point = folder.1.join(name);
            let target = point.read_link();
            self.points.insert(point);
            match target {
                Ok(target) => path = folder.1.join(target),
                Err(_) => return,
            }
        }
    }

    /// Folders to watch, each without those below it.
    pub(crate) fn watched(&self) -> BTreeSet<PathBuf> {
        let of_points = self.points.iter().filter_map(|point| point.parent());
        self.folders
            .keys()
            .map(PathBuf::as_path)
            .chain(of_points)
            .map(Path::to_owned)
            .collect()
    }

    /// True if a change of this entry may be a change of a file.
    pub(crate) fn concerns(&self, path: &Path) -> bool {
        let is_of_file = |is_source: &bool| {
            path.file_name()
                .is_some_and(|name| !is_passing(name, *is_source))
        };
        let is_in_folder = || {
            path.parent()
                .and_then(|folder| self.folders.get(folder))
                .is_some_and(is_of_file)
        };
        self.points.contains(path) || self.folders.contains_key(path) || is_in_folder()
    }
}

impl Snapshot {
    /// Reads the files that may have changed since `self` was taken.
    pub(crate) fn next(&self, scan: &Scan) -> Snapshot {
        let read = |input: &WatchedFile| {
            Some((
                input.clone(),
                FileDigest::read(&input.1, self.files.get(input)).ok()?,
            ))
        };
        Snapshot {
            files: scan.inputs.iter().filter_map(read).collect(),
        }
    }

    /// The kinds of the files that changed until `next` was taken of other places. `now` are the files that the places of before have: a file
    /// that only one of the places has did not change, nor did one that the build `made`.
    pub(crate) fn changes(
        &self,
        next: &Snapshot,
        now: &Scan,
        made: &[PathBuf],
    ) -> BTreeSet<FileKind> {
        let made: Vec<PathBuf> = made.iter().map(|file| entry(file)).collect();
        let is_there = |input: &WatchedFile| now.inputs.contains(input) && input.1.is_file();
        let is_changed =
            |(input, content): &(&WatchedFile, &FileDigest)| match next.files.get(*input) {
                Some(next) => next.digest != content.digest,
                None => !is_there(input),
            };
        let changed = self.files.iter().filter(is_changed).map(|(input, _)| input);
        let added = next
            .files
            .keys()
            .filter(|input| !self.files.contains_key(*input) && is_there(input));
        changed
            .chain(added)
            .filter(|(_, file)| !made.contains(file))
            .map(|(kind, _)| *kind)
            .collect()
    }
}

impl FileDigest {
    fn read(path: &Path, before: Option<&FileDigest>) -> io::Result<FileDigest> {
        let metadata = path.metadata()?;
        if !metadata.is_file() {
            // To open a pipe would wait for a writer.
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let (stamp, read_at) = (stamp(&metadata), SystemTime::now());
        if let Some(before) = before.filter(|before| before.stamp == stamp && before.is_settled()) {
            return Ok(before.clone());
        }
        let mut hasher = DefaultHasher::new();
        if metadata.len() > DIGEST_BYTES_MAX {
            stamp.hash(&mut hasher);
        } else {
            let mut bytes = Vec::new();
            File::open(path)?
                .take(DIGEST_BYTES_MAX)
                .read_to_end(&mut bytes)?;
            bytes.hash(&mut hasher);
        }
        Ok(FileDigest {
            digest: hasher.finish(),
            stamp,
            read_at,
        })
    }

    fn is_settled(&self) -> bool {
        let changed = SystemTime::UNIX_EPOCH
            + Duration::new(
                u64::try_from(self.stamp.3).unwrap_or(0),
                u32::try_from(self.stamp.4).unwrap_or(0),
            );
        self.read_at
            .duration_since(changed)
            .is_ok_and(|age| age > SETTLED_AFTER)
    }
}

/// The time is that of the inode (ctime): no program can set it back.
fn stamp(metadata: &Metadata) -> (u64, u64, u64, i64, i64) {
    (
        metadata.dev(),
        metadata.ino(),
        metadata.len(),
        metadata.ctime(),
        metadata.ctime_nsec(),
    )
}
