//! Messages that come back when they are durable: with an fsync for each, and through Tidegate's
//! storage without wasm.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::rc::Rc;

use anyhow::{Context as _, Result};
use futures_util::{SinkExt as _, StreamExt as _};
use tidegate_disk::Storage;
use tidegate_hub::{Batch, Engine as _, RoomId, RoomRecord};
use tokio::net::TcpListener;

use crate::websocket::{self, Socket};

const KEY: &str = "last";

/// One log for all, written and synced message by message: what is durable without a storage
/// engine.
pub(crate) async fn synced_each(listener: TcpListener, data: &Path) -> Result<()> {
    let log = Rc::new(File::create(data.join("log")).context("cannot make the log")?);
    websocket::serve(listener, move |socket| append_each(socket, log.clone())).await
}

async fn append_each(mut socket: Socket, log: Rc<File>) {
    while let Some(Ok(message)) = socket.next().await {
        if !message.is_text() {
            continue;
        }
        let kept = (&*log)
            .write_all(message.clone().into_data().as_ref())
            .and_then(|()| log.sync_data());
        if kept.is_err() || socket.send(message).await.is_err() {
            return;
        }
    }
}

/// The storage that rooms have: one commit for each message, of the room that the connection's
/// number gives.
pub(crate) async fn engine(listener: TcpListener, data: &Path, rooms: usize) -> Result<()> {
    let storage = Rc::new(Storage::open(&data.join("store"))?);
    let next = Rc::new(Cell::new(0));
    websocket::serve(listener, move |socket| {
        let number = next.replace(next.get() + 1) % rooms.max(1);
        let room = RoomId::new("kept", &number.to_string()).expect("a number is a name");
        commit_each(socket, storage.clone(), room)
    })
    .await
}

async fn commit_each(mut socket: Socket, storage: Rc<Storage>, room: RoomId) {
    while let Some(Ok(message)) = socket.next().await {
        if !message.is_text() {
            continue;
        }
        let value = message.clone().into_data();
        let stored = RoomRecord {
            bytes: (KEY.len() + value.len()) as u64,
            ..RoomRecord::default()
        };
        let writes = BTreeMap::from([(KEY.to_owned(), Some(value))]);
        let batch = Batch {
            writes,
            ..Batch::new(room.clone(), stored)
        };
        if storage.commit(batch).await.is_err() || socket.send(message).await.is_err() {
            return;
        }
    }
}
