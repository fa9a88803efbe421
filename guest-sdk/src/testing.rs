//! An app under test, natively: the host's own routes, rules, guards, connections and topics,
//! without network, wasm and waiting.
//!
//! ```
//! use tidegate::{prelude::*, testing::{self, Connect}};
//!
//! fn app() -> App {
//!     App::new().get("/", async |_| "hello").socket("/echo", async |conn: Conn, msg| conn.send(msg))
//! }
//!
//! let mut server = testing::serve(app());
//! assert_eq!(server.get("/").text(), "hello");
//! let ann = server.connect(Connect::to("/echo").header("cookie", "name=ann"));
//! server.say(ann, "hi");
//! server.say(ann, b"\x01\x02");
//! let heard = server.heard(ann);
//! assert!(heard[0] == "hi" && heard[1] == b"\x01\x02");
//! server.close(ann);
//! assert_eq!(server.closed(ann), Some((1000, String::new())));
//! ```

mod client;
mod reply;

use crate::{
    App, CloseInfo, Conn, Message, Publication, Request, Upgrade,
    app::Answers,
    request::Head,
    stream::Body,
    world::{self, Handle, Incoming, Outgoing},
};
use client::{Client, Listener};
pub use client::{ConnRef, Connect, FeedRef};
use reply::Outcome;
pub use reply::{Heard, Reply};
use std::sync::Arc;
use tidegate_hub::{Exports, Found, Guard, Hub, Limits, Manifest, Route, Table, Target, TopicPolicy, path::Path};

/// Pieces of a streamed answer that a client reads which doesn't say how many it wants.
const PIECES_MAX: usize = 1000;

/// Serves the app to this test.
///
/// Panics with every violation, as the host's `check` lists them, if the host would refuse the app.
///
/// ```should_panic
/// use tidegate::{prelude::*, testing};
///
/// testing::serve(App::new().get("/__mine", async |_| "no: such paths are the host's"));
/// ```
pub fn serve(app: App) -> Server {
    let table = Table::new(&manifest(&app), Exports::ALL).unwrap_or_else(|violations| {
        let lines: Vec<String> = violations.iter().map(ToString::to_string).collect();
        panic!("the host refuses this app:\n{}", lines.join("\n"))
    });
    let hub = Hub::new(Limits::default(), TopicPolicy::default(), 1);
    Server { app, table, hub, clients: Vec::new(), listeners: Vec::new() }
}

fn manifest(app: &App) -> Manifest {
    let routes = app.routes.iter().map(|route| Route {
        methods: route.methods.clone(),
        pattern: route.pattern.clone(),
        target: match route.handler {
            Answers::Http(_) => Target::Http,
            Answers::Stream(_) => Target::Stream,
            Answers::Socket(_) => Target::WebSocket,
            Answers::Feed(_) => Target::Events,
        },
    });
    let guards = app.guards.iter().map(|guard| Guard { pattern: guard.pattern.clone() });
    Manifest { routes: routes.collect(), guards: guards.collect() }
}

/// A served app and its clients. Each call runs to its end, events that follow from it included.
pub struct Server {
    app: App,
    table: Table,
    hub: Arc<Hub>,
    clients: Vec<Client>,
    listeners: Vec<Listener>,
}

/// A request that is on its way.
struct Call<'a> {
    method: &'a str,
    connect: Connect,
    body: &'a [u8],
    pieces_max: usize,
}

impl Server {
    /// Answers a GET.
    pub fn get(&mut self, path: &str) -> Reply {
        self.request("GET", path, &[], "")
    }

    /// Answers a POST.
    pub fn post(&mut self, path: &str, body: impl AsRef<[u8]>) -> Reply {
        self.request("POST", path, &[], body)
    }

    /// Answers a request. Of an answer without end, the client reads 1,000 pieces.
    pub fn request(&mut self, method: &str, path: &str, headers: &[(&str, &str)], body: impl AsRef<[u8]>) -> Reply {
        let connect = headers.iter().fold(Connect::to(path), |connect, (name, value)| connect.header(name, value));
        self.call(Call { method, connect, body: body.as_ref(), pieces_max: PIECES_MAX }).into_reply(self)
    }

    /// Answers a GET piece by piece; [`Streaming::take`] says of how many.
    pub fn stream(&mut self, connect: impl Into<Connect>) -> Streaming<'_> {
        Streaming { connect: connect.into(), server: self }
    }

    /// Opens a WebSocket. Panics if the app refuses.
    pub fn connect(&mut self, connect: impl Into<Connect>) -> ConnRef {
        self.try_connect(connect).unwrap_or_else(|reply| panic!("the WebSocket was refused: {reply:?}"))
    }

    /// Opens a WebSocket, or gives the app's refusal.
    pub fn try_connect(&mut self, connect: impl Into<Connect>) -> Result<ConnRef, Reply> {
        let connect = Connect { is_upgrade: true, ..connect.into() };
        match self.call(Call { method: "GET", connect, body: b"", pieces_max: PIECES_MAX }) {
            Outcome::Conn(conn) => Ok(conn),
            other => Err(other.into_reply(self)),
        }
    }

    /// Sends a message. Panics if the connection is closed.
    pub fn say(&mut self, conn: ConnRef, message: impl Into<Message>) {
        let message = message.into();
        let client = &self.clients[conn.0];
        let Some(opened) = &client.opened else { panic!("the connection is closed: {:?}", client.closed) };
        if message.len() > self.hub.limits().message_bytes_max {
            opened.close(1009, "the message is too large").expect("a valid code");
            return self.settle();
        }
        let (handle, route) = (Handle(Arc::clone(opened)), client.route);
        let app = &self.app;
        world::enter(&self.hub, || Conn::lend(handle, |conn| app.messages(route, conn, &mut std::iter::once(message))));
        self.settle();
    }

    /// What came since the last look.
    pub fn heard(&mut self, conn: ConnRef) -> Vec<Message> {
        std::mem::take(&mut self.clients[conn.0].heard)
    }

    /// The subprotocol that the app chose.
    pub fn protocol(&self, conn: ConnRef) -> Option<&str> {
        self.handshake(conn).header("sec-websocket-protocol")
    }

    /// The 101 that opened the connection.
    pub fn handshake(&self, conn: ConnRef) -> &Reply {
        &self.clients[conn.0].handshake
    }

    /// Closes the connection from the client's side.
    pub fn close(&mut self, conn: ConnRef) {
        self.end(conn.0, CloseInfo { code: 1000, reason: String::new(), clean: true, by_peer: true });
        self.settle();
    }

    /// The client goes away without a word.
    pub fn vanish(&mut self, conn: ConnRef) {
        self.end(conn.0, CloseInfo { code: 1006, reason: String::new(), clean: false, by_peer: true });
        self.settle();
    }

    /// Code and reason with which the connection was closed, by either side, if it was.
    pub fn closed(&self, conn: ConnRef) -> Option<(u16, String)> {
        self.clients[conn.0].closed.clone()
    }

    /// Opens a feed. Panics if the app refuses.
    pub fn subscribe(&mut self, connect: impl Into<Connect>) -> FeedRef {
        self.try_subscribe(connect).unwrap_or_else(|reply| panic!("the feed was refused: {reply:?}"))
    }

    /// Opens a feed, or gives the app's refusal.
    pub fn try_subscribe(&mut self, connect: impl Into<Connect>) -> Result<FeedRef, Reply> {
        match self.call(Call { method: "GET", connect: connect.into(), body: b"", pieces_max: PIECES_MAX }) {
            Outcome::Feed(feed) => Ok(feed),
            other => Err(other.into_reply(self)),
        }
    }

    /// The events that came since the last look.
    pub fn events(&mut self, feed: FeedRef) -> Vec<Heard> {
        std::mem::take(&mut self.listeners[feed.0].heard)
    }

    /// Publishes from outside of the app.
    pub fn publish(&mut self, topic: &str, message: impl Into<Message>) {
        self.announce(topic, Publication::new(message));
    }

    /// As [`publish`](Server::publish), with all that a publication may have.
    pub fn announce(&mut self, topic: &str, publication: Publication) {
        let published = world::enter(&self.hub, || publication.publish(topic));
        published.unwrap_or_else(|error| panic!("not published to {topic:?}: {error}"));
        self.settle();
    }

    /// The order of handling, as the host has it: guards, then the route.
    fn call(&mut self, call: Call<'_>) -> Outcome {
        let mut head = call.head();
        let Ok(path) = Path::parse(&call.connect.path) else {
            return Outcome::text(400, "the path has a broken percent-encoding or a control character");
        };
        if path.is_host() {
            return Outcome::text(404, "nothing is here");
        }
        let found = self.table.find(call.method, &path);
        let mut added = Vec::new();
        let outcome = match self.guard(&mut head, &path, &mut added) {
            Err(refusal) => Outcome::Reply(refusal),
            Ok(()) => self.dispatch(head, found, &call),
        };
        let outcome = outcome.with_headers(added, self);
        self.settle();
        if call.method == "HEAD" { outcome.without_body() } else { outcome }
    }

    fn guard(&self, head: &mut Head, path: &Path<'_>, added: &mut Vec<(String, Vec<u8>)>) -> Result<(), Reply> {
        for index in self.table.guards(path) {
            let request = Request { head: Head { route: index, ..head.clone() }, body: Body::default() };
            let pass = world::enter(&self.hub, || self.app.check(index, request))?;
            added.extend(pass.headers);
            head.context.extend(pass.context);
        }
        Ok(())
    }

    fn dispatch(&mut self, mut head: Head, found: Found, call: &Call<'_>) -> Outcome {
        let target = match found {
            Found::Nothing => return Outcome::text(404, "nothing is here"),
            Found::Methods(allow) => {
                return Outcome::text(405, "the path has no such method")
                    .with_headers(vec![("allow".into(), allow.join(", ").into())], self);
            }
            Found::Route { index, target, params } => {
                head.route = index;
                head.params = params;
                target
            }
        };
        match target {
            Target::Http if call.body.len() > self.hub.limits().body_bytes_max => Outcome::text(413, "the body is too large"),
            Target::Http => {
                let request = Request { head, body: Body::of_bytes(call.body.to_vec()) };
                Outcome::Reply(world::enter(&self.hub, || self.app.handle(request)).into())
            }
            Target::Stream => Outcome::Reply(self.run_stream(head, call)),
            Target::WebSocket if call.connect.is_upgrade => self.upgrade(head, call),
            Target::WebSocket => Outcome::text(426, "a WebSocket is here"),
            Target::Events => self.open_feed(head),
        }
    }

    fn run_stream(&self, head: Head, call: &Call<'_>) -> Reply {
        // As the host's router found it, the app finds it again: `wasi:http` doesn't say.
        let again = self.app.find_stream(call.method, &call.connect.path);
        assert_eq!(again, Some((head.route, head.params.clone())), "guest and host agree on the route");
        let pieces = call.body.chunks(64).map(<[u8]>::to_vec).collect();
        let outgoing = Outgoing::new(call.pieces_max);
        let request = Request { head, body: Body::of_pieces(Incoming(pieces)) };
        world::enter(&self.hub, || self.app.stream_to(request, outgoing.clone()));
        outgoing.recorded().into()
    }

    fn upgrade(&mut self, head: Head, call: &Call<'_>) -> Outcome {
        let offered = &call.connect.protocols;
        let upgrade = Upgrade { request: Request { head: head.clone(), body: Body::default() }, offered: offered.clone() };
        let accept = match world::enter(&self.hub, || self.app.upgrade(upgrade)) {
            Ok(accept) => accept,
            Err(refusal) => return Outcome::Reply(refusal.into()),
        };
        if let Some(protocol) = accept.protocol.as_ref().filter(|protocol| !offered.contains(protocol)) {
            return Outcome::text(500, &format!("the subprotocol {protocol:?} was not offered; offered: {offered:?}"));
        }
        let (route, close) = (head.route, accept.close.clone());
        let client = match Client::open(&self.hub, route, accept) {
            Ok(client) => client,
            Err(error) => return Outcome::text(500, &format!("the attachment or the tags of the accepted connection: {error}")),
        };
        self.clients.push(client);
        let conn = ConnRef(self.clients.len() - 1);
        match close {
            Some((code, reason)) => self.clients[conn.0].refuse(code, reason),
            None => self.open(conn, Request { head, body: Body::default() }),
        }
        Outcome::Conn(conn)
    }

    fn open(&self, conn: ConnRef, request: Request) {
        let opened = self.clients[conn.0].opened.as_ref().expect("it was just opened");
        world::enter(&self.hub, || Conn::lend(Handle(Arc::clone(opened)), |conn| self.app.open(conn, request)));
    }

    fn open_feed(&mut self, head: Head) -> Outcome {
        let feed = match world::enter(&self.hub, || self.app.subscribe(Request { head, body: Body::default() })) {
            Ok(feed) => feed,
            Err(refusal) => return Outcome::Reply(refusal.into()),
        };
        match Listener::open(&self.hub, feed) {
            Ok(listener) => self.listeners.push(listener),
            Err(error) => return Outcome::text(500, &format!("what the feed follows: {error}")),
        }
        Outcome::Feed(FeedRef(self.listeners.len() - 1))
    }

    /// Brings every outbox to its client, and every close to the app, until nothing moves.
    fn settle(&mut self) {
        self.listeners.iter_mut().for_each(Listener::drain);
        loop {
            let closing = self.clients.iter_mut().enumerate().find_map(|(at, client)| Some((at, client.drain()?)));
            let Some((at, close)) = closing else { break };
            self.end(at, CloseInfo { code: close.code, reason: close.reason, clean: true, by_peer: false });
            self.listeners.iter_mut().for_each(Listener::drain);
        }
    }

    fn end(&mut self, at: usize, info: CloseInfo) {
        let client = &mut self.clients[at];
        let Some(opened) = client.opened.take() else { return };
        client.closed = Some((info.code, info.reason.clone()));
        opened.outbox().abandon(); // as the host does: nobody is there any more
        let (handle, route) = (Handle(Arc::clone(&opened)), client.route);
        let app = &self.app;
        world::enter(&self.hub, || Conn::lend(handle, |conn| app.close(route, conn, info)));
    }
}

impl Call<'_> {
    fn head(&self) -> Head {
        let headers = self.connect.headers.iter().map(|(name, value)| (name.clone(), value.clone().into_bytes()));
        Head {
            method: self.method.to_owned(),
            scheme: "http".to_owned(),
            authority: "localhost".to_owned(),
            path: self.connect.path.clone(),
            headers: headers.collect(),
            params: Vec::new(),
            peer: "127.0.0.1:1".to_owned(),
            route: 0,
            context: Vec::new(),
        }
    }
}

/// A streamed answer that is about to be read.
pub struct Streaming<'a> {
    server: &'a mut Server,
    connect: Connect,
}

impl Streaming<'_> {
    /// Reads so many pieces (events, of an event stream), then goes away.
    pub fn take(self, pieces: usize) -> Reply {
        self.server.call(Call { method: "GET", connect: self.connect, body: b"", pieces_max: pieces }).into_reply(self.server)
    }
}
