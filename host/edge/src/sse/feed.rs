//! Body of a held feed: its first events, then the publications of its topics, and comments during
//! silence.
//!
//! The body owns its subscription; dropping it unsubscribes. The hub puts publications into the
//! outbox of the subscription. The body encodes one only when the connection asks for the next
//! piece, so the outbox is the only queue that can grow, and its limit ends a feed that is too
//! slow.
//!
//! Invariant: an id is sent only after everything that it includes. A connection may break off
//! after any byte, and its client then comes back with the last id that it has.
//!
//! `held` writes the body, `event_stream` encodes events, and the hub decides about gaps.

use crate::sse::event_stream;
use bytes::Bytes;
use std::{
    collections::VecDeque,
    future::Future,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};
use tidegate_hub::{
    BodyError, FeedEvent, Frame, Outgoing, Positions, Publication,
    app::Stream,
    budget::{Charge, MemoryKind, OutOfMemory},
    hub::FeedGuard,
};
use tokio::time::{Instant, Sleep, sleep};

/// Ends when its outbox is closed: the client is too slow for its topics, or the server shuts down.
pub(crate) struct FeedBody {
    guard: FeedGuard,
    /// Position of the client after the ready events.
    positions: Positions,
    ready: VecDeque<Bytes>,
    /// Memory of the ready events.
    charge: Charge,
    comment_every: Duration,
    silence: Pin<Box<Sleep>>,
}

impl FeedBody {
    /// # Errors
    /// Returns an error if there is no memory for its first events.
    pub(crate) fn new(
        guard: FeedGuard,
        first: &[FeedEvent],
        comment_every: Duration,
    ) -> Result<FeedBody, OutOfMemory> {
        let positions = guard.positions().clone();
        let first = first
            .iter()
            .map(|first| event_stream::event(None, first.event.as_deref(), &first.data));
        // A position comes after all events that it includes, because the connection may break off
        // anywhere. Without a gap, it is an event of its own without data, so that a client without
        // any event can also come back to its position.
        let place = match guard.has_gap() {
            true => Some(event_stream::gap(&positions)),
            false => (!positions.0.is_empty())
                .then(|| format!("{}\n", event_stream::id(&positions)).into()),
        };
        let ready: VecDeque<Bytes> = first.chain(place).collect();
        let mut charge = Charge::new(MemoryKind::Outbox);
        guard
            .outbox()
            .charge_beside(&mut charge, ready.iter().map(Bytes::len).sum())?;
        Ok(FeedBody {
            guard,
            positions,
            ready,
            charge,
            comment_every,
            silence: Box::pin(sleep(comment_every)),
        })
    }

    /// If the id has one position, the event is the same for all feeds of the topic. With several,
    /// it belongs to this client only.
    fn prepare(&mut self, publication: &Publication) {
        if !publication.transient {
            self.positions.advance(publication);
        }
        let Some(event) = event_stream::publication(publication) else {
            return;
        };
        if publication.transient || self.positions.0.len() == 1 {
            self.ready.push_back(event);
        } else {
            self.ready
                .push_back(event_stream::id(&self.positions).into());
            self.ready.push_back(event_stream::without_id(&event));
        }
    }

    fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        loop {
            if let Some(ready) = self.ready.pop_front() {
                if self.charge.bytes() > 0 {
                    // A smaller amount than before is never refused.
                    _ = self
                        .guard
                        .outbox()
                        .charge_beside(&mut self.charge, self.ready.iter().map(Bytes::len).sum());
                }
                return Poll::Ready(Some(ready));
            }
            // The connection asks for more, so the previous event has gone to the socket.
            self.guard.outbox().written();
            let mut next = None;
            self.guard.outbox().take_and_watch(cx, &mut next);
            match next {
                None => return Poll::Pending,
                Some(Outgoing::Close(_)) => return Poll::Ready(None),
                Some(Outgoing::Publication(publication)) => self.prepare(&publication),
                // Only WebSockets have these.
                Some(_) => {}
            }
        }
    }
}

impl Stream for FeedBody {
    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame, BodyError>>> {
        let feed = &mut *self;
        let event = match feed.poll_event(cx) {
            Poll::Ready(None) => return Poll::Ready(None),
            Poll::Ready(Some(event)) => event,
            Poll::Pending if feed.silence.as_mut().poll(cx).is_pending() => return Poll::Pending,
            Poll::Pending => Bytes::from_static(event_stream::COMMENT.as_bytes()),
        };
        feed.silence
            .as_mut()
            .reset(Instant::now() + feed.comment_every);
        Poll::Ready(Some(Ok(Frame::Data(event))))
    }
}
