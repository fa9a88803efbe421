//! Fan-out: a message from any connection goes to all of them, straight into their sockets in one
//! loop.

use std::cell::RefCell;
use std::rc::Rc;

use anyhow::Result;
use futures_util::stream::SplitSink;
use futures_util::{FutureExt as _, SinkExt as _, StreamExt as _};
use tokio::net::TcpListener;
use tokio::task::coop::unconstrained;
use tokio_tungstenite::tungstenite::Message;

use crate::websocket::{self, Socket};

/// Serves one topic that every connection follows.
pub(crate) async fn serve(listener: TcpListener) -> Result<()> {
    let followers = Rc::new(Followers::default());
    websocket::serve(listener, move |socket| follow(socket, followers.clone())).await
}

async fn follow(socket: Socket, followers: Rc<Followers>) {
    let (sink, mut messages) = socket.split();
    followers.0.borrow_mut().push(sink);
    while let Some(Ok(message)) = messages.next().await {
        if message.is_text() || message.is_binary() {
            followers.publish(&message).await;
        }
    }
}

/// The writing halves of all connections.
#[derive(Default)]
struct Followers(RefCell<Vec<SplitSink<Socket, Message>>>);

impl Followers {
    /// Writes to every socket at once, with the payload's bytes shared. A follower whose socket is
    /// full is dropped, as one that failed is, so that the fast do not wait for the slowest.
    /// Without
    /// `unconstrained` tokio would report every socket as not ready after 128 writes.
    async fn publish(&self, message: &Message) {
        unconstrained(async {
            self.0.borrow_mut().retain_mut(|sink| {
                matches!(sink.send(message.clone()).now_or_never(), Some(Ok(())))
            });
        })
        .await;
    }
}
