//! Echo: each connection sends some messages in one write, and waits until every one of them came
//! back.

use std::rc::Rc;
use std::time::Instant;

use anyhow::{Result, ensure};

use crate::board::{Board, Window};
use crate::connection::Connection;
use crate::crowd;
use crate::frame::{self, Opcode};
use crate::outcome::Outcome;
use crate::server::Server;
use crate::stamp::Stamp;
use crate::talks::Talks;

/// The shape of the load.
#[derive(Clone, Copy, Debug)]
pub struct Echo {
    /// How many connections.
    pub connections: usize,
    /// How many messages are in flight on each of them.
    pub depth: usize,
    /// How long a message is.
    pub message_bytes: usize,
}

/// Runs the load; every message is checked, and one that is lost, changed or out of order is an
/// error.
pub async fn run(echo: Echo, server: &Server, path: &str, window: Window) -> Result<Outcome> {
    let board = Rc::new(Board::new());
    let mut talks = Talks::default();
    for (sender, connection) in crowd::open(server.address, path, echo.connections)
        .await?
        .into_iter()
        .enumerate()
    {
        talks.start(talk(
            connection,
            Stamp::new(sender, echo.message_bytes),
            echo,
            board.clone(),
        ));
    }
    let outcome = talks.during(board.watch(window, &server.process)).await?;
    talks.finish().await?;
    Ok(outcome)
}

async fn talk(
    mut connection: Connection,
    mut stamp: Stamp,
    echo: Echo,
    board: Rc<Board>,
) -> Result<()> {
    let mut sent = Vec::new();
    let mut wire = Vec::new();
    while !board.is_over() {
        sent.clear();
        wire.clear();
        for _ in 0..echo.depth {
            let mask = stamp.mask();
            let message = stamp.advance();
            sent.extend_from_slice(message);
            frame::encode(Opcode::Text, message, mask, &mut wire);
        }
        let began = Instant::now();
        connection.write(&wire).await?;
        receive_all(&mut connection, &sent, echo, began, &board).await?;
    }
    Ok(())
}

/// Reads until all of `sent` has come back, in order.
async fn receive_all(
    connection: &mut Connection,
    sent: &[u8],
    echo: Echo,
    began: Instant,
    board: &Board,
) -> Result<()> {
    let mut expected = sent.chunks_exact(echo.message_bytes);
    while expected.len() > 0 {
        let before = expected.len();
        connection
            .read(|payload| {
                ensure!(
                    expected.next() == Some(payload),
                    "the echo is not what was sent: {}",
                    payload.escape_ascii()
                );
                Ok(())
            })
            .await?;
        board.record(began.elapsed(), (before - expected.len()) as u64);
    }
    Ok(())
}
