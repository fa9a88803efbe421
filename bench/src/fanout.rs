//! Fan-out: one connection publishes, all of them receive it, and only then comes the next message.
//!
//! The publisher follows the topic as well. Because the loop is closed, the processor time of a
//! delivery is exact whatever the rate.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use tokio::sync::Notify;

use crate::board::{Board, Window};
use crate::connection::Connection;
use crate::crowd;
use crate::frame::{self, Opcode};
use crate::outcome::Outcome;
use crate::server::Server;
use crate::stamp::Stamp;
use crate::talks::Talks;

/// Followers subscribe after the handshake's answer; no message is due before the last of them has.
const SETTLE: Duration = Duration::from_secs(1);
const ROUND_MAX: Duration = Duration::from_secs(10);

/// The shape of the load.
#[derive(Clone, Copy, Debug)]
pub struct Fanout {
    /// How many connections receive, besides the publisher.
    pub followers: usize,
    /// How long a message is.
    pub message_bytes: usize,
}

/// Runs the load; a message that is missing, changed or doubled is an error.
pub async fn run(fanout: Fanout, server: &Server, path: &str, window: Window) -> Result<Outcome> {
    let mut crowd = crowd::open(server.address, path, fanout.followers + 1).await?;
    let publisher = crowd
        .pop()
        .context("there is a publisher besides the followers")?;
    let round = Rc::new(Round::default());
    let mut talks = Talks::default();
    for follower in crowd {
        talks.start(follow(follower, round.clone()));
    }
    tokio::time::sleep(SETTLE).await;
    let stamp = Stamp::new(0, fanout.message_bytes);
    let publisher = Publisher {
        connection: publisher,
        stamp,
        round,
        receivers: fanout.followers + 1,
    };
    talks.during(publisher.publish_all(server, window)).await
}

/// The message that everybody should receive now.
#[derive(Default)]
struct Round {
    message: RefCell<Vec<u8>>,
    awaited: Cell<usize>,
    done: Notify,
}

impl Round {
    fn begin(&self, message: &[u8], receivers: usize) {
        let mut current = self.message.borrow_mut();
        current.clear();
        current.extend_from_slice(message);
        self.awaited.set(receivers);
    }

    fn receive(&self, payload: &[u8]) -> Result<()> {
        ensure!(
            *self.message.borrow() == payload,
            "not the message that was published: {}",
            payload.escape_ascii()
        );
        let awaited = self
            .awaited
            .get()
            .checked_sub(1)
            .context("a message came twice")?;
        self.awaited.set(awaited);
        if awaited == 0 {
            self.done.notify_one();
        }
        Ok(())
    }
}

async fn follow(mut connection: Connection, round: Rc<Round>) -> Result<()> {
    loop {
        connection.read(|payload| round.receive(payload)).await?;
    }
}

struct Publisher {
    connection: Connection,
    stamp: Stamp,
    round: Rc<Round>,
    receivers: usize,
}

impl Publisher {
    async fn publish_all(mut self, server: &Server, window: Window) -> Result<Outcome> {
        let board = Board::new();
        self.publish_for(window.warm_up, &board).await?;
        let opening = board.open(&server.process)?;
        self.publish_for(window.measured, &board).await?;
        board.close(&opening, &server.process)
    }

    /// Whole rounds only, so the last one may end late.
    async fn publish_for(&mut self, length: Duration, board: &Board) -> Result<()> {
        let end = Instant::now() + length;
        while Instant::now() < end {
            let began = Instant::now();
            let published = tokio::time::timeout(ROUND_MAX, self.publish()).await;
            published.with_context(|| self.missing())??;
            board.record_whole(began.elapsed(), self.receivers as u64);
        }
        Ok(())
    }

    async fn publish(&mut self) -> Result<()> {
        let mask = self.stamp.mask();
        let message = self.stamp.advance();
        self.round.begin(message, self.receivers);
        let mut wire = Vec::new();
        frame::encode(Opcode::Text, message, mask, &mut wire);
        self.connection.write(&wire).await?;
        let own = Cell::new(false);
        while !own.get() {
            self.connection
                .read(|payload| self.round.receive(payload).map(|()| own.set(true)))
                .await?;
        }
        self.round.done.notified().await;
        Ok(())
    }

    fn missing(&self) -> String {
        format!(
            "{} of {} never came within {ROUND_MAX:?}",
            self.round.awaited.get(),
            self.receivers
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_round_counts_each_receiver_once() {
        let round = Round::default();
        round.begin(b"one", 2);
        assert!(round.receive(b"other").is_err());
        round.receive(b"one").unwrap();
        round.receive(b"one").unwrap();
        assert!(round.receive(b"one").is_err());
    }
}
