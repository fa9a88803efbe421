//! Files of `--assets DIR`, by their exact path.
//!
//! The directory is the only state. Each request looks the file up and opens it. It takes
//! length, tag and content from the descriptor that it then sends, so that they describe the same
//! file even while files are replaced.
//!
//! Invariant: a served path leads to a file below the directory, unless the operator allows links
//! out of it, and no name with a leading dot is served except `.well-known`.
//!
//! A request that can be for a file costs one look at the disk, and no more if there is no such
//! file. All further work runs on threads that may block on the disk.
//!
//! `caching`, `codings`, `conditions`, `kind`, `ranges` and `tags` decide on header fields;
//! `file_body` sends the bytes. The order of files and routes is the router's.

mod caching;
mod codings;
mod conditions;
pub(crate) mod file_body;
mod kind;
mod ranges;
mod tags;

pub use caching::CacheRule;
pub(crate) use caching::make_private;

use crate::{
    files::file_body::{FileBody, FilePiece},
    http::answer::{self, AnswerBody, HttpAnswer},
    http::media,
    sockets::{Seat, Sockets},
};
use bytes::Bytes;
use codings::{CODINGS, Coding};
use conditions::{PreconditionResult, Validators};
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, header};
use ranges::Ranges;
use std::{
    fs::{self, File, Metadata},
    io,
    path::{Path as FilePath, PathBuf},
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};
use tags::Tags;
use tidegate_hub::Hub;
use tidegate_routing::Path;
use tokio::task::spawn_blocking;

/// Maximum length of a file that is read at once, in bytes. Its descriptor is closed before the
/// client has read it.
const WHOLE_BYTES_MAX: u64 = 16 << 10;

/// Dates before this one are ignored: archives and package stores set them for reproducible builds.
const DATES_FROM: Duration = Duration::from_secs(315_619_200); // 1980-01-02

/// A directory of files. Its dotfiles are not served, except `.well-known`.
pub(crate) struct Files {
    directory: Arc<AssetDirectory>,
    rules: Vec<CacheRule>,
    tags: Arc<Tags>,
    sockets: Arc<Sockets>,
    hub: Arc<Hub>,
}

struct AssetDirectory {
    root: PathBuf,
    /// True if symbolic links may lead out of the directory.
    can_leave: bool,
}

/// A file that was opened to be sent.
struct OpenFile {
    file: File,
    metadata: Metadata,
    coding: Option<Coding>,
    kind: HeaderValue,
    /// True if other clients may get another form of the file.
    varies: bool,
}

impl Files {
    pub(crate) fn new(
        root: &FilePath,
        can_leave: bool,
        rules: Vec<CacheRule>,
        sockets: Arc<Sockets>,
        hub: Arc<Hub>,
    ) -> Files {
        let directory = Arc::new(AssetDirectory {
            root: root.to_owned(),
            can_leave,
        });
        Files {
            directory,
            rules,
            tags: Arc::new(Tags::new()),
            sockets,
            hub,
        }
    }

    /// Returns the answer to a GET or HEAD of exactly the path of a file.
    pub(crate) async fn file(
        &self,
        method: &Method,
        path: &Path<'_>,
        headers: &HeaderMap,
    ) -> Option<HttpAnswer> {
        if !is_read(method) {
            return None;
        }
        let name = self.name(path)?;
        self.serve(name, method, headers).await
    }

    /// Returns true if this is the path of a file. Methods other than GET and HEAD are refused for
    /// it.
    pub(crate) fn has(&self, path: &Path<'_>) -> bool {
        self.name(path)
            .is_some_and(|name| self.directory.locate(&name).is_ok())
    }

    /// Returns `index.html` for a path without any other answer, if the client asks for a page.
    pub(crate) async fn fallback(
        &self,
        method: &Method,
        path: &Path<'_>,
        headers: &HeaderMap,
    ) -> Option<HttpAnswer> {
        if path.is_reserved() || !is_read(method) || !wants_page(path, headers) {
            return None;
        }
        let mut answer = self.serve("index.html".to_owned(), method, headers).await?;
        answer
            .headers_mut()
            .append(header::VARY, HeaderValue::from_static("accept"));
        Some(answer)
    }

    /// Returns the relative name of an existing file.
    fn name(&self, path: &Path<'_>) -> Option<String> {
        let segments = path.segments();
        let hidden = |segment: &str| segment.starts_with('.') && segment != ".well-known";
        let served = |segment: &str| !hidden(segment) && !segment.contains(['/', '\\']);
        let is_directory = path
            .target()
            .split('?')
            .next()
            .is_some_and(|path| path.ends_with('/'));
        if segments.is_empty()
            || is_directory
            || path.is_reserved()
            || !segments.iter().all(|segment| served(segment))
        {
            return None;
        }
        let name = segments.join("/");
        self.directory.root.join(&name).is_file().then_some(name)
    }

    async fn serve(
        &self,
        name: String,
        method: &Method,
        headers: &HeaderMap,
    ) -> Option<HttpAnswer> {
        // The answer holds a descriptor until the client has read it.
        let seat = match self.sockets.take_shared() {
            Ok(seat) => seat,
            Err(refusal) => {
                self.sockets
                    .note(refusal, self.hub.counters(), Instant::now());
                return Some(answer::retry_later("too many connections, try again later"));
            }
        };
        let cache = caching::of(&format!("/{name}"), &self.rules);
        let (directory, accepted) = (self.directory.clone(), accepted(headers));
        let representation = spawn_blocking(move || directory.open(&name, &accepted))
            .await
            .ok()?
            .ok()?;
        let OpenFile {
            file,
            metadata,
            coding,
            kind,
            varies,
        } = representation;
        // The file existed a moment ago. A file that can't be read counts as missing.
        let (file, etag) = self.tags.of(file, &metadata).await.ok()?;
        let answer = FileAnswer {
            length: metadata.len(),
            modified: modified(&metadata),
            etag: &etag,
            coding,
            kind,
            varies,
            cache,
        };
        answer.build(file, seat, method, headers).await.ok()
    }
}

fn is_read(method: &Method) -> bool {
    method == Method::GET || method == Method::HEAD
}

/// Returns the request's headers that the choice of a compressed form depends on.
fn accepted(headers: &HeaderMap) -> HeaderMap {
    headers
        .get_all(header::ACCEPT_ENCODING)
        .iter()
        .map(|value| (header::ACCEPT_ENCODING, value.clone()))
        .collect()
}

/// Returns true if the client asks for a page: it names HTML, or it accepts anything and the path
/// does not end in a file's name. A missing script or picture is therefore not answered with a
/// page, and neither is a call of an API.
fn wants_page(path: &Path<'_>, headers: &HeaderMap) -> bool {
    if media::names(headers, "text/html") || media::names(headers, "application/xhtml+xml") {
        return true;
    }
    let is_file = path
        .segments()
        .last()
        .is_some_and(|last| last.contains('.'));
    !is_file && media::pick(headers, &[("text/html", ())]).is_some()
}

/// Returns the modification date. Returns `None` if the file system has no meaningful date, or a
/// future one (RFC 9110 section 8.8.2.1).
fn modified(metadata: &Metadata) -> Option<SystemTime> {
    let since = metadata
        .modified()
        .ok()?
        .duration_since(SystemTime::UNIX_EPOCH)
        .ok()?;
    let date = SystemTime::UNIX_EPOCH + Duration::from_secs(since.as_secs());
    (since >= DATES_FROM && date <= SystemTime::now()).then_some(date)
}

/// Returns true if the file system has an earlier modification date for `one` than for `other`.
fn is_older(one: &Metadata, other: &Metadata) -> bool {
    match (one.modified(), other.modified()) {
        (Ok(one), Ok(other)) => one < other,
        _ => false,
    }
}

impl AssetDirectory {
    /// Returns the path of a file with all links resolved.
    fn locate(&self, name: &str) -> io::Result<PathBuf> {
        let path = self.root.join(name);
        if self.can_leave {
            return Ok(path);
        }
        let path = path.canonicalize()?;
        if path.starts_with(self.root.canonicalize()?) {
            Ok(path)
        } else {
            Err(io::ErrorKind::PermissionDenied.into())
        }
    }

    /// Opens a file, or the compressed form next to it that the client prefers. A form that is older
    /// than the file is of an earlier content, and is not offered.
    fn open(&self, name: &str, accepted: &HeaderMap) -> io::Result<OpenFile> {
        let beside = |coding: &Coding| format!("{name}{}", coding.suffix);
        let (plain, plain_metadata) = self.open_one(name)?;
        let is_offered = |coding: &Coding| {
            let found = fs::metadata(self.root.join(beside(coding)));
            found.is_ok_and(|found| found.is_file() && !is_older(&found, &plain_metadata))
                && self.locate(&beside(coding)).is_ok()
        };
        let offered: Vec<Coding> = CODINGS.into_iter().filter(is_offered).collect();
        let beginning_bytes = plain_metadata.len().min(kind::BEGINNING_BYTES);
        let kind = kind::of(name, &file_body::read(&plain, 0..beginning_bytes)?);
        let coding = codings::choose(accepted, &offered);
        let (file, metadata) = match coding {
            Some(coding) => self.open_one(&beside(&coding))?,
            None => (plain, plain_metadata),
        };
        Ok(OpenFile {
            file,
            metadata,
            coding,
            kind,
            varies: !offered.is_empty(),
        })
    }

    fn open_one(&self, name: &str) -> io::Result<(File, Metadata)> {
        let file = File::open(self.locate(name)?)?;
        let metadata = file.metadata()?;
        if metadata.is_file() {
            Ok((file, metadata))
        } else {
            Err(io::ErrorKind::NotFound.into())
        }
    }
}

/// One form of a file with the values of its headers.
struct FileAnswer<'a> {
    length: u64,
    modified: Option<SystemTime>,
    etag: &'a str,
    coding: Option<Coding>,
    kind: HeaderValue,
    varies: bool,
    cache: HeaderValue,
}

impl FileAnswer<'_> {
    async fn build(
        self,
        file: File,
        seat: Seat,
        method: &Method,
        headers: &HeaderMap,
    ) -> io::Result<HttpAnswer> {
        let validators = Validators {
            etag: self.etag,
            modified: self.modified,
        };
        match conditions::evaluate(headers, validators) {
            PreconditionResult::Send => {}
            PreconditionResult::NotModified => {
                return Ok(self.with_validators(
                    Response::new(AnswerBody::Whole(None)),
                    StatusCode::NOT_MODIFIED,
                ));
            }
            PreconditionResult::Failed => {
                let answer = answer::text(
                    StatusCode::PRECONDITION_FAILED,
                    "the file is not as the request wants it",
                );
                return Ok(self.with_validators(answer, StatusCode::PRECONDITION_FAILED));
            }
        }
        // If the file may change again within the second of its date, the date is a weak validator
        // (RFC 9110 section 8.8.2.2).
        let is_past = |date: &SystemTime| {
            date.elapsed()
                .is_ok_and(|since| since >= Duration::from_secs(1))
        };
        let strong = Validators {
            modified: self.modified.filter(is_past),
            ..validators
        };
        // RFC 9110 section 14.2: ranges are defined for GET only.
        let ranges = match method == Method::GET && conditions::allows_range(headers, strong) {
            true => ranges::requested_ranges(headers, self.length),
            false => Ranges::Whole,
        };
        match ranges {
            Ranges::Unsatisfiable => {
                let mut answer = answer::text(
                    StatusCode::RANGE_NOT_SATISFIABLE,
                    &format!("the file has {} bytes", self.length),
                );
                answer.headers_mut().insert(
                    header::CONTENT_RANGE,
                    value(format!("bytes */{}", self.length)),
                );
                Ok(self.with_validators(answer, StatusCode::RANGE_NOT_SATISFIABLE))
            }
            Ranges::Whole => {
                let body = match self.length {
                    0 => AnswerBody::Whole(None),
                    length if length <= WHOLE_BYTES_MAX => whole_body(file, length).await?,
                    length => pieces_body(file, seat, vec![FilePiece::Part(0..length)]),
                };
                Ok(self.with_content(Response::new(body), StatusCode::OK))
            }
            Ranges::Parts(parts) => match <[_; 1]>::try_from(parts) {
                Ok([part]) => {
                    let range = self.content_range(&part);
                    let mut answer =
                        Response::new(pieces_body(file, seat, vec![FilePiece::Part(part)]));
                    answer
                        .headers_mut()
                        .insert(header::CONTENT_RANGE, value(range));
                    Ok(self.with_content(answer, StatusCode::PARTIAL_CONTENT))
                }
                Err(parts) => {
                    let (pieces, kind) = self.multipart(&parts)?;
                    let mut answer = self.with_content(
                        Response::new(pieces_body(file, seat, pieces)),
                        StatusCode::PARTIAL_CONTENT,
                    );
                    answer.headers_mut().insert(header::CONTENT_TYPE, kind);
                    Ok(answer)
                }
            },
        }
    }

    fn content_range(&self, part: &std::ops::Range<u64>) -> String {
        format!("bytes {}-{}/{}", part.start, part.end - 1, self.length)
    }

    /// Returns the pieces of a `multipart/byteranges` body (RFC 9110 section 14.6), and its media
    /// type.
    fn multipart(
        &self,
        parts: &[std::ops::Range<u64>],
    ) -> io::Result<(Vec<FilePiece>, HeaderValue)> {
        let mut bytes = [0; 16];
        getrandom::fill(&mut bytes).map_err(io::Error::other)?;
        let boundary = format!("{:032x}", u128::from_ne_bytes(bytes));
        let kind = self.kind.to_str().unwrap_or("application/octet-stream");
        let mut pieces = Vec::with_capacity(2 * parts.len() + 1);
        for part in parts {
            let before = if pieces.is_empty() { "" } else { "\r\n" };
            let head = format!(
                "{before}--{boundary}\r\ncontent-type: {kind}\r\ncontent-range: {}\r\n\r\n",
                self.content_range(part)
            );
            pieces.extend([FilePiece::Text(head.into()), FilePiece::Part(part.clone())]);
        }
        pieces.push(FilePiece::Text(format!("\r\n--{boundary}--\r\n").into()));
        Ok((
            pieces,
            value(format!("multipart/byteranges; boundary={boundary}")),
        ))
    }

    /// Sets the status, and the headers that caches need in every answer about the file (RFC 9110
    /// section 15.4.5).
    fn with_validators(&self, mut answer: HttpAnswer, status: StatusCode) -> HttpAnswer {
        *answer.status_mut() = status;
        let headers = answer.headers_mut();
        headers.insert(header::ETAG, value(self.etag.to_owned()));
        headers.insert(header::CACHE_CONTROL, self.cache.clone());
        headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
        if self.varies {
            headers.insert(header::VARY, HeaderValue::from_static("accept-encoding"));
        }
        answer
    }

    fn with_content(&self, answer: HttpAnswer, status: StatusCode) -> HttpAnswer {
        let mut answer = self.with_validators(answer, status);
        let headers = answer.headers_mut();
        headers.insert(header::CONTENT_TYPE, self.kind.clone());
        if self.length == 0 {
            // Without this header, hyper writes another length in the answer to HEAD.
            headers.insert(header::CONTENT_LENGTH, HeaderValue::from_static("0"));
        }
        if let Some(coding) = self.coding {
            headers.insert(
                header::CONTENT_ENCODING,
                HeaderValue::from_static(coding.name),
            );
        }
        if let Some(modified) = self.modified {
            headers.insert(
                header::LAST_MODIFIED,
                value(httpdate::fmt_http_date(modified)),
            );
        }
        answer
    }
}

async fn whole_body(file: File, length: u64) -> io::Result<AnswerBody> {
    let bytes: Bytes = spawn_blocking(move || file_body::read(&file, 0..length))
        .await
        .map_err(io::Error::other)??;
    Ok(AnswerBody::Whole(Some(bytes)))
}

fn pieces_body(file: File, seat: Seat, pieces: Vec<FilePiece>) -> AnswerBody {
    AnswerBody::File {
        file: Box::new(FileBody::new(file, pieces)),
        _seat: seat,
    }
}

fn value(text: String) -> HeaderValue {
    HeaderValue::try_from(text).expect("visible characters")
}
