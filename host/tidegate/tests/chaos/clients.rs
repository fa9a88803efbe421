//! The clients of one life of the server: good clients, which record the answers that they receive,
//! and bad clients, which hold scarce resources.

use crate::{
    random::Random,
    record::{ConnectionName, Outcome, Record, RoomRecord},
};
use futures_util::{SinkExt as _, StreamExt as _};
use std::{
    future::Future,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::{
    io::AsyncWriteExt as _,
    net::{TcpSocket, TcpStream},
    sync::{mpsc, watch},
    task::JoinSet,
    time::{sleep, timeout},
};
use tokio_tungstenite::{WebSocketStream, tungstenite::Message};

/// Maximum wait for an answer. It is longer than every limit of the server that applies.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);
/// Time after which the server has ended a client that makes no progress.
const STAY: Duration = Duration::from_millis(1500);
/// Number of clients of each kind.
const WRITERS: u64 = 3;
const MEMBERS: u64 = 3;
const PLAIN: u64 = 6;
const BAD: u64 = 6;

/// State shared by the clients of one life of the server.
pub(crate) struct Life {
    pub(crate) number: u64,
    /// "127.0.0.1:PORT"
    pub(crate) address: String,
    pub(crate) era: u64,
    pub(crate) record: Arc<Mutex<Record>>,
    /// Becomes true when the clients must stop.
    pub(crate) quiet: watch::Receiver<bool>,
    /// Receives the sockets that stay open during the check.
    pub(crate) held: mpsc::UnboundedSender<Held>,
    pub(crate) http: reqwest::Client,
    /// True if alarms are also set in events that flush.
    pub(crate) flushes: bool,
}

/// A socket that stays open during the check.
pub(crate) struct Held {
    socket: Socket,
    owner: SocketOwner,
}

/// The owner of a socket.
#[derive(Clone)]
enum SocketOwner {
    Room(usize, ConnectionName),
    Plain(String),
}

type Socket = WebSocketStream<TcpStream>;

/// Starts all clients of a life.
pub(crate) fn start(life: &Arc<Life>, rooms: usize, random: &Random) -> JoinSet<()> {
    let mut clients = JoinSet::new();
    let mut part = 0;
    let mut fork = || {
        part += 1;
        random.fork(part)
    };
    for room in 0..rooms {
        for writer in 0..WRITERS {
            clients.spawn(write_by_requests(
                life.clone(),
                room,
                format!("h{}-{room}-{writer}", life.number),
                fork(),
            ));
        }
        clients.spawn(write_by_messages(
            life.clone(),
            room,
            format!("w{}-{room}", life.number),
            fork(),
        ));
        clients.spawn(vanish_after_requests(
            life.clone(),
            room,
            format!("v{}-{room}", life.number),
            fork(),
        ));
        for _ in 0..MEMBERS {
            clients.spawn(come_and_go(life.clone(), room, fork()));
        }
    }
    for _ in 0..PLAIN {
        clients.spawn(plain(life.clone(), fork()));
    }
    for _ in 0..BAD {
        clients.spawn(misbehave(life.clone(), fork()));
    }
    clients
}

impl Life {
    fn is_quiet(&self) -> bool {
        *self.quiet.borrow()
    }

    /// Sleeps, or returns early if the clients must stop.
    async fn pause(&self, ms: u64) {
        self.unless_quiet(sleep(Duration::from_millis(ms))).await;
    }

    /// Awaits a future, or returns early if the clients must stop.
    async fn unless_quiet<T>(&self, future: impl Future<Output = T>) -> Option<T> {
        let mut quiet = self.quiet.clone();
        tokio::select! {
            value = future => Some(value),
            _ = quiet.wait_for(|quiet| *quiet) => None,
        }
    }

    pub(crate) fn record<T>(&self, write: impl FnOnce(&mut Record) -> T) -> T {
        write(&mut self.record.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn room<T>(&self, room: usize, write: impl FnOnce(&mut RoomRecord) -> T) -> T {
        self.record(|record| write(&mut record.rooms[room]))
    }

    /// The path of a room of this era.
    pub(crate) fn path(&self, room: usize) -> String {
        format!("/ledger/{}-{room}", self.era)
    }

    async fn connect(&self, path: &str) -> Option<Socket> {
        let stream = TcpStream::connect(&self.address).await.ok()?;
        let connecting =
            tokio_tungstenite::client_async(format!("ws://{}{path}", self.address), stream);
        Some(timeout(ANSWER_WITHIN, connecting).await.ok()?.ok()?.0)
    }
}

/// Returns the next text of a socket, or none at its end.
async fn text(socket: &mut Socket) -> Option<String> {
    loop {
        match socket.next().await? {
            Ok(Message::Text(text)) => return Some(text.to_string()),
            Ok(Message::Binary(_) | Message::Ping(_) | Message::Pong(_) | Message::Frame(_)) => {}
            Ok(Message::Close(_)) | Err(_) => return None,
        }
    }
}

/// Ends a connection by a close frame, by dropping it, or by a reset.
async fn end(mut socket: Socket, random: &mut Random) {
    match random.below(3) {
        0 => {
            _ = timeout(Duration::from_secs(5), async {
                _ = socket.close(None).await;
                while text(&mut socket).await.is_some() {}
            })
            .await;
        }
        1 => _ = socket.get_ref().set_zero_linger(),
        _ => {}
    }
}

/// A command to a room, with the outcomes of the changes that it requests.
#[derive(Debug)]
pub(crate) struct Command {
    text: String,
    lines: Vec<String>,
    alarms: Vec<String>,
    /// Lines that the event flushes before it ends. If the event is refused, they may or may not be
    /// stored.
    flushed: Vec<String>,
    fails: bool,
}

impl Command {
    fn random(id: &str, flushes: bool, random: &mut Random) -> Command {
        let blank = Command {
            text: String::new(),
            lines: Vec::new(),
            alarms: Vec::new(),
            flushed: Vec::new(),
            fails: false,
        };
        let id = id.to_owned();
        match random.below(20) {
            0..12 => Command {
                text: format!("add {id}"),
                lines: vec![id],
                ..blank
            },
            12..14 => Command {
                text: format!("addflush {id}"),
                lines: vec![id.clone(), format!("{id}+")],
                flushed: vec![id],
                ..blank
            },
            14 => Command {
                text: format!("fail {id}"),
                lines: vec![id],
                fails: true,
                ..blank
            },
            15 if random.one_in(4) => Command {
                text: format!("trap {id}"),
                lines: vec![id],
                fails: true,
                ..blank
            },
            _ => {
                let how = *random.pick(if flushes {
                    &["plain", "fail", "flush", "again"]
                } else {
                    &["plain", "fail"]
                });
                let text = format!("alarm {id} {} {how}", random.below(800));
                let alarms = if how == "again" {
                    vec![id.clone(), format!("{id}+")]
                } else {
                    vec![id.clone()]
                };
                let flushed = if how == "flush" { vec![id] } else { Vec::new() };
                Command {
                    text,
                    alarms,
                    flushed,
                    ..blank
                }
            }
        }
    }

    pub(crate) fn write(&self, record: &mut RoomRecord, outcome: Outcome) {
        for (things, ids) in [
            (&mut record.lines, &self.lines),
            (&mut record.alarms, &self.alarms),
        ] {
            for id in ids {
                let is_flushed = outcome == Outcome::Refused && self.flushed.contains(id);
                let outcome = if is_flushed {
                    Outcome::Unknown
                } else {
                    outcome
                };
                let known = things.entry(id.clone()).or_insert(Outcome::Unknown);
                // A broadcast may have confirmed it before the answer arrived.
                if *known == Outcome::Unknown {
                    *known = outcome;
                } else if outcome == Outcome::Refused {
                    record
                        .oddities
                        .push(format!("{:?} was refused, and {id} was heard", self.text));
                }
            }
        }
    }
}

/// Posts commands, one after another.
async fn write_by_requests(life: Arc<Life>, room: usize, writer: String, mut random: Random) {
    let url = format!("http://{}{}", life.address, life.path(room));
    for number in 0_u64.. {
        if life.is_quiet() {
            return;
        }
        let command = Command::random(&format!("{writer}-{number:06}"), life.flushes, &mut random);
        life.room(room, |record| command.write(record, Outcome::Unknown));
        let outcome = match life
            .http
            .post(&url)
            .timeout(ANSWER_WITHIN)
            .body(command.text.clone())
            .send()
            .await
        {
            Ok(answer) => {
                let status = answer.status().as_u16();
                match (status, answer.text().await) {
                    (200, Ok(text)) if text.starts_with("ok ") && !command.fails => Outcome::Done,
                    (200, _) => {
                        life.room(room, |record| {
                            record
                                .oddities
                                .push(format!("{:?} was answered with 200", command.text))
                        });
                        Outcome::Unknown
                    }
                    // The log says whether the outcome is known.
                    (500, Ok(text)) if !command.fails => {
                        let id = text
                            .split_once("(id ")
                            .and_then(|(_, rest)| rest.split_once(')'))
                            .map(|(id, _)| id.to_owned());
                        life.room(room, |record| {
                            record.failed.extend(id.map(|id| (id, command)))
                        });
                        life.pause(random.below(20)).await;
                        continue;
                    }
                    (500, Err(_)) => Outcome::Unknown,
                    _ => Outcome::Refused,
                }
            }
            Err(_) => Outcome::Unknown,
        };
        life.room(room, |record| command.write(record, outcome));
        life.pause(random.below(20)).await;
    }
}

/// Sends a command and disconnects before the answer.
async fn vanish_after_requests(life: Arc<Life>, room: usize, writer: String, mut random: Random) {
    for number in 0_u64.. {
        life.pause(random.below(60)).await;
        if life.is_quiet() {
            return;
        }
        let command = Command::random(&format!("{writer}-{number:06}"), life.flushes, &mut random);
        life.room(room, |record| command.write(record, Outcome::Unknown));
        let head = format!(
            "POST {} HTTP/1.1\r\nHost: {}\r\nContent-Length: {}\r\n\r\n",
            life.path(room),
            life.address,
            command.text.len()
        );
        if let Ok(mut stream) = TcpStream::connect(&life.address).await {
            _ = stream
                .write_all(format!("{head}{}", command.text).as_bytes())
                .await;
            life.pause(random.below(3)).await;
            if random.one_in(2) {
                _ = stream.set_zero_linger();
            }
        }
    }
}

/// A WebSocket in a room that has received the app's first message.
struct Member {
    life: Arc<Life>,
    room: usize,
    name: ConnectionName,
    socket: Socket,
}

impl Member {
    async fn open(life: &Arc<Life>, room: usize, query: &str) -> Option<Member> {
        let mut socket = life.connect(&format!("{}{query}", life.path(room))).await?;
        let id = loop {
            let text = timeout(ANSWER_WITHIN, text(&mut socket)).await.ok()??;
            if let Some(id) = text.strip_prefix("you ") {
                break id.to_owned();
            }
        };
        let name = (life.number, id);
        life.room(room, |record| {
            record.connections.entry(name.clone()).or_default().is_open = true
        });
        Some(Member {
            life: life.clone(),
            room,
            name,
            socket,
        })
    }

    /// Reads messages for a while; returns false at the end of the connection.
    async fn listen(&mut self, ms: u64) -> bool {
        let life = self.life.clone();
        let listening = async { while self.take().await.is_some() {} };
        let waited = life
            .unless_quiet(timeout(Duration::from_millis(ms), listening))
            .await;
        !matches!(waited, Some(Ok(())))
    }

    async fn take(&mut self) -> Option<String> {
        let text = text(&mut self.socket).await?;
        self.life
            .room(self.room, |record| record.take(&self.name, &text));
        Some(text)
    }

    /// Sends a command and waits for its answer; returns none at the end of the connection.
    async fn ask(&mut self, command: &str, answer: &str) -> Option<()> {
        self.socket.send(Message::text(command)).await.ok()?;
        let answered = async {
            while self.take().await? != answer {}
            Some(())
        };
        timeout(ANSWER_WITHIN, answered).await.ok()?
    }

    /// Counts the connection as ended before it ends.
    fn forget(&self) {
        self.life.room(self.room, |record| {
            record
                .connections
                .entry(self.name.clone())
                .or_default()
                .is_open = false
        });
    }

    /// Stays open during the check, or ends.
    async fn leave(self, hold: bool, random: &mut Random) {
        if hold && self.life.is_quiet() {
            _ = self.life.held.send(Held {
                socket: self.socket,
                owner: SocketOwner::Room(self.room, self.name),
            });
        } else {
            self.forget();
            end(self.socket, random).await;
        }
    }
}

/// Sends commands over WebSockets.
async fn write_by_messages(life: Arc<Life>, room: usize, writer: String, mut random: Random) {
    let mut number = 0_u64;
    while !life.is_quiet() {
        life.pause(random.below(30)).await;
        let query = if random.one_in(2) { "?join" } else { "" };
        let Some(mut member) = Member::open(&life, room, query).await else {
            continue;
        };
        let last = number + random.between(1, 20);
        let mut is_open = true;
        while is_open && number < last && !life.is_quiet() {
            number += 1;
            let command =
                Command::random(&format!("{writer}-{number:06}"), life.flushes, &mut random);
            life.room(room, |record| command.write(record, Outcome::Unknown));
            let answer = format!(
                "ok {}",
                command.text.split(' ').nth(1).expect("it has an id")
            );
            is_open = member.ask(&command.text, &answer).await.is_some();
            if is_open && !command.fails {
                life.room(room, |record| command.write(record, Outcome::Done));
            }
        }
        if is_open {
            member.leave(random.one_in(2), &mut random).await;
        } else {
            member.forget();
        }
    }
}

/// Joins and leaves rooms.
async fn come_and_go(life: Arc<Life>, room: usize, mut random: Random) {
    while !life.is_quiet() {
        life.pause(random.below(100)).await;
        let query = if random.one_in(4) { "" } else { "?join" };
        let Some(mut member) = Member::open(&life, room, query).await else {
            continue;
        };
        let ms = random.below(600);
        if !member.listen(ms).await {
            member.forget();
            continue;
        }
        member.leave(!random.one_in(3), &mut random).await;
    }
}

/// Opens and closes sockets without a room.
async fn plain(life: Arc<Life>, mut random: Random) {
    while !life.is_quiet() {
        life.pause(random.below(50)).await;
        let Some(mut socket) = life.connect("/plain").await else {
            continue;
        };
        let Ok(Some(first)) = timeout(ANSWER_WITHIN, text(&mut socket)).await else {
            continue;
        };
        let Some(id) = first.strip_prefix("you ").map(str::to_owned) else {
            continue;
        };
        life.record(|record| record.plain.connections.insert(id.clone(), true));
        let message = *random.pick(&["hello", "hello", "hello", "trap", "close", "flood"]);
        let sent = socket.send(Message::text(message)).await.is_ok();
        let ms = random.below(200);
        life.pause(ms).await;
        if sent && message == "hello" && life.is_quiet() && random.one_in(2) {
            _ = life.held.send(Held {
                socket,
                owner: SocketOwner::Plain(id),
            });
            continue;
        }
        life.record(|record| record.plain.connections.insert(id, false));
        end(socket, &mut random).await;
    }
}

/// Follows the topic to which the app reports sockets without a room. Returns none if it receives
/// nothing.
pub(crate) async fn watch(life: Arc<Life>) -> Option<impl Future<Output = ()>> {
    let mut socket = life.connect("/watch").await?;
    timeout(ANSWER_WITHIN, text(&mut socket))
        .await
        .ok()?
        .filter(|text| text == "watching")?;
    Some(async move {
        while let Some(text) = text(&mut socket).await {
            life.record(|record| record.plain.take(&text));
        }
        life.record(|record| record.plain.is_incomplete = true);
    })
}

/// Keeps a socket open, and reads its messages.
pub(crate) async fn hold(life: Arc<Life>, held: Held) {
    let Held { mut socket, owner } = held;
    while let Some(text) = text(&mut socket).await {
        if let SocketOwner::Room(room, name) = &owner {
            life.room(*room, |record| record.take(name, &text));
        }
    }
    match owner {
        SocketOwner::Room(room, name) => life.room(room, |record| {
            record.connections.entry(name).or_default().is_open = false
        }),
        SocketOwner::Plain(id) => {
            life.record(|record| record.plain.connections.insert(id, false));
        }
    }
}

/// Holds scarce resources, one kind after another: connections, heads, bodies, outboxes. Some stay
/// until the server ends them.
async fn misbehave(life: Arc<Life>, mut random: Random) {
    while !life.is_quiet() {
        life.pause(random.below(100)).await;
        let host = &life.address;
        let raw = match random.below(9) {
            0 => {
                _ = life
                    .http
                    .get(format!("http://{host}/trap"))
                    .timeout(ANSWER_WITHIN)
                    .send()
                    .await;
                continue;
            }
            1 => {
                let mut sockets = Vec::new();
                for _ in 0..random.between(1, 60) {
                    sockets.push(TcpStream::connect(host).await);
                }
                life.pause(random.below(100)).await;
                continue;
            }
            2 => "GET /calm HTTP/1.1\r\nHost: ".to_owned(),
            3 => format!(
                "POST /sink HTTP/1.1\r\nHost: {host}\r\nContent-Length: 100000\r\n\r\na part of it"
            ),
            4 => format!("GET /feed HTTP/1.1\r\nHost: {host}\r\nAccept: text/event-stream\r\n\r\n"),
            5 => format!(
                "GET {} HTTP/1.1\r\nHost: {host}\r\nAccept: text/event-stream\r\n\r\n",
                life.path(0)
            ),
            6 => format!("GET /bulk HTTP/1.1\r\nHost: {host}\r\n\r\n"),
            7 => {
                let Some(mut socket) = life.connect("/plain").await else {
                    continue;
                };
                for _ in 0..40 {
                    _ = socket.send(Message::Ping(Default::default())).await;
                }
                _ = life
                    .unless_quiet(timeout(STAY, async {
                        while text(&mut socket).await.is_some() {}
                    }))
                    .await;
                continue;
            }
            _ => {
                // It never reads the answer to its request.
                let Some(mut socket) = life.connect("/plain").await else {
                    continue;
                };
                _ = socket.send(Message::text("flood")).await;
                life.pause(random.below(200)).await;
                continue;
            }
        };
        if let Ok(mut stream) = connect_with_small_buffer(host).await {
            _ = stream.write_all(raw.as_bytes()).await;
            // None of them reads.
            let ms = if random.one_in(3) {
                STAY.as_millis() as u64
            } else {
                random.below(300)
            };
            life.pause(ms).await;
            if random.one_in(2) {
                _ = stream.set_zero_linger();
            }
        }
    }
}

/// A connection whose receive buffer is so small that it stalls after few unread bytes.
async fn connect_with_small_buffer(address: &str) -> std::io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.set_recv_buffer_size(4096)?;
    socket
        .connect(address.parse().expect("it is an address"))
        .await
}
