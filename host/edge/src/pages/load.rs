//! `POST /__loaders`: one loader of a page, as its first value or as a stream of all values.

use super::{
    PageContext, PageRequest, Pieces, json,
    loader::{LoaderEvent, RunningLoader},
    streamed_answer, whole_answer,
};
use crate::{
    http::answer::{self, AnswerBody, HeldKind, HttpAnswer},
    http::media,
    server::Version,
    sse::event_stream,
};
use bytes::Bytes;
use futures_util::stream::unfold;
use http::{HeaderMap, StatusCode};
use serde::Deserialize;
use std::{collections::BTreeMap, future::poll_fn, task::Poll, time::Duration};
use tidegate_hub::{
    dispatch::{LoaderName, LoaderTarget},
    page::HandlerError,
};
use tokio::time::sleep;

/// Format of a loader's values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ValueFormat {
    /// One value.
    Json,
    /// Server-Sent Events.
    Events,
    /// One line of JSON for each value.
    Lines,
}

const VALUE_FORMATS: [(&str, ValueFormat); 3] = [
    ("application/json", ValueFormat::Json),
    ("text/event-stream", ValueFormat::Events),
    ("application/x-ndjson", ValueFormat::Lines),
];

/// Body of the request.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct LoaderCall {
    /// Pattern of the page, as the app wrote it.
    page: String,
    loader: String,
    #[serde(default)]
    params: BTreeMap<String, String>,
    /// Query of the page, with or without its question mark.
    #[serde(default)]
    search: String,
}

/// Returns the requested format, before the body is read.
pub(crate) fn requested_format(headers: &HeaderMap) -> Result<ValueFormat, HandlerError> {
    if media::content_type(headers).as_deref() != Some("application/json") {
        return Err(refusal(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "send the loader's name as application/json",
        ));
    }
    let format = media::pick(headers, &VALUE_FORMATS);
    format.ok_or_else(|| {
        refusal(
            StatusCode::NOT_ACCEPTABLE,
            "a loader gives application/json, text/event-stream or application/x-ndjson",
        )
    })
}

/// Reads the name of the requested loader, and the request that its page would have.
pub(crate) fn read_call(
    version: &Version,
    body: &[u8],
) -> Result<(String, LoaderTarget), HandlerError> {
    let call: LoaderCall = serde_json::from_slice(body).map_err(|error| {
        refusal(
            StatusCode::BAD_REQUEST,
            &format!("{error}: send {{\"page\":\"/products/{{id}}\",\"loader\":\"stock\",\"params\":{{\"id\":\"7\"}},\"search\":\"\"}}"),
        )
    })?;
    let name = LoaderName {
        page: &call.page,
        loader: &call.loader,
        params: &call.params,
        search: &call.search,
    };
    let target = LoaderTarget::find(&version.router, name)?;
    Ok((call.loader, target))
}

/// Runs the loader.
pub(crate) async fn answer(
    page_request: PageRequest,
    format: ValueFormat,
    loader: &str,
) -> HttpAnswer {
    let (_, page) = page_request.context.page();
    let info = page.loader(loader).expect("read_call has found it");
    let mut running = RunningLoader::start(&page_request, info);
    if format != ValueFormat::Json {
        return stream(&page_request.context, format, running);
    }
    let mut shutdown = page_request.context.shutdown();
    let event = poll_fn(|cx| match running.poll_next(cx) {
        Poll::Pending if running.is_live() && shutdown.as_mut().poll(cx).is_ready() => {
            Poll::Ready(LoaderEvent::shutdown())
        }
        other => other,
    })
    .await;
    match (event.problem(), event) {
        (None, LoaderEvent::Value(json)) => whole_answer(StatusCode::OK, "application/json", json),
        (Some(problem), _) => refuse(&problem),
        (None, _) => answer::uncached(
            StatusCode::NO_CONTENT,
            "application/json",
            AnswerBody::Whole(None),
        ),
    }
}

/// Returns a stream of all values of the loader, then the reason for its end.
fn stream(context: &PageContext, format: ValueFormat, running: RunningLoader) -> HttpAnswer {
    let beat_every: Duration = context.server.hub.limits().comment_every;
    let lasts = if running.is_live() {
        HeldKind::Live
    } else {
        HeldKind::Finite
    };
    let state = Some((running, context.shutdown()));
    let pieces = unfold(state, move |state| async move {
        let (mut running, mut shutdown) = state?;
        let next = poll_fn(|cx| match running.poll_next(cx) {
            Poll::Pending if shutdown.as_mut().poll(cx).is_ready() => {
                Poll::Ready(LoaderEvent::shutdown())
            }
            other => other,
        });
        let event = tokio::select! {
            event = next => event,
            () = sleep(beat_every) => return Some((heartbeat(format), Some((running, shutdown)))),
        };
        let rest = matches!(event, LoaderEvent::Value(_)).then_some((running, shutdown));
        Some((encode_event(format, &event), rest))
    });
    let kind = if format == ValueFormat::Events {
        "text/event-stream"
    } else {
        "application/x-ndjson"
    };
    let mut answer = streamed_answer(kind, AnswerBody::Held(Pieces::stream(pieces), lasts));
    answer
        .headers_mut()
        .insert(event_stream::HEARTBEAT, event_stream::heartbeat(beat_every));
    answer
}

fn heartbeat(format: ValueFormat) -> Bytes {
    Bytes::from_static(if format == ValueFormat::Events {
        event_stream::COMMENT.as_bytes()
    } else {
        b"\n"
    })
}

fn encode_event(format: ValueFormat, event: &LoaderEvent) -> Bytes {
    let (name, data) = match event {
        LoaderEvent::Value(json) => ("value", json.clone()),
        LoaderEvent::End => ("end", "{}".into()),
        LoaderEvent::TimedOut => ("timeout", "{}".into()),
        LoaderEvent::Failed(HandlerError { status, message }) => (
            "error",
            serde_json::json!({ "status": status.as_u16(), "message": message }).to_string(),
        ),
    };
    match format {
        ValueFormat::Events => {
            event_stream::event(None, Some(name).filter(|name| *name != "value"), &data)
        }
        _ => format!("{{\"{name}\":{data}}}\n").into(),
    }
}

fn refusal(status: StatusCode, message: &str) -> HandlerError {
    HandlerError {
        status,
        message: message.to_owned(),
    }
}

/// Returns a refusal, either the host's or a loader's.
pub(crate) fn refuse(problem: &HandlerError) -> HttpAnswer {
    whole_answer(
        problem.status,
        "application/json",
        json::error(problem) + "\n",
    )
}
