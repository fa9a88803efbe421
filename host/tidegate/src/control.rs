//! The door of a running server: a Unix socket beside its data, by which commands of its owner reach it.
//!
//! A command is one line of JSON, `{"backup":"/absolute/path"}`; the answer is another, `{"done":true}` or `{"error":"why"}`.

use crate::failure::Failure;
use anyhow::{Context as _, anyhow};
use rustix::process::geteuid;
use serde_json::{Value, json};
use std::{
    ffi::OsString,
    fs, io,
    io::{BufRead as _, Write as _},
    os::unix::{fs::PermissionsExt as _, net},
    path::{self, Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use tidegate_disk::Storage;
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

/// An open door. Dropping it takes the socket's file away.
pub(crate) struct Door(PathBuf);

impl Drop for Door {
    fn drop(&mut self) {
        _ = fs::remove_file(&self.0);
    }
}

/// Opens the door of a server that has this data open: what an earlier one left behind is nobody's.
pub(crate) fn open(worker: &Handle, data: &Path, storage: &Arc<Storage>) -> io::Result<Door> {
    let path = socket(data);
    match fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let _inside = worker.enter();
    let listener = UnixListener::bind(&path)?;
    let door = Door(path);
    fs::set_permissions(&door.0, fs::Permissions::from_mode(0o600))?;
    worker.spawn(answer_all(listener, storage.clone()));
    Ok(door)
}

async fn answer_all(listener: UnixListener, storage: Arc<Storage>) {
    loop {
        match listener.accept().await {
            // Somebody may have come in before the file had its mode.
            Ok((stream, _)) if is_owner(&stream) => drop(tokio::spawn(answer(stream, storage.clone()))),
            Ok(_) => {}
            Err(error) => {
                tracing::warn!("the control socket took no command: {error}");
                tokio::time::sleep(LINE_WITHIN).await;
            }
        }
    }
}

fn is_owner(stream: &UnixStream) -> bool {
    stream.peer_cred().is_ok_and(|peer| peer.uid() == 0 || peer.uid() == geteuid().as_raw())
}

async fn answer(mut stream: UnixStream, storage: Arc<Storage>) {
    let mut line = String::new();
    let (reading, mut writing) = stream.split();
    let read = timeout(LINE_WITHIN, BufReader::new(reading.take(LINE_BYTES_MAX)).read_line(&mut line)).await;
    if !matches!(read, Ok(Ok(1..))) {
        return;
    }
    let answer = match obey(&line, storage).await {
        Ok(()) => json!({ "done": true }),
        Err(error) => json!({ "error": format!("{error:#}") }),
    };
    _ = writing.write_all(format!("{answer}\n").as_bytes()).await;
}

async fn obey(line: &str, storage: Arc<Storage>) -> Result<(), anyhow::Error> {
    let command: Value = serde_json::from_str(line).context("a command is a line of JSON")?;
    let to = command["backup"].as_str().map(PathBuf::from).filter(|to| to.is_absolute()).context("there is no such command")?;
    tracing::info!("backing up to {}", to.display());
    spawn_blocking(move || storage.backup(&to)).await??;
    Ok(())
}

/// Lets the server that has this data open copy it, while it serves.
pub(crate) fn backup(data: &Path, to: &Path) -> Result<(), Failure> {
    let to = path::absolute(to).with_context(|| format!("{} is no path", to.display()))?;
    let to = to.to_str().context("a path that is no text can't be told to the server")?;
    command(data, &json!({ "backup": to }))
}

fn command(data: &Path, command: &Value) -> Result<(), Failure> {
    let path = socket(data);
    let unheard = || format!("another process has {} open, and does not answer at {}", data.display(), path.display());
    let mut stream = net::UnixStream::connect(&path).with_context(unheard)?;
    stream.write_all(format!("{command}\n").as_bytes()).with_context(unheard)?;
    let mut line = String::new();
    io::BufReader::new(stream).read_line(&mut line).with_context(unheard)?;
    let answer: Value = serde_json::from_str(&line).with_context(unheard)?;
    match answer["error"].as_str() {
        Some(error) => Err(anyhow!("{error}").into()),
        None => Ok(()),
    }
}
