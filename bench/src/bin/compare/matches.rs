//! The matches: one load, and the contenders that take it. The first of them is the yardstick.

use tidegate_bench::echo::Echo;
use tidegate_bench::fanout::Fanout;
use tidegate_bench::scenario::Load;

use crate::arguments::{Arguments, Part};
use crate::contender::Contender;

const CONNECTIONS: usize = 100;
const MESSAGE_BYTES: usize = 64;
const STARTS: usize = 10;

/// One row group of the table.
pub(crate) struct Match {
    part: Part,
    /// What the load is.
    pub(crate) title: String,
    /// The load itself.
    pub(crate) load: Load,
    /// Who takes it; the first is what the others are compared with.
    pub(crate) contenders: Vec<Contender>,
}

/// The matches that were asked for.
pub(crate) fn chosen(arguments: &Arguments) -> Vec<Match> {
    let all = [
        echo(Part::Echo, 1, arguments),
        echo(Part::EchoDeep, 16, arguments),
        hello(arguments),
        wasi_http(arguments),
        fanout(arguments),
        idle(arguments),
        start(arguments),
    ];
    all.into_iter().filter(|entry| arguments.wants(entry.part)).collect()
}

fn echo(part: Part, depth: usize, arguments: &Arguments) -> Match {
    let files = &arguments.files;
    Match {
        part,
        title: format!("WebSocket echo, depth {depth}"),
        load: Load::Echo(Echo { connections: CONNECTIONS, depth, message_bytes: MESSAGE_BYTES }),
        contenders: vec![
            Contender::native("native", "echo", files),
            Contender::native("native, batched", "echo-batched", files),
            Contender::tidegate("tidegate", &files.echo, "/echo", files),
        ],
    }
}

fn hello(arguments: &Arguments) -> Match {
    let files = &arguments.files;
    Match {
        part: Part::Hello,
        title: "HTTP hello".into(),
        load: Load::Request { connections: CONNECTIONS },
        contenders: vec![Contender::native("hyper", "hello", files), Contender::tidegate("tidegate", &files.hello, "/", files)],
    }
}

fn wasi_http(arguments: &Arguments) -> Match {
    let files = &arguments.files;
    Match {
        part: Part::WasiHttp,
        title: "the same wasi:http 0.2 component".into(),
        load: Load::Request { connections: CONNECTIONS },
        contenders: vec![
            Contender::wasmtime("wasmtime serve", &files.proxy, files),
            Contender::tidegate_with("tidegate, instances reused", &["--reuse-foreign"], &files.proxy, "/", files),
            Contender::tidegate("tidegate", &files.proxy, "/", files),
        ],
    }
}

fn fanout(arguments: &Arguments) -> Match {
    let files = &arguments.files;
    Match {
        part: Part::Fanout,
        title: format!("fan-out to {}", arguments.followers),
        load: Load::Fanout(Fanout { followers: arguments.followers, message_bytes: MESSAGE_BYTES }),
        contenders: vec![Contender::native("native", "fanout", files), Contender::tidegate("tidegate", &files.broadcast, "/all", files)],
    }
}

fn idle(arguments: &Arguments) -> Match {
    let files = &arguments.files;
    Match {
        part: Part::Idle,
        title: "idle WebSockets".into(),
        load: Load::Idle { connections: arguments.idle_connections },
        contenders: vec![Contender::native("native", "echo", files), Contender::tidegate("tidegate", &files.echo, "/echo", files)],
    }
}

fn start(arguments: &Arguments) -> Match {
    let files = &arguments.files;
    Match {
        part: Part::Start,
        title: "start, warm cache".into(),
        load: Load::Start { times: STARTS },
        contenders: vec![
            Contender::native("hyper", "hello", files),
            Contender::tidegate("tidegate", &files.hello, "/", files),
            Contender::wasmtime("wasmtime serve", &files.proxy, files),
        ],
    }
}
