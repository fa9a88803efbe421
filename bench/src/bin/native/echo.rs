//! Echo, in the two ways that one can write it.

use futures_util::{FutureExt as _, SinkExt as _, StreamExt as _};
use tokio_tungstenite::tungstenite::{Error, Message};

use crate::websocket::Socket;

/// How many messages are answered in one write.
const BATCH_MESSAGES_MAX: usize = 64;

/// Sends each message back as soon as it is read.
pub(crate) async fn each(mut socket: Socket) {
    while let Some(Ok(message)) = socket.next().await {
        if is_data(&message) && socket.send(message).await.is_err() {
            return;
        }
    }
}

/// Reads all that is ready, answers all of it, and writes once.
pub(crate) async fn batched(mut socket: Socket) {
    while let Some(Ok(message)) = socket.next().await {
        if batch(&mut socket, message).await.is_err() {
            return;
        }
    }
}

async fn batch(socket: &mut Socket, first: Message) -> Result<(), Error> {
    feed(socket, first).await?;
    for _ in 1..BATCH_MESSAGES_MAX {
        match socket.next().now_or_never() {
            Some(Some(message)) => feed(socket, message?).await?,
            // Not ready, or ended: the caller's next read says which.
            _ => break,
        }
    }
    socket.flush().await
}

async fn feed(socket: &mut Socket, message: Message) -> Result<(), Error> {
    if is_data(&message) {
        socket.feed(message).await
    } else {
        Ok(())
    }
}

/// Pings and closes are answered by tungstenite.
fn is_data(message: &Message) -> bool {
    message.is_text() || message.is_binary()
}
