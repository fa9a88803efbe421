//! Clients of a server under test: those of WebSockets, and those of feeds.

use super::{Heard, Reply};
use crate::{Accept, Feed, Message, Response};
use std::{collections::VecDeque, sync::Arc};
use tidegate_hub::{self as hub, Close, Hub, LimitError, Opened, Outgoing, hub::Subscribed};

/// A WebSocket of the test.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnRef(pub(super) usize);

/// A feed of the test.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FeedRef(pub(super) usize);

/// How to connect; a path alone is one.
///
/// ```
/// use tidegate::{prelude::*, testing::{self, Connect}};
///
/// struct Versions;
/// impl Socket for Versions {
///     async fn upgrade(&self, upgrade: &Upgrade) -> Result<Accept> {
///         Ok(Accept::new().protocol(upgrade.pick(&["v2", "v1"])))
///     }
/// }
///
/// let mut server = testing::serve(App::new().socket("/", Versions));
/// let ann = server.connect(Connect::to("/").protocol("v0").protocol("v1"));
/// assert_eq!(server.protocol(ann), Some("v1"));
/// ```
#[derive(Clone, Debug, Default)]
pub struct Connect {
    pub(super) path: String,
    pub(super) headers: Vec<(String, String)>,
    pub(super) protocols: Vec<String>,
    pub(super) is_upgrade: bool,
}

impl Connect {
    /// To this path, which may have a query.
    pub fn to(path: &str) -> Connect {
        Connect { path: path.to_owned(), ..Connect::default() }
    }

    /// With this header.
    pub fn header(mut self, name: &str, value: &str) -> Connect {
        self.headers.push((name.to_ascii_lowercase(), value.to_owned()));
        self
    }

    /// Offering this subprotocol, behind those offered before.
    pub fn protocol(mut self, protocol: &str) -> Connect {
        self.protocols.push(protocol.to_owned());
        self
    }
}

impl From<&str> for Connect {
    fn from(path: &str) -> Connect {
        Connect::to(path)
    }
}

impl From<&String> for Connect {
    fn from(path: &String) -> Connect {
        Connect::to(path)
    }
}

/// One WebSocket and what its client knows.
pub(super) struct Client {
    pub(super) route: u32,
    /// None once it is closed.
    pub(super) opened: Option<Opened>,
    pub(super) handshake: Reply,
    pub(super) heard: Vec<Message>,
    pub(super) closed: Option<(u16, String)>,
}

impl Client {
    pub(super) fn open(hub: &Arc<Hub>, route: u32, accept: Accept) -> Result<Client, LimitError> {
        let mut handshake = Response { status: 101, headers: accept.headers, body: Vec::new() };
        if let Some(protocol) = &accept.protocol {
            handshake = handshake.header("sec-websocket-protocol", protocol);
        }
        let accept =
            hub::Accept { protocol: accept.protocol, headers: Vec::new(), attachment: accept.attachment.into(), tags: accept.tags };
        let opened = Some(hub.open(accept)?);
        Ok(Client { route, opened, handshake: handshake.into(), heard: Vec::new(), closed: None })
    }

    /// Closed before it was opened.
    pub(super) fn refuse(&mut self, code: u16, reason: String) {
        assert!((3000..=4999).contains(&code), "accept-then-close with code {code}: 3000 to 4999");
        self.opened = None;
        self.closed = Some((code, reason));
    }

    /// Takes what is on its way to the client; a close, if that is the last of it.
    pub(super) fn drain(&mut self) -> Option<Close> {
        let mut batch = VecDeque::new();
        let outbox = self.opened.as_ref()?.outbox();
        outbox.take(&mut batch);
        outbox.written();
        for outgoing in batch {
            match outgoing {
                Outgoing::Message(message) => self.heard.push((&message).into()),
                Outgoing::Publication(publication) => self.heard.push((&publication.message).into()),
                Outgoing::Close(close) => return Some(close),
            }
        }
        None
    }
}

/// One feed and what its client knows.
pub(super) struct Listener {
    subscribed: Subscribed,
    pub(super) heard: Vec<Heard>,
}

impl Listener {
    pub(super) fn open(hub: &Arc<Hub>, feed: Feed) -> Result<Listener, LimitError> {
        let heard = feed.first.into_iter().map(|(data, name)| Heard { id: None, name, data }).collect();
        Ok(Listener { subscribed: hub.subscribe(feed.topics)?, heard })
    }

    pub(super) fn drain(&mut self) {
        let mut batch = VecDeque::new();
        self.subscribed.outbox().take(&mut batch);
        self.subscribed.outbox().written();
        self.heard.extend(batch.iter().filter_map(heard));
    }
}

/// What a feed makes of a publication: nothing of a binary one.
fn heard(outgoing: &Outgoing) -> Option<Heard> {
    let Outgoing::Publication(publication) = outgoing else { return None };
    let hub::Message::Text(text) = &publication.message else { return None };
    let id = format!("{}-{}", publication.epoch, publication.sequence);
    Some(Heard { id: Some(id), name: publication.event.clone(), data: text.to_string() })
}
