//! Rooms: state next to the connections, and one event at a time, each of which takes place as a
//! whole or not at all.

use crate::{
    Accept, CloseEvent, Conn, Cx, Error, Feed, Message, Request, Response, Result, Upgrade, task,
    world,
};
use std::{
    any::{TypeId, type_name},
    fmt,
    future::Future,
};

/// One room of a class. An event for a room that is not awake creates it by [`wake`](Room::wake);
/// after 10 seconds without an event it is dropped. Its connections, and the data that it wrote
/// through [`Cx`], stay.
///
/// All effects of an event (writes, messages, broadcasts, the answer) take place together, when
/// they are durable. If the handler panics or returns an error, none of them takes place and the
/// room is woken again before its next event. A request receives the error as its response. A
/// connection is closed: with 1008 and the error's text if the status is below 500, else with 1011.
///
/// Messages that arrive together are delivered together, but each of them takes place as a whole or
/// not at all. If one fails, all are undone and those before it run again, so effects of a handler
/// outside of Tidegate may occur twice.
///
/// # Examples
///
/// ```
/// use tidegate::{prelude::*, testing};
///
/// #[derive(Default)]
/// struct Counter(u64);
///
/// impl Room for Counter {
///     async fn wake(&mut self, cx: &Cx) -> Result {
///         self.0 = cx.get_json("count")?.unwrap_or(0);
///         Ok(())
///     }
///     async fn message(&mut self, cx: &Cx, _: &Conn, _: Message) -> Result {
///         self.0 += 1;
///         cx.put_json("count", &self.0)?;
///         cx.broadcast(self.0.to_string())
///     }
/// }
///
/// let mut server = testing::serve(App::new().room::<Counter>("/counters/{name}"));
/// let ann = server.connect("/counters/tea");
/// server.send(ann, "one more");
/// server.sleep("/counters/tea");
/// server.send(ann, "one more");
/// assert_eq!(server.received(ann), ["1", "2"]);
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a room",
    label = "this type does not implement `Room`",
    note = "derive `Default` for it and write `impl Room for {Self}` with a function for each event that it handles"
)]
pub trait Room: Default + 'static {
    /// Returns the class of these rooms. Class and name identify a room and its storage. A class
    /// has 1 to 64 of a-z, 0-9, `-` and `_`. The default is the type's name in lower case, with `-`
    /// before each further capital. If you rename the type, return the old class here, or its rooms
    /// start without their data.
    fn class() -> String {
        class_of(type_name::<Self>())
    }

    /// Loads what the room needs in memory, into its `Default` value. The first event of a room's
    /// instance: after a start, a sleep or a fault. A room without state leaves it out.
    ///
    /// # Errors
    ///
    /// An error goes to the log, and the event that woke the room fails. After five failures in a
    /// row the host does not wake the room for 30 seconds.
    fn wake(&mut self, cx: &Cx) -> impl Future<Output = Result> {
        let _ = cx;
        async { Ok(()) }
    }

    /// Decides about a WebSocket before its handshake. The default accepts it.
    fn upgrade(&mut self, cx: &Cx, upgrade: &Upgrade) -> impl Future<Output = Result<Accept>> {
        let _ = (cx, upgrade);
        async { Ok(Accept::new()) }
    }

    /// A connection is open. From now on it receives the room's broadcasts, and is one of its
    /// [`connections`](Cx::connections).
    fn open(&mut self, cx: &Cx, conn: &Conn, request: &Request) -> impl Future<Output = Result> {
        let _ = (cx, conn, request);
        async { Ok(()) }
    }

    /// A message has arrived. The messages of a connection come in order.
    fn message(&mut self, cx: &Cx, conn: &Conn, message: Message) -> impl Future<Output = Result> {
        let _ = (cx, conn, message);
        async { Ok(()) }
    }

    /// A connection has ended and is no longer in the room's list. The host calls this exactly once
    /// for each connection for which [`open`](Room::open) was called, even if that call failed: it
    /// tries again until the room could be called and its changes are on the disk.
    fn close(&mut self, cx: &Cx, conn: &Conn, info: &CloseEvent) -> impl Future<Output = Result> {
        let _ = (cx, conn, info);
        async { Ok(()) }
    }

    /// Answers an HTTP request of any method. The default is 404.
    fn request(&mut self, cx: &Cx, request: Request) -> impl Future<Output = Result<Response>> {
        let _ = (cx, request);
        async { Err(Error::not_found("this room answers no requests")) }
    }

    /// Admits a feed, for a request that accepts `text/event-stream`. The feed receives the room's
    /// later broadcasts, and the topics that it also follows. The default is 404.
    fn feed(&mut self, cx: &Cx, request: Request) -> impl Future<Output = Result<Feed>> {
        let _ = (cx, request);
        async { Err(Error::not_found("this room has no feed")) }
    }

    /// Answers a call that was made by [`room`](crate::room()). An error is a refusal with its
    /// status and text. The default is 404.
    fn call(&mut self, cx: &Cx, payload: Vec<u8>) -> impl Future<Output = Result<Vec<u8>>> {
        let _ = (cx, payload);
        async { Err(Error::not_found("this room answers no calls")) }
    }

    /// The room's alarm is due, and has been removed. After an error or a panic the host calls
    /// again, 2 seconds later and then after twice the time, 6 times in all: [`Cx::attempt`]
    /// counts.
    fn alarm(&mut self, cx: &Cx) -> impl Future<Output = Result> {
        let _ = cx;
        async { Ok(()) }
    }
}

/// `my_app::ChatRoom` → `chat-room`
fn class_of(type_name: &str) -> String {
    let plain = type_name.split('<').next().unwrap_or(type_name);
    let name = plain.rsplit("::").next().unwrap_or(plain);
    let mut class = String::new();
    for letter in name.chars() {
        if letter.is_ascii_uppercase() && !class.is_empty() {
            class.push('-');
        }
        class.push(letter.to_ascii_lowercase());
    }
    class
}

/// A class of rooms, type-erased.
pub(crate) struct Class {
    pub(crate) name: String,
    pub(crate) of: TypeId,
    pub(crate) make: fn() -> Box<dyn DynRoom>,
}

impl Class {
    pub(crate) fn of<R: Room>() -> Class {
        Class {
            name: R::class(),
            of: TypeId::of::<R>(),
            make: || Box::new(LiveRoom::<R> { room: None }),
        }
    }
}

/// A room, type-erased. Each event is undone if its handler fails.
pub(crate) trait DynRoom {
    /// The error is a text for the operator.
    fn wake(&mut self, cx: &Cx) -> Result<(), String>;
    fn upgrade(&mut self, cx: &Cx, upgrade: Upgrade) -> Result<Accept, Response>;
    fn open(&mut self, cx: &Cx, conn: &Conn, request: Request);
    fn messages(&mut self, cx: &Cx, conn: &Conn, messages: Vec<Message>);
    fn close(&mut self, cx: &Cx, conn: &Conn, info: CloseEvent);
    fn request(&mut self, cx: &Cx, request: Request) -> Response;
    fn feed(&mut self, cx: &Cx, request: Request) -> Result<Feed, Response>;
    /// The error is status and text of a refusal.
    fn call(&mut self, cx: &Cx, payload: Vec<u8>) -> Result<Vec<u8>, (u16, String)>;
    /// Panics if the handler fails: the host tries again after a trap.
    fn alarm(&mut self, cx: &Cx, attempt: u32);
}

struct LiveRoom<R> {
    /// `None` before the room woke, and after an event that failed: its memory may contain effects
    /// that were undone.
    room: Option<R>,
}

impl<R: Room> LiveRoom<R> {
    /// Runs a handler. If it fails, its effects are undone.
    fn event<T>(&mut self, cx: &Cx, handler: impl AsyncFnOnce(&mut R) -> Result<T>) -> Result<T> {
        let outcome = task::run(async { handler(self.awake(cx).await).await });
        if outcome.is_err() {
            self.undo();
        }
        outcome
    }

    /// Does the same as [`event`](LiveRoom::event) for an event of a connection, which is closed if
    /// the handler fails.
    fn socket_event(&mut self, cx: &Cx, conn: &Conn, handler: impl AsyncFnOnce(&mut R) -> Result) {
        if let Err(error) = self.event(cx, handler) {
            close(cx, conn, &error);
        }
    }

    /// Returns the room, which is woken again if an event of this instance failed. If it can't
    /// wake, the event has no answer: the function panics, so that the host wakes the room in
    /// another instance and counts the failure.
    async fn awake(&mut self, cx: &Cx) -> &mut R {
        if self.room.is_none() {
            let mut room = R::default();
            if let Err(error) = room.wake(cx).await {
                panic!("{} can't wake: {}", RoomLabel(cx), error.description());
            }
            self.room = Some(room);
        }
        self.room.as_mut().expect("it was woken above")
    }

    fn undo(&mut self) {
        self.room = None;
        world::rollback();
    }

    /// Runs messages from the index `from` on, each of them if all before it succeeded. After a
    /// failure, no message from `from` on has taken place, and `messages` contains those before the
    /// failed one; `from` moves past the flushed ones.
    fn run_messages(
        &mut self,
        cx: &Cx,
        conn: &Conn,
        messages: &mut Vec<Message>,
        from: &mut usize,
    ) -> Result {
        let count = messages.len();
        for index in *from..count {
            // The last message is never run again: either it fails, or no message does.
            let message = if index + 1 == count {
                messages.pop().expect("it is the last")
            } else {
                messages[index].clone()
            };
            let flushes = cx.flushes();
            let outcome = self.event(cx, async |room| room.message(cx, conn, message).await);
            let has_flushed = cx.flushes() != flushes;
            if let Err(error) = outcome {
                messages.truncate(index);
                *from = if has_flushed { index } else { *from };
                return Err(error);
            }
            if has_flushed && index + 1 < count {
                // The event is durable except for its end. If that were undone with a later
                // message, it could not run again.
                cx.flush();
                *from = index + 1;
            }
        }
        Ok(())
    }
}

impl<R: Room> DynRoom for LiveRoom<R> {
    fn wake(&mut self, cx: &Cx) -> Result<(), String> {
        let mut room = R::default();
        task::run(room.wake(cx)).map_err(|error| error.description())?;
        self.room = Some(room);
        Ok(())
    }

    fn upgrade(&mut self, cx: &Cx, upgrade: Upgrade) -> Result<Accept, Response> {
        self.event(cx, async |room| room.upgrade(cx, &upgrade).await)
            .map_err(|error| error.answer(format_args!("{}", RoomLabel(cx))))
    }

    fn open(&mut self, cx: &Cx, conn: &Conn, request: Request) {
        self.socket_event(cx, conn, async |room| room.open(cx, conn, &request).await);
    }

    fn messages(&mut self, cx: &Cx, conn: &Conn, mut messages: Vec<Message>) {
        let (mut from, mut failure) = (0, None);
        // Each failure leaves fewer messages.
        while let Err(error) = self.run_messages(cx, conn, &mut messages, &mut from) {
            failure = Some(error);
        }
        if let Some(error) = failure {
            close(cx, conn, &error);
        }
    }

    fn close(&mut self, cx: &Cx, conn: &Conn, info: CloseEvent) {
        // The close is not an effect of the handler, and is not undone with it.
        if cx
            .presence()
            .part(conn)
            .is_ok_and(|was_present| was_present)
        {
            cx.flush();
        }
        self.socket_event(cx, conn, async |room| room.close(cx, conn, &info).await);
    }

    fn request(&mut self, cx: &Cx, request: Request) -> Response {
        self.event(cx, async |room| room.request(cx, request).await)
            .unwrap_or_else(|error| error.answer(format_args!("{}", RoomLabel(cx))))
    }

    fn feed(&mut self, cx: &Cx, request: Request) -> Result<Feed, Response> {
        self.event(cx, async |room| room.feed(cx, request).await)
            .map_err(|error| error.answer(format_args!("{}", RoomLabel(cx))))
    }

    fn call(&mut self, cx: &Cx, payload: Vec<u8>) -> Result<Vec<u8>, (u16, String)> {
        self.event(cx, async |room| room.call(cx, payload).await)
            .map_err(|error| error.refusal(format_args!("{}", RoomLabel(cx))))
    }

    fn alarm(&mut self, cx: &Cx, attempt: u32) {
        cx.set_attempt(attempt);
        if let Err(error) = self.event(cx, async |room| room.alarm(cx).await) {
            panic!(
                "the alarm of {} failed: {}",
                RoomLabel(cx),
                error.description()
            );
        }
        cx.set_attempt(0);
    }
}

/// Closes a connection whose event failed.
fn close(cx: &Cx, conn: &Conn, error: &Error) {
    if let Some((code, reason)) = error.close(format_args!("{}", RoomLabel(cx))) {
        // If the connection is closing already, its first close counts.
        _ = conn.close(code, reason);
    }
}

/// "room chat/tea", for the operator.
struct RoomLabel<'a>(&'a Cx);

impl fmt::Display for RoomLabel<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "room {}/{}", self.0.class(), self.0.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_class_is_named_after_its_type() {
        let cases = [
            ("my_app::ChatRoom", "chat-room"),
            ("Chat", "chat"),
            ("a::b::Board2", "board2"),
            ("a::Of<b::C>", "of"),
        ];
        for (name, class) in cases {
            assert_eq!(class_of(name), class);
        }
    }
}
