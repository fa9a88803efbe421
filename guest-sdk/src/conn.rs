//! A WebSocket connection in a handler. The host owns it, and lends it to an event.

use crate::{Message, Position, Result, StartPoint, world};
use serde::{Serialize, de::DeserializeOwned};
use std::{cell::Cell, fmt};

/// A connection, valid during the event that it came with. To reach it later, keep its
/// [`id`](Conn::id) and [`find`] it.
///
/// # Panics
///
/// Every method panics if it is called after the event has ended, for example on a connection that
/// a `static` or a room's field kept: that is a fault of the app, and the event that does it fails.
/// Keep the [`id`](Conn::id) instead. A connection that [`find`] returned has no event and stays
/// valid; its methods fail with [`SendError::Closed`] or change nothing once it is closed.
///
/// # Examples
///
/// ```
/// use tidegate::{prelude::*, testing};
///
/// let count = async |conn: Conn, _: Message| {
///     let n = conn.state::<u32>()?.unwrap_or(0) + 1; // kept by the host: any instance may count on
///     conn.set_state(&n)?;
///     conn.send(n.to_string())
/// };
/// let mut server = testing::serve(App::new().socket("/count", count));
/// let ann = server.connect("/count");
/// server.send(ann, "tick");
/// server.send(ann, "tick");
/// assert_eq!(server.received(ann), ["1", "2"]);
/// ```
pub struct Conn {
    handle: world::Handle,
    /// Number of the event that lent it; `None` for a connection that was found, which stays valid.
    event: Option<u64>,
}

thread_local! {
    /// Number of the current event, or of the last one.
    static EVENT: Cell<u64> = const { Cell::new(0) };
}

/// Why a message was not queued (WIT `websockets.send-error`); the cause in an
/// [`Error`](crate::Error) of [`Conn::send`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SendError {
    /// The connection is closing or gone. There is nothing to do.
    Closed,
    /// The connection's outbox is full: 1 MiB, 1,024 messages. Wait until
    /// [`buffered_amount`](Conn::buffered_amount) falls, or drop the message.
    Full,
    /// The message is larger than the host's limit, or the payload of a ping than 125 bytes. Send a
    /// smaller one.
    TooLarge,
}

impl fmt::Display for SendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            SendError::Closed => "the connection is closing or gone",
            SendError::Full => "the connection's outbox is full",
            SendError::TooLarge => "the message is larger than the host's limit",
        })
    }
}

impl std::error::Error for SendError {}

/// Reason why the host refused a value (WIT `types.limit-error`). Nothing was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LimitError {
    /// The value is longer than the host's limit.
    TooLarge,
    /// The host's limit on the number of values is reached. Remove one first.
    TooMany,
    /// The protocol does not allow the value: a close code, a topic's name, or a line break in an
    /// event's name.
    Invalid,
}

impl fmt::Display for LimitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            LimitError::TooLarge => "longer than the host's limit for it",
            LimitError::TooMany => "more than the host's limit for it",
            LimitError::Invalid => "of a form that the protocol does not allow",
        })
    }
}

impl std::error::Error for LimitError {}

/// Panic message for a [`Conn`] that is used after its event.
const STALE: &str =
    "the event of this connection has ended: keep `conn.id()` and get the connection with `find`";

impl Conn {
    /// Lends the connection to `event`, and ends the loan afterwards.
    pub(crate) fn lend<T>(handle: world::Handle, event: impl FnOnce(&Conn) -> T) -> T {
        let number = EVENT.get() + 1; // not that of an event that panicked
        EVENT.set(number);
        let value = event(&Conn {
            handle,
            event: Some(number),
        });
        EVENT.set(number + 1);
        value
    }

    /// Returns the same connection for a handler that needs to own it.
    pub(crate) fn again(&self) -> Conn {
        Conn {
            handle: self.handle.again(),
            event: self.event,
        }
    }

    /// Returns the connection's id: the same in every event and instance, never used again.
    pub fn id(&self) -> String {
        self.handle().id()
    }

    /// Returns the selected subprotocol, if any.
    pub fn protocol(&self) -> Option<String> {
        self.handle().protocol()
    }

    /// Adds a message of at most 1 MiB to the connection's outbox; never blocks.
    ///
    /// # Errors
    ///
    /// A [`SendError`] is the cause; [`Error::downcast_ref`](crate::Error::downcast_ref) returns
    /// it. If the handler returns the error, a full outbox closes the connection with 1013.
    pub fn send(&self, message: impl Into<Message>) -> Result {
        Ok(self
            .handle()
            .send(message.into())
            .map_err(SendError::from)?)
    }

    /// Adds a ping with this payload to the connection's outbox, after the messages in it; never
    /// blocks. The client's machine answers it with a pong (RFC 6455 section 5.5.2); code in a
    /// browser sees neither, and the app gets no event for the pong. The host sends pings of its
    /// own to silent clients, so an app needs this only for a shorter interval or a payload.
    ///
    /// # Examples
    ///
    /// ```
    /// use tidegate::{prelude::*, testing};
    ///
    /// let nudge = async |conn: Conn, _: Message| conn.ping(b"still there?");
    /// let mut server = testing::serve(App::new().socket("/", nudge));
    /// let ann = server.connect("/");
    /// server.send(ann, "nudge her");
    /// assert!(server.received(ann).is_empty(), "a ping is no message");
    /// ```
    ///
    /// # Errors
    ///
    /// A [`SendError`] is the cause, as of [`send`](Conn::send).
    ///
    /// # Limits
    ///
    /// The payload has at most 125 bytes. A ping counts as a message in the outbox. In a room, a
    /// ping that no longer fits into the outbox at the commit is dropped.
    pub fn ping(&self, payload: &[u8]) -> Result {
        Ok(self.handle().ping(payload).map_err(SendError::from)?)
    }

    /// Returns the number of bytes in the outbox that are not yet written to the network.
    pub fn buffered_amount(&self) -> u64 {
        self.handle().buffered_amount()
    }

    /// Sends the queued messages, then the close frame: code 1000 to 1003, 1007 to 1014 or 3000 to
    /// 4999; reason at most 123 bytes. Closing again changes nothing.
    ///
    /// # Errors
    ///
    /// A [`LimitError`] is the cause if the code or the reason is not allowed.
    pub fn close(&self, code: u16, reason: &str) -> Result {
        Ok(self
            .handle()
            .close(code, reason)
            .map_err(LimitError::from)?)
    }

    /// Returns the attachment: the app's bytes for this connection, which the host keeps across
    /// events, instances and traps.
    pub fn attachment(&self) -> Vec<u8> {
        self.handle().attachment()
    }

    /// Replaces the attachment, at most 16 KiB.
    ///
    /// # Errors
    ///
    /// A [`LimitError`] is the cause if the attachment is larger.
    pub fn set_attachment(&self, bytes: &[u8]) -> Result {
        Ok(self
            .handle()
            .set_attachment(bytes)
            .map_err(LimitError::from)?)
    }

    /// Returns the value that [`set_state`](Conn::set_state) or
    /// [`Accept::state`](crate::Accept::state) stored in the attachment, if any.
    ///
    /// # Errors
    ///
    /// A fault if the attachment is not the JSON of a `T`.
    pub fn state<T: DeserializeOwned>(&self) -> Result<Option<T>> {
        let bytes = self.handle().attachment();
        if bytes.is_empty() {
            return Ok(None);
        }
        Ok(Some(serde_json::from_slice(&bytes)?))
    }

    /// Stores a value as JSON in the attachment, with the limit of the attachment.
    ///
    /// # Errors
    ///
    /// A fault if the value is not one of JSON; a [`LimitError`] is the cause if its JSON is larger
    /// than an attachment.
    pub fn set_state(&self, value: &impl Serialize) -> Result {
        self.set_attachment(&serde_json::to_vec(value)?)
    }

    /// Sends this connection all later publications of the topic. A name has 1 to 256 bytes; a
    /// connection follows at most 128 topics; following a topic again changes nothing.
    ///
    /// # Errors
    ///
    /// A [`LimitError`] is the cause if the name is not valid, or the connection follows too many
    /// topics.
    pub fn follow(&self, topic: &str) -> Result {
        self.follow_since(topic, None).map(drop)
    }

    /// Follows a topic for a client that reconnects: the connection first receives what was
    /// published after `since`, if the history still has all of it (256 messages of at most 64 KiB,
    /// for 2 minutes) and it fits into the outbox. Without `since` the result says where the client
    /// starts; that position, plus the number of messages received after it, is the client's
    /// position.
    ///
    /// # Errors
    ///
    /// As for [`follow`](Conn::follow).
    ///
    /// # Examples
    ///
    /// ```
    /// use tidegate::{StartPoint, prelude::*, testing};
    ///
    /// struct News;
    ///
    /// impl Socket for News {
    ///     async fn open(&self, conn: &Conn, req: &Request) -> Result {
    ///         let StartPoint { position, has_gap } = conn.follow_since("news", req.query_opt("since")?)?;
    ///         conn.send(if has_gap { format!("gap {position}") } else { format!("from {position}") })
    ///     }
    /// }
    ///
    /// let mut server = testing::serve(App::new().socket("/news", News));
    /// let ann = server.connect("/news");
    /// let from = server.received(ann)[0].text().unwrap().replace("from ", "");
    /// server.disconnect(ann);
    /// server.publish("news", "high water");
    /// let again = server.connect(format!("/news?since={from}").as_str());
    /// assert_eq!(server.received(again)[0], "high water");
    /// let lost = server.connect("/news?since=0-7");
    /// assert!(server.received(lost)[0].text().unwrap().starts_with("gap "));
    /// ```
    pub fn follow_since(&self, topic: &str, since: Option<Position>) -> Result<StartPoint> {
        Ok(self
            .handle()
            .follow(topic, since)
            .map_err(LimitError::from)?)
    }

    /// Sends the connection what its room broadcast after `since`.
    pub(crate) fn resume(&self, since: Position) -> Result<StartPoint> {
        Ok(self.handle().resume(since)?)
    }

    /// Ends [`follow`](Conn::follow). No change if the connection does not follow the topic.
    pub fn unfollow(&self, topic: &str) {
        self.handle().unfollow(topic);
    }

    /// Returns the connection's tags, by which [`ids`] finds it.
    pub fn tags(&self) -> Vec<String> {
        self.handle().tags()
    }

    /// Replaces the tags: at most 10, of 1 to 256 bytes.
    ///
    /// # Errors
    ///
    /// A [`LimitError`] is the cause if there are more tags, or one is longer.
    pub fn set_tags<T: Into<String>>(&self, tags: impl IntoIterator<Item = T>) -> Result {
        let tags: Vec<String> = tags.into_iter().map(Into::into).collect();
        Ok(self.handle().set_tags(&tags).map_err(LimitError::from)?)
    }

    /// True until the event that lent the connection has ended.
    fn is_valid(&self) -> bool {
        self.event.is_none_or(|event| event == EVENT.get())
    }

    fn handle(&self) -> &world::Handle {
        assert!(self.is_valid(), "{STALE}");
        &self.handle
    }
}

impl fmt::Debug for Conn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_valid() {
            write!(f, "Conn({})", self.handle.id())
        } else {
            write!(f, "Conn(its event has ended)")
        }
    }
}

/// Returns an open connection of this app by its id. It stays valid after this event: see
/// [`Conn`](Conn#panics).
///
/// # Examples
///
/// ```
/// use tidegate::{prelude::*, testing};
///
/// let poke = async |req: Request| {
///     let conn = find(&req.param::<String>("id")?).ok_or_else(|| Error::not_found("no such connection"))?;
///     conn.send("poke")
/// };
/// let echo_id = async |conn: Conn, _: Message| conn.send(conn.id());
/// let mut server = testing::serve(App::new().post("/poke/{id}", poke).socket("/", echo_id));
/// let ann = server.connect("/");
/// server.send(ann, "id?");
/// let id = server.received(ann)[0].text().unwrap().to_owned();
/// assert_eq!(server.request("POST", &format!("/poke/{id}"), &[], b"").status(), 204);
/// assert_eq!(server.received(ann), ["poke"]);
/// ```
pub fn find(id: &str) -> Option<Conn> {
    world::find(id).map(|handle| Conn {
        handle,
        event: None,
    })
}

/// Returns ids of open connections in the order in which they opened: all or those with the tag,
/// those that opened after `after`, at most `limit` and at most 1,000.
///
/// # Examples
///
/// ```
/// use tidegate::{prelude::*, testing};
///
/// let app = App::new()
///     .get("/count", async |_| ids(None, None, 1000).len().to_string())
///     .socket("/", async |conn: Conn, msg| conn.send(msg));
/// let mut server = testing::serve(app);
/// server.connect("/");
/// server.connect("/");
/// assert_eq!(server.get("/count").text(), "2");
/// ```
pub fn ids(tag: Option<&str>, after: Option<&str>, limit: u32) -> Vec<String> {
    world::ids(tag, after, limit)
}

/// Makes the host answer each text message that is equal to `request` with `response`, without an
/// event: a heartbeat does not wake a sleeping room. In a room it applies to the room's connections
/// and takes effect with the event; set it in [`Room::wake`](crate::Room::wake). Elsewhere it
/// applies to all connections that are in no room. It replaces the one before.
///
/// # Errors
///
/// A [`LimitError`] is the cause if one of the texts has more than 2,048 bytes.
///
/// # Examples
///
/// ```
/// use tidegate::{prelude::*, testing};
///
/// #[derive(Default)]
/// struct Tea;
///
/// impl Room for Tea {
///     async fn wake(&mut self, _: &Cx) -> Result {
///         set_auto_response("ping", "pong")
///     }
///     async fn message(&mut self, _: &Cx, _: &Conn, _: Message) -> Result {
///         panic!("the heartbeat woke the room")
///     }
/// }
///
/// let mut server = testing::serve(App::new().room::<Tea>("/{name}"));
/// let ann = server.connect("/tea");
/// server.sleep("/tea");
/// server.send(ann, "ping");
/// assert_eq!(server.received(ann), ["pong"]);
/// ```
pub fn set_auto_response(request: &str, response: &str) -> Result {
    Ok(world::set_auto_response(Some((request, response)))?)
}

/// Removes the pair of [`set_auto_response`].
///
/// # Panics
///
/// If the event of a room has more effects than the host's limits allow; the event then fails.
pub fn clear_auto_response() {
    world::set_auto_response(None).expect("one event does more than the host lets it");
}
