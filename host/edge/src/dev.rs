//! Channel from `tidegate dev` to open pages, below the host's reserved path.

use crate::{
    http::answer::{self, AnswerBody, HttpAnswer},
    sse::event_stream,
};
use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};
use tidegate_hub::{BodyError, Fault, Frame, app::Stream};
use tokio::sync::watch;

const SCRIPT: &str = include_str!("dev.js");

/// Sends every open page the same: the latest news, as JSON that the edge does not parse. A page
/// that connects receives it at once.
///
/// ```
/// let pages = tidegate_edge::Pages::default();
/// pages.tell(r#"{"version":2}"#);
/// ```
#[derive(Debug)]
pub struct Pages(watch::Sender<Arc<str>>);

impl Default for Pages {
    fn default() -> Pages {
        Pages(watch::Sender::new("{}".into()))
    }
}

impl Pages {
    /// Replaces the news, which is one line.
    pub fn tell(&self, news: &str) {
        self.0.send_replace(news.into());
    }
}

/// Answers a page's request for the script or the channel. If no app is in development, the script
/// is empty and there is no channel.
pub(crate) fn answer(
    endpoint: &str,
    pages: Option<&Pages>,
    stopping: watch::Receiver<bool>,
) -> Option<HttpAnswer> {
    match (endpoint, pages) {
        ("dev.js", Some(_)) => Some(with_type(
            AnswerBody::Whole(Some(Bytes::from_static(SCRIPT.as_bytes()))),
            "text/javascript; charset=utf-8",
        )),
        ("dev.js", None) => Some(with_type(
            AnswerBody::Whole(None),
            "text/javascript; charset=utf-8",
        )),
        ("dev", Some(pages)) => {
            let mut news = pages.0.subscribe();
            news.mark_changed();
            Some(with_type(
                AnswerBody::Stream(Box::pin(Channel {
                    next: next(news, stopping),
                })),
                "text/event-stream",
            ))
        }
        _ => None,
    }
}

fn with_type(body: AnswerBody, kind: &'static str) -> HttpAnswer {
    let mut answer = Response::new(body);
    *answer.status_mut() = StatusCode::OK;
    answer
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    answer
        .headers_mut()
        .insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer
}

type Next = Pin<
    Box<
        dyn Future<Output = Option<(Bytes, watch::Receiver<Arc<str>>, watch::Receiver<bool>)>>
            + Send,
    >,
>;

struct Channel {
    next: Next,
}

/// Returns the next news, or `None` when the server stops.
fn next(mut news: watch::Receiver<Arc<str>>, mut stopping: watch::Receiver<bool>) -> Next {
    Box::pin(async move {
        tokio::select! {
            changed = news.changed() => changed.ok()?,
            _ = stopping.wait_for(|stopping| *stopping) => return None,
        }
        let event = event_stream::event(None, None, &news.borrow_and_update());
        Some((event, news, stopping))
    })
}

impl Stream for Channel {
    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame, BodyError>>> {
        self.next.as_mut().poll(cx).map(|next| {
            let (event, news, stopping) = next?;
            self.next = self::next(news, stopping);
            Some(Ok(Frame::Data(event)))
        })
    }
}

/// Returns the fault as text for the app's developer.
pub(crate) fn told(fault: &Fault) -> String {
    format!(
        "{fault}\n\nOnly tidegate dev shows this; tidegate serve answers with an id of its log."
    )
}

/// Returns the fault as a page for the app's developer.
pub(crate) fn show_fault(fault: &Fault, masked: &HttpAnswer) -> HttpAnswer {
    let mut shown = answer::text(masked.status(), &told(fault));
    let kept = masked
        .headers()
        .iter()
        .filter(|(name, _)| **name != header::CONTENT_TYPE);
    shown
        .headers_mut()
        .extend(kept.map(|(name, value)| (name.clone(), value.clone())));
    shown
}
