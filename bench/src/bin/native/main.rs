//! The yardsticks: what hyper and tungstenite do by themselves, in the shape that a good engineer
//! would write.

mod echo;
mod fanout;
mod hello;
mod kept;
mod listen;
mod websocket;

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Parser, ValueEnum};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[derive(Parser)]
#[command(about = "A native server to measure others by.")]
struct Arguments {
    yardstick: Yardstick,
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// An empty directory, for those that keep something.
    #[arg(long)]
    data: Option<PathBuf>,
    #[arg(long, default_value_t = 1)]
    rooms: usize,
}

#[derive(Clone, Copy, ValueEnum)]
enum Yardstick {
    /// WebSocket: each message back at once.
    Echo,
    /// WebSocket: all messages that are ready back in one write.
    EchoBatched,
    /// WebSocket: each message to all connections.
    Fanout,
    /// HTTP: one answer to everything.
    Hello,
    /// WebSocket: each message back when it is written to a file and synced.
    SyncedEach,
    /// WebSocket: each message back when Tidegate's storage has it, with as many rooms as are said.
    Engine,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    tidegate_bench::machine::raise_open_files()?;
    let arguments = Arguments::parse();
    let data = arguments.data.unwrap_or_else(std::env::temp_dir);
    let listener = listen::bind(arguments.listen).await?;
    let serving = async {
        match arguments.yardstick {
            Yardstick::Echo => websocket::serve(listener, echo::each).await,
            Yardstick::EchoBatched => websocket::serve(listener, echo::batched).await,
            Yardstick::Fanout => fanout::serve(listener).await,
            Yardstick::Hello => hello::serve(listener).await,
            Yardstick::SyncedEach => kept::synced_each(listener, &data).await,
            Yardstick::Engine => kept::engine(listener, &data, arguments.rooms).await,
        }
    };
    tokio::task::LocalSet::new().run_until(serving).await
}
