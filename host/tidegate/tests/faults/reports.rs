//! Every way that a fault takes out of the app: each is counted once, and is one line of the log.

use super::{frame, rogue};
use crate::support::{
    Tidegate,
    client::{Raw, Socket, soon},
};
use reqwest::Client;

/// The way of a fault, and what the client sees of it.
enum Way {
    /// A request's answer: method and path, media type and body of the request, and the status.
    Answer(&'static str, &'static str, &'static str, u16),
    /// The answer to a form with this action: the wanted media type, and a part of the answer.
    Action(&'static str, &'static str, &'static str),
    /// The refusal of an upgrade with this path: its status.
    Upgrade(&'static str, u16),
    /// A close with 1011 after the last of these messages, which are sent at once.
    Close(&'static str, &'static [&'static str]),
    /// The connection gets these answers, in order, and closes: no client sees the fault.
    Silent(&'static str, &'static [(&'static str, &'static str)]),
    /// A body that breaks off.
    BrokenBody(&'static str),
}

use Way::{Action, Answer, BrokenBody, Close, Silent, Upgrade};

/// The name of each way, the settings of the server, the way, and the text of the fault.
const WAYS: [(&str, &[&str], Way, &str); 25] = [
    (
        "a route",
        &[],
        Answer("GET /do/panic", "", "", 500),
        "the app trapped: ",
    ),
    (
        "a route's answer",
        &[],
        Answer("GET /status/600", "", "", 500),
        "the app broke the contract: ",
    ),
    (
        "a guard",
        &[],
        Answer("GET /guarded/calm?how=panic", "", "", 500),
        "the app trapped: ",
    ),
    (
        "a guard's context",
        &[],
        Answer("GET /guarded/calm?context=263000", "", "", 500),
        "the app broke the contract: ",
    ),
    (
        "a feed's handler",
        &[],
        Answer("GET /feed?topic=x&how=panic", "", "", 500),
        "the app trapped: ",
    ),
    (
        "an upgrade",
        &[],
        Upgrade("/socket?upgrade=panic", 500),
        "the app trapped: ",
    ),
    (
        "an upgrade that takes too long",
        &["upgrade_within=100ms"],
        Upgrade("/socket?upgrade=sleep", 503),
        "the app took longer than one event may",
    ),
    (
        "the answer to an upgrade",
        &[],
        Upgrade("/socket?accept-then-close=1000", 500),
        "the app broke the contract: ",
    ),
    (
        "an on-open",
        &[],
        Close("/socket?open=panic", &[]),
        "the app trapped: ",
    ),
    (
        "a message",
        &[],
        Close("/socket", &["do panic"]),
        "the app trapped: ",
    ),
    (
        "an on-close",
        &[],
        Silent("/socket?close=do%20panic", &[("say bye", "bye")]),
        "the app trapped: ",
    ),
    (
        "a stream before its head",
        &[],
        Answer("GET /stream/panic/before", "", "", 500),
        "the app trapped: ",
    ),
    (
        "a stream after its head",
        &[],
        BrokenBody("/stream/panic/midway"),
        "a streamed answer broke off: the app trapped: ",
    ),
    (
        "the shell of a page",
        &[],
        Answer("GET /broken", "", "", 500),
        "the app trapped: ",
    ),
    (
        "a loader",
        &[],
        Answer(
            "POST /__loaders",
            "application/json",
            r#"{"page":"/page","loader":"panic"}"#,
            500,
        ),
        "the app trapped: ",
    ),
    (
        "a loader that takes too long",
        &["loader_within=100ms"],
        Answer(
            "POST /__loaders",
            "application/json",
            r#"{"page":"/broken","loader":"sleep"}"#,
            504,
        ),
        "the app took longer than one event may",
    ),
    (
        "an action as HTML",
        &[],
        Action("panic", "text/html", "internal error (id "),
        "the app trapped: ",
    ),
    (
        "an action as JSON",
        &[],
        Action("panic", "application/json", "internal error (id "),
        "the app trapped: ",
    ),
    (
        "an action as events",
        &[],
        Action("panic", "text/event-stream", "internal error (id "),
        "the app trapped: ",
    ),
    (
        "a wake of a room",
        &[],
        Upgrade("/rooms/never", 500),
        "the app trapped: ",
    ),
    (
        "messages of a room that run together and then alone",
        &[],
        Close("/rooms/ann", &["one", "then panic"]),
        "the app trapped: ",
    ),
    (
        "an on-close in a room",
        &[],
        Silent("/rooms/ann", &[("keep do panic", "")]),
        "the app trapped: ",
    ),
    (
        "an alarm",
        &[],
        Silent("/rooms/ann", &[("alarm-that-fails panic", "")]),
        "attempt 1 of its alarm failed, it is tried again: the app trapped: ",
    ),
    (
        "a call of a room",
        &[],
        Answer("POST /via", "text/plain", "ann then panic", 200),
        "a call of the room failed: the app trapped: ",
    ),
    (
        "an answer of a room that is too long",
        &["call_bytes_max=100"],
        Answer("POST /via", "text/plain", "ann long 101", 200),
        "a call of the room failed: the app broke the contract: ",
    ),
];

#[tokio::test]
async fn a_fault_is_counted_once_and_is_one_line_of_the_log_whichever_way_it_takes() {
    for (name, limits, way, fault) in WAYS {
        let flags: Vec<&str> = limits.iter().flat_map(|limit| ["--limit", limit]).collect();
        let server = rogue(&flags);
        way.take(&server, name).await;
        server.wait_for(fault);
        let stopped = server.stop();
        let lines: Vec<&str> = stopped
            .stderr
            .lines()
            .filter(|line| line.contains("ERROR") && line.contains(" id="))
            .collect();
        assert_eq!(
            (stopped.counter("faults"), lines.len()),
            (1, 1),
            "{name}: {}",
            stopped.stderr
        );
        assert!(lines[0].contains(fault), "{name}: {}", lines[0]);
    }
}

impl Way {
    async fn take(&self, server: &Tidegate, name: &str) {
        match *self {
            Answer(request, kind, body, status) => {
                let (method, path) = request.split_once(' ').expect("a method and a path");
                let method = method.parse().expect("a method");
                let request = Client::new()
                    .request(method, server.url(path))
                    .header("content-type", kind)
                    .body(body);
                let answer = soon(name, request.send()).await.unwrap();
                assert_eq!(answer.status(), status, "{name}");
            }
            Action(action, accept, answer) => {
                let request = Client::new()
                    .post(server.url("/page"))
                    .header("accept", accept)
                    .header("content-type", "application/x-www-form-urlencoded")
                    .body(format!("__action={action}"));
                let text = soon(name, request.send()).await.unwrap().text().await;
                let text = text.unwrap();
                assert!(text.contains(answer), "{name}: {text}");
            }
            Upgrade(path, status) => {
                let refusal = Socket::try_connect(server.ws(path)).await.err().unwrap();
                assert_eq!(refusal.status(), status, "{name}");
            }
            Close(path, messages) => {
                let head = format!(
                    "GET {path} HTTP/1.1\r\nhost: x\r\nupgrade: websocket\r\nconnection: upgrade\r\n\
                     sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
                );
                let mut raw = Raw::send(server.address(), &head).await;
                raw.until("\r\n\r\n").await;
                let frames: Vec<_> = messages.iter().map(|message| frame(message)).collect();
                raw.write(frames.concat()).await;
                raw.until("internal error (id ").await;
            }
            Silent(path, messages) => {
                let mut socket = Socket::connect(server.ws(path)).await;
                for (message, answer) in messages {
                    socket.send(*message).await;
                    if !answer.is_empty() {
                        assert_eq!(socket.text().await, *answer, "{name}");
                    }
                }
                socket.close().await;
            }
            BrokenBody(path) => {
                let answer = soon(name, reqwest::get(server.url(path))).await.unwrap();
                assert_eq!(answer.status(), 200, "{name}");
                assert!(soon(name, answer.bytes()).await.is_err(), "{name}");
            }
        }
    }
}
