//! Publish and follow, over WebSockets and feeds alike: a publication never enters an app.

use crate::{Conn, Message, Result, world};

/// Sends a message of at most 1 MiB to every connection and feed that follows the topic, whose name
/// has 1 to 256 bytes. A follower whose outbox is full is closed with 1013, or loses its oldest
/// publications where the host's configuration says so. The cause of a failure is a [`LimitError`](crate::LimitError).
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

/// As [`publish`], to everybody but this connection.
pub fn publish_except(conn: &Conn, topic: &str, message: impl Into<Message>) -> Result {
    Publication::new(message)
        .except(conn)
        .publish(topic)
        .map(drop)
}

/// A message to a topic with options: an event's name, a connection that is left out.
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
    /// To everybody, without an event's name. A binary message goes to WebSockets only.
    pub fn new(message: impl Into<Message>) -> Publication {
        Publication {
            message: message.into(),
            event: None,
            except: None,
            transient: false,
        }
    }

    /// The event's name on feeds, without line breaks and NUL; WebSockets get the message alone.
    pub fn event(mut self, name: impl Into<String>) -> Publication {
        self.event = Some(name.into());
        self
    }

    /// Leaves this connection out.
    pub fn except(mut self, conn: &Conn) -> Publication {
        self.except = Some(conn.id());
        self
    }

    /// For a publication that a client does not need when it reconnects, such as a pointer's position:
    /// it has no sequence number, the history does not keep it, and in a room it needs no commit.
    pub fn transient(mut self) -> Publication {
        self.transient = true;
        self
    }

    /// Sends it; its number in the topic, from 1. 0 if it is transient, and in a room, where it is published with the event.
    pub fn publish(self, topic: &str) -> Result<u64> {
        Ok(world::publish(topic, self)?)
    }
}

/// To everybody, without an event's name.
impl<M: Into<Message>> From<M> for Publication {
    fn from(message: M) -> Publication {
        Publication::new(message)
    }
}
