//! One scenario against one server, for a quick look: `load echo --depth 16 --path /echo -- SERVER
//! ARGUMENTS`.

use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use tidegate_bench::board::Window;
use tidegate_bench::echo::Echo;
use tidegate_bench::fanout::Fanout;
use tidegate_bench::machine::Cores;
use tidegate_bench::outcome::digits;
use tidegate_bench::scenario::{self, Load, Setting, Target};
use tidegate_bench::server::Command;

#[derive(Parser)]
#[command(
    about = "Loads one server, which it starts on a core of its own, and prints what it found."
)]
struct Arguments {
    #[command(subcommand)]
    scenario: Scenario,
    /// Measured time.
    #[arg(long, default_value_t = 5.0, global = true)]
    seconds: f64,
    /// Time before that.
    #[arg(long, default_value_t = 1.0, global = true)]
    warm_up: f64,
    #[arg(long, default_value_t = 0, global = true)]
    server_core: usize,
    #[arg(long, default_value_t = 1, global = true)]
    client_core: usize,
}

#[derive(Subcommand)]
enum Scenario {
    /// Messages come back on each of some WebSockets.
    Echo {
        #[arg(long, default_value_t = 100)]
        connections: usize,
        #[arg(long, default_value_t = 1)]
        depth: usize,
        #[command(flatten)]
        subject: Subject,
    },
    /// GET again and again on kept connections.
    Request {
        #[arg(long, default_value_t = 100)]
        connections: usize,
        #[command(flatten)]
        subject: Subject,
    },
    /// Memory of WebSockets that do nothing.
    Idle {
        #[arg(long, default_value_t = 10_000)]
        connections: usize,
        /// Come and go before the server is weighed.
        #[arg(long, default_value_t = 0)]
        earlier: usize,
        #[command(flatten)]
        subject: Subject,
    },
    /// Memory of event streams that are silent after their first event.
    Feeds {
        #[arg(long, default_value_t = 10_000)]
        feeds: usize,
        #[command(flatten)]
        subject: Subject,
    },
    /// Each message of one WebSocket to all of them.
    Fanout {
        #[arg(long, default_value_t = 5_000)]
        followers: usize,
        #[command(flatten)]
        subject: Subject,
    },
    /// The first message to rooms that were left alone: `--path '/quiet/{200}'`.
    Wake {
        #[arg(long, default_value_t = 200)]
        connections: usize,
        #[arg(long, default_value_t = 5)]
        rounds: usize,
        #[command(flatten)]
        subject: Subject,
    },
    /// Time to the first byte of an answer, on a fresh connection each.
    FirstByte {
        #[arg(long, default_value_t = 100)]
        times: usize,
        #[command(flatten)]
        subject: Subject,
    },
    /// Pages that stream the time of each value: `--path /live/1000` of `guests/paged`.
    Pages {
        #[arg(long, default_value_t = 1_000)]
        pages: usize,
        #[command(flatten)]
        subject: Subject,
    },
    /// Time from spawn to the first answer.
    Start {
        #[arg(long, default_value_t = 10)]
        times: usize,
        #[command(flatten)]
        subject: Subject,
    },
}

#[derive(Args)]
struct Subject {
    #[arg(long, default_value = "/")]
    path: String,
    #[arg(long, default_value_t = 64)]
    message_bytes: usize,
    /// The server's command line; it prints its address, and for `start` it has to say 127.0.0.1:0.
    #[arg(last = true, required = true)]
    command: Vec<String>,
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let setting = Setting {
        cores: Cores {
            client: arguments.client_core,
            server: arguments.server_core,
        },
        window: Window {
            warm_up: Duration::from_secs_f64(arguments.warm_up),
            measured: Duration::from_secs_f64(arguments.seconds),
        },
    };
    let (load, subject) = arguments.scenario.split();
    let target = Target {
        command: Command(subject.command),
        path: subject.path,
    };
    for figure in scenario::run(load, &target, setting)?.0 {
        println!("{:>22}  {}", figure.name, digits(figure.value));
    }
    Ok(())
}

impl Scenario {
    fn split(self) -> (Load, Subject) {
        match self {
            Self::Echo {
                connections,
                depth,
                subject,
            } => (
                Load::Echo(Echo {
                    connections,
                    depth,
                    message_bytes: subject.message_bytes,
                }),
                subject,
            ),
            Self::Request {
                connections,
                subject,
            } => (Load::Request { connections }, subject),
            Self::Idle {
                connections,
                earlier,
                subject,
            } => (
                Load::Idle {
                    connections,
                    earlier,
                },
                subject,
            ),
            Self::Feeds { feeds, subject } => (Load::Feeds { feeds }, subject),
            Self::Fanout { followers, subject } => (
                Load::Fanout(Fanout {
                    followers,
                    message_bytes: subject.message_bytes,
                }),
                subject,
            ),
            Self::Wake {
                connections,
                rounds,
                subject,
            } => (
                Load::Wake {
                    connections,
                    rounds,
                },
                subject,
            ),
            Self::FirstByte { times, subject } => (Load::FirstByte { times }, subject),
            Self::Pages { pages, subject } => (Load::Pages { pages }, subject),
            Self::Start { times, subject } => (Load::Start { times }, subject),
        }
    }
}
