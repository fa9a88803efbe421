//! Feeds: event streams that the host holds, so that an idle one costs no instance.

use crate::{Error, Request, Result, task};
use std::future::Future;

/// A feed: the topics that it follows, and its first events.
///
/// # Examples
///
/// ```
/// use tidegate::{prelude::*, testing};
///
/// let feed = async |req: Request| -> Result<Feed> {
///     let room: String = req.query("room")?;
///     Ok(Feed::follow(room).follow_also("all").first("welcome"))
/// };
/// let mut server = testing::serve(App::new().feed("/feed", feed));
/// let ann = server.subscribe("/feed?room=tea");
/// server.publish("tea", "hot");
/// server.publish("all", "hello");
/// assert_eq!(server.events(ann), ["welcome", "hot", "hello"]);
/// assert_eq!(server.try_subscribe("/feed").unwrap_err().status(), 400);
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Feed {
    pub(crate) topics: Vec<String>,
    /// Data and event's name of the first events.
    pub(crate) first: Vec<(String, Option<String>)>,
}

impl Feed {
    /// Creates a feed without topics. In a room it receives the room's broadcasts.
    pub fn new() -> Feed {
        Feed::default()
    }

    /// Creates a feed that follows one topic. A name has 1 to 256 bytes; any other is a fault of
    /// the app: 500.
    pub fn follow(topic: impl Into<String>) -> Feed {
        Feed {
            topics: vec![topic.into()],
            first: Vec::new(),
        }
    }

    /// Follows one more topic; the maximum is 128.
    pub fn follow_also(mut self, topic: impl Into<String>) -> Feed {
        self.topics.push(topic.into());
        self
    }

    /// Sends this client an event before any publication.
    pub fn first(mut self, data: impl Into<String>) -> Feed {
        self.first.push((data.into(), None));
        self
    }

    /// Does the same as [`first`](Feed::first) with an event's name, which has no line break and no
    /// NUL.
    pub fn first_event(mut self, name: impl Into<String>, data: impl Into<String>) -> Feed {
        self.first.push((data.into(), Some(name.into())));
        self
    }
}

/// Results of a feed's handler, returned directly or by a future. The compiler infers `When`.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a feed",
    label = "this handler does not return a feed",
    note = "write `|_| Feed::follow(\"topic\")`, or return a `Result<Feed>`, or make the closure `async`"
)]
pub trait IntoFeed<When> {
    /// Converts into the feed, or into another answer.
    fn into_feed(self) -> Result<Feed>;
}

/// Marks a value.
pub enum Immediate {}

/// Marks a future.
pub enum Deferred<When> {
    #[doc(hidden)]
    Never(std::convert::Infallible, std::marker::PhantomData<When>),
}

impl IntoFeed<Immediate> for Feed {
    fn into_feed(self) -> Result<Feed> {
        Ok(self)
    }
}

impl<E: Into<Error>> IntoFeed<Immediate> for std::result::Result<Feed, E> {
    fn into_feed(self) -> Result<Feed> {
        self.map_err(Into::into)
    }
}

impl<F, When> IntoFeed<Deferred<When>> for F
where
    F: Future<Output: IntoFeed<When>>,
{
    fn into_feed(self) -> Result<Feed> {
        task::run(self).into_feed()
    }
}

/// The handler of a feed, type-erased.
pub(crate) type RunFeed = Box<dyn Fn(Request) -> Result<Feed>>;

pub(crate) fn handler<F, R, When>(handler: F) -> RunFeed
where
    F: Fn(Request) -> R + 'static,
    R: IntoFeed<When>,
{
    Box::new(move |request| handler(request).into_feed())
}
