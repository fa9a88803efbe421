//! The control_socket of a running server: a Unix socket beside its data, by which commands of its owner reach it.
//!
//! A command is one line of JSON: `"reload"`, `"rollback"` or `{"backup":"/absolute/path"}`. The answer is another,
//! `{"done":"what"}` or `{"error":"why"}`. To `{"tail":…}` come lines of the log, as long as both sides like.

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

/// A command's line.
const LINE_BYTES_MAX: u64 = 64 << 10;
/// For a command to come.
const LINE_WITHIN: Duration = Duration::from_secs(10);

/// "tidegate-data" → "tidegate-data.sock"
fn socket(data: &Path) -> PathBuf {
    let mut name = OsString::from(data.components().as_path()); // without a slash at its end
    name.push(".sock");
    name.into()
}

/// An open control_socket. Dropping it takes the socket's file away, if it is still this one's.
pub(crate) struct ControlSocket {
    path: PathBuf,
    file: (u64, u64),
}

impl Drop for ControlSocket {
    fn drop(&mut self) {
        if identity(&self.path).is_ok_and(|file| file == self.file) {
            _ = fs::remove_file(&self.path);
        }
    }
}

/// Refuses a data directory whose control socket would have a path that is longer than the system takes.
pub(crate) fn check_path(data: &Path) -> Result<(), CommandError> {
    let path = socket(data);
    match net::SocketAddr::from_pathname(&path) {
        Ok(_) => Ok(()),
        Err(error) => Err(CommandError::usage(format!(
            "the control socket {} has a path of {} bytes, {error}: name a directory with a shorter path with --data",
            path.display(),
            path.as_os_str().len()
        ))),
    }
}

/// Opens the control_socket of a server. A socket that an earlier one left is replaced; that of a server that still runs, and any other file, is
/// left alone.
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
                "{} is there and is not a socket: move it away, or name another --data",
                path.display()
            );
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, message));
        }
        Ok(_) => {}
    }
    match net::UnixStream::connect(path) {
        // Its server is gone.
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) if error.kind() != io::ErrorKind::WouldBlock => Err(error),
        _ => {
            let message = format!(
                "another server has {}: give each its own --data, or use SIGHUP to reload",
                path.display()
            );
            Err(io::Error::new(io::ErrorKind::AddrInUse, message))
        }
    }
}

/// Device and number of a file, which no other has while it is there.
fn identity(path: &Path) -> io::Result<(u64, u64)> {
    let metadata = fs::symlink_metadata(path)?;
    Ok((metadata.dev(), metadata.ino()))
}

async fn answer_all(listener: UnixListener, deployment: Arc<Deployment>) {
    loop {
        match listener.accept().await {
            // Somebody may have come in before the file had its mode.
            Ok((stream, _)) if is_owner(&stream) => {
                drop(tokio::spawn(answer(stream, deployment.clone())))
            }
            Ok(_) => {}
            Err(error) => {
                tracing::warn!("the control socket took no command: {error}");
                tokio::time::sleep(LINE_WITHIN).await;
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
        LINE_WITHIN,
        BufReader::new(reading.take(LINE_BYTES_MAX)).read_line(&mut line),
    )
    .await;
    if !matches!(read, Ok(Ok(1..))) {
        return;
    }
    if let Some(wanted) = serde_json::from_str(&line)
        .ok()
        .and_then(|command: Value| LineFilter::from_json(&command["tail"]))
    {
        return show_tail(Tail::open(wanted), stream).await;
    }
    let answer = match obey(&line, &deployment).await {
        Ok(done) => json!({ "done": done }),
        Err(failure) => json!({ "error": failure.to_string() }),
    };
    _ = writing.write_all(format!("{answer}\n").as_bytes()).await;
}

/// The log goes on until one side ends; that the other has gone is seen even while nothing is logged.
async fn show_tail(mut tail: Tail, mut stream: UnixStream) {
    let (mut reading, mut writing) = stream.split();
    let mut gone = [0];
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
            _ = reading.read(&mut gone) => return,
        }
    }
}

async fn obey(line: &str, deployment: &Arc<Deployment>) -> Result<String, CommandError> {
    let command: Value = serde_json::from_str(line).context("a command is a line of JSON")?;
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
                .context("this app has no rooms: there is nothing to back up")?;
            tracing::info!("backing up to {}", to.display());
            spawn_blocking(move || storage.backup(&to, || {})).await??;
            Ok("backed up".into())
        }
        _ => Err(anyhow!("there is no such command").into()),
    }
}

/// Lets the server that has this data open copy it, while it serves.
pub(crate) fn backup(data: &Path, to: &Path) -> Result<(), CommandError> {
    let to = path::absolute(to).with_context(|| format!("{} is no path", to.display()))?;
    let to = to
        .to_str()
        .context("a path that is no text can't be told to the server")?;
    let unheard = |socket: &Path| {
        format!(
            "another process has {} open, and does not answer at {}",
            data.display(),
            socket.display()
        )
    };
    command(data, &json!({ "backup": to }), unheard).map(drop)
}

/// Lets the server that has this data put another version of its app in place; what it says then.
pub(crate) fn reload(data: &Path, rollback: bool) -> Result<String, CommandError> {
    command(
        data,
        &json!(if rollback { "rollback" } else { "reload" }),
        unheard,
    )
    .map(|(done, _)| done)
}

/// The log of the server that has this data, from now on: lines of JSON, until it ends.
pub(crate) fn tail(
    data: &Path,
    wanted: &LineFilter,
) -> Result<io::Lines<io::BufReader<net::UnixStream>>, CommandError> {
    Ok(
        command(data, &json!({ "tail": wanted.to_json() }), unheard)?
            .1
            .lines(),
    )
}

fn unheard(socket: &Path) -> String {
    format!(
        "no server answers at {}: is it running, with this --data?",
        socket.display()
    )
}

/// What it answers, and whatever comes behind that.
fn command(
    data: &Path,
    command: &Value,
    unheard: impl Fn(&Path) -> String,
) -> Result<(String, io::BufReader<net::UnixStream>), CommandError> {
    let path = socket(data);
    let unheard = || unheard(&path);
    let mut stream = net::UnixStream::connect(&path).with_context(unheard)?;
    stream
        .write_all(format!("{command}\n").as_bytes())
        .with_context(unheard)?;
    let (mut line, mut reading) = (String::new(), io::BufReader::new(stream));
    reading.read_line(&mut line).with_context(unheard)?;
    let answer: Value = serde_json::from_str(&line).with_context(unheard)?;
    match (answer["done"].as_str(), answer["error"].as_str()) {
        (Some(done), _) => Ok((done.to_owned(), reading)),
        (_, error) => Err(anyhow!("{}", error.unwrap_or("an answer that is none")).into()),
    }
}
