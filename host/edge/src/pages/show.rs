//! GET of a page: the app's shell with the values that its loaders have by then, and later values
//! after it.
//!
//! `show` starts all loaders, and waits a limited time for their first values. Then the app renders
//! the shell with these. From then on `Streaming` owns the loaders: it polls them in turn and
//! writes their items in small scripts at the app's marker. The end of the page follows when all
//! loaders have ended.
//!
//! The scripts carry a nonce for each answer. Until the client's script is loaded, the items wait
//! in a bounded list in the browser; later ones are dropped there.
//!
//! Invariant: no value can end its script (`json::for_script`), and scripts are inserted in one
//! place only: the marker or, without one, the end of the body. A 304 keeps the client's page with
//! its own policy and nonce.
//!
//! `loading` owns one loader's clock and calls; `client.js` applies the items in the browser.

use super::{
    Pieces, Stopped, Visit, Visited, json,
    loading::{Brought, Loading},
};
use crate::http::answer::{self, AnswerBody, HeldKind, HttpAnswer};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use serde_json::{Map, Value, json};
use std::{
    fmt::Write as _,
    future::{Future as _, poll_fn},
    pin::{Pin, pin},
    task::{Context, Poll},
    time::Duration,
};
use tidegate_hub::{
    Fault,
    page::{FormDenial, HandlerError, LoaderState, RenderInput},
};
use tidegate_routing::{FirstValue, LoaderInfo, Page};
use tokio::time::{Instant, Sleep, sleep, sleep_until};

/// Marker at which an app wants the stream.
const MARKER: &str = "<!--tidegate-->";

/// Maximum number of pushes that wait in a browser for the client's script.
const EARLY_MAX: usize = 1000;

/// Renders the page. `denied` is the refused action, so that the page can show it.
pub(crate) async fn show(
    visit: Visit,
    denied: Option<(String, FormDenial)>,
) -> Result<HttpAnswer, Fault> {
    let Visited {
        server, version, ..
    } = &*visit.visited;
    let (index, page) = visit.visited.page();
    let mut loadings: Vec<Loading> = page
        .loaders
        .iter()
        .map(|info| Loading::begin(&visit, info))
        .collect();
    let brought = first(&mut loadings, page, server.hub.limits().first_within).await;
    let view = RenderInput {
        first: initial(page, &brought),
        nonce: nonce()?,
        denied,
    };
    let shell = version
        .app
        .pages()
        .render(index, &visit.request, &view)
        .await?;

    let mut answer = answer::from_app(tidegate_hub::Response {
        status: view.status_of(&shell),
        headers: shell.headers,
        body: Bytes::new(),
    })?;
    let is_read = visit.request.method != Method::POST;
    let headers = answer.headers_mut();
    default(headers, header::CONTENT_TYPE, "text/html; charset=utf-8");
    default(
        headers,
        header::CACHE_CONTROL,
        if is_read {
            "private, no-cache"
        } else {
            "no-store"
        },
    );
    if is_read
        && answer.status() == StatusCode::OK
        && is_fresh(&visit.request.headers, answer.headers())
    {
        return Ok(not_modified(&answer));
    }
    let stream = Streaming::new(&visit, view.nonce, loadings);
    *answer.body_mut() = stream.into_body(shell.html, brought, &visit.request.method);
    if let AnswerBody::Held(..) | AnswerBody::Stream(_) = answer.body() {
        answer
            .headers_mut()
            .insert("x-accel-buffering", HeaderValue::from_static("no"));
    }
    Ok(answer)
}

fn default(headers: &mut HeaderMap, name: HeaderName, value: &'static str) {
    headers
        .entry(name)
        .or_insert(HeaderValue::from_static(value));
}

/// Returns 128 random bits, which can't be guessed (CSP level 3, section 7.1).
fn nonce() -> Result<String, Fault> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes)
        .map_err(|error| Fault::Host(format!("no random numbers: {error}")))?;
    Ok(bytes
        .iter()
        .fold(String::with_capacity(32), |mut text, byte| {
            _ = write!(text, "{byte:02x}");
            text
        }))
}

/// Returns the first item of each loader that the shell waits for.
async fn first(loadings: &mut [Loading], page: &Page, within: Duration) -> Vec<Option<Brought>> {
    let mut brought: Vec<Option<Brought>> = vec![None; loadings.len()];
    let until = Instant::now() + within;
    let mut due = pin!(sleep_until(until));
    poll_fn(|cx| {
        for ((info, loading), brought) in page.loaders.iter().zip(&mut *loadings).zip(&mut brought)
        {
            if brought.is_none()
                && info.first_value != FirstValue::Deferred
                && let Poll::Ready(first) = loading.poll_next(cx)
            {
                *brought = Some(first);
            }
        }
        let is_due = due.is_elapsed() || due.as_mut().poll(cx).is_ready();
        let may_bring =
            |loading: &Loading| loading.sleeps_until().is_none_or(|wakes| wakes < until);
        let waits =
            |((info, loading), brought): ((&LoaderInfo, &Loading), &Option<Brought>)| match info
                .first_value
            {
                _ if brought.is_some() => false,
                FirstValue::Soon => !is_due && may_bring(loading),
                FirstValue::Awaited => true,
                FirstValue::Deferred => false,
            };
        if page.loaders.iter().zip(&*loadings).zip(&brought).any(waits) {
            Poll::Pending
        } else {
            Poll::Ready(())
        }
    })
    .await;
    brought
}

fn initial(page: &Page, brought: &[Option<Brought>]) -> Vec<(String, LoaderState)> {
    let initial = |brought: &Option<Brought>| match brought {
        Some(Brought::Value(json)) => LoaderState::Value(json.clone()),
        Some(other) => other
            .problem()
            .map_or(LoaderState::Pending, LoaderState::Failed),
        None => LoaderState::Pending,
    };
    page.loaders
        .iter()
        .zip(brought)
        .map(|(info, brought)| (info.name.clone(), initial(brought)))
        .collect()
}

/// RFC 9110 section 13.1: an entity tag takes precedence over a date.
fn is_fresh(asked: &HeaderMap, answered: &HeaderMap) -> bool {
    let text = |headers: &HeaderMap, name: HeaderName| {
        headers
            .get(name)
            .and_then(|value| value.to_str().ok())
            .map(str::to_owned)
    };
    let opaque = |tag: &str| tag.trim().trim_start_matches("W/").to_owned();
    if let Some(known) = text(asked, header::IF_NONE_MATCH) {
        let own = text(answered, header::ETAG).map(|tag| opaque(&tag));
        return own.is_some_and(|own| {
            known
                .split(',')
                .any(|tag| tag.trim() == "*" || opaque(tag) == own)
        });
    }
    let known = text(asked, header::IF_MODIFIED_SINCE);
    known.is_some() && known == text(answered, header::LAST_MODIFIED)
}

/// The client's page is still valid with its own policy and nonce, so the answer replaces neither.
fn not_modified(answer: &HttpAnswer) -> HttpAnswer {
    let mut short = http::Response::new(AnswerBody::Whole(None));
    *short.status_mut() = StatusCode::NOT_MODIFIED;
    for name in [
        header::CACHE_CONTROL,
        header::CONTENT_LOCATION,
        header::ETAG,
        header::EXPIRES,
        header::VARY,
    ] {
        answer
            .headers()
            .get_all(&name)
            .iter()
            .for_each(|value| _ = short.headers_mut().append(&name, value.clone()));
    }
    short
}

/// The stream after the shell.
struct Streaming {
    nonce: String,
    loadings: Vec<Loading>,
    /// Data of the page for the client's script.
    about: String,
    beat_every: Duration,
    beat: Pin<Box<Sleep>>,
    stopped: Stopped,
    /// End of the page, after the stream.
    tail: Option<String>,
}

impl Streaming {
    fn new(visit: &Visit, nonce: String, loadings: Vec<Loading>) -> Streaming {
        let beat_every = visit.visited.server.hub.limits().comment_every;
        let (_, page) = visit.visited.page();
        let params: Map<String, Value> = visit
            .request
            .params
            .iter()
            .map(|(name, value)| (name.clone(), Value::String(value.clone())))
            .collect();
        let names: Vec<&str> = loadings.iter().map(Loading::name).collect();
        let search = visit
            .request
            .query()
            .map_or(String::new(), |query| format!("?{query}"));
        let about = json!(["page", { "page": page.pattern, "params": params, "search": search, "loaders": names, "beat": beat_every.as_millis() as u64 }]);
        let (about, beat, stopped) = (
            about.to_string(),
            Box::pin(sleep(beat_every)),
            visit.visited.stopped(),
        );
        Streaming {
            nonce,
            loadings,
            about,
            beat_every,
            beat,
            stopped,
            tail: None,
        }
    }

    /// Returns the page with the available items, then the others as they come.
    fn into_body(
        mut self,
        html: String,
        brought: Vec<Option<Brought>>,
        method: &Method,
    ) -> AnswerBody {
        if self.loadings.is_empty() {
            return AnswerBody::Whole((!html.is_empty()).then(|| html.into()));
        }
        let (at, behind) = place(&html);
        let mut marks = vec![std::mem::take(&mut self.about)];
        for (loading, brought) in self.loadings.iter().zip(brought) {
            marks.extend(brought.map(|brought| mark(loading.name(), &brought)));
        }
        self.loadings.retain(|loading| !loading.has_ended());
        let has_ended = self.loadings.is_empty();
        if has_ended {
            marks.push(r#"["done"]"#.into());
        }
        let head = html[..at].to_owned() + &self.script(&marks);
        if has_ended {
            return AnswerBody::Whole(Some((head + &html[behind..]).into()));
        }
        if method == Method::HEAD {
            return AnswerBody::Whole(None);
        }
        let lasts = if self.loadings.iter().any(Loading::is_live) {
            HeldKind::Live
        } else {
            HeldKind::Finite
        };
        self.tail = Some(html[behind..].to_owned());
        let mut head = Some(Bytes::from(head));
        let pieces = futures_util::stream::poll_fn(move |cx| match head.take() {
            Some(head) => Poll::Ready(Some(head)),
            None => self.poll_piece(cx),
        });
        // This body is not `Held`: a refused form may still come through hyper.
        let body = Pieces::stream(pieces);
        if method == Method::POST {
            AnswerBody::Stream(body)
        } else {
            AnswerBody::Held(body, lasts)
        }
    }

    /// The script removes its own element, so that a page which streams for long does not grow. The
    /// list of items is also bounded, in case the client's script never loads.
    fn script(&self, marks: &[String]) -> String {
        let marks = json::for_script(&format!("[{}]", marks.join(",")));
        let nonce = &self.nonce;
        format!(
            "<script nonce=\"{nonce}\">(t=>t.length>={EARLY_MAX}||t.push({marks}))(self.__tidegate??=[]);document.currentScript.remove()</script>\n"
        )
    }

    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        if self.tail.is_none() {
            return Poll::Ready(None);
        }
        let mut marks = Vec::new();
        for loading in &mut self.loadings {
            if let Poll::Ready(brought) = loading.poll_next(cx) {
                marks.push(mark(loading.name(), &brought));
            }
        }
        self.loadings.retain(|loading| !loading.has_ended());
        if !self.loadings.is_empty() && self.stopped.as_mut().poll(cx).is_ready() {
            let gone = Brought::Failed(HandlerError {
                status: 503,
                message: "the server is going away".into(),
            });
            marks.extend(
                self.loadings
                    .drain(..)
                    .map(|loading| mark(loading.name(), &gone)),
            );
        }
        if self.loadings.is_empty() {
            marks.push(r#"["done"]"#.into());
        } else if marks.is_empty() {
            if self.beat.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            marks.push(r#"["beat"]"#.into());
        }
        self.beat.as_mut().reset(Instant::now() + self.beat_every);
        let mut piece = self.script(&marks);
        if self.loadings.is_empty() {
            piece += &self.tail.take().unwrap_or_default();
        }
        Poll::Ready(Some(piece.into()))
    }
}

/// Returns a loader's item for the client's script.
fn mark(name: &str, brought: &Brought) -> String {
    match brought {
        Brought::Value(json) => format!("[\"value\",\"{name}\",{json}]"),
        Brought::End => format!("[\"end\",\"{name}\"]"),
        Brought::Failed(HandlerError { status, message }) => {
            json!(["error", name, status, message]).to_string()
        }
        Brought::TimedOut => format!("[\"timeout\",\"{name}\"]"),
    }
}

/// Returns the place of the stream: the end of the text before it, and the end of the text that it
/// replaces.
fn place(html: &str) -> (usize, usize) {
    if let Some(at) = html.find(MARKER) {
        return (at, at + MARKER.len());
    }
    let end = "</body>".as_bytes();
    let at = html
        .as_bytes()
        .windows(end.len())
        .rposition(|window| window.eq_ignore_ascii_case(end))
        .unwrap_or(html.len());
    (at, at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stream_goes_where_the_app_wants_it_or_else_to_the_end_of_the_body() {
        let cases = [
            ("a<!--tidegate-->b</body>", ("a", "b</body>")),
            ("a</BODY></html>", ("a", "</BODY></html>")),
            ("<p></body></p></body>", ("<p></body></p>", "</body>")),
            ("a", ("a", "")),
            ("", ("", "")),
        ];
        for (html, expected) in cases {
            let (at, behind) = place(html);
            assert_eq!((&html[..at], &html[behind..]), expected, "{html}");
        }
    }

    #[test]
    fn a_page_is_fresh_as_its_tag_says_or_its_date() {
        let cases = [
            ([("if-none-match", "\"a\"")], [("etag", "\"a\"")], true),
            (
                [("if-none-match", "\"b\", W/\"a\"")],
                [("etag", "\"a\"")],
                true,
            ),
            ([("if-none-match", "*")], [("etag", "\"a\"")], true),
            ([("if-none-match", "\"b\"")], [("etag", "\"a\"")], false),
            ([("if-none-match", "\"a\"")], [("x", "1")], false),
            (
                [("if-modified-since", "Tue, 24 Nov 2026 08:00:00 GMT")],
                [("last-modified", "Tue, 24 Nov 2026 08:00:00 GMT")],
                true,
            ),
            (
                [("if-modified-since", "Tue, 24 Nov 2026 08:00:00 GMT")],
                [("last-modified", "Tue, 24 Nov 2026 09:00:00 GMT")],
                false,
            ),
            ([("x", "1")], [("etag", "\"a\"")], false),
        ];
        let headers = |pairs: [(&'static str, &str); 1]| -> HeaderMap {
            pairs
                .into_iter()
                .map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap()))
                .collect()
        };
        for (asked, answered, expected) in cases {
            assert_eq!(
                is_fresh(&headers(asked), &headers(answered)),
                expected,
                "{asked:?} {answered:?}"
            );
        }
    }
}
