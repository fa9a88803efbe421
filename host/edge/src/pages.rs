//! Pages: GET streams a shell and the values of its loaders, POST runs an action, and `/__loaders`
//! runs a single loader.
//!
//! Owner: each answer owns its page's run. A `PageRequest` is one request that has passed the
//! guards. `show`, `act` and `load` turn it into an answer; the `PageContext` is the part of it that
//! they keep while the answer streams.
//!
//! The bodies are `Pieces`: the app is polled for the next value only after the last piece has been
//! written, so a slow client slows the app and no queue grows. Dropping the body cancels the
//! loaders and the action.
//!
//! Invariant: a client receives the id of a fault and not its text, unless the app is in
//! development. All values are checked JSON on one line.
//!
//! `loader` runs one loader, `form`, `multipart` and `part` read forms, `json` checks values. Guards, routes
//! and origins are checked before, in `http1`; the connection writes the bodies.

pub(crate) mod act;
mod form;
mod json;
pub(crate) mod load;
mod loader;
mod multipart;
mod part;
pub(crate) mod show;

use crate::{
    dev,
    http::answer::{self, AnswerBody, HttpAnswer},
    server::{Server, Version},
};
use bytes::Bytes;
use http::{HeaderValue, StatusCode, header};
use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};
use tidegate_hub::{self as hub, BodyError, Fault, FaultContext, Frame, Request, app::Stream};
use tidegate_routing::Page;
use tokio::sync::watch;

/// A request to a page that has passed its guards.
pub(crate) struct PageRequest {
    context: Arc<PageContext>,
    /// Request whose route is the page's.
    request: Arc<Request>,
}

impl PageRequest {
    pub(crate) fn new(
        server: Arc<Server>,
        version: Arc<Version>,
        stopping: watch::Receiver<bool>,
        request: Request,
    ) -> PageRequest {
        let context = PageContext {
            server,
            version,
            stopping,
            route: request.route,
            path: request.path.clone(),
        };
        PageRequest {
            context: Arc::new(context),
            request: Arc::new(request),
        }
    }
}

/// The part of a request that its answer needs while it streams. It does not hold the request, which
/// holds buffers of its connection.
struct PageContext {
    server: Arc<Server>,
    version: Arc<Version>,
    stopping: watch::Receiver<bool>,
    route: u32,
    path: String,
}

impl PageContext {
    /// Returns the page and its index.
    fn page(&self) -> (u32, &Page) {
        self.version
            .router
            .page(self.route)
            .expect("the request was led to a page")
    }

    /// Reports a fault and returns its text for the client.
    fn report_fault(&self, fault: &Fault) -> String {
        let (_, page) = self.page();
        let context = FaultContext {
            request: Some(&self.path),
            route: Some(&page.pattern),
            ..FaultContext::default()
        };
        let id = fault.report(self.server.hub.counters(), context);
        match self.server.config.dev {
            Some(_) => dev::fault_text(fault),
            None => format!("internal error (id {id})"),
        }
    }

    /// Returns a future that resolves when the shutdown begins.
    fn shutdown(&self) -> Shutdown {
        let mut stopping = self.stopping.clone();
        Box::pin(async move { _ = stopping.wait_for(|stopping| *stopping).await })
    }
}

type Shutdown = Pin<Box<dyn Future<Output = ()> + Send>>;

/// The browser's part: a module without dependencies.
const CLIENT: &str = include_str!("pages/client.js");

/// During development a page is loaded again with each version of the app that rendered it.
const CLIENT_IN_DEVELOPMENT: &str = concat!(
    include_str!("pages/client.js"),
    "\nimport \"/__tidegate/dev.js\";\naddEventListener(\"tidegate:version\", () => page.page && location.reload());\n"
);

/// Types of the module, for editors and TypeScript.
const CLIENT_TYPES: &str = include_str!("pages/client.d.ts");

/// Returns one of the two by its name.
pub(crate) fn script(name: &str, has_dev_channel: bool) -> Option<HttpAnswer> {
    let (text, kind) = match name {
        "client.js" if has_dev_channel => (CLIENT_IN_DEVELOPMENT, "text/javascript; charset=utf-8"),
        "client.js" => (CLIENT, "text/javascript; charset=utf-8"),
        "client.d.ts" => (CLIENT_TYPES, "text/plain; charset=utf-8"),
        _ => return None,
    };
    let mut answer = answer::uncached(
        StatusCode::OK,
        kind,
        AnswerBody::Whole(Some(Bytes::from_static(text.as_bytes()))),
    );
    if !has_dev_channel {
        // The content changes only with the host.
        answer.headers_mut().insert(
            header::CACHE_CONTROL,
            HeaderValue::from_static("public, max-age=3600"),
        );
    }
    Some(answer)
}

/// Returns a text of this type that no cache keeps.
fn whole_answer(status: StatusCode, kind: &'static str, text: String) -> HttpAnswer {
    answer::uncached(status, kind, AnswerBody::Whole(Some(Bytes::from(text))))
}

/// Returns an answer that is sent piece by piece. Proxies must not gather the pieces.
fn streamed_answer(kind: &'static str, body: AnswerBody) -> HttpAnswer {
    let mut answer = answer::uncached(StatusCode::OK, kind, body);
    answer
        .headers_mut()
        .insert("x-accel-buffering", HeaderValue::from_static("no"));
    answer.headers_mut().insert(
        header::CACHE_CONTROL,
        HeaderValue::from_static("no-store, no-transform"),
    );
    answer
}

/// A body of pieces. Each piece is written before the next one is requested.
struct Pieces {
    pieces: Pin<Box<dyn futures_util::Stream<Item = Bytes> + Send>>,
    /// True if the last piece may still be in a buffer, which is written when the stream waits.
    is_held: bool,
}

impl Pieces {
    fn stream(pieces: impl futures_util::Stream<Item = Bytes> + Send + 'static) -> hub::BodyStream {
        Box::pin(Pieces {
            pieces: Box::pin(pieces),
            is_held: false,
        })
    }
}

impl Stream for Pieces {
    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame, BodyError>>> {
        if std::mem::take(&mut self.is_held) {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let next = std::task::ready!(self.pieces.as_mut().poll_next(cx));
        self.is_held = next.is_some();
        Poll::Ready(next.map(|bytes| Ok(Frame::Data(bytes))))
    }
}
