//! One request, of any version of HTTP, and the answer to it.
//!
//! Owner: the task of the connection, which makes one `Exchange` for each request. It gives the
//! exchange the request with a body of our own, and a handle on its socket if the request may take
//! the socket over. The exchange knows neither the socket nor the version's framing.
//!
//! An exchange checks target and host, reads the headers of proxies (`admission`), and then takes
//! the steps of the hub's dispatch: guards, files, route or page, fallback. It converts the app's
//! response into an answer, and reserves the memory of that answer.
//!
//! Invariant: no guest code runs before the checks of host, target and origin. An answer that
//! comes before the body was read either leaves the connection in order or ends it.
//!
//! Left to others: the host's own paths to `endpoints`, the call of the route to `route`,
//! bodies that are read whole to `whole_body`, feeds to `feed`, refusals to `refusal`.

mod admission;
mod endpoints;
mod feed;
mod route;
mod whole_body;

use crate::{
    dev,
    drain::DrainGuard,
    files,
    http::answer::{self, ACCESS, AnswerBody, HttpAnswer},
    http::connection_state::ConnectionState,
    http::refusal::{RequestRefusal, refuse},
    http::request_body::RequestBody,
    http::target::{self, RequestHost, TargetForm},
    memory::{self, ConnectionMemory},
    pages,
    server::{Server, Version},
    sockets::Seat,
    websocket::upgrade::{UpgradeHandle, UpgradeRequest},
};
use http::{HeaderMap, Method, StatusCode, header};
use http_body::Body as _;
use std::{
    future::{Future, poll_fn},
    pin::{Pin, pin},
    sync::Arc,
    task::Poll,
    time::Instant,
};
use tidegate_hub::{
    Fault, FaultContext, Header, Pass, Request, RequestId, Verdict,
    budget::{OutOfMemory, Share},
    contract,
    dispatch::{AdmissionStep, Dispatch, DispatchStep, HostRefusal, MatchedRoute, RequestFacts},
};
use tidegate_routing::{BadPath, Path};
use tokio::time::timeout;

/// One request and the answer to it.
pub(crate) struct Exchange {
    pub(crate) server: Arc<Server>,
    pub(crate) drain: DrainGuard,
    /// Address of the client: the socket's, or the one that a trusted proxy names.
    pub(crate) peer: Arc<str>,
    /// Seat of a trusted proxy's connection.
    pub(crate) proxy: Option<Arc<Seat>>,
    /// Scheme of the request, if the connection or a trusted proxy names it.
    pub(crate) scheme: Option<&'static str>,
    pub(crate) state: Arc<ConnectionState>,
    pub(crate) memory: Arc<ConnectionMemory>,
    /// `None` if the request can't take over the socket, or has done so.
    pub(crate) upgrade: Option<UpgradeHandle>,
}

/// A request that has passed the checks before guest code.
struct AdmittedRequest<'a> {
    version: &'a Arc<Version>,
    dispatch: Dispatch<'a>,
    path: &'a Path<'a>,
    head: Request,
    responder: Responder<'a>,
    context: FaultContext<'a>,
}

/// The part that answers a request after its guards.
enum Responder<'a> {
    /// The route or page of the request.
    Route {
        body: RequestBody,
        /// Present exactly if the route is a WebSocket. Boxed because it is rare: each request's
        /// future has room for this variant.
        opening: Option<Box<UpgradeRequest>>,
    },
    /// One loader of a page.
    Loader {
        name: &'a str,
        format: pages::load::ValueFormat,
    },
}

impl Exchange {
    /// Handles the request.
    pub(crate) async fn answer(&mut self, request: http::Request<RequestBody>) -> HttpAnswer {
        let mut answer = self.find_answer(request).await;
        if self.state.is_body_abandoned() {
            answer = Box::pin(self.abandon_body(answer)).await;
        }
        match answer.status() {
            StatusCode::RESET_CONTENT => remove_content(&mut answer),
            // hyper drops the body (RFC 9110 section 8.6).
            StatusCode::NO_CONTENT => {
                answer.headers_mut().remove(header::CONTENT_LENGTH);
            }
            _ => {}
        }
        let stream_share = match answer.body() {
            AnswerBody::Stream(_) => match self.memory.stream_share() {
                Ok(share) => Some(share),
                Err(_) => Box::pin(self.memory.wait_for_stream_share()).await.ok(),
            },
            _ => None,
        };
        self.reserve(answer, stream_share)
    }

    /// Handles an answer that came before the body was read. At its next poll, hyper reads the
    /// available bytes of the body. If these are the rest, the connection goes on; otherwise it
    /// ends with this answer, and the head says so.
    async fn abandon_body(&self, mut answer: HttpAnswer) -> HttpAnswer {
        yield_to_reader().await;
        if answer
            .body()
            .size_hint()
            .upper()
            .is_none_or(|bytes| bytes > EARLY_BYTES_MAX)
        {
            answer = answer::with_close(answer);
            self.state.discard_body();
        }
        answer
    }

    /// Reserves the memory of an answer until it is sent. If there is not enough, returns a refusal
    /// instead. A streamed answer has its share already, unless there was no memory for it.
    fn reserve(&self, answer: HttpAnswer, stream_share: Option<Share>) -> HttpAnswer {
        let (parts, body) = answer.into_parts();
        let body = match body {
            AnswerBody::Whole(Some(bytes)) => self
                .memory
                .answer(bytes)
                .map(|bytes| AnswerBody::Whole(Some(bytes))),
            AnswerBody::Stream(body) => stream_share.ok_or(OutOfMemory).map(|share| {
                AnswerBody::Stream(memory::stream(share, body, parts.headers.get(answer::ID)))
            }),
            AnswerBody::Held(body, kind) => Ok(AnswerBody::Held(
                self.memory.hold(body, parts.headers.get(answer::ID)),
                kind,
            )),
            body => Ok(body),
        };
        body.map_or_else(
            |_| answer::out_of_memory(),
            |body| HttpAnswer::from_parts(parts, body),
        )
    }

    async fn find_answer(&mut self, mut request: http::Request<RequestBody>) -> HttpAnswer {
        self.server.hub.counters().requests.add(1);
        let host = match self.read_host(&mut request) {
            Ok(host) => host,
            Err(refusal) => return refuse(refusal),
        };
        match TargetForm::of(&request) {
            Ok(TargetForm::Path) => {}
            Ok(TargetForm::Server) if host.is_served => return target::about_server(),
            Ok(TargetForm::Server) => return refuse(HostRefusal::Misdirected),
            Err(refusal) => return refuse(refusal),
        }
        let target = request
            .uri()
            .path_and_query()
            .map_or("/", |target| target.as_str())
            .to_owned();
        let path = match Path::parse(&target) {
            Ok(path) => path,
            Err(bad) => {
                let status = match bad {
                    BadPath::TooLong => StatusCode::URI_TOO_LONG,
                    _ => StatusCode::BAD_REQUEST,
                };
                return refuse(RequestRefusal::head(status, bad.to_string()));
            }
        };
        self.admit(request, host, &path).await
    }

    /// Takes the request through the steps before guest code, then through the others.
    async fn admit(
        &mut self,
        request: http::Request<RequestBody>,
        host: RequestHost,
        path: &Path<'_>,
    ) -> HttpAnswer {
        let RequestHost {
            authority,
            is_served,
        } = host;
        let version = self.server.version();
        let method = request.method().clone();
        let facts = RequestFacts {
            method: method.as_str(),
            path,
            wants: admission::wants(request.headers()),
            is_served,
            has_files: self.server.files.is_some(),
        };
        let mut dispatch = Dispatch::new(&version.router, facts);
        let mut opening = None;
        loop {
            match dispatch.admit() {
                AdmissionStep::Admitted => break,
                AdmissionStep::Refuse(refusal) => return refuse(refusal),
                AdmissionStep::HostEndpoint => return self.host_endpoint(request.method(), path),
                AdmissionStep::Loaders => return Box::pin(self.load(request, authority)).await,
                AdmissionStep::CheckFormOrigin => {
                    if let Err(refusal) = self.check_form_origin(request.headers(), &authority) {
                        return refuse(refusal);
                    }
                }
                AdmissionStep::CheckHandshake => match self.check_handshake(&request, &authority) {
                    Ok(checked) => opening = Some(checked),
                    Err(refusal) => return refuse(refusal),
                },
            }
        }
        let context = FaultContext {
            request: Some(path.target()),
            route: dispatch.pattern(),
            ..FaultContext::default()
        };
        let (parts, body) = request.into_parts();
        let is_upgrade = opening.is_some();
        // Pinned in place: the future is large, and each move would copy it.
        let run = pin!(self.run(AdmittedRequest {
            version: &version,
            dispatch,
            path,
            head: self.head(parts.method, authority, path.target(), parts.headers),
            responder: Responder::Route { body, opening },
            context,
        }));
        let began = tracing::enabled!(target: ACCESS, tracing::Level::DEBUG).then(Instant::now);
        let answer = if is_upgrade {
            self.decide_in_time(run, context).await
        } else {
            run.await
        };
        if let Some(began) = began {
            let (route, took) = (context.route, began.elapsed());
            let status = answer.status().as_u16();
            tracing::debug!(target: ACCESS, route, status, ?took, peer = &*self.peer, "{method} {}", path.target());
        }
        answer
    }

    /// Takes the steps of an admitted request: guards, files, route, page or loader, fallback.
    async fn run(&self, request: AdmittedRequest<'_>) -> HttpAnswer {
        let AdmittedRequest {
            version,
            mut dispatch,
            path,
            mut head,
            responder,
            context,
        } = request;
        let mut added = Vec::new();
        let outcome = loop {
            match dispatch.next() {
                DispatchStep::Guard(index) => {
                    match self.guard(version, index, &mut head, &mut added).await {
                        Ok(None) => {}
                        Ok(Some(refusal)) => break Ok(refusal),
                        Err(fault) => break Err(fault),
                    }
                }
                step @ (DispatchStep::File | DispatchStep::FallbackFile) => {
                    let is_fallback = step == DispatchStep::FallbackFile;
                    let file = Box::pin(self.file(&dispatch, &head, path, is_fallback));
                    if let Some(file) = file.await {
                        break Ok(file);
                    }
                }
                DispatchStep::Respond(MatchedRoute {
                    route,
                    target,
                    params,
                }) => {
                    (head.route, head.params) = (route, params);
                    break match responder {
                        Responder::Route { body, opening } => {
                            self.respond(version, target, head, body, opening).await
                        }
                        Responder::Loader { name, format } => {
                            let page_request = self.page_request(version, head);
                            Ok(Box::pin(pages::load::answer(page_request, format, name)).await)
                        }
                    };
                }
                DispatchStep::LookForFile => {
                    let files = self.server.files.as_ref();
                    dispatch.set_has_file(files.is_some_and(|files| files.has(path)));
                }
                DispatchStep::Refuse(refusal) => break Ok(refuse(refusal)),
            }
        };
        let answer = outcome.unwrap_or_else(|fault| self.answer_fault(&fault, context));
        self.with_headers(answer, added, context)
    }

    /// Returns the file of the path, or the one for all paths that nothing else answers.
    async fn file(
        &self,
        dispatch: &Dispatch<'_>,
        head: &Request,
        path: &Path<'_>,
        is_fallback: bool,
    ) -> Option<HttpAnswer> {
        let (files, method) = (self.server.files.as_ref()?, &head.method);
        let mut file = if is_fallback {
            files.fallback(method, path, &head.headers).await?
        } else {
            files.file(method, path, &head.headers).await?
        };
        // If a guard covers the path, state caches must not keep the file.
        if dispatch.is_guarded() {
            files::make_private(file.headers_mut());
        }
        Some(file)
    }

    /// Lets the app decide an upgrade in time, or refuses it.
    async fn decide_in_time(
        &self,
        decide: Pin<&mut impl Future<Output = HttpAnswer>>,
        context: FaultContext<'_>,
    ) -> HttpAnswer {
        match timeout(self.server.hub.limits().upgrade_within, decide).await {
            Ok(answer) => answer,
            Err(_) => {
                let id = Fault::Wall.report(self.server.hub.counters(), context);
                answer::text(
                    StatusCode::SERVICE_UNAVAILABLE,
                    &format!("the app took too long to decide (id {id})"),
                )
            }
        }
    }

    /// Reports a fault and answers it.
    fn answer_fault(&self, fault: &Fault, context: FaultContext<'_>) -> HttpAnswer {
        let id = fault.report(self.server.hub.counters(), context);
        let masked = answer::from_fault(fault, id);
        if self.server.config.dev.is_some() {
            dev::show_fault(fault, &masked)
        } else {
            masked
        }
    }

    fn with_headers(
        &self,
        mut answer: HttpAnswer,
        added: Vec<Header>,
        context: FaultContext<'_>,
    ) -> HttpAnswer {
        match contract::append_headers(answer.headers_mut(), added) {
            Ok(()) => answer,
            Err(fault) => self.answer_fault(&fault, context),
        }
    }

    /// Runs one guard. Returns its response if it stops the request.
    async fn guard(
        &self,
        version: &Version,
        index: u32,
        head: &mut Request,
        added: &mut Vec<Header>,
    ) -> Result<Option<HttpAnswer>, Fault> {
        head.route = index;
        match version.app.check(index, head).await? {
            Verdict::Answer(response) => answer::from_app(response).map(Some),
            Verdict::Pass(Pass { headers, context }) => {
                contract::check_context(&context)?;
                added.extend(headers);
                head.context.extend(context);
                Ok(None)
            }
        }
    }

    fn head(&self, method: Method, authority: String, path: &str, headers: HeaderMap) -> Request {
        let (path, peer) = (path.to_owned(), self.peer.as_ref().to_owned());
        let scheme = self.scheme.unwrap_or("http");
        Request {
            method,
            scheme,
            authority,
            path,
            headers,
            params: Vec::new(),
            peer,
            route: 0,
            context: Vec::new(),
            id: RequestId::default(),
        }
    }
}

/// Size in bytes. A larger answer that comes before its request's body was read may not fit into
/// the socket's buffer.
const EARLY_BYTES_MAX: u64 = 16 << 10;

/// Lets the connection read its client's bytes.
async fn yield_to_reader() {
    let mut has_yielded = false;
    poll_fn(|cx| {
        if std::mem::replace(&mut has_yielded, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// Removes the content of a 205, which has none (RFC 9110 section 15.3.6).
fn remove_content(answer: &mut HttpAnswer) {
    *answer.body_mut() = AnswerBody::Whole(None);
    answer.headers_mut().remove(header::CONTENT_LENGTH);
}
