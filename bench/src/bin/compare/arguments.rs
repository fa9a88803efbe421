//! Arguments: the parts to compare, the duration, and the files of the contenders.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, ValueEnum};
use tidegate_bench::board::Window;
use tidegate_bench::machine::Cores;
use tidegate_bench::scenario::Setting;

/// The parts of the comparison, in the order in which they run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Part {
    /// WebSocket echo, depth 1.
    Echo,
    /// WebSocket echo, depth 16.
    EchoDeep,
    /// HTTP hello.
    Hello,
    /// The same `wasi:http` component in two hosts.
    WasiHttp,
    /// One message to many.
    Fanout,
    /// Memory of idle WebSockets.
    Idle,
    /// Memory of idle event streams.
    Feeds,
    /// Time to the first answer.
    Start,
    /// Messages that a room writes to its storage before it answers.
    Rooms,
    /// The first message to a room that sleeps.
    Wake,
    /// Memory of rooms with a WebSocket each, asleep and awake.
    RoomsIdle,
    /// When the first byte of a page comes, with and without loaders.
    FirstByte,
    /// Pages that stream: their memory, and how late their values are.
    Pages,
}

#[derive(Parser)]
#[command(
    about = "Compares Tidegate with native servers and other hosts. Run it through bench/run, which builds."
)]
pub(crate) struct Arguments {
    /// Only these parts, with commas between.
    #[arg(long, value_enum, value_delimiter = ',')]
    pub(crate) only: Vec<Part>,
    /// Measured time of each run.
    #[arg(long, default_value_t = 5.0)]
    pub(crate) seconds: f64,
    /// Time before that.
    #[arg(long, default_value_t = 2.0)]
    pub(crate) warm_up: f64,
    /// Runs of each contender; medians are printed.
    #[arg(long, default_value_t = 5)]
    pub(crate) repeat: usize,
    #[arg(long, default_value_t = 0)]
    pub(crate) server_core: usize,
    #[arg(long, default_value_t = 1)]
    pub(crate) client_core: usize,
    /// Connections of the idle part.
    #[arg(long, default_value_t = 10_000)]
    pub(crate) idle_connections: usize,
    /// Followers of the fan-out part.
    #[arg(long, default_value_t = 5_000)]
    pub(crate) followers: usize,
    #[command(flatten)]
    pub(crate) files: Files,
}

/// Programs and components. One that does not exist is left out of the comparison, and that is
/// said.
#[derive(clap::Args)]
pub(crate) struct Files {
    #[arg(long, env = "NATIVE", default_value = "target/release/native")]
    pub(crate) native: PathBuf,
    #[arg(long, env = "TIDEGATE", default_value = "target/release/tidegate")]
    pub(crate) tidegate: PathBuf,
    /// A path, or a name to look up in PATH.
    #[arg(long, env = "WASMTIME", default_value = "wasmtime")]
    pub(crate) wasmtime: PathBuf,
    #[arg(
        long,
        env = "ECHO_WASM",
        default_value = "target/wasm32-wasip2/release/echo.wasm"
    )]
    pub(crate) echo: PathBuf,
    #[arg(
        long,
        env = "HELLO_WASM",
        default_value = "target/wasm32-wasip2/release/hello.wasm"
    )]
    pub(crate) hello: PathBuf,
    #[arg(
        long,
        env = "BROADCAST_WASM",
        default_value = "target/wasm32-wasip2/release/broadcast.wasm"
    )]
    pub(crate) broadcast: PathBuf,
    #[arg(
        long,
        env = "DURABLE_WASM",
        default_value = "target/wasm32-wasip2/release/durable.wasm"
    )]
    pub(crate) durable: PathBuf,
    #[arg(
        long,
        env = "TICKER_WASM",
        default_value = "target/wasm32-wasip2/release/ticker.wasm"
    )]
    pub(crate) ticker: PathBuf,
    #[arg(
        long,
        env = "PAGED_WASM",
        default_value = "target/wasm32-wasip2/release/paged.wasm"
    )]
    pub(crate) paged: PathBuf,
    /// The program, not the script of the same name that starts it.
    #[arg(long, env = "WORKERD", default_value = "workerd")]
    pub(crate) workerd: PathBuf,
    #[arg(long, default_value = "bench/workerd/serve")]
    pub(crate) workerd_serve: PathBuf,
    #[arg(
        long,
        env = "PROXY_WASM",
        default_value = "target/wasm32-wasip2/release/hello_proxy.wasm"
    )]
    pub(crate) proxy: PathBuf,
}

impl Arguments {
    /// Whether a part was asked for.
    pub(crate) fn wants(&self, part: Part) -> bool {
        self.only.is_empty() || self.only.contains(&part)
    }

    /// Cores and times.
    pub(crate) fn setting(&self) -> Setting {
        Setting {
            cores: Cores {
                client: self.client_core,
                server: self.server_core,
            },
            window: Window {
                warm_up: Duration::from_secs_f64(self.warm_up),
                measured: Duration::from_secs_f64(self.seconds),
            },
        }
    }
}
