//! `tidegate data`: operations on the data of rooms. While a server has the data open, only a
//! backup is possible: the server makes it.

use crate::{
    args::{self, DataArgs, DataCommand},
    assemble,
    command::print,
    command_error::CommandError,
    control,
    progress::ProgressLine,
};
use anyhow::{Context as _, anyhow, bail};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use bytes::Bytes;
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    io::{self, BufRead, IsTerminal as _},
    ops::Bound,
};
use tidegate_disk::Storage;
use tidegate_hub::{Alarm, Batch, Engine, RoomId, RoomRecord, rooms::storage::Range};

/// Number of rooms or entries that are read, or entries that are written, at a time.
const PAGE: usize = 1000;

/// Opens the data directory, and runs the operation.
pub(crate) fn run(args: &DataArgs) -> Result<(), CommandError> {
    // Only an import may create the directory. Elsewhere a missing one is an error of the
    // arguments.
    let storage = match args.command {
        DataCommand::Import => Storage::open(&args.data),
        _ => Storage::open_existing(&args.data),
    };
    let storage = match (storage, &args.command) {
        (Err(error), DataCommand::Backup { to }) if error.is_locked() => {
            let _progress = ProgressLine::unknown("copying, by the running server");
            return control::backup(&args.data, to);
        }
        (storage, _) => storage?,
    };
    match &args.command {
        DataCommand::Rooms { class, json } => list(&storage, class.as_deref(), *json)?,
        DataCommand::Export { room } => export(&storage, room)?,
        DataCommand::Import => {
            let imported = assemble::runtime()?.block_on(import(&storage, io::stdin().lock()))?;
            print(&format!("{imported} rooms were imported\n"))?;
        }
        DataCommand::Delete { room } => {
            if !assemble::runtime()?.block_on(storage.delete(room))? {
                return Err(no_room(room));
            }
            print(&format!("{room} was deleted\n"))?;
        }
        DataCommand::Verify => verify(&storage)?,
        DataCommand::Compact => {
            let _progress = ProgressLine::unknown("compacting");
            storage.compact()?;
        }
        DataCommand::Backup { to } => {
            let progress = ProgressLine::of("copying", storage.entries_about() as u64);
            storage.backup(to, || progress.step(1))?;
        }
    }
    Ok(())
}

/// Calls `each` with every room of the class, or of all classes, page by page.
fn rooms(
    storage: &Storage,
    class: Option<&str>,
    mut each: impl FnMut(&RoomId, RoomRecord) -> Result<(), CommandError>,
) -> Result<(), CommandError> {
    let mut after: Option<RoomId> = None;
    loop {
        let page = storage.rooms(class, after.as_ref(), PAGE)?;
        for (room, stored) in &page {
            each(room, *stored)?;
        }
        match page.into_iter().next_back() {
            Some((last, _)) => after = Some(last),
            None => return Ok(()),
        }
    }
}

fn list(storage: &Storage, class: Option<&str>, json: bool) -> Result<(), CommandError> {
    rooms(storage, class, |room, stored| {
        let at = stored.alarm.map(|alarm| alarm.at);
        print(&if json {
            format!(
                "{}\n",
                json!({ "room": room.to_string(), "bytes": stored.bytes, "alarm": at })
            )
        } else {
            let alarm = at.map_or_else(String::new, |at| format!("  alarm at {at} ms"));
            format!("{room}  {} bytes{alarm}\n", stored.bytes)
        })
    })
}

/// Prints a line for the room, then a line for each entry.
fn export(storage: &Storage, room: &RoomId) -> Result<(), CommandError> {
    let stored = storage.stored(room)?;
    if stored == RoomRecord::default() {
        return Err(no_room(room));
    }
    // On a terminal the progress line would mix with the exported lines.
    let progress =
        (!io::stdout().is_terminal()).then(|| ProgressLine::of("exporting", stored.bytes));
    let alarm = stored
        .alarm
        .map(|alarm| json!({ "at": alarm.at, "attempt": alarm.attempt }));
    print(&format!(
        "{}\n",
        json!({ "room": room.to_string(), "alarm": alarm })
    ))?;
    let mut last: Option<String> = None;
    loop {
        let start = last.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
        let page = storage.range(
            room,
            &Range {
                start,
                ..Range::all(PAGE)
            },
        )?;
        let line = |(key, value): &(String, Bytes)| match std::str::from_utf8(value) {
            Ok(text) => format!("{}\n", json!({ "key": key, "text": text })),
            Err(_) => format!(
                "{}\n",
                json!({ "key": key, "base64": BASE64_STANDARD.encode(value) })
            ),
        };
        print(&page.iter().map(line).collect::<String>())?;
        if let Some(progress) = &progress {
            progress.step(
                page.iter()
                    .map(|(key, value)| (key.len() + value.len()) as u64)
                    .sum(),
            );
        }
        match page.into_iter().next_back() {
            Some((key, _)) => last = Some(key),
            None => return Ok(()),
        }
    }
}

/// Reads exported rooms, any number of them, and replaces existing rooms. Returns the number of
/// rooms.
async fn import(storage: &Storage, lines: impl BufRead) -> Result<usize, anyhow::Error> {
    let _progress = ProgressLine::unknown("importing");
    let (mut count, mut open) = (0, None::<Batch>);
    for (number, line) in (1..).zip(lines.lines()) {
        let line = line.context("can't read the input")?;
        let line: Value =
            serde_json::from_str(&line).with_context(|| format!("line {number} is not JSON"))?;
        if line.get("room").is_some() {
            if let Some(done) = open.take() {
                storage.commit(done).await?;
            }
            open = Some(room_line(&line).with_context(|| format!("line {number}"))?);
            count += 1;
            continue;
        }
        let Some(batch) = &mut open else {
            bail!("line {number} comes before any line with a \"room\"")
        };
        let (key, value) = entry_line(&line).with_context(|| format!("line {number}"))?;
        batch.stored.bytes += (key.len() + value.len()) as u64;
        batch.writes.insert(key, Some(value));
        if batch.writes.len() >= PAGE {
            let next = Batch {
                clear: false,
                writes: BTreeMap::new(),
                ..batch.clone()
            };
            storage.commit(std::mem::replace(batch, next)).await?;
        }
    }
    if let Some(done) = open {
        storage.commit(done).await?;
    }
    Ok(count)
}

/// Converts the line of a room to a batch that replaces the room.
fn room_line(line: &Value) -> Result<Batch, anyhow::Error> {
    let room = line["room"]
        .as_str()
        .and_then(|name| args::room(name).ok())
        .context("\"room\" is not CLASS/NAME")?;
    let alarm = match &line["alarm"] {
        Value::Null => None,
        alarm => {
            let at = alarm["at"].as_u64().context("\"alarm\" has no \"at\"")?;
            Some(Alarm {
                at,
                attempt: alarm["attempt"]
                    .as_u64()
                    .and_then(|attempt| u32::try_from(attempt).ok())
                    .unwrap_or(1)
                    .max(1),
            })
        }
    };
    Ok(Batch {
        clear: true,
        ..Batch::new(
            room,
            RoomRecord {
                alarm,
                ..RoomRecord::default()
            },
        )
    })
}

/// Returns key and value of the line of an entry.
fn entry_line(line: &Value) -> Result<(String, Bytes), anyhow::Error> {
    let key = line["key"]
        .as_str()
        .filter(|key| !key.is_empty())
        .context("there is no \"key\"")?;
    let value = match (line["text"].as_str(), line["base64"].as_str()) {
        (Some(text), None) => text.to_owned().into(),
        (None, Some(base64)) => BASE64_STANDARD
            .decode(base64)
            .context("\"base64\" is not base64")?
            .into(),
        _ => bail!("there is neither \"text\" nor \"base64\""),
    };
    Ok((key.to_owned(), value))
}

/// The error for a room that does not exist.
fn no_room(room: &RoomId) -> CommandError {
    anyhow!("there is no room {room}: `tidegate data rooms` lists the rooms").into()
}

fn verify(storage: &Storage) -> Result<(), CommandError> {
    let progress = ProgressLine::of("reading", storage.entries_about() as u64);
    let found = storage.verify(|| progress.step(1))?;
    drop(progress);
    let summary = format!(
        "{} rooms, {} entries, {} bytes",
        found.rooms, found.entries, found.bytes
    );
    if found.wrong.is_empty() {
        return print(&format!("{summary}: no problems found\n"));
    }
    let lines: String = found
        .wrong
        .iter()
        .map(|wrong| format!("\n  {wrong}"))
        .collect();
    Err(anyhow!("{summary}; restore a backup, or export the intact rooms:{lines}").into())
}
