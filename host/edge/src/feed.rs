//! The body of a held feed: its first events, then whatever its topics bring, and comments while they are silent.

use crate::event_stream;
use bytes::Bytes;
use std::{
    collections::VecDeque,
    future::Future,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};
use tidegate_hub::{BodyError, First, Frame, Outgoing, app::Stream, hub::Subscribed};
use tokio::time::{Instant, Sleep, sleep};

/// Ends when its outbox is closed: too slow for its topics, or the server is going away.
pub(crate) struct FeedBody {
    subscribed: Subscribed,
    first: VecDeque<Bytes>,
    comment_every: Duration,
    silence: Pin<Box<Sleep>>,
}

impl FeedBody {
    pub(crate) fn new(subscribed: Subscribed, first: &[First], comment_every: Duration) -> FeedBody {
        let encode = |first: &First| event_stream::event(None, first.event.as_deref(), &first.data);
        FeedBody { subscribed, first: first.iter().map(encode).collect(), comment_every, silence: Box::pin(sleep(comment_every)) }
    }

    fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        if let Some(first) = self.first.pop_front() {
            return Poll::Ready(Some(first));
        }
        loop {
            // Asked for more: what was taken before has gone to the socket.
            self.subscribed.outbox().written();
            let mut next = None;
            self.subscribed.outbox().take_and_watch(cx, &mut next);
            match next {
                None => return Poll::Pending,
                Some(Outgoing::Close(_)) => return Poll::Ready(None),
                Some(Outgoing::Publication(publication)) => {
                    if let Some(event) = event_stream::publication(&publication) {
                        return Poll::Ready(Some(event));
                    }
                }
                Some(Outgoing::Message(_)) => {}
            }
        }
    }
}

impl Stream for FeedBody {
    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame, BodyError>>> {
        let feed = &mut *self;
        let event = match feed.poll_event(cx) {
            Poll::Ready(None) => return Poll::Ready(None),
            Poll::Ready(Some(event)) => event,
            Poll::Pending if feed.silence.as_mut().poll(cx).is_pending() => return Poll::Pending,
            Poll::Pending => Bytes::from_static(event_stream::COMMENT.as_bytes()),
        };
        feed.silence.as_mut().reset(Instant::now() + feed.comment_every);
        Poll::Ready(Some(Ok(Frame::Data(event))))
    }
}
