//! One budget covers the memory of the process: guests, clients that do not read, and waiting
//! events.

use crate::support::{PATIENCE, Tidegate, component};
use rustix::process::Resource;
use std::{
    fs,
    io::{self, Read as _, Write as _},
    net::{TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

const MIB: usize = 1 << 20;
/// The budget is so small that every attack exceeds it, and large enough for an unoptimised server.
const BUDGET: usize = 256 * MIB;
const MEMORY_MAX: &str = "memory_max=256MiB";
/// Maximum memory of the process. It is measured, and a busy machine may measure late.
const PEAK_MAX: usize = BUDGET + BUDGET / 10;

fn serve(limits: &[&str]) -> Tidegate {
    serve_guest("rogue", limits, &[])
}

fn serve_guest(guest: &str, limits: &[&str], more: &[&str]) -> Tidegate {
    let mut args = vec!["--limit", MEMORY_MAX, "--workers", "2"];
    args.extend(limits.iter().flat_map(|limit| ["--limit", limit]));
    args.extend(more);
    Tidegate::serve(&component(guest), &args)
}

/// The peak of a server's anonymous memory, and a client that requests another path during the
/// attack.
struct Bystanders {
    ended: Arc<AtomicBool>,
    peak: Arc<AtomicUsize>,
    watch: JoinHandle<()>,
    client: JoinHandle<Result<usize, String>>,
}

impl Bystanders {
    fn of(server: &Tidegate) -> Bystanders {
        Bystanders::at(server, "/calm")
    }

    fn at(server: &Tidegate, path: &'static str) -> Bystanders {
        let (ended, peak) = (Arc::<AtomicBool>::default(), Arc::<AtomicUsize>::default());
        let (statm, address) = (
            format!("/proc/{}/statm", server.pid()),
            server.address().to_owned(),
        );
        let watch = {
            let (ended, peak) = (ended.clone(), peak.clone());
            thread::spawn(move || {
                while !ended.load(Relaxed) {
                    peak.fetch_max(anonymous(&statm), Relaxed);
                    thread::sleep(Duration::from_millis(5));
                }
            })
        };
        let client = {
            let ended = ended.clone();
            thread::spawn(move || {
                let mut done = 0;
                while !ended.load(Relaxed) {
                    let answer = ask(&address, "GET", path, b"");
                    match answer.get(9..12) {
                        Some("200") => done += 1,
                        _ => return Err(format!("after {done} good answers: {answer:?}")),
                    }
                    thread::sleep(Duration::from_millis(10));
                }
                Ok(done)
            })
        };
        Bystanders {
            ended,
            peak,
            watch,
            client,
        }
    }

    /// Checks that the budget held, and that each request of the client was answered.
    fn check(self, name: &str) {
        self.ended.store(true, Relaxed);
        self.watch.join().unwrap();
        let done = self
            .client
            .join()
            .unwrap()
            .unwrap_or_else(|error| panic!("{name}: the good client had {error}"));
        let peak = self.peak.load(Relaxed);
        assert!(
            peak > 0 && peak <= PEAK_MAX,
            "{name}: {} MiB of {} MiB",
            peak / MIB,
            BUDGET / MIB
        );
        assert!(done > 0, "{name}: the good client was never answered");
    }
}

fn anonymous(statm: &str) -> usize {
    let text = fs::read_to_string(statm).unwrap_or_default();
    let pages: Vec<usize> = text
        .split(' ')
        .map_while(|pages| pages.trim().parse().ok())
        .collect();
    pages
        .get(1)
        .unwrap_or(&0)
        .saturating_sub(*pages.get(2).unwrap_or(&0))
        * rustix::param::page_size()
}

fn connect(address: &str) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

fn request(method: &str, path: &str, length: usize) -> String {
    format!(
        "{method} {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n"
    )
}

/// Returns the head of a form for the page of the hostile guest.
fn form(kind: &str, length: usize) -> String {
    format!(
        "POST /page HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-type: {kind}\r\ncontent-length: {length}\r\n\r\n"
    )
}

/// Returns a field of a form, after the name of its action if it is a file.
fn part(name: &str, length: usize) -> Vec<u8> {
    let head = |name| format!("--B\r\ncontent-disposition: form-data; name=\"{name}\"\r\n\r\n");
    let action = if name == "file" {
        head("__action") + "weigh\r\n"
    } else {
        String::new()
    };
    [
        (action + &head(name)).as_bytes(),
        &vec![b'x'; length],
        b"\r\n",
    ]
    .concat()
}

/// Returns the answer, which may be incomplete.
fn ask(address: &str, method: &str, path: &str, body: &[u8]) -> String {
    send(
        address,
        &[request(method, path, body.len()).as_bytes(), body].concat(),
    )
}

fn send(address: &str, request: &[u8]) -> String {
    let mut stream = connect(address);
    let mut answer = Vec::new();
    _ = stream
        .write_all(request)
        .and_then(|()| stream.read_to_end(&mut answer));
    String::from_utf8_lossy(&answer).into_owned()
}

/// Sends the same request on many connections, and reads none of the answers.
fn hold_open(address: &str, path: &str, count: usize) {
    hold_open_for(Duration::from_secs(2), address, path, count);
}

fn hold_open_for(time: Duration, address: &str, path: &str, count: usize) {
    let streams = (0..count).map(|_| {
        let mut stream = connect(address);
        // If the server closes the connection, this client has not failed.
        _ = stream.write_all(request("GET", path, 0).as_bytes());
        stream
    });
    let streams: Vec<TcpStream> = streams.collect();
    thread::sleep(time);
    drop(streams);
}

fn upgrade(address: &str, path: &str) -> Option<TcpStream> {
    let mut stream = connect(address);
    let head = format!(
        "GET {path} HTTP/1.1\r\nhost: localhost\r\nupgrade: websocket\r\nconnection: upgrade\r\nsec-websocket-version: 13\r\n\
         sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).ok()?;
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).ok()?;
        answer.push(byte[0]);
    }
    answer.starts_with(b"HTTP/1.1 101").then_some(stream)
}

/// Opens a connection of a room, and waits until the room has echoed a message.
fn join(address: &str, path: &str) -> TcpStream {
    let mut stream = upgrade(address, path).unwrap();
    stream
        .write_all(&[&frame(1, 1)[..], b"x"].concat())
        .unwrap();
    let mut echo = [0; 3];
    stream.read_exact(&mut echo).unwrap();
    assert_eq!(echo[2], b'x');
    stream
}

/// Returns the head of a frame whose mask is zero.
fn frame(opcode: u8, length: usize) -> Vec<u8> {
    let size = match length {
        0..126 => vec![0x80 | length as u8],
        126..65536 => [&[0x80 | 126][..], &(length as u16).to_be_bytes()].concat(),
        _ => [&[0x80 | 127][..], &(length as u64).to_be_bytes()].concat(),
    };
    [&[0x80 | opcode][..], &size, &[0; 4]].concat()
}

/// Runs `work` on many threads.
fn crowd(count: usize, work: impl Fn(usize) + Sync) {
    thread::scope(|scope| {
        for number in 0..count {
            let work = &work;
            scope.spawn(move || work(number));
        }
    });
}

/// Writes to each stream as much as it accepts, without waiting for any; ends when none accepts
/// more.
fn pump(streams: &mut [TcpStream], bytes: &[u8]) {
    streams
        .iter()
        .for_each(|stream| stream.set_nonblocking(true).unwrap());
    let mut written = vec![0; streams.len()];
    let mut moved = Instant::now();
    while moved.elapsed() < Duration::from_millis(500) {
        for (stream, written) in streams.iter_mut().zip(&mut written) {
            if let Ok(count @ 1..) =
                stream.write(&bytes[*written..bytes.len().min(*written + (64 << 10))])
            {
                *written += count;
                moved = Instant::now();
            }
        }
    }
}

#[test]
fn the_effects_of_one_room_event_are_bounded() {
    // On a busy machine an event of 20,000 effects takes more than a second.
    let server = serve_guest("rogue", &["room_event_bytes_max=2MiB"], &["--cpu", "30s"]);
    let address = server.address();
    let _conn = join(address, "/greedy/rooms/tea");
    // Effects that accumulate are refused or fail; values that replace an earlier one do not.
    let added = [
        "publish 1000000 200",
        "broadcast 1000000 0",
        "follow 1000000 200",
        "unfollow 1000000 200",
        "put 1000000 10",
        "delete 1000000 0",
    ];
    let replaced = [
        "automatic 20000 2048",
        "close 20000 120",
        "attach 20000 16000",
        "tag 20000 250",
        "alarm 20000 0",
    ];
    let bystanders = Bystanders::of(&server);
    for command in added {
        let answer = ask(address, "POST", "/greedy/rooms/tea", command.as_bytes());
        assert!(
            !answer.contains("all") && !answer.is_empty(),
            "{command}: {answer}"
        );
    }
    for (number, command) in replaced.into_iter().enumerate() {
        let room = format!("/greedy/rooms/milk-{number}");
        let _conn = join(address, &room);
        let answer = ask(address, "POST", &room, command.as_bytes());
        assert!(answer.ends_with("20000 all"), "{command}: {answer}");
    }
    bystanders.check("events of rooms");
}

#[test]
fn an_answer_with_too_many_headers_is_an_app_fault() {
    let server = serve(&[]);
    for (count, status) in [(900, "200"), (1001, "500"), (100_000, "500")] {
        let answer = ask(
            server.address(),
            "GET",
            &format!("/greedy/headers?count={count}"),
            b"",
        );
        assert_eq!(answer.get(9..12), Some(status), "{count}");
    }
}

#[test]
fn an_abandoned_room_call_releases_its_payload() {
    let server = serve(&["room_inbox_bytes_max=4MiB"]);
    let address = server.address();
    let mut busy = connect(address);
    let body = b"sleep 20000 0";
    busy.write_all(request("POST", "/greedy/rooms/slow", body.len()).as_bytes())
        .unwrap();
    busy.write_all(body).unwrap();
    let bystanders = Bystanders::of(&server);
    // Each call waits until the running event ends. A call that was abandoned frees its bytes;
    // otherwise the next one would not fit.
    let answer = ask(
        address,
        "POST",
        "/greedy/storm?room=slow&count=100&bytes=1000000",
        b"",
    );
    assert!(answer.ends_with("\r\n\r\n100"), "{answer}");
    bystanders.check("calls that are given up");
}

#[test]
fn bytes_queued_for_a_room_are_bounded() {
    let server = serve(&["room_inbox_bytes_max=3MiB"]);
    let address = server.address();
    let hold = |body: &[u8]| {
        let mut stream = connect(address);
        stream
            .write_all(request("POST", "/greedy/rooms/slow", body.len()).as_bytes())
            .unwrap();
        stream.write_all(body).unwrap();
        stream
    };
    let _running = hold(b"sleep 20000 0");
    let waits = b"sleep 0 0"
        .iter()
        .copied()
        .chain(std::iter::repeat(b' '))
        .take(MIB - 100)
        .collect::<Vec<u8>>();
    let mut waiting: Vec<TcpStream> = (0..8).map(|_| hold(&waits)).collect();
    // The first calls wait; those beyond the bound are refused at once.
    waiting.iter().for_each(|stream| {
        stream
            .set_read_timeout(Some(Duration::from_secs(3)))
            .unwrap()
    });
    let refused = waiting.iter_mut().filter_map(|stream| {
        let mut answer = [0; 12];
        stream
            .read_exact(&mut answer)
            .ok()
            .map(|()| String::from_utf8_lossy(&answer).into_owned())
    });
    let refused: Vec<String> = refused.collect();
    assert!(
        (5..=7).contains(&refused.len()) && refused.iter().all(|answer| answer == "HTTP/1.1 503"),
        "{refused:?}"
    );
}

#[test]
fn guests_and_clients_never_exceed_the_memory_budget() {
    type Attack = fn(&str);
    let attacks: [(&str, Attack); 14] = [
        ("instances", |address| {
            crowd(40, |_| {
                _ = ask(address, "GET", "/greedy/grow?mb=40&hold=1000", b"")
            });
        }),
        ("small instances", |address| {
            hold_open(address, "/greedy/small?hold=3000", 600)
        }),
        ("answers", |address| {
            hold_open(address, "/greedy/answer?bytes=8000000", 100)
        }),
        ("streams", |address| {
            hold_open(address, "/greedy/stream", 300)
        }),
        ("pages", |address| hold_open(address, "/flood", 200)),
        ("feeds", |address| {
            hold_open(address, "/greedy/feed?bytes=900000", 300)
        }),
        ("histories", |address| {
            crowd(4, |number| {
                _ = ask(
                    address,
                    "GET",
                    &format!("/greedy/publish?from={number}000&topics=500&each=20&bytes=10000"),
                    b"",
                )
            });
        }),
        ("forms", |address| {
            let mut streams: Vec<TcpStream> = (0..300).map(|_| connect(address)).collect();
            pump(
                &mut streams,
                &[
                    form("multipart/form-data; boundary=B", 50 * MIB).as_bytes(),
                    &part("file", 2 * MIB),
                ]
                .concat(),
            );
        }),
        ("fields before the action of a form", |address| {
            let mut streams: Vec<TcpStream> = (0..400).map(|_| connect(address)).collect();
            pump(
                &mut streams,
                &[
                    form("multipart/form-data; boundary=B", 2 * MIB).as_bytes(),
                    &part("a", MIB - 1000),
                ]
                .concat(),
            );
        }),
        ("forms of JSON", |address| {
            let body = ["{\"a\":[".as_bytes(), "0,".repeat(MIB / 2 - 100).as_bytes()].concat();
            crowd(20, |_| {
                _ = send(
                    address,
                    &[form("application/json", body.len()).as_bytes(), &body].concat(),
                )
            });
        }),
        ("bodies", |address| {
            let mut streams: Vec<TcpStream> = (0..400).map(|_| connect(address)).collect();
            pump(
                &mut streams,
                &[
                    request("POST", "/greedy/body", MIB).as_bytes(),
                    &vec![b'x'; MIB - 100],
                ]
                .concat(),
            );
        }),
        ("partial messages", |address| {
            let mut streams: Vec<TcpStream> = (0..400)
                .filter_map(|_| upgrade(address, "/socket"))
                .collect();
            pump(&mut streams, &part_of_a_message(MIB - 100));
        }),
        ("outboxes", |address| {
            let mut streams: Vec<TcpStream> = (0..400)
                .filter_map(|_| upgrade(address, "/socket"))
                .collect();
            let text = b"big 900000";
            pump(
                &mut streams,
                &[&frame(1, text.len())[..], text].concat().repeat(3),
            );
            thread::sleep(Duration::from_secs(1));
        }),
        ("pongs", |address| {
            let mut streams: Vec<TcpStream> = (0..50)
                .filter_map(|_| upgrade(address, "/socket"))
                .collect();
            pump(
                &mut streams,
                &[&frame(9, 125)[..], &[b'p'; 125]].concat().repeat(20_000),
            );
        }),
    ];
    // All attacks use one server: each has to leave enough memory to the next.
    let server = serve(&["control_frames_max=1000000"]);
    for (name, attack) in attacks {
        let bystanders = Bystanders::of(&server);
        attack(server.address());
        bystanders.check(name);
    }
}

/// Starts a server that answers each request with 30 MB, until the test ends.
fn upstream() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    thread::spawn(move || {
        let piece = vec![b'x'; 64 << 10];
        for stream in listener.incoming().flatten() {
            let (mut stream, piece) = (stream, piece.clone());
            thread::spawn(move || {
                _ = stream.read(&mut [0; 4096]);
                let head = format!(
                    "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n",
                    480 * piece.len()
                );
                _ = stream.write_all(head.as_bytes());
                _ = (0..480).try_for_each(|_| stream.write_all(&piece));
            });
        }
    });
    address
}

#[test]
fn wasi_http_components_never_exceed_the_memory_budget() {
    type Attack = fn(&str, &str);
    let attacks: [(&str, [&str; 2], &'static str, Attack); 3] = [
        (
            "bodies that come back",
            ["proxy02", "proxy03"],
            "/calm",
            |address, _| post_all(address, "/echo"),
        ),
        (
            "bodies that are not read",
            ["proxy02", "proxy03"],
            "/calm",
            |address, _| post_all(address, "/idle"),
        ),
        (
            "responses of 30 MB",
            ["errand", "errand03"],
            "/__tidegate/health",
            |address, upstream| {
                hold_open(
                    address,
                    &format!("/fetch?scheme=http&authority={upstream}"),
                    100,
                );
            },
        ),
    ];
    let upstream = upstream();
    let grant = format!("http://{upstream}");
    for (name, guests, good, attack) in attacks {
        for guest in guests {
            let server = serve_guest(guest, &[], &["--allow-outbound", &grant]);
            let bystanders = Bystanders::at(&server, good);
            attack(server.address(), &upstream);
            bystanders.check(&format!("{name}, {guest}"));
        }
    }
}

/// Sends large bodies on many connections, and reads none of the answers.
fn post_all(address: &str, path: &str) {
    let mut streams: Vec<TcpStream> = (0..200).map(|_| connect(address)).collect();
    pump(
        &mut streams,
        &[
            request("POST", path, 30 * MIB).as_bytes(),
            &vec![b'x'; 2 * MIB],
        ]
        .concat(),
    );
}

/// Returns the head of the largest message, and a part of its payload.
fn part_of_a_message(length: usize) -> Vec<u8> {
    [&frame(2, MIB - 1)[..], &vec![b'x'; length]].concat()
}

/// Waits until the condition holds; returns false if it does not within the patience of a test.
fn wait_for(is_so: impl Fn() -> bool) -> bool {
    let until = Instant::now() + PATIENCE;
    loop {
        if is_so() {
            return true;
        }
        if Instant::now() > until {
            return false;
        }
        thread::sleep(Duration::from_millis(1));
    }
}

/// Waits until the server has read everything that this client sent: neither kernel buffers any of
/// it (proc(5), `net/tcp`).
fn wait_until_read(stream: &TcpStream) {
    let port = format!(":{:04X}", stream.local_addr().unwrap().port());
    let is_read = || {
        let sockets = fs::read_to_string("/proc/net/tcp").unwrap();
        sockets
            .lines()
            .map(|line| line.split_whitespace().collect::<Vec<&str>>())
            .all(|fields| {
                let (unsent, unread) = fields[4].split_once(':').unwrap_or_default();
                !(fields[1].ends_with(&port) && unsent != "00000000"
                    || fields[2].ends_with(&port) && unread != "00000000")
            })
    };
    assert!(wait_for(is_read), "the server does not read");
}

#[test]
fn an_announced_length_takes_no_memory_before_its_bytes_arrive() {
    let server = serve(&[]);
    let statm = format!("/proc/{}/statm", server.pid());
    let mut streams: Vec<TcpStream> = (0..200).map(|_| join(server.address(), "/other")).collect();
    let before = anonymous(&statm);
    for stream in &mut streams {
        stream.write_all(&part_of_a_message(100)).unwrap();
    }
    streams.iter().for_each(wait_until_read);
    // The clients announced 200 MiB.
    let grown = anonymous(&statm).saturating_sub(before);
    assert!(
        grown < 32 * MIB,
        "{} MiB for {} bytes of each",
        grown / MIB,
        100
    );
}

/// The loaders of unread pages keep their instances and a value of each for as long as the clients
/// wish. A call that has to wait for memory is refused after five seconds.
#[test]
fn a_plain_route_is_served_while_unread_values_take_the_memory() {
    let server = serve(&[]);
    let bystanders = Bystanders::of(&server);
    let time = Duration::from_secs(9);
    hold_open_for(time, server.address(), "/greedy/page", 300);
    bystanders.check("values of pages");
}

/// Clients may keep the memory that they have reserved, and stay below the last stage with it.
#[test]
fn clients_that_hold_memory_do_not_block_work_for_ever() {
    let limits = [
        "read_within=10m",
        "bytes_per_second_min=1B",
        "ping_every=0s",
        "body_bytes_max=8MiB",
    ];
    let server = serve(&limits);
    let address = server.address();
    let (is_full, ended) = (AtomicBool::new(false), AtomicBool::new(false));
    let mut holders: Vec<TcpStream> = (0..140)
        .filter_map(|_| upgrade(address, "/socket"))
        .collect();
    pump(&mut holders, &part_of_a_message(MIB - 100));
    // Takes free memory, 1 MiB at a time, as it becomes free.
    let hold = || {
        while !ended.load(Relaxed) {
            if let Some(mut stream) = upgrade(address, "/socket")
                && stream.write_all(&part_of_a_message(MIB - 100)).is_ok()
            {
                wait_until_read(&stream);
                stream.set_nonblocking(true).unwrap();
                holders.push(stream);
            }
            // A connection that has received anything is closed.
            let before = holders.len();
            holders.retain(|stream| {
                stream
                    .peek(&mut [0])
                    .is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
            });
            is_full.fetch_or(holders.len() < before, Relaxed);
        }
    };
    let body = vec![b'x'; 8 * MIB];
    let is_answered = || {
        wait_for(|| is_full.load(Relaxed))
            && wait_for(|| ask(address, "POST", "/greedy/body", &body).starts_with("HTTP/1.1 200"))
    };
    let is_answered = thread::scope(|scope| {
        scope.spawn(hold);
        let is_answered = is_answered();
        ended.store(true, Relaxed);
        is_answered
    });
    assert!(
        is_answered,
        "the work is refused for {PATIENCE:?}; the memory was full: {is_full:?}"
    );
}

/// Connections whose clients have sent no request, or only a part of it: each has state and
/// buffers.
#[test]
fn connections_without_a_request_never_exceed_the_memory_budget() {
    const BUDGET: usize = 128 * MIB;
    const COUNT: usize = 6000;
    raise_open_files();
    let head = |length: usize| {
        let fields = "x: 0123456789\r\n".repeat(length / 15);
        format!("GET /calm HTTP/1.1\r\nhost: localhost\r\n{fields}").into_bytes()
    };
    let whole = b"GET /calm HTTP/1.1\r\nhost: localhost\r\n\r\n".to_vec();
    let body = vec![b'x'; 60 << 10];
    let post = format!(
        "POST /greedy/body HTTP/1.1\r\nhost: localhost\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    let kinds = [
        ("nothing", Vec::new()),
        ("a head of 15 KB", head(15_000)),
        ("a request", whole),
        ("a request with a body", [post.as_bytes(), &body].concat()),
    ];
    let args = [
        "--limit",
        "memory_max=128MiB",
        "--limit",
        "header_within=10m",
        "--limit",
        "idle_within=10m",
        "--workers",
        "2",
    ];
    for (name, sent) in kinds {
        let server = Tidegate::serve(&component("rogue"), &args);
        let (address, statm) = (server.address(), format!("/proc/{}/statm", server.pid()));
        let mut peak = 0;
        // An established client is still served.
        let mut member = join(address, "/other");
        let mut streams = Vec::new();
        for number in 0..COUNT {
            let mut stream = connect(address);
            stream.set_nonblocking(true).unwrap();
            // If the server closes the connection, this client has not failed.
            _ = stream.write(&sent);
            streams.push(stream);
            if number % 20 == 0 {
                let mut echo = [0; 3];
                let text = [&frame(1, 1)[..], b"x"].concat();
                member.write_all(&text).unwrap();
                member.read_exact(&mut echo).unwrap();
                peak = peak.max(anonymous(&statm));
            }
        }
        // The connections stay open, and other clients are served, at the latest after the oldest
        // were closed.
        let is_served = || ask(address, "GET", "/calm", b"").starts_with("HTTP/1.1 200");
        assert!(wait_for(is_served), "{name}: no other client is served");
        peak = peak.max(anonymous(&statm));
        assert!(
            peak <= BUDGET + BUDGET / 10,
            "{name}: {} MiB of {} MiB",
            peak / MIB,
            BUDGET / MIB
        );
        drop(streams);
        let refused = server.stop().counter("refused_memory");
        assert!(refused > 0, "{name}");
    }
}

/// Raises the number of files that this process may open to its hard limit.
fn raise_open_files() {
    let mut limit = rustix::process::getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    rustix::process::setrlimit(Resource::Nofile, limit).unwrap();
}
