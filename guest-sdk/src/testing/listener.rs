//! The client of a feed.

use super::FeedEvent;
use std::collections::VecDeque;
use tidegate_hub::{self as hub, Outgoing, Positions, hub::FeedGuard};

/// A feed of the test.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FeedRef(pub(super) usize);

/// One feed and the state of its client.
pub(super) struct FeedClient {
    /// `None` once the host is gone.
    subscribed: Option<FeedGuard>,
    /// Positions of the client.
    pub(super) positions: Positions,
    pub(super) received: Vec<FeedEvent>,
    pub(super) has_ended: bool,
}

impl FeedClient {
    pub(super) fn open(first: &[hub::FeedEvent], subscribed: FeedGuard) -> FeedClient {
        let first = first
            .iter()
            .map(|first| FeedEvent::of_feed(None, first.event.as_deref(), &first.data));
        let positions = subscribed.positions().clone();
        let gap = subscribed.has_gap().then(|| {
            FeedEvent::of_feed(
                Some(positions.to_string()),
                Some("tidegate-gap"),
                "read the state anew",
            )
        });
        let received = first.chain(gap).collect();
        FeedClient {
            subscribed: Some(subscribed),
            positions,
            received,
            has_ended: false,
        }
    }

    /// Ends the feed, because the host is gone.
    pub(super) fn drop_dead(&mut self) {
        self.subscribed = None;
        self.has_ended = true;
    }

    pub(super) fn drain(&mut self) {
        let Some(subscribed) = &self.subscribed else {
            return;
        };
        let mut batch = VecDeque::new();
        subscribed.outbox().take(&mut batch);
        subscribed.outbox().written();
        for outgoing in batch {
            match outgoing {
                Outgoing::Publication(publication) => {
                    let id = (!publication.transient).then(|| {
                        self.positions.advance(&publication);
                        self.positions.to_string()
                    });
                    self.received.extend(feed_event(&publication, id));
                }
                Outgoing::Close(_) => self.has_ended = true,
                // Only WebSockets have these.
                _ => {}
            }
        }
    }
}

/// Converts a publication into a feed's event; `None` for a binary one.
fn feed_event(publication: &hub::Publication, id: Option<String>) -> Option<FeedEvent> {
    let hub::Message::Text(text) = &publication.message else {
        return None;
    };
    Some(FeedEvent::of_feed(id, publication.event.as_deref(), text))
}
