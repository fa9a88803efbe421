//! The control socket of a running server: a Unix socket next to its data directory.
//!
//! `tidegate reload`, `tail` and `data backup` connect to it. A request is one line of JSON:
//! `"reload"`, `"rollback"`, `{"backup":"/absolute/path"}` or `{"tail":…}`. The response is one
//! line, `{"done":"…"}` or `{"error":"…"}`; after `{"tail":…}` lines of the log follow until one
//! side closes.
//!
//! Owner: `Serving` holds the [`ControlSocket`], and one task on the first worker accepts
//! connections. Each connection serves one request, on a task of its own.
//!
//! Invariants: at most one server has the socket of a data directory, a socket file of a server
//! that still runs is never replaced, and only root and the user of the server may send requests.
//! The mode of the file (0600) and the peer's credentials both check that, since the file exists
//! for a moment before its mode is set.
//!
//! The deployment runs the requests and keeps their order; this module only transports them.

use crate::{
    command_error::CommandError,
    deployment::{self, Deployment},
    tail::{LineFilter, Tail},
};
use anyhow::{Context as _, anyhow};
use rustix::process::geteuid;
use serde_json::{Value, json};
use std::{
    ffi::OsString,
    fs, io,
    io::{BufRead as _, Write as _},
    os::unix::{
        fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _},
        net,
    },
    path::{self, Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::{UnixListener, UnixStream},
    runtime::Handle,
    task::spawn_blocking,
    time::timeout,
};

/// Number of bytes of a request. A longer one is not answered.
const REQUEST_BYTES_MAX: u64 = 64 << 10;
/// Time for a request to arrive.
const REQUEST_WITHIN: Duration = Duration::from_secs(10);

/// Returns the path of the socket: "tidegate-data.sock" for "tidegate-data".
fn socket(data: &Path) -> PathBuf {
    let mut name = OsString::from(data.components().as_path()); // removes a slash at the end
    name.push(".sock");
    name.into()
}

/// An open control socket. Dropping it removes the socket's file, unless another server replaced
/// it.
pub(crate) struct ControlSocket {
    path: PathBuf,
    /// Device and inode of the socket's file.
    file: (u64, u64),
}

impl Drop for ControlSocket {
    fn drop(&mut self) {
        if identity(&self.path).is_ok_and(|file| file == self.file) {
            _ = fs::remove_file(&self.path);
        }
    }
}

/// Returns an error if the path of the control socket is too long for a Unix socket.
pub(crate) fn check_path(data: &Path) -> Result<(), CommandError> {
    let path = socket(data);
    match net::SocketAddr::from_pathname(&path) {
        Ok(_) => Ok(()),
        Err(error) => Err(CommandError::usage(format!(
            "the path of the control socket {} has {} bytes, {error}: choose a directory with a shorter path, with --data",
            path.display(),
            path.as_os_str().len()
        ))),
    }
}

/// Opens the control socket of a server. A socket of a server that has ended is replaced. If a
/// server still listens there, or the file is not a socket, this is an error.
pub(crate) fn open(
    worker: &Handle,
    data: &Path,
    deployment: &Arc<Deployment>,
) -> io::Result<ControlSocket> {
    let path = socket(data);
    remove_stale(&path)?;
    let _inside = worker.enter();
    let listener = UnixListener::bind(&path)?;
    let control_socket = ControlSocket {
        file: identity(&path)?,
        path,
    };
    fs::set_permissions(&control_socket.path, fs::Permissions::from_mode(0o600))?;
    worker.spawn(answer_all(listener, deployment.clone()));
    Ok(control_socket)
}

fn remove_stale(path: &Path) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
        Ok(metadata) if !metadata.file_type().is_socket() => {
            let message = format!(
                "{} exists and is not a socket: move it, or choose another --data",
                path.display()
            );
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, message));
        }
        Ok(_) => {}
    }
    match net::UnixStream::connect(path) {
        // The server of this socket has ended.
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) if error.kind() != io::ErrorKind::WouldBlock => Err(error),
        _ => {
            let message = format!(
                "another server listens at {}: give each server its own --data, or reload with SIGHUP",
                path.display()
            );
            Err(io::Error::new(io::ErrorKind::AddrInUse, message))
        }
    }
}

/// Returns device and inode of a file, which identify it while it exists.
fn identity(path: &Path) -> io::Result<(u64, u64)> {
    let metadata = fs::symlink_metadata(path)?;
    Ok((metadata.dev(), metadata.ino()))
}

async fn answer_all(listener: UnixListener, deployment: Arc<Deployment>) {
    loop {
        match listener.accept().await {
            // A client may have connected before the file had its mode.
            Ok((stream, _)) if is_owner(&stream) => {
                drop(tokio::spawn(answer(stream, deployment.clone())))
            }
            Ok(_) => {}
            Err(error) => {
                tracing::warn!("the control socket can't accept a connection: {error}");
                tokio::time::sleep(REQUEST_WITHIN).await;
            }
        }
    }
}

fn is_owner(stream: &UnixStream) -> bool {
    stream
        .peer_cred()
        .is_ok_and(|peer| peer.uid() == 0 || peer.uid() == geteuid().as_raw())
}

async fn answer(mut stream: UnixStream, deployment: Arc<Deployment>) {
    let mut line = String::new();
    let (reading, mut writing) = stream.split();
    let read = timeout(
        REQUEST_WITHIN,
        BufReader::new(reading.take(REQUEST_BYTES_MAX)).read_line(&mut line),
    )
    .await;
    if !matches!(read, Ok(Ok(1..))) {
        return;
    }
    if let Some(filter) = serde_json::from_str(&line)
        .ok()
        .and_then(|command: Value| LineFilter::from_json(&command["tail"]))
    {
        return send_tail(Tail::open(filter), stream).await;
    }
    let answer = match run_request(&line, &deployment).await {
        Ok(done) => json!({ "done": done }),
        Err(failure) => json!({ "error": failure.to_string() }),
    };
    _ = writing.write_all(format!("{answer}\n").as_bytes()).await;
}

/// Sends lines of the log until one side closes. Reading detects a client that has closed even
/// while nothing is logged.
async fn send_tail(mut tail: Tail, mut stream: UnixStream) {
    let (mut reading, mut writing) = stream.split();
    let mut byte = [0];
    let begun = format!("{}\n", json!({ "done": "begun" }));
    if writing.write_all(begun.as_bytes()).await.is_err() {
        return;
    }
    loop {
        tokio::select! {
            line = tail.next() => match line {
                Some(line) => {
                    if writing.write_all((line + "\n").as_bytes()).await.is_err() {
                        return;
                    }
                }
                None => return,
            },
            _ = reading.read(&mut byte) => return,
        }
    }
}

async fn run_request(line: &str, deployment: &Arc<Deployment>) -> Result<String, CommandError> {
    let command: Value = serde_json::from_str(line).context("a request is one line of JSON")?;
    match (
        command.as_str(),
        command["backup"].as_str().map(PathBuf::from),
    ) {
        (Some("reload"), _) => Ok(deployment::log_outcome(deployment.reload().await)?.to_string()),
        (Some("rollback"), _) => {
            Ok(deployment::log_outcome(deployment.roll_back().await)?.to_string())
        }
        (_, Some(to)) if to.is_absolute() => {
            let storage = deployment
                .storage()
                .context("this app has no rooms, so there is no data to back up")?;
            tracing::info!("backing up to {}", to.display());
            spawn_blocking(move || storage.backup(&to, || {})).await??;
            Ok("backed up".into())
        }
        _ => {
            Err(anyhow!("unknown request: the server has another version than this command").into())
        }
    }
}

/// Asks the server that has this data open to copy it to `to`.
pub(crate) fn backup(data: &Path, to: &Path) -> Result<(), CommandError> {
    let to = path::absolute(to).with_context(|| format!("{} is not a path", to.display()))?;
    let to = to
        .to_str()
        .context("the path of a backup must be valid UTF-8")?;
    let no_answer = |socket: &Path| {
        format!(
            "another process has {} open, but no server answers at {}",
            data.display(),
            socket.display()
        )
    };
    command(data, &json!({ "backup": to }), no_answer).map(drop)
}

/// Asks the server with this data directory to load its app again, or to roll back. Returns its
/// response.
pub(crate) fn reload(data: &Path, rollback: bool) -> Result<String, CommandError> {
    command(
        data,
        &json!(if rollback { "rollback" } else { "reload" }),
        no_answer,
    )
    .map(|(done, _)| done)
}

/// Returns the log of the server with this data directory, from now until it ends, as lines of
/// JSON.
pub(crate) fn tail(
    data: &Path,
    filter: &LineFilter,
) -> Result<io::Lines<io::BufReader<net::UnixStream>>, CommandError> {
    Ok(
        command(data, &json!({ "tail": filter.to_json() }), no_answer)?
            .1
            .lines(),
    )
}

fn no_answer(socket: &Path) -> String {
    format!(
        "no server answers at {}: start one, or name its --data",
        socket.display()
    )
}

/// Sends one request. Returns the response, and the stream with the lines after it.
fn command(
    data: &Path,
    command: &Value,
    no_answer: impl Fn(&Path) -> String,
) -> Result<(String, io::BufReader<net::UnixStream>), CommandError> {
    let path = socket(data);
    let no_answer = || no_answer(&path);
    let mut stream = net::UnixStream::connect(&path).with_context(no_answer)?;
    stream
        .write_all(format!("{command}\n").as_bytes())
        .with_context(no_answer)?;
    let (mut line, mut reading) = (String::new(), io::BufReader::new(stream));
    reading.read_line(&mut line).with_context(no_answer)?;
    let answer: Value = serde_json::from_str(&line).with_context(no_answer)?;
    match (answer["done"].as_str(), answer["error"].as_str()) {
        (Some(done), _) => Ok((done.to_owned(), reading)),
        (_, error) => {
            Err(anyhow!("{}", error.unwrap_or("the server sent an invalid response")).into())
        }
    }
}
