//! The client of a feed.

use super::Heard;
use crate::Feed;
use std::{collections::VecDeque, sync::Arc};
use tidegate_hub::{self as hub, Hub, LimitError, Outgoing, hub::Subscribed};

/// A feed of the test.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FeedRef(pub(super) usize);

/// One feed and what its client knows.
pub(super) struct Listener {
    /// None once the host is gone.
    subscribed: Option<Subscribed>,
    pub(super) heard: Vec<Heard>,
    pub(super) has_ended: bool,
}

impl Listener {
    /// `opened`: a room's feed, which began with its event.
    pub(super) fn open(hub: &Arc<Hub>, feed: Feed, opened: Option<Subscribed>) -> Result<Listener, LimitError> {
        let heard = feed.first.iter().map(|(data, name)| Heard::of_feed(None, name.as_deref(), data)).collect();
        let subscribed = opened.map_or_else(|| hub.subscribe(feed.topics), Ok)?;
        Ok(Listener { subscribed: Some(subscribed), heard, has_ended: false })
    }

    /// The host is gone.
    pub(super) fn drop_dead(&mut self) {
        self.subscribed = None;
        self.has_ended = true;
    }

    pub(super) fn drain(&mut self) {
        let Some(subscribed) = &self.subscribed else { return };
        let mut batch = VecDeque::new();
        subscribed.outbox().take(&mut batch);
        subscribed.outbox().written();
        for outgoing in batch {
            match outgoing {
                Outgoing::Publication(publication) => self.heard.extend(heard(&publication)),
                Outgoing::Close(_) => self.has_ended = true,
                Outgoing::Message(_) => {}
            }
        }
    }
}

/// What a feed makes of a publication: nothing of a binary one.
fn heard(publication: &hub::Publication) -> Option<Heard> {
    let hub::Message::Text(text) = &publication.message else { return None };
    let id = format!("{}-{}", publication.epoch, publication.sequence);
    Some(Heard::of_feed(Some(id), publication.event.as_deref(), text))
}
