//! The server under test: actions of its clients, and the answers that they received.

use super::{
    ClientResponse, ConnRef, Connect, FeedEvent, FeedRef,
    call::{ClientBody, ClientRef, ClientRequest},
    client::TestClient,
    host::TestHost,
    listener::FeedClient,
};
use crate::{
    App, Message, Publication,
    world::{self, outward},
};
use std::sync::Arc;
use tidegate_hub::{self as hub, App as _, CloseEvent, Scope};
use tidegate_routing::Wants;

/// Default number of pieces of a streamed answer that a client reads.
pub(super) const PIECES_MAX: usize = 1000;

/// A served app and its clients. Each call runs to its end, including all events that follow from
/// it.
pub struct Server {
    pub(super) host: TestHost,
    pub(super) clients: Vec<TestClient>,
    pub(super) listeners: Vec<FeedClient>,
}

/// Requests.
impl Server {
    pub(super) fn new(app: App) -> Server {
        Server {
            host: TestHost::start(app),
            clients: Vec::new(),
            listeners: Vec::new(),
        }
    }

    /// Sends a GET.
    pub fn get(&mut self, path: &str) -> ClientResponse {
        self.request("GET", path, &[], "")
    }

    /// Sends a POST.
    pub fn post(&mut self, path: &str, body: impl AsRef<[u8]>) -> ClientResponse {
        self.request("POST", path, &[], body)
    }

    /// Sends a request. The client reads at most 1,000 pieces of an endless answer. For a feed it
    /// receives only the head.
    pub fn request(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: impl AsRef<[u8]>,
    ) -> ClientResponse {
        let connect = headers
            .iter()
            .fold(Connect::to(path), |connect, (name, value)| {
                connect.header(name, value)
            });
        self.call(ClientRequest {
            method,
            body: ClientBody::Bytes(body.as_ref()),
            ..ClientRequest::get(connect, PIECES_MAX)
        })
        .reply
    }

    /// Sends a GET and reads the answer piece by piece; [`StreamRequest::take`] sets the number.
    pub fn stream(&mut self, connect: impl Into<Connect>) -> StreamRequest<'_> {
        StreamRequest {
            connect: connect.into(),
            server: self,
        }
    }
}

/// WebSockets.
impl Server {
    /// Opens a WebSocket. Panics if the app refuses.
    pub fn connect(&mut self, connect: impl Into<Connect>) -> ConnRef {
        self.try_connect(connect)
            .unwrap_or_else(|reply| panic!("the WebSocket was refused: {reply:?}"))
    }

    /// Opens a WebSocket, or returns the refusal.
    ///
    /// # Errors
    ///
    /// The answer that refuses the WebSocket.
    pub fn try_connect(&mut self, connect: impl Into<Connect>) -> Result<ConnRef, ClientResponse> {
        let result = self.call(ClientRequest {
            wants: Wants::WebSocket,
            ..ClientRequest::get(connect.into(), PIECES_MAX)
        });
        match result.opens {
            ClientRef::Conn(conn) => Ok(conn),
            _ => Err(result.reply),
        }
    }

    /// Returns the 101 that opened the connection.
    pub fn handshake(&self, conn: ConnRef) -> &ClientResponse {
        &self.clients[conn.0].handshake
    }

    /// Returns the subprotocol that the app selected.
    pub fn protocol(&self, conn: ConnRef) -> Option<&str> {
        self.handshake(conn).header("sec-websocket-protocol")
    }

    /// Sends a message. Panics if the connection is closed.
    pub fn send(&mut self, conn: ConnRef, message: impl Into<Message>) {
        self.send_all(conn, [message]);
    }

    /// Sends messages that the host delivers together, like messages that come while a handler
    /// runs. Panics if the connection is closed.
    ///
    /// # Examples
    ///
    /// ```
    /// use tidegate::{prelude::*, testing};
    ///
    /// let short = async |conn: Conn, msg: Message| match msg.len() {
    ///     0..=3 => conn.send(msg),
    ///     _ => Err(Error::bad_request("too long")),
    /// };
    /// let mut server = testing::serve(App::new().socket("/", short));
    /// let ann = server.connect("/");
    /// server.send_all(ann, ["hi", "hello", "bye"]);
    /// assert_eq!(server.received(ann), ["hi"]);
    /// assert_eq!(server.closed(ann), Some((1008, "too long".into())));
    /// ```
    pub fn send_all<M: Into<Message>>(
        &mut self,
        conn: ConnRef,
        messages: impl IntoIterator<Item = M>,
    ) {
        let client = &self.clients[conn.0];
        let Some(opened) = &client.opened else {
            panic!("the connection is closed: {:?}", client.closed)
        };
        if opened.outbox().is_closed() {
            return; // a client that does not read does not know yet, and its messages are dropped
        }
        let opened = Arc::clone(opened);
        let mut messages: Vec<Message> = messages.into_iter().map(Into::into).collect();
        let too_large = messages
            .iter()
            .position(|message| message.len() > self.host.limits().message_bytes_max);
        messages.truncate(too_large.unwrap_or(messages.len()));
        messages.retain(|message| !opened.answer_automatically(&outward(message.clone())));
        self.hand_over(&opened, messages);
        if too_large.is_some() {
            opened
                .close(1009, "the message is too large")
                .expect("a valid code");
        }
        self.settle();
    }

    fn hand_over(&self, conn: &Arc<hub::Conn>, messages: Vec<Message>) {
        if messages.is_empty() {
            return;
        }
        let messages = messages.into_iter().map(outward).collect();
        let app = self.host.app.clone();
        let outcome = self.host.call(app.messages(conn.clone(), messages));
        self.end_event(conn, outcome);
    }

    /// Returns the messages since the last call.
    pub fn received(&mut self, conn: ConnRef) -> Vec<Message> {
        std::mem::take(&mut self.clients[conn.0].received)
    }

    /// Checks the next message. Panics if it is a different one, or if there is none.
    ///
    /// # Examples
    ///
    /// ```
    /// use tidegate::{prelude::*, testing};
    ///
    /// let mut server = testing::serve(App::new().socket("/", async |conn: Conn, msg| conn.send(msg)));
    /// let ann = server.connect("/");
    /// server.send(ann, "hi");
    /// server.expect(ann, "hi");
    /// server.expect_nothing(ann);
    /// ```
    #[track_caller]
    pub fn expect(&mut self, conn: ConnRef, message: impl Into<Message>) {
        let (received, message) = (&mut self.clients[conn.0].received, message.into());
        match received.first() {
            Some(next) if *next == message => _ = received.remove(0),
            Some(next) => panic!("received {next:?} instead of {message:?}"),
            None => panic!("received no message instead of {message:?}"),
        }
    }

    /// Checks that no message came since the last call. Panics if one came.
    #[track_caller]
    pub fn expect_nothing(&self, conn: ConnRef) {
        let received = &self.clients[conn.0].received;
        assert!(
            received.is_empty(),
            "no message was expected, and {received:?} arrived"
        );
    }

    /// Stops reading: messages to the client wait in its outbox (1 MiB, 1,024 messages) until that
    /// is full.
    ///
    /// # Examples
    ///
    /// ```
    /// use tidegate::{SendError, prelude::*, testing};
    ///
    /// // A client that is too slow misses some.
    /// let send = async |conn: Conn, msg: Message| match conn.send(msg) {
    ///     Err(error) if error.downcast_ref() == Some(&SendError::Full) => Ok(()),
    ///     sent => sent,
    /// };
    /// let mut server = testing::serve(App::new().socket("/", send));
    /// let ann = server.connect("/");
    /// server.pause_reading(ann);
    /// for _ in 0..2000 {
    ///     server.send(ann, "tick");
    /// }
    /// server.resume_reading(ann);
    /// assert_eq!(server.received(ann).len(), 1024);
    /// ```
    pub fn pause_reading(&mut self, conn: ConnRef) {
        self.clients[conn.0].is_stalled = true;
    }

    /// Continues reading.
    pub fn resume_reading(&mut self, conn: ConnRef) {
        self.clients[conn.0].is_stalled = false;
        self.settle();
    }

    /// Closes the connection from the client's side, with 1000.
    pub fn close(&mut self, conn: ConnRef) {
        self.close_with(conn, 1000, "");
    }

    /// Does the same as [`close`](Server::close) with this code and reason. A browser without a
    /// code has 1005.
    pub fn close_with(&mut self, conn: ConnRef, code: u16, reason: &str) {
        self.end(
            conn.0,
            CloseEvent {
                code,
                reason: reason.to_owned(),
                was_clean: true,
                is_peer_initiated: true,
            },
        );
        self.settle();
    }

    /// Disconnects the client without a close frame.
    pub fn disconnect(&mut self, conn: ConnRef) {
        self.end(
            conn.0,
            CloseEvent {
                code: 1006,
                reason: String::new(),
                was_clean: false,
                is_peer_initiated: true,
            },
        );
        self.settle();
    }

    /// Returns code and reason of the close, by either side, if the connection is closed.
    pub fn closed(&self, conn: ConnRef) -> Option<(u16, String)> {
        self.clients[conn.0].closed.clone()
    }
}

/// Feeds and topics.
impl Server {
    /// Opens a feed. Panics if the app refuses.
    pub fn subscribe(&mut self, connect: impl Into<Connect>) -> FeedRef {
        self.try_subscribe(connect)
            .unwrap_or_else(|reply| panic!("the feed was refused: {reply:?}"))
    }

    /// Opens a feed, or returns the refusal.
    ///
    /// # Errors
    ///
    /// The answer that refuses the feed.
    pub fn try_subscribe(
        &mut self,
        connect: impl Into<Connect>,
    ) -> Result<FeedRef, ClientResponse> {
        let result = self.call(ClientRequest {
            wants: Wants::Events,
            ..ClientRequest::get(connect.into(), PIECES_MAX)
        });
        match result.opens {
            ClientRef::Feed(feed) => Ok(feed),
            _ => Err(result.reply),
        }
    }

    /// Returns the events since the last call.
    pub fn events(&mut self, feed: FeedRef) -> Vec<FeedEvent> {
        std::mem::take(&mut self.listeners[feed.0].received)
    }

    /// Returns the feed's position: a browser sends it as `Last-Event-ID` when it reconnects.
    ///
    /// # Examples
    ///
    /// ```
    /// use tidegate::{prelude::*, testing::{self, Connect}};
    ///
    /// let mut server = testing::serve(App::new().feed("/news", |_| Feed::follow("news")));
    /// let feed = server.subscribe("/news");
    /// let last = server.last_event_id(feed);
    /// server.publish("news", "high water");
    /// let again = server.subscribe(Connect::to("/news").header("last-event-id", &last));
    /// assert_eq!(server.events(again), ["high water"]);
    /// let lost = server.subscribe(Connect::to("/news").header("last-event-id", "0-7"));
    /// assert_eq!(server.events(lost)[0].name(), Some("tidegate-gap"));
    /// ```
    pub fn last_event_id(&self, feed: FeedRef) -> String {
        self.listeners[feed.0].positions.to_string()
    }

    /// Returns true if the feed was ended: one event published more than its outbox holds, or the
    /// server was restarted.
    pub fn ended(&self, feed: FeedRef) -> bool {
        self.listeners[feed.0].has_ended
    }

    /// Publishes to a topic from outside of the app.
    pub fn publish(&mut self, topic: &str, publication: impl Into<Publication>) {
        let publication = publication.into();
        let published = world::enter(Scope::App(self.host.hub().clone()), || {
            publication.publish(topic)
        });
        published.unwrap_or_else(|error| panic!("not published to {topic:?}: {error}"));
        self.settle();
    }
}

/// Events.
impl Server {
    /// Delivers every outbox to its client, and every close to the app, until nothing moves.
    pub(super) fn settle(&mut self) {
        self.listeners.iter_mut().for_each(FeedClient::drain);
        loop {
            let closing = self
                .clients
                .iter_mut()
                .enumerate()
                .find_map(|(at, client)| Some((at, client.drain()?)));
            let Some((at, close)) = closing else { break };
            self.end(
                at,
                CloseEvent {
                    code: close.code,
                    reason: close.reason,
                    was_clean: true,
                    is_peer_initiated: false,
                },
            );
            self.listeners.iter_mut().for_each(FeedClient::drain);
        }
    }

    /// Ends a connection, and delivers its last event.
    pub(super) fn end(&mut self, at: usize, info: CloseEvent) {
        let client = &mut self.clients[at];
        let Some(opened) = client.opened.take() else {
            return;
        };
        client.closed = Some((info.code, info.reason.clone()));
        // Like the host, the test sends nothing to a client that has left.
        opened.outbox().abandon();
        if !opened.has_opened() {
            return;
        }
        let app = self.host.app.clone();
        // An app that fails in its last event has received it.
        _ = self.host.call(app.close(Arc::clone(&opened), info));
    }
}

/// A GET whose answer is read piece by piece.
pub struct StreamRequest<'a> {
    server: &'a mut Server,
    connect: Connect,
}

impl StreamRequest<'_> {
    /// Reads this number of pieces (events, for an event stream), and then leaves.
    pub fn take(self, pieces: usize) -> ClientResponse {
        let request = ClientRequest::get(self.connect, pieces);
        self.server.call(request).reply
    }
}
