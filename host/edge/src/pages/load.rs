//! `POST /__loaders`: one loader of a page by itself, as one value or as a stream of all.

use super::{
    Pieces, Visit, Visited, json,
    loading::{Brought, Loading},
    streamed, whole,
};
use crate::{
    answer::{Answer, Body, Lasts},
    event_stream, media,
    server::Version,
};
use bytes::Bytes;
use futures_util::stream::unfold;
use http::{HeaderMap, StatusCode, uri::PathAndQuery};
use serde::Deserialize;
use std::{collections::BTreeMap, future::poll_fn, task::Poll, time::Duration};
use tidegate_hub::page::Problem;
use tidegate_routing::{AMBIGUOUS, AskedFor, Found, Path, Pattern};
use tokio::time::sleep;

/// What the client wants a loader's values as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// One value.
    Json,
    /// Server-Sent Events.
    Events,
    /// A line of JSON each.
    Lines,
}

const FORMS: [(&str, Form); 3] = [
    ("application/json", Form::Json),
    ("text/event-stream", Form::Events),
    ("application/x-ndjson", Form::Lines),
];

/// The body of the request.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    /// The page's pattern, as the app wrote it.
    page: String,
    loader: String,
    #[serde(default)]
    params: BTreeMap<String, String>,
    /// The query of the page, with or without its question mark.
    #[serde(default)]
    search: String,
}

/// A loader that is there.
pub(crate) struct Wanted {
    pub(crate) loader: String,
    /// Index of the page's route.
    pub(crate) route: u32,
    /// Path and query that the page has with these parameters: its guards cover it.
    pub(crate) target: String,
    pub(crate) params: Vec<(String, String)>,
}

/// How the values are wanted; before the body is read.
pub(crate) fn form(headers: &HeaderMap) -> Result<Form, Problem> {
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

/// Reads what is asked for.
pub(crate) fn read(version: &Version, body: &[u8]) -> Result<Wanted, Problem> {
    let asked: Asked = serde_json::from_slice(body).map_err(|error| {
        refused(
            400,
            &format!("{error}: send {{\"page\":\"/products/{{id}}\",\"loader\":\"stock\",\"params\":{{\"id\":\"7\"}},\"search\":\"\"}}"),
        )
    })?;
    let (route, page) = version
        .table
        .page_of(&asked.page)
        .ok_or_else(|| refused(404, "there is no such page"))?;
    if page.loader(&asked.loader).is_none() {
        return Err(refused(404, "the page has no such loader"));
    }
    let pattern = Pattern::parse(&page.pattern).expect("the rules let only patterns pass");
    let path = path(&pattern, &asked.params).map_err(|why| refused(400, &why))?;
    let query = asked.search.trim_start_matches('?');
    let target = if query.is_empty() {
        path
    } else {
        format!("{path}?{query}")
    };
    let target: PathAndQuery = target
        .parse()
        .map_err(|_| refused(400, "\"search\" is no query"))?;
    let parsed = Path::parse(target.as_str())
        .map_err(|bad| refused(400, &format!("with these parameters {bad}")))?;
    match version.table.find("GET", AskedFor::Other, &parsed) {
        Found::Route { index, params, .. } if index == route => Ok(Wanted {
            loader: asked.loader,
            route,
            target: parsed.target().to_owned(),
            params,
        }),
        Found::Ambiguous => Err(refused(400, AMBIGUOUS)),
        _ => Err(refused(404, "with these parameters it is another page")),
    }
}

/// The path that the pattern and its parameters make.
fn path(pattern: &Pattern, params: &BTreeMap<String, String>) -> Result<String, String> {
    if let Some(other) = params
        .keys()
        .find(|name| pattern.names().all(|own| own != name.as_str()))
    {
        return Err(format!("the page has no parameter {other:?}"));
    }
    pattern
        .path(|name| params.get(name).map(String::as_str))
        .map_err(|name| format!("the parameter {name:?} is missing, or empty"))
}

/// Runs the loader.
pub(crate) async fn answer(visit: Visit, form: Form, loader: &str) -> Answer {
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
            Body::Whole(None),
        ),
    }
}

fn going_away() -> Brought {
    Brought::Failed(Problem {
        status: 503,
        message: "the server is going away".into(),
    })
}

/// Everything that it brings, then why it ended.
fn stream(visited: &Visited, form: Form, loading: Loading) -> Answer {
    let beat_every: Duration = visited.server.hub.limits().comment_every;
    let lasts = if loading.is_live() {
        Lasts::Live
    } else {
        Lasts::ToItsEnd
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
    let mut answer = streamed(kind, Body::Held(Pieces::stream(pieces), lasts));
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
        Brought::Failed(Problem { status, message }) => (
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

fn refused(status: u16, message: &str) -> Problem {
    Problem {
        status,
        message: message.to_owned(),
    }
}

/// The host's own refusal, and a loader's.
pub(crate) fn refusal(problem: &Problem) -> Answer {
    whole(
        StatusCode::from_u16(problem.status).expect("a checked status"),
        "application/json",
        json::error(problem) + "\n",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_s_path_is_made_of_its_pattern_and_parameters() {
        let cases = [
            ("/", "", Ok("/")),
            ("/products/{id}", "id=7", Ok("/products/7")),
            ("/p/{a}/{b}", "a=x y,b=é/", Ok("/p/x%20y/%C3%A9%2F")),
            ("/docs/{*rest}", "rest=a/b c", Ok("/docs/a/b%20c")),
            ("/caf%C3%A9", "", Ok("/caf%C3%A9")),
            (
                "/products/{id}",
                "",
                Err("the parameter \"id\" is missing, or empty"),
            ),
            (
                "/products/{id}",
                "id=",
                Err("the parameter \"id\" is missing, or empty"),
            ),
            (
                "/products/{id}",
                "id=7,x=1",
                Err("the page has no parameter \"x\""),
            ),
        ];
        for (pattern, params, expected) in cases {
            let pairs = params
                .split_terminator(',')
                .filter_map(|pair| pair.split_once('='));
            let params = pairs
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .collect();
            let made = path(&Pattern::parse(pattern).unwrap(), &params);
            assert_eq!(
                made.as_deref().map_err(String::as_str),
                expected,
                "{pattern} {params:?}"
            );
        }
    }
}
