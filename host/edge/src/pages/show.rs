//! GET of a page: the app's shell with the values that its loaders have by then, and later values
//! after it.
//!
//! `show` starts all loaders, and waits a limited time for their first values. Then the app renders
//! the shell with these. From then on `PageStream` owns the loaders: it polls them in turn and
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
//! `loader` owns one loader's clock and calls; `client.js` applies the items in the browser.

use super::{
    PageContext, PageRequest, Pieces, Shutdown, json,
    loader::{LoaderEvent, RunningLoader},
};
use crate::http::answer::{self, AnswerBody, HeldKind, HttpAnswer};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use serde_json::{Map, Value, json};
use std::{
    fmt::Write as _,
    future::{Future as _, poll_fn},
    ops::Range,
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
    page_request: PageRequest,
    denied: Option<(String, FormDenial)>,
) -> Result<HttpAnswer, Fault> {
    let PageContext {
        server, version, ..
    } = &*page_request.context;
    let (index, page) = page_request.context.page();
    let mut loaders: Vec<RunningLoader> = page
        .loaders
        .iter()
        .map(|info| RunningLoader::start(&page_request, info))
        .collect();
    let first = first_events(&mut loaders, page, server.hub.limits().first_within).await;
    let view = RenderInput {
        first: loader_states(page, &first),
        nonce: nonce()?,
        denied,
    };
    let shell = version
        .app
        .pages()
        .render(index, &page_request.request, &view)
        .await?;

    let mut answer = answer::from_app(tidegate_hub::Response {
        status: view.status_of(&shell),
        headers: shell.headers,
        body: Bytes::new(),
    })?;
    let is_read = page_request.request.method != Method::POST;
    let headers = answer.headers_mut();
    set_default(headers, header::CONTENT_TYPE, "text/html; charset=utf-8");
    set_default(
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
        && is_fresh(&page_request.request.headers, answer.headers())
    {
        return Ok(not_modified(&answer));
    }
    let stream = PageStream::new(&page_request, view.nonce, loaders);
    *answer.body_mut() = stream.into_body(shell.html, first, &page_request.request.method);
    if let AnswerBody::Held(..) | AnswerBody::Stream(_) = answer.body() {
        answer
            .headers_mut()
            .insert("x-accel-buffering", HeaderValue::from_static("no"));
    }
    Ok(answer)
}

fn set_default(headers: &mut HeaderMap, name: HeaderName, value: &'static str) {
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

/// Returns the first event of each loader that the shell waits for.
async fn first_events(
    loaders: &mut [RunningLoader],
    page: &Page,
    within: Duration,
) -> Vec<Option<LoaderEvent>> {
    let mut events: Vec<Option<LoaderEvent>> = vec![None; loaders.len()];
    let until = Instant::now() + within;
    let mut due = pin!(sleep_until(until));
    poll_fn(|cx| {
        for ((info, loader), event) in page.loaders.iter().zip(&mut *loaders).zip(&mut events) {
            if event.is_none()
                && info.first_value != FirstValue::Deferred
                && let Poll::Ready(first) = loader.poll_next(cx)
            {
                *event = Some(first);
            }
        }
        let is_due = due.is_elapsed() || due.as_mut().poll(cx).is_ready();
        let can_be_in_time =
            |loader: &RunningLoader| loader.sleeps_until().is_none_or(|wake| wake < until);
        let is_awaited =
            |((info, loader), event): ((&LoaderInfo, &RunningLoader), &Option<LoaderEvent>)| {
                match info.first_value {
                    _ if event.is_some() => false,
                    FirstValue::Soon => !is_due && can_be_in_time(loader),
                    FirstValue::Awaited => true,
                    FirstValue::Deferred => false,
                }
            };
        let mut loaders = page.loaders.iter().zip(&*loaders).zip(&events);
        if loaders.any(is_awaited) {
            Poll::Pending
        } else {
            Poll::Ready(())
        }
    })
    .await;
    events
}

fn loader_states(page: &Page, first: &[Option<LoaderEvent>]) -> Vec<(String, LoaderState)> {
    let state = |event: &Option<LoaderEvent>| match event {
        Some(LoaderEvent::Value(json)) => LoaderState::Value(json.clone()),
        Some(other) => other
            .problem()
            .map_or(LoaderState::Pending, LoaderState::Failed),
        None => LoaderState::Pending,
    };
    page.loaders
        .iter()
        .zip(first)
        .map(|(info, event)| (info.name.clone(), state(event)))
        .collect()
}

/// RFC 9110 section 13.1: an entity tag takes precedence over a date.
fn is_fresh(request: &HeaderMap, response: &HeaderMap) -> bool {
    let text = |headers: &HeaderMap, name: HeaderName| {
        headers
            .get(name)
            .and_then(|value| value.to_str().ok())
            .map(str::to_owned)
    };
    let opaque = |tag: &str| tag.trim().trim_start_matches("W/").to_owned();
    if let Some(known) = text(request, header::IF_NONE_MATCH) {
        let own = text(response, header::ETAG).map(|tag| opaque(&tag));
        return own.is_some_and(|own| {
            known
                .split(',')
                .any(|tag| tag.trim() == "*" || opaque(tag) == own)
        });
    }
    let known = text(request, header::IF_MODIFIED_SINCE);
    known.is_some() && known == text(response, header::LAST_MODIFIED)
}

/// The client's page is still valid with its own policy and nonce, so the answer replaces neither.
fn not_modified(page: &HttpAnswer) -> HttpAnswer {
    let mut answer = http::Response::new(AnswerBody::Whole(None));
    *answer.status_mut() = StatusCode::NOT_MODIFIED;
    for name in [
        header::CACHE_CONTROL,
        header::CONTENT_LOCATION,
        header::ETAG,
        header::EXPIRES,
        header::VARY,
    ] {
        for value in page.headers().get_all(&name) {
            answer.headers_mut().append(&name, value.clone());
        }
    }
    answer
}

/// The stream after the shell.
struct PageStream {
    nonce: String,
    loaders: Vec<RunningLoader>,
    /// Mark with the data of the page, for the client's script.
    page_mark: String,
    beat_every: Duration,
    beat: Pin<Box<Sleep>>,
    shutdown: Shutdown,
    /// End of the page, after the stream.
    tail: Option<String>,
}

impl PageStream {
    fn new(page_request: &PageRequest, nonce: String, loaders: Vec<RunningLoader>) -> PageStream {
        let beat_every = page_request.context.server.hub.limits().comment_every;
        let (_, page) = page_request.context.page();
        let params: Map<String, Value> = page_request
            .request
            .params
            .iter()
            .map(|(name, value)| (name.clone(), Value::String(value.clone())))
            .collect();
        let names: Vec<&str> = loaders.iter().map(RunningLoader::name).collect();
        let search = page_request
            .request
            .query()
            .map_or(String::new(), |query| format!("?{query}"));
        let page_mark = json!(["page", { "page": page.pattern, "params": params, "search": search, "loaders": names, "beat": beat_every.as_millis() as u64 }]);
        PageStream {
            nonce,
            loaders,
            page_mark: page_mark.to_string(),
            beat_every,
            beat: Box::pin(sleep(beat_every)),
            shutdown: page_request.context.shutdown(),
            tail: None,
        }
    }

    /// Returns the page with the first events, then the others as they come.
    fn into_body(
        mut self,
        html: String,
        first: Vec<Option<LoaderEvent>>,
        method: &Method,
    ) -> AnswerBody {
        if self.loaders.is_empty() {
            return AnswerBody::Whole((!html.is_empty()).then(|| html.into()));
        }
        let Range { start, end } = stream_place(&html);
        let mut marks = vec![std::mem::take(&mut self.page_mark)];
        for (loader, event) in self.loaders.iter().zip(first) {
            marks.extend(event.map(|event| event_mark(loader.name(), &event)));
        }
        self.loaders.retain(|loader| !loader.has_ended());
        let has_ended = self.loaders.is_empty();
        if has_ended {
            marks.push(r#"["done"]"#.into());
        }
        let head = html[..start].to_owned() + &self.script_of(&marks);
        if has_ended {
            return AnswerBody::Whole(Some((head + &html[end..]).into()));
        }
        if method == Method::HEAD {
            return AnswerBody::Whole(None);
        }
        let lasts = if self.loaders.iter().any(RunningLoader::is_live) {
            HeldKind::Live
        } else {
            HeldKind::Finite
        };
        self.tail = Some(html[end..].to_owned());
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
    /// list of marks is also bounded, in case the client's script never loads.
    fn script_of(&self, marks: &[String]) -> String {
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
        for loader in &mut self.loaders {
            if let Poll::Ready(event) = loader.poll_next(cx) {
                marks.push(event_mark(loader.name(), &event));
            }
        }
        self.loaders.retain(|loader| !loader.has_ended());
        if !self.loaders.is_empty() && self.shutdown.as_mut().poll(cx).is_ready() {
            let shutdown = LoaderEvent::shutdown();
            let ended = self.loaders.drain(..);
            marks.extend(ended.map(|loader| event_mark(loader.name(), &shutdown)));
        }
        if self.loaders.is_empty() {
            marks.push(r#"["done"]"#.into());
        } else if marks.is_empty() {
            if self.beat.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            marks.push(r#"["beat"]"#.into());
        }
        self.beat.as_mut().reset(Instant::now() + self.beat_every);
        let mut piece = self.script_of(&marks);
        if self.loaders.is_empty() {
            piece += &self.tail.take().unwrap_or_default();
        }
        Poll::Ready(Some(piece.into()))
    }
}

/// Returns a loader's event for the client's script.
fn event_mark(name: &str, event: &LoaderEvent) -> String {
    match event {
        LoaderEvent::Value(json) => format!("[\"value\",\"{name}\",{json}]"),
        LoaderEvent::End => format!("[\"end\",\"{name}\"]"),
        LoaderEvent::Failed(HandlerError { status, message }) => {
            json!(["error", name, status.as_u16(), message]).to_string()
        }
        LoaderEvent::TimedOut => format!("[\"timeout\",\"{name}\"]"),
    }
}

/// Returns the text that the stream replaces: the marker, or the empty text at the end of the body.
fn stream_place(html: &str) -> Range<usize> {
    if let Some(at) = html.find(MARKER) {
        return at..at + MARKER.len();
    }
    let end = "</body>".as_bytes();
    let at = html
        .as_bytes()
        .windows(end.len())
        .rposition(|window| window.eq_ignore_ascii_case(end))
        .unwrap_or(html.len());
    at..at
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
            let Range { start, end } = stream_place(html);
            assert_eq!((&html[..start], &html[end..]), expected, "{html}");
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
        for (request, response, expected) in cases {
            assert_eq!(
                is_fresh(&headers(request), &headers(response)),
                expected,
                "{request:?} {response:?}"
            );
        }
    }
}
