//! Channel from `tidegate dev` to open pages, below the host's reserved path.

use crate::{
    http::answer::{self, AnswerBody, HttpAnswer},
    sse::event_stream,
};
use bytes::Bytes;
use http::{StatusCode, header};
use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};
use tidegate_hub::{BodyError, Fault, Frame, app::Stream};
use tokio::sync::watch;

const SCRIPT: &str = include_str!("dev.js");
const SCRIPT_TYPE: &str = "text/javascript; charset=utf-8";

/// Sends every open page the same state, as JSON that the edge does not parse. A page that connects
/// receives the latest state at once.
///
/// ```
/// let channel = tidegate_edge::DevChannel::default();
/// channel.publish(r#"{"version":2}"#);
/// ```
#[derive(Debug)]
pub struct DevChannel(watch::Sender<Arc<str>>);

impl Default for DevChannel {
    fn default() -> DevChannel {
        DevChannel(watch::Sender::new("{}".into()))
    }
}

impl DevChannel {
    /// Replaces the state, which is one line.
    pub fn publish(&self, state: &str) {
        self.0.send_replace(state.into());
    }
}

/// Answers a page's request for the script or the channel. If no app is in development, the script
/// is empty and there is no channel.
pub(crate) fn answer(
    endpoint: &str,
    channel: Option<&DevChannel>,
    stopping: watch::Receiver<bool>,
) -> Option<HttpAnswer> {
    match (endpoint, channel) {
        ("dev.js", Some(_)) => Some(answer::uncached(
            StatusCode::OK,
            SCRIPT_TYPE,
            AnswerBody::Whole(Some(Bytes::from_static(SCRIPT.as_bytes()))),
        )),
        ("dev.js", None) => Some(answer::uncached(
            StatusCode::OK,
            SCRIPT_TYPE,
            AnswerBody::Whole(None),
        )),
        ("dev", Some(channel)) => {
            let mut states = channel.0.subscribe();
            states.mark_changed();
            let next = next_state(states, stopping);
            Some(answer::uncached(
                StatusCode::OK,
                "text/event-stream",
                AnswerBody::Stream(Box::pin(DevStream { next })),
            ))
        }
        _ => None,
    }
}

type NextState = Pin<
    Box<
        dyn Future<Output = Option<(Bytes, watch::Receiver<Arc<str>>, watch::Receiver<bool>)>>
            + Send,
    >,
>;

struct DevStream {
    next: NextState,
}

/// Returns the event of the next state, or `None` when the server stops.
fn next_state(
    mut states: watch::Receiver<Arc<str>>,
    mut stopping: watch::Receiver<bool>,
) -> NextState {
    Box::pin(async move {
        tokio::select! {
            changed = states.changed() => changed.ok()?,
            _ = stopping.wait_for(|stopping| *stopping) => return None,
        }
        let event = event_stream::event(None, None, &states.borrow_and_update());
        Some((event, states, stopping))
    })
}

impl Stream for DevStream {
    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame, BodyError>>> {
        self.next.as_mut().poll(cx).map(|next| {
            let (event, states, stopping) = next?;
            self.next = next_state(states, stopping);
            Some(Ok(Frame::Data(event)))
        })
    }
}

/// Returns the fault as text for the app's developer.
pub(crate) fn fault_text(fault: &Fault) -> String {
    format!(
        "{fault}\n\nOnly tidegate dev shows this; tidegate serve answers with an id of its log."
    )
}

/// Returns the fault as a page for the app's developer.
pub(crate) fn show_fault(fault: &Fault, masked: &HttpAnswer) -> HttpAnswer {
    let mut shown = answer::text(masked.status(), &fault_text(fault));
    let kept = masked
        .headers()
        .iter()
        .filter(|(name, _)| **name != header::CONTENT_TYPE);
    shown
        .headers_mut()
        .extend(kept.map(|(name, value)| (name.clone(), value.clone())));
    shown
}
