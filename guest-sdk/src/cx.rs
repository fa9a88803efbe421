//! Storage, alarm and connections of the room whose event runs.

use crate::{Conn, Error, Message, Position, Publication, Result, StartPoint, conn, ids, world};
use serde::{Serialize, de::DeserializeOwned};
use std::{
    cell::Cell,
    fmt,
    time::{Duration, SystemTime},
};

/// The room whose event runs. All effects take place together when the event commits; reads see the
/// event's own writes.
///
/// # Examples
///
/// ```
/// use tidegate::{prelude::*, testing};
///
/// #[derive(Default)]
/// struct Notes;
///
/// impl Room for Notes {
///     async fn request(&mut self, cx: &Cx, req: Request) -> Result<Response> {
///         if req.method() == "POST" {
///             let number = cx.range("note/").count();
///             cx.put(&format!("note/{number:06}"), req.text()?)?;
///         }
///         let notes = cx.range("note/").reverse().limit(10).entries();
///         let lines: Vec<String> = notes.into_iter().map(|(_, text)| String::from_utf8_lossy(&text).into_owned()).collect();
///         Ok(Response::text(lines.join(",")))
///     }
/// }
///
/// let mut server = testing::serve(App::new().room::<Notes>("/notes/{name}"));
/// server.post("/notes/tea", "buy milk");
/// assert_eq!(server.post("/notes/tea", "boil water").text(), "boil water,buy milk");
/// assert_eq!(server.get("/notes/rum").text(), "");
/// ```
pub struct Cx {
    class: String,
    name: String,
    attempt: Cell<u32>,
    flushes: Cell<u32>,
}

/// Reason why a room's storage refused a write (WIT `room.storage-error`); the cause in an
/// [`Error`] of [`Cx::put`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StorageError {
    /// A key has 1 to this many bytes (2,048).
    KeySize(u64),
    /// A value has at most this many bytes (2 MiB).
    ValueSize(u64),
    /// A room holds at most this many bytes of keys and values (1 GiB). Delete some entries.
    RoomSize(u64),
    /// One event writes and sends at most this many bytes (16 MiB). Call [`Cx::flush`] in between.
    EventSize(u64),
}

impl fmt::Display for StorageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StorageError::KeySize(max) => write!(f, "a key has 1 to {max} bytes"),
            StorageError::ValueSize(max) => write!(f, "a value has at most {max} bytes"),
            StorageError::RoomSize(max) => write!(f, "a room holds at most {max} bytes"),
            StorageError::EventSize(max) => {
                write!(f, "one event writes and sends at most {max} bytes")
            }
        }
    }
}

impl std::error::Error for StorageError {}

impl Cx {
    pub(crate) fn new(class: String, name: String) -> Cx {
        Cx {
            class,
            name,
            attempt: Cell::new(0),
            flushes: Cell::new(0),
        }
    }

    pub(crate) fn set_attempt(&self, attempt: u32) {
        self.attempt.set(attempt);
    }

    /// Returns the number of flushes in this event.
    pub(crate) fn flushes(&self) -> u32 {
        self.flushes.get()
    }

    /// Returns the class of the room.
    pub fn class(&self) -> &str {
        &self.class
    }

    /// Returns the name of the room: the value of the route's parameter. Several values are joined
    /// by `/`; the name is empty for a route without parameters.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the value of a key.
    pub fn get(&self, key: &str) -> Option<Vec<u8>> {
        world::room_get(key)
    }

    /// Writes a value.
    ///
    /// # Errors
    ///
    /// A [`StorageError`] is the cause if a limit is exceeded.
    ///
    /// # Limits
    ///
    /// A key has 1 to 2,048 bytes, a value at most 2 MiB, a room 1 GiB in all.
    pub fn put(&self, key: &str, value: impl AsRef<[u8]>) -> Result {
        Ok(world::room_put(key, value.as_ref())?)
    }

    /// Returns a value that [`put_json`](Cx::put_json) wrote.
    ///
    /// # Errors
    ///
    /// A fault if the value is not the JSON of a `T`.
    pub fn get_json<T: DeserializeOwned>(&self, key: &str) -> Result<Option<T>> {
        self.get(key)
            .map(|value| serde_json::from_slice(&value).map_err(Error::from))
            .transpose()
    }

    /// Writes a value as JSON, with the limits of [`put`](Cx::put).
    ///
    /// # Errors
    ///
    /// A fault if the value is not one of JSON; otherwise as for [`put`](Cx::put).
    pub fn put_json(&self, key: &str, value: &impl Serialize) -> Result {
        self.put(key, serde_json::to_vec(value)?)
    }

    /// Deletes a key. Returns true if it existed.
    pub fn delete(&self, key: &str) -> bool {
        world::room_delete(key)
    }

    /// Deletes every key. The alarm remains.
    pub fn clear(&self) {
        world::room_clear();
    }

    /// Returns the entries whose keys begin with `prefix`, in the order of their bytes.
    pub fn range<'a>(&self, prefix: &'a str) -> Range<'a> {
        Range {
            prefix,
            start: None,
            end: None,
            reverse: false,
            limit: usize::MAX,
        }
    }

    /// Sets the alarm to this time from now, to within a second. A room has one alarm: setting it
    /// again moves it.
    pub fn alarm_in(&self, duration: Duration) {
        self.set_alarm(unix_time(self.now()).saturating_add(duration));
    }

    /// Sets the alarm to this time. A past time is due at once.
    pub fn alarm_at(&self, time: SystemTime) {
        self.set_alarm(unix_time(time));
    }

    fn set_alarm(&self, since: Duration) {
        world::room_set_alarm(Some(u64::try_from(since.as_millis()).unwrap_or(u64::MAX)));
    }

    /// Removes the alarm.
    pub fn cancel_alarm(&self) {
        world::room_set_alarm(None);
    }

    /// Returns the time of the alarm. None in the alarm's own event, until it is set again.
    pub fn alarm(&self) -> Option<SystemTime> {
        world::room_alarm().map(|at| SystemTime::UNIX_EPOCH + Duration::from_millis(at))
    }

    /// Returns the number of the alarm's attempt in [`Room::alarm`](crate::Room::alarm): 1 for the
    /// first call, 6 for the last retry. Returns 0 in other events.
    pub fn attempt(&self) -> u32 {
        self.attempt.get()
    }

    /// Returns the time of day; in a test, that of the server.
    pub fn now(&self) -> SystemTime {
        world::now()
    }

    /// Sends a message of at most 1 MiB, or a [`Publication`] with options, to all of the room's
    /// connections and feeds. The latest 256 of at most 64 KiB are stored for 2 minutes for clients
    /// that reconnect: feeds resume by themselves, connections with [`resume`](Cx::resume).
    ///
    /// # Errors
    ///
    /// A [`LimitError`](crate::LimitError) is the cause.
    ///
    /// # Examples
    ///
    /// ```
    /// use tidegate::{prelude::*, testing};
    ///
    /// #[derive(Default)]
    /// struct Prices;
    ///
    /// impl Room for Prices {
    ///     async fn request(&mut self, cx: &Cx, req: Request) -> Result<Response> {
    ///         cx.broadcast(Publication::new(req.text()?).event("price"))?;
    ///         Ok(Response::new(204))
    ///     }
    ///     async fn feed(&mut self, _: &Cx, _: Request) -> Result<Feed> {
    ///         Ok(Feed::new())
    ///     }
    /// }
    ///
    /// let mut server = testing::serve(App::new().room::<Prices>("/prices"));
    /// let feed = server.subscribe("/prices");
    /// server.post("/prices", "12");
    /// assert_eq!(server.events(feed)[0].name(), Some("price"));
    /// ```
    pub fn broadcast(&self, publication: impl Into<Publication>) -> Result {
        Ok(world::room_broadcast(publication.into())?)
    }

    /// Does the same as [`broadcast`](Cx::broadcast) for all except this connection.
    ///
    /// # Errors
    ///
    /// As for [`broadcast`](Cx::broadcast).
    pub fn broadcast_except(&self, conn: &Conn, message: impl Into<Message>) -> Result {
        self.broadcast(Publication::new(message).except(conn))
    }

    /// Returns the position of the room's topic after this event's broadcasts. Send it to a client
    /// in [`Room::open`](crate::Room::open), so that it can resume: it counts the messages after
    /// it.
    pub fn position(&self) -> Position {
        world::room_position()
    }

    /// Sends a connection that reconnects what was broadcast after `since` and before it opened. To
    /// be called in [`Room::open`](crate::Room::open).
    ///
    /// # Errors
    ///
    /// [`LimitError::Invalid`](crate::LimitError) for a connection that this event does not open.
    ///
    /// # Examples
    ///
    /// ```
    /// use tidegate::{StartPoint, prelude::*, testing};
    ///
    /// #[derive(Default)]
    /// struct Tea;
    ///
    /// impl Room for Tea {
    ///     async fn open(&mut self, cx: &Cx, conn: &Conn, req: &Request) -> Result {
    ///         match req.query_opt("since")? {
    ///             Some(since) if !cx.resume(conn, since)?.has_gap => Ok(()),
    ///             _ => conn.send(cx.position().to_string()), // and the whole state
    ///         }
    ///     }
    ///     async fn message(&mut self, cx: &Cx, _: &Conn, msg: Message) -> Result {
    ///         cx.broadcast(msg)
    ///     }
    /// }
    ///
    /// let mut server = testing::serve(App::new().room::<Tea>("/tea"));
    /// let [ann, bob] = [(); 2].map(|()| server.connect("/tea"));
    /// let was = server.received(bob)[0].text().unwrap().to_owned();
    /// server.disconnect(bob);
    /// server.send(ann, "you missed this");
    /// server.restart(); // what a room broadcasts is on the disk
    /// let again = server.connect(format!("/tea?since={was}").as_str());
    /// assert_eq!(server.received(again), ["you missed this"]);
    /// ```
    pub fn resume(&self, conn: &Conn, since: Position) -> Result<StartPoint> {
        conn.resume(since)
    }

    /// Returns the room's connections in the order in which they opened: each from its `open` to
    /// its `close`. They stay valid after this event: see [`Conn`](Conn#panics).
    pub fn connections(&self) -> Vec<Conn> {
        self.connections_with(None)
    }

    /// Returns one of the room's connections by its id; `None` if it has ended.
    pub fn find(&self, id: &str) -> Option<Conn> {
        conn::find(id)
    }

    /// Returns the room's connections with this tag.
    pub fn connections_tagged(&self, tag: &str) -> Vec<Conn> {
        self.connections_with(Some(tag))
    }

    fn connections_with(&self, tag: Option<&str>) -> Vec<Conn> {
        const PAGE: u32 = 1000;
        let mut found = Vec::new();
        let mut after: Option<String> = None;
        loop {
            let page = ids(tag, after.as_deref(), PAGE);
            after = page.last().cloned();
            let is_last = page.len() < PAGE as usize;
            found.extend(page.iter().filter_map(|id| conn::find(id)));
            if is_last {
                return found;
            }
        }
    }

    /// Commits what this event has done so far and sends its messages. The rest of the handler
    /// counts as another event: an error or a panic undoes only what was done since. If the commit
    /// fails, the handler ends here and everything since the last flush is undone. If the disk
    /// could not record that either, the outcome is unknown: after a crash of the machine the
    /// effects may be there.
    pub fn flush(&self) {
        self.flushes.set(self.flushes.get().wrapping_add(1));
        world::room_flush();
    }
}

/// Returns the time since 1970. An earlier time counts as 1970.
fn unix_time(time: SystemTime) -> Duration {
    time.duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default()
}

/// Selects entries of a room by a prefix, and narrows the selection by its methods.
///
/// # Examples
///
/// ```
/// use tidegate::{prelude::*, testing};
///
/// #[derive(Default)]
/// struct Days;
///
/// impl Room for Days {
///     async fn request(&mut self, cx: &Cx, _: Request) -> Result<Response> {
///         for (day, cups) in [("day/mon", 1), ("day/tue", 2), ("day/wed", 3), ("other", 4)] {
///             cx.put_json(day, &cups)?;
///         }
///         assert_eq!(cx.range("day/").reverse().limit(1).json::<u32>()?, [("day/wed".to_owned(), 3)]);
///         assert_eq!(cx.range("day/").start("day/tue").end("day/wed").entries(), [("day/tue".to_owned(), b"2".to_vec())]);
///         Ok(Response::text(cx.range("day/").count().to_string()))
///     }
/// }
///
/// assert_eq!(testing::serve(App::new().room::<Days>("/days")).get("/days").text(), "3");
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Range<'a> {
    pub(crate) prefix: &'a str,
    pub(crate) start: Option<&'a str>,
    pub(crate) end: Option<&'a str>,
    pub(crate) reverse: bool,
    pub(crate) limit: usize,
}

impl<'a> Range<'a> {
    /// Starts at this key, inclusive.
    pub fn start(self, key: &'a str) -> Range<'a> {
        Range {
            start: Some(key),
            ..self
        }
    }

    /// Ends at this key, exclusive.
    pub fn end(self, key: &'a str) -> Range<'a> {
        Range {
            end: Some(key),
            ..self
        }
    }

    /// Reads from the last key to the first.
    pub fn reverse(self) -> Range<'a> {
        Range {
            reverse: true,
            ..self
        }
    }

    /// Reads at most this number of entries.
    pub fn limit(self, limit: usize) -> Range<'a> {
        Range { limit, ..self }
    }

    /// Reads all entries at once. Set a limit if there may be many.
    pub fn entries(self) -> Vec<(String, Vec<u8>)> {
        let mut entries = Vec::new();
        self.each(|key, value| entries.push((key, value)));
        entries
    }

    /// Reads the entries as values that [`Cx::put_json`] wrote.
    ///
    /// # Errors
    ///
    /// A fault if a value is not the JSON of a `T`.
    pub fn json<T: DeserializeOwned>(self) -> Result<Vec<(String, T)>> {
        let entries = self.entries().into_iter();
        entries
            .map(|(key, value)| Ok((key, serde_json::from_slice(&value)?)))
            .collect()
    }

    /// Returns the number of entries, which it has to read.
    pub fn count(self) -> usize {
        let mut count = 0;
        self.each(|_, _| count += 1);
        count
    }

    /// Reads page by page; each page starts after the last key of the one before.
    fn each(self, mut take: impl FnMut(String, Vec<u8>)) {
        let (mut left, mut start, mut end) = (
            self.limit,
            self.start.map(str::to_owned),
            self.end.map(str::to_owned),
        );
        while left > 0 {
            let page = world::room_entries(Range {
                start: start.as_deref(),
                end: end.as_deref(),
                limit: left,
                ..self
            });
            let Some((last, _)) = page.last() else { return };
            match self.reverse {
                true => end = Some(last.clone()),
                // The first key after the last one.
                false => start = Some(format!("{last}\0")),
            }
            left -= page.len().min(left);
            page.into_iter().for_each(|(key, value)| take(key, value));
        }
    }
}
