//! The answer of a feed's route: the first events, then the publications of its topics.

use super::Exchange;
use crate::{
    http::answer::{self, AnswerBody, HeldKind, HttpAnswer},
    http::refusal::{RequestRefusal, refuse},
    server::Version,
    sse::event_stream,
    sse::feed::FeedBody,
};
use http::{HeaderValue, Method, header};
use tidegate_hub::{self as hub, Fault, Positions, Request, budget::OutOfMemory, contract};

impl Exchange {
    /// Asks the app for a feed, and subscribes to its topics.
    pub(super) async fn feed(&self, version: &Version, head: Request) -> Result<HttpAnswer, Fault> {
        let hub = &self.server.hub;
        let last = head
            .headers
            .get("last-event-id")
            .and_then(|id| id.to_str().ok())
            .filter(|id| !id.is_empty());
        let feed = match version.app.subscribe(&head, last).await? {
            Ok(feed) => feed,
            Err(response) => return answer::from_app(response),
        };
        contract::check_first_events(&feed.first, hub.limits().outbox_bytes_max)?;
        let since = last.map(Positions::parse);
        let opened = feed
            .opened
            .unwrap_or_else(|| hub.subscribe(feed.topics, since.as_ref()));
        let body = match opened {
            Ok(subscribed) => {
                match FeedBody::new(subscribed, &feed.first, hub.limits().comment_every) {
                    Ok(body) => body,
                    Err(OutOfMemory) => return Ok(refuse(RequestRefusal::Memory)),
                }
            }
            Err(hub::LimitError::TooMany)
                if hub.connections().count().1 >= hub.limits().feeds_max =>
            {
                hub.counters().refused_feeds.add(1);
                return Ok(answer::retry_later("too many feeds, try again later"));
            }
            Err(error) => return Err(contract::bad_topics(error)),
        };
        let body = if head.method == Method::HEAD {
            AnswerBody::Whole(None)
        } else {
            AnswerBody::Held(Box::pin(body), HeldKind::Live)
        };
        let mut answer = http::Response::new(body);
        let headers = answer.headers_mut();
        headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("text/event-stream"),
        );
        headers.insert(
            header::CACHE_CONTROL,
            HeaderValue::from_static("no-cache, no-transform"),
        );
        headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
        headers.insert(
            event_stream::HEARTBEAT,
            event_stream::heartbeat(hub.limits().comment_every),
        );
        Ok(answer)
    }
}
