//! `POST /__loaders`: one loader of a page, as its first value or as a stream of all values.

use super::{
    Pieces, Visit, Visited, json,
    loading::{Brought, Loading},
    streamed, whole,
};
use crate::{
    http::answer::{AnswerBody, HeldKind, HttpAnswer},
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

/// Form of a loader's values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// One value.
    Json,
    /// Server-Sent Events.
    Events,
    /// One line of JSON for each value.
    Lines,
}

const FORMS: [(&str, Form); 3] = [
    ("application/json", Form::Json),
    ("text/event-stream", Form::Events),
    ("application/x-ndjson", Form::Lines),
];

/// Body of the request.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    /// Pattern of the page, as the app wrote it.
    page: String,
    loader: String,
    #[serde(default)]
    params: BTreeMap<String, String>,
    /// Query of the page, with or without its question mark.
    #[serde(default)]
    search: String,
}

/// Returns the requested form, before the body is read.
pub(crate) fn form(headers: &HeaderMap) -> Result<Form, HandlerError> {
    if media::content_type(headers).as_deref() != Some("application/json") {
        return Err(refused(415, "send the loader's name as application/json"));
    }
    let form = media::pick(headers, &FORMS);
    form.ok_or_else(|| {
        refused(
            406,
            "a loader gives application/json, text/event-stream or application/x-ndjson",
        )
    })
}

/// Reads the name of the requested loader, and the request that its page would have.
pub(crate) fn read(version: &Version, body: &[u8]) -> Result<(String, LoaderTarget), HandlerError> {
    let asked: Asked = serde_json::from_slice(body).map_err(|error| {
        refused(
            400,
            &format!("{error}: send {{\"page\":\"/products/{{id}}\",\"loader\":\"stock\",\"params\":{{\"id\":\"7\"}},\"search\":\"\"}}"),
        )
    })?;
    let name = LoaderName {
        page: &asked.page,
        loader: &asked.loader,
        params: &asked.params,
        search: &asked.search,
    };
    let target = LoaderTarget::find(&version.router, name)?;
    Ok((asked.loader, target))
}

/// Runs the loader.
pub(crate) async fn answer(visit: Visit, form: Form, loader: &str) -> HttpAnswer {
    let (_, page) = visit.visited.page();
    let info = page.loader(loader).expect("it was looked for");
    let mut loading = Loading::begin(&visit, info);
    if form != Form::Json {
        return stream(&visit.visited, form, loading);
    }
    let mut stopped = visit.visited.stopped();
    let brought = poll_fn(|cx| match loading.poll_next(cx) {
        Poll::Pending if loading.is_live() && stopped.as_mut().poll(cx).is_ready() => {
            Poll::Ready(going_away())
        }
        other => other,
    })
    .await;
    match (brought.problem(), brought) {
        (None, Brought::Value(json)) => whole(StatusCode::OK, "application/json", json),
        (Some(problem), _) => refusal(&problem),
        (None, _) => super::typed(
            StatusCode::NO_CONTENT,
            "application/json",
            AnswerBody::Whole(None),
        ),
    }
}

fn going_away() -> Brought {
    Brought::Failed(HandlerError {
        status: 503,
        message: "the server is going away".into(),
    })
}

/// Returns a stream of all values of the loader, then the reason for its end.
fn stream(visited: &Visited, form: Form, loading: Loading) -> HttpAnswer {
    let beat_every: Duration = visited.server.hub.limits().comment_every;
    let lasts = if loading.is_live() {
        HeldKind::Live
    } else {
        HeldKind::Finite
    };
    let state = Some((loading, visited.stopped()));
    let pieces = unfold(state, move |state| async move {
        let (mut loading, mut stopped) = state?;
        let next = poll_fn(|cx| match loading.poll_next(cx) {
            Poll::Pending if stopped.as_mut().poll(cx).is_ready() => Poll::Ready(going_away()),
            other => other,
        });
        let brought = tokio::select! {
            brought = next => brought,
            () = sleep(beat_every) => return Some((beat(form), Some((loading, stopped)))),
        };
        let rest = matches!(brought, Brought::Value(_)).then_some((loading, stopped));
        Some((frame(form, &brought), rest))
    });
    let kind = if form == Form::Events {
        "text/event-stream"
    } else {
        "application/x-ndjson"
    };
    let mut answer = streamed(kind, AnswerBody::Held(Pieces::stream(pieces), lasts));
    answer
        .headers_mut()
        .insert(event_stream::HEARTBEAT, event_stream::heartbeat(beat_every));
    answer
}

fn beat(form: Form) -> Bytes {
    Bytes::from_static(if form == Form::Events {
        event_stream::COMMENT.as_bytes()
    } else {
        b"\n"
    })
}

fn frame(form: Form, brought: &Brought) -> Bytes {
    let (name, data) = match brought {
        Brought::Value(json) => ("value", json.clone()),
        Brought::End => ("end", "{}".into()),
        Brought::TimedOut => ("timeout", "{}".into()),
        Brought::Failed(HandlerError { status, message }) => (
            "error",
            serde_json::json!({ "status": status, "message": message }).to_string(),
        ),
    };
    match form {
        Form::Events => {
            event_stream::event(None, Some(name).filter(|name| *name != "value"), &data)
        }
        _ => format!("{{\"{name}\":{data}}}\n").into(),
    }
}

fn refused(status: u16, message: &str) -> HandlerError {
    HandlerError {
        status,
        message: message.to_owned(),
    }
}

/// Returns a refusal, either the host's or a loader's.
pub(crate) fn refusal(problem: &HandlerError) -> HttpAnswer {
    whole(
        StatusCode::from_u16(problem.status).expect("a checked status"),
        "application/json",
        json::error(problem) + "\n",
    )
}
