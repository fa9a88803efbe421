//! The files of a project: where they are, the kind of each, and the changes between two reads.
//!
//! `ProjectPaths` lists folders and single files; `ProjectPaths::scan` finds all files in them, and
//! the folders that must be watched. A `Snapshot` has a digest of each file's content, and the
//! difference of two snapshots is the set of changed files. Events of the file system only trigger
//! another read. So a file that is rewritten with the same content, exists only briefly, or changes
//! its mode causes nothing, and lost or reordered events lose no change.

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
/// Number of symbolic links in a chain, as in Linux (path_resolution(7)).
const LINKS_MAX: usize = 40;
/// Size of a file, in bytes, above which its size and times stand for its content.
const DIGEST_BYTES_MAX: u64 = 16 << 20;
/// Age at which a file's times identify its content. A younger file may have changed again within
/// the clock's resolution.
const SETTLED_AFTER: Duration = Duration::from_secs(2);

/// The kind of a file, which decides the reaction to a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum FileKind {
    /// The app is built again.
    Source,
    /// The settings are read again, and the app is loaded with them.
    Config,
    /// Open pages replace the style sheet.
    Style,
    /// Open pages are notified.
    Asset,
}

/// The sources of a component, as Cargo knows them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sources {
    /// Folders of packages: the project and its path dependencies; also folders and files of WIT
    /// elsewhere.
    pub(crate) packages: BTreeSet<PathBuf>,
    /// Single files, inside or outside of these folders.
    pub(crate) files: BTreeSet<PathBuf>,
}

/// The paths at which a session watches files.
#[derive(Clone, Debug, Default)]
pub(crate) struct ProjectPaths {
    pub(crate) sources: Sources,
    pub(crate) settings: PathBuf,
    pub(crate) assets: Option<PathBuf>,
    /// Folders that Cargo, the host or the app write.
    pub(crate) written: BTreeSet<PathBuf>,
    /// Device and inode of files that stdout and stderr are redirected to.
    pub(crate) logs: Vec<(u64, u64)>,
}

/// A file and its kind. A file that is both an asset and a source is listed twice.
type WatchedFile = (FileKind, PathBuf);

/// All files at the paths, and the folders in which their changes are visible.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Scan {
    inputs: BTreeSet<WatchedFile>,
    /// Folders of which every entry is watched, by real path; true for folders of a package.
    folders: BTreeMap<PathBuf, bool>,
    /// Single watched entries of other folders.
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
    /// Device, inode, size, and ctime in seconds and nanoseconds.
    stamp: (u64, u64, u64, i64, i64),
    read_at: SystemTime,
}

impl ProjectPaths {
    /// Finds all files that exist now.
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
        // .gitignore lists files that tools generate. Sources exclude them; served files may be
        // generated.
        let mut walk = WalkBuilder::new(&root);
        walk.standard_filters(false)
            .git_ignore(is_source)
            .require_git(false)
            .follow_links(true);
        walk.filter_entry(move |entry| entry.depth() == 0 || is_wanted(entry, is_source, &skipped));
        // An entry that can't be read, or a link to a parent, counts as empty.
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
    // Cargo tags its target directory when it creates it (CACHEDIR.TAG).
    let is_generated = || {
        is_source
            && (entry.depth() == 1 && is_generated(name)
                || entry.path().join("CACHEDIR.TAG").is_file())
    };
    !is_hidden(name) && !is_generated() && !written.contains(&real(entry.path()))
}

/// True for folders of a package that hold generated files.
fn is_generated(folder: &OsStr) -> bool {
    ["target", "node_modules", "log", "logs"]
        .iter()
        .any(|name| folder == *name)
}

/// True for hidden files, such as those of editors and version control.
fn is_hidden(name: &OsStr) -> bool {
    let name = name.as_encoded_bytes();
    name.starts_with(b".") && name != b".well-known"
}

/// True for temporary files of editors, and for logs among sources.
pub(crate) fn is_passing(file: &OsStr, is_source: bool) -> bool {
    let Some(name) = file.to_str() else {
        return is_hidden(file);
    };
    let of_editor = name.ends_with('~')
        || name.starts_with('#') && name.ends_with('#')
        || name.ends_with("___jb_tmp___")
        || name.ends_with("___jb_old___")
        // Vim tests whether it may create a file: 4913, or that plus a multiple of 123.
        || name.parse::<u32>().is_ok_and(|number| number >= 4913 && (number - 4913) % 123 == 0)
        || [".swp", ".swo", ".swx", ".tmp"].iter().any(|ending| name.ends_with(ending));
    let is_log = || name == "nohup.out" || name.split('.').skip(1).any(|part| part == "log");
    is_hidden(file) || of_editor || is_source && is_log()
}

/// Resolves symbolic links of the part of the path that exists.
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

/// Resolves symbolic links of the parent; the file itself may be a link.
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

    /// Watches the entry in its folder, so that its creation, removal and replacement are seen;
    /// likewise each folder above it, and each symbolic link on the way to its target.
    fn approach(&mut self, path: &Path) {
        let mut path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        for _ in 0..LINKS_MAX {
            // If a part of the path is missing, the first missing part is watched.
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

    /// Returns the folders to watch, not recursively.
    pub(crate) fn watched(&self) -> BTreeSet<PathBuf> {
        let of_points = self.points.iter().filter_map(|point| point.parent());
        self.folders
            .keys()
            .map(PathBuf::as_path)
            .chain(of_points)
            .map(Path::to_owned)
            .collect()
    }

    /// True if a change of this entry may be a change of a watched file.
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
    /// Reads the files that may have changed since `self`, and returns a new snapshot.
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

    /// Returns the kinds of the files that changed between `self` and `next`. `now` are the files
    /// that exist at the paths of `self`: a file that only one set of paths contains did not
    /// change. Files that the build wrote (`made`) are excluded.
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
            // Opening a named pipe would wait for a writer.
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

/// Returns the identity of a file's content. The time is the inode's (ctime), which no program can
/// set back.
fn stamp(metadata: &Metadata) -> (u64, u64, u64, i64, i64) {
    (
        metadata.dev(),
        metadata.ino(),
        metadata.len(),
        metadata.ctime(),
        metadata.ctime_nsec(),
    )
}
