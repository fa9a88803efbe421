//! Publishing and following, over WebSockets and feeds: the host delivers a publication without
//! calling the app.

use crate::{Conn, Message, Result, world};

/// Sends a message of at most 1 MiB to every connection and feed that follows the topic, whose name
/// has 1 to 256 bytes. A follower whose outbox is full is closed with 1013, or loses its oldest
/// publications where the host's configuration says so.
///
/// # Errors
///
/// A [`LimitError`](crate::LimitError) is the cause if the topic's name is not valid or the message
/// is too large.
///
/// # Examples
///
/// ```
/// use tidegate::{prelude::*, testing};
///
/// let app = App::new()
///     .post("/news", async |req: Request| publish("news", req.text()?))
///     .feed("/news", |_| Feed::follow("news"));
/// let mut server = testing::serve(app);
/// let feed = server.subscribe("/news");
/// server.request("POST", "/news", &[], b"high water at ten");
/// assert_eq!(server.events(feed), ["high water at ten"]);
/// ```
pub fn publish(topic: &str, message: impl Into<Message>) -> Result {
    Publication::new(message).publish(topic).map(drop)
}

/// Does the same as [`publish`] for all followers except this connection.
///
/// # Errors
///
/// As for [`publish`].
pub fn publish_except(conn: &Conn, topic: &str, message: impl Into<Message>) -> Result {
    Publication::new(message)
        .except(conn)
        .publish(topic)
        .map(drop)
}

/// A message to a topic with options, such as an event's name or an excluded connection.
///
/// # Examples
///
/// ```
/// use tidegate::{prelude::*, testing};
///
/// let set = async |req: Request| Publication::new(req.text()?).event("price").publish("prices").map(drop);
/// let app = App::new().put("/price", set).feed("/prices", |_| Feed::follow("prices"));
/// let mut server = testing::serve(app);
/// let feed = server.subscribe("/prices");
/// server.request("PUT", "/price", &[], b"12");
/// assert_eq!(server.events(feed)[0].name(), Some("price"));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Publication {
    pub(crate) message: Message,
    pub(crate) event: Option<String>,
    pub(crate) except: Option<String>,
    pub(crate) transient: bool,
}

impl Publication {
    /// Creates a publication for all followers, without an event's name. Only WebSockets receive a
    /// binary message.
    pub fn new(message: impl Into<Message>) -> Publication {
        Publication {
            message: message.into(),
            event: None,
            except: None,
            transient: false,
        }
    }

    /// Sets the event's name on feeds, without line breaks and NUL. WebSockets receive only the
    /// message.
    pub fn event(mut self, name: impl Into<String>) -> Publication {
        self.event = Some(name.into());
        self
    }

    /// Excludes this connection.
    pub fn except(mut self, conn: &Conn) -> Publication {
        self.except = Some(conn.id());
        self
    }

    /// Marks a publication that a client does not need when it reconnects, such as a pointer's
    /// position: it has no sequence number, the history does not keep it, and in a room it needs no
    /// commit.
    pub fn transient(mut self) -> Publication {
        self.transient = true;
        self
    }

    /// Publishes, and returns the sequence number in the topic, from 1. It is 0 if the publication
    /// is transient, and in a room, where it is published with the event.
    ///
    /// # Errors
    ///
    /// A [`LimitError`](crate::LimitError) is the cause if the topic's name, the event's name or
    /// the connection's id is not valid, or if the message is too large.
    pub fn publish(self, topic: &str) -> Result<u64> {
        Ok(world::publish(topic, self)?)
    }
}

/// A publication for all followers, without an event's name.
impl<M: Into<Message>> From<M> for Publication {
    fn from(message: M) -> Publication {
        Publication::new(message)
    }
}
