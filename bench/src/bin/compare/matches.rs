//! The matches: one load, and the contenders that take it. The first of them is the yardstick.

use tidegate_bench::echo::Echo;
use tidegate_bench::fanout::Fanout;
use tidegate_bench::scenario::Load;
use tidegate_bench::server::DATA;

use crate::arguments::{Arguments, Part};
use crate::contender::Contender;

const CONNECTIONS: usize = 100;
const MESSAGE_BYTES: usize = 64;
const STARTS: usize = 10;
const ROOM_CONNECTIONS: usize = 50;
const ROOMS_AWAKE: usize = 1000;
const ROOMS_EARLIER: usize = 1000;
const WAKES: usize = 200;
const FIRST_BYTES: usize = 100;
const PAGES: usize = 1000;
const AWAKE: &str = "rooms_awake_max=1500";

/// One row group of the table.
pub(crate) struct Match {
    part: Part,
    /// Name of the load.
    pub(crate) title: String,
    /// The load itself.
    pub(crate) load: Load,
    /// Servers under this load; the first is the yardstick.
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
        feeds(arguments),
        start(arguments),
        rooms(1, arguments),
        rooms(50, arguments),
        rooms(1000, arguments),
        wake(arguments),
        rooms_asleep(arguments),
        rooms_awake(arguments),
        first_byte(arguments),
        pages(arguments),
    ];
    all.into_iter()
        .filter(|entry| arguments.wants(entry.part))
        .collect()
}

fn echo(part: Part, depth: usize, arguments: &Arguments) -> Match {
    let files = &arguments.files;
    Match {
        part,
        title: format!("WebSocket echo, depth {depth}"),
        load: Load::Echo(Echo {
            connections: CONNECTIONS,
            depth,
            message_bytes: MESSAGE_BYTES,
        }),
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
        load: Load::Request {
            connections: CONNECTIONS,
        },
        contenders: vec![
            Contender::native("hyper", "hello", files),
            Contender::tidegate("tidegate", &files.hello, "/", files),
        ],
    }
}

fn wasi_http(arguments: &Arguments) -> Match {
    let files = &arguments.files;
    Match {
        part: Part::WasiHttp,
        title: "the same wasi:http 0.2 component".into(),
        load: Load::Request {
            connections: CONNECTIONS,
        },
        contenders: vec![
            Contender::wasmtime("wasmtime serve", &files.proxy, files),
            Contender::tidegate_with(
                "tidegate, instances reused",
                &["--reuse-foreign"],
                &files.proxy,
                "/",
                files,
            ),
            Contender::tidegate("tidegate", &files.proxy, "/", files),
        ],
    }
}

fn fanout(arguments: &Arguments) -> Match {
    let files = &arguments.files;
    Match {
        part: Part::Fanout,
        title: format!("fan-out to {}", arguments.followers),
        load: Load::Fanout(Fanout {
            followers: arguments.followers,
            message_bytes: MESSAGE_BYTES,
        }),
        contenders: vec![
            Contender::native("native", "fanout", files),
            Contender::tidegate("tidegate", &files.broadcast, "/all", files),
        ],
    }
}

fn idle(arguments: &Arguments) -> Match {
    let files = &arguments.files;
    Match {
        part: Part::Idle,
        title: "idle WebSockets".into(),
        load: Load::Idle {
            connections: arguments.idle_connections,
            earlier: 0,
        },
        contenders: vec![
            Contender::native("native", "echo", files),
            Contender::tidegate("tidegate", &files.echo, "/echo", files),
        ],
    }
}

fn feeds(arguments: &Arguments) -> Match {
    let files = &arguments.files;
    Match {
        part: Part::Feeds,
        title: "idle event streams".into(),
        load: Load::Feeds {
            feeds: arguments.idle_connections,
        },
        contenders: vec![Contender::tidegate(
            "tidegate",
            &files.ticker,
            "/prices",
            files,
        )],
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

/// One write and one reply to each message; with many rooms each has a connection of its own.
fn rooms(count: usize, arguments: &Arguments) -> Match {
    let files = &arguments.files;
    let (path, number) = (format!("/kept/{{{count}}}"), count.to_string());
    Match {
        part: Part::Rooms,
        title: format!(
            "kept and answered, {count} {}",
            if count == 1 { "room" } else { "rooms" }
        ),
        load: Load::Echo(Echo {
            connections: count.max(ROOM_CONNECTIONS),
            depth: 1,
            message_bytes: MESSAGE_BYTES,
        }),
        contenders: vec![
            Contender::workerd("workerd", &path, files),
            Contender::native_with(
                "native, an fsync each",
                "synced-each",
                &["--data", DATA],
                files,
            ),
            Contender::native_with(
                "native, the engine",
                "engine",
                &["--data", DATA, "--rooms", &number],
                files,
            ),
            Contender::tidegate_with(
                "tidegate",
                &["--data", DATA, "--limit", AWAKE, "--instances", "3000"],
                &files.durable,
                &path,
                files,
            ),
        ],
    }
}

fn wake(arguments: &Arguments) -> Match {
    let files = &arguments.files;
    let path = format!("/quiet/{{{WAKES}}}");
    let tidegate = |name, idle| {
        Contender::tidegate_with(
            name,
            &["--data", DATA, "--limit", idle],
            &files.durable,
            &path,
            files,
        )
    };
    Match {
        part: Part::Wake,
        title: "first message to a room".into(),
        load: Load::Wake {
            connections: WAKES,
            rounds: arguments.repeat,
        },
        contenders: vec![
            Contender::native("native", "echo", files),
            tidegate("tidegate, awake", "room_idle_max=1h"),
            tidegate("tidegate, asleep", "room_idle_max=1s"),
        ],
    }
}

fn rooms_asleep(arguments: &Arguments) -> Match {
    let files = &arguments.files;
    let count = arguments.idle_connections;
    let options = ["--data", DATA, "--limit", "room_idle_max=1s"];
    Match {
        part: Part::RoomsIdle,
        title: format!("{count} rooms with a WebSocket each, asleep"),
        load: Load::Idle {
            connections: count,
            earlier: ROOMS_EARLIER,
        },
        contenders: vec![
            Contender::tidegate("tidegate, no rooms", &files.echo, "/echo", files),
            Contender::tidegate_with(
                "tidegate",
                &options,
                &files.durable,
                &format!("/kept/{{{count}}}"),
                files,
            ),
        ],
    }
}

fn rooms_awake(arguments: &Arguments) -> Match {
    let files = &arguments.files;
    let options = [
        "--data",
        DATA,
        "--limit",
        AWAKE,
        "--limit",
        "room_idle_max=1h",
        "--instances",
        "3000",
    ];
    Match {
        part: Part::RoomsIdle,
        title: format!("{ROOMS_AWAKE} rooms with a WebSocket each, awake"),
        load: Load::Idle {
            connections: ROOMS_AWAKE,
            earlier: 0,
        },
        contenders: vec![
            Contender::tidegate("tidegate, no rooms", &files.echo, "/echo", files),
            Contender::tidegate_with(
                "tidegate",
                &options,
                &files.durable,
                &format!("/kept/{{{ROOMS_AWAKE}}}"),
                files,
            ),
        ],
    }
}

fn first_byte(arguments: &Arguments) -> Match {
    let files = &arguments.files;
    let page = |name, path| Contender::tidegate(name, &files.paged, path, files);
    Match {
        part: Part::FirstByte,
        title: "first byte of a page".into(),
        load: Load::FirstByte { times: FIRST_BYTES },
        contenders: vec![
            page("without loaders", "/plain"),
            page("a loader that sleeps for 300 ms", "/slow"),
            page("a deferred loader that computes for 300 ms", "/busy"),
        ],
    }
}

fn pages(arguments: &Arguments) -> Match {
    let files = &arguments.files;
    Match {
        part: Part::Pages,
        title: format!("{PAGES} pages that stream a value a second each"),
        load: Load::Pages { pages: PAGES },
        contenders: vec![Contender::tidegate(
            "tidegate",
            &files.paged,
            "/live/1000",
            files,
        )],
    }
}
