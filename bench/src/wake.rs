//! Wake: one message at a time to rooms that were left alone for long enough to sleep, each
//! answered by the room.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use crate::board::Board;
use crate::connection::Connection;
use crate::crowd;
use crate::frame::{self, Opcode};
use crate::outcome::Outcome;
use crate::server::Server;
use crate::stamp::Stamp;

const MESSAGE_BYTES: usize = 64;
/// Pause between two messages of a room. The server's rooms sleep after less than that, or never.
const REST: Duration = Duration::from_millis(1500);

/// Opens `connections`, which go to as many rooms, and in each round says one thing to every one of
/// them.
pub async fn run(
    connections: usize,
    rounds: usize,
    server: &Server,
    path: &str,
) -> Result<Outcome> {
    let crowd = crowd::open(server.address, path, connections).await?;
    let mut talks: Vec<_> = crowd
        .into_iter()
        .enumerate()
        .map(|(sender, connection)| (connection, Stamp::new(sender, MESSAGE_BYTES)))
        .collect();
    let board = Board::new();
    let mut opening = board.open(&server.process)?;
    for round in 0..=rounds {
        tokio::time::sleep(REST).await;
        if round == 1 {
            opening = board.open(&server.process)?; // the first round has warmed up
        }
        for (connection, stamp) in &mut talks {
            let began = Instant::now();
            ask(connection, stamp).await?;
            board.record(began.elapsed(), 1);
        }
    }
    board.close(&opening, &server.process)
}

async fn ask(connection: &mut Connection, stamp: &mut Stamp) -> Result<()> {
    let (mut wire, mask) = (Vec::new(), stamp.mask());
    let message = stamp.advance().to_vec();
    frame::encode(Opcode::Text, &message, mask, &mut wire);
    connection.write(&wire).await?;
    let mut answered = false;
    while !answered {
        connection
            .read(|payload| {
                ensure!(
                    payload == message,
                    "the answer is not what was sent: {}",
                    payload.escape_ascii()
                );
                answered = true;
                Ok(())
            })
            .await?;
    }
    Ok(())
}
