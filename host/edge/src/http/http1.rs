//! One HTTP/1.1 connection, and the exchange of one request on it.
//!
//! Owner: each connection is one task, which runs `serve`. It alternates between two states. In a
//! conversation (`converse`) hyper reads heads and writes answers; `Paced` is its socket, and
//! `Watch` decides after each poll whether the client is late. While an answer is held, `held`
//! writes to the socket without hyper and its buffers. A conversation ends with an `End`: a lost or
//! refused client, the last answer, a held answer, or a late client. An upgrade takes the socket to
//! a task of its own. After the last answer, `linger` closes the socket in two stages.
//!
//! `Exchange` handles one request: target and host, the headers of proxies, and then the steps of
//! the router's dispatch (guards, files, route or page, fallback). It converts the app's response
//! into an answer.
//!
//! Invariant: no guest code runs before the checks of host, target and origin. An answer that
//! breaks off ends its connection, so that a client can't take it for a whole one.
//!
//! The conversation is on the heap: nothing of it is left while an answer is held.
//!
//! Left to others: clocks to `paced` and `pace`, memory to `memory`, seats to `sockets`, calls of
//! the app to the hub.

use crate::{
    dev, files,
    http::answer::{self, ACCESS, Answer, Body, HeldAnswer, Lasts, Place},
    http::forwarded,
    http::held,
    http::linger,
    http::pace::Socket,
    http::paced::{BodyFailure, Late, Paced, RequestBody, Shared, Watch},
    http::target::{self, Form, Named},
    http::trailers,
    lifeline::Lifeline,
    memory::{self, Memory},
    pages::{self, Visit},
    server::{Server, Version},
    sockets::{Refusal as SocketRefusal, Seat},
    sse::event_stream,
    sse::feed::FeedBody,
    sse::heartbeats,
    websocket::handshake::{self, Refusal},
    websocket::upgrade,
};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use http_body::Body as _;
use http_body_util::Limited;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use std::{
    convert::Infallible,
    future::{Future, poll_fn},
    io,
    net::SocketAddr,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};
use tidegate_hub::{
    self as hub, BodyError, EngineStatus, Fault, Frame, Header, Pass, Positions, Request,
    RequestId, Verdict,
    app::Stream,
    budget::{Charge, OutOfMemory, Share},
    contract,
    dispatch::{
        AdmissionStep, Destination, Dispatch, DispatchStep, FILE_METHODS, HostRefusal,
        LOADERS_PATH, RequestFacts,
    },
};
use tidegate_routing::{BadPath, Path, Target, Wants};
use tokio::time::timeout;

/// The other end of a connection.
pub(crate) struct Peer {
    pub(crate) address: SocketAddr,
    /// Seat of a trusted proxy's connection, which stands for one of its clients after the other.
    pub(crate) proxy: Option<Arc<Seat>>,
    /// Reservation for the buffers of the connection.
    pub(crate) buffers: Charge,
}

/// Serves requests until the client leaves or is too slow, an upgrade takes the socket, or a drain
/// ends the connection.
pub(crate) async fn serve<Io: Socket>(
    mut stream: Io,
    Peer {
        address,
        proxy,
        mut buffers,
    }: Peer,
    server: Arc<Server>,
    lifeline: Lifeline,
) {
    let peer: Arc<str> = address.to_string().into();
    let mut ahead = Bytes::new();
    let answered = loop {
        // Boxed, so that its memory is free while an answer is held.
        let conversation = Box::pin(converse(
            stream,
            ahead,
            (peer.clone(), proxy.clone()),
            server.clone(),
            lifeline.clone(),
        ))
        .await;
        let (io, held, read) = match conversation {
            Conversed::Over => return,
            Conversed::Answered(stream) => break stream,
            Conversed::Holds(io, held, read) => (io, *held, read),
        };
        // A smaller amount than before is never refused.
        _ = buffers.fit(server.hub.budget(), 0);
        match held::write(io, held, read, server.clone(), lifeline.clone()).await {
            Ok(Some(written)) if written.goes_on => {
                if memory::admit(&mut buffers, server.hub.budget()).is_err() {
                    note_scarcity(&server);
                    return;
                }
                (stream, ahead) = (written.io, written.ahead);
            }
            Ok(Some(written)) => break written.io,
            Ok(None) => return,
            Err(error) => {
                // With any other error the client has left.
                if error.kind() == io::ErrorKind::TimedOut {
                    count_late(&server, &peer, Late::Reader);
                }
                return;
            }
        }
    };
    // A client that is still sending does not hold the drain.
    drop(lifeline);
    Box::pin(linger::close(
        answered,
        server.config.linger_within,
        server.config.linger_bytes_max,
    ))
    .await;
}

/// Reason for the end of a connection's conversation.
enum End {
    /// The client left, or an upgrade took the socket.
    Over,
    /// The last answer has gone to the socket.
    Answered,
    Held(Box<HeldAnswer>),
    Late(Late),
    /// There is no memory for the client's bytes, or for a waiting connection.
    Refused {
        /// True if a part of a head came; its client receives the reason.
        has_begun: bool,
    },
    /// An answer broke off, and only the end of the connection can show it.
    BrokenOff,
}

/// Connection after the end of its conversation.
enum Conversed<Io> {
    /// There is no connection left.
    Over,
    /// The last answer has gone to the socket.
    Answered(Io),
    /// An answer has to be held. The bytes are those that the client has sent after its request.
    Holds(Io, Box<HeldAnswer>, Bytes),
}

/// Handles requests until the connection ends or an answer has to be held. `ahead` has bytes that
/// were read before.
async fn converse<Io: Socket>(
    stream: Io,
    ahead: Bytes,
    (peer, proxy): (Arc<str>, Option<Arc<Seat>>),
    server: Arc<Server>,
    lifeline: Lifeline,
) -> Conversed<Io> {
    let mut stopping = lifeline.stopping.clone();
    let memory = Memory::new(server.hub.budget());
    let shared = Arc::<Shared>::default();
    let service = {
        let (server, shared, peer, memory) =
            (server.clone(), shared.clone(), peer.clone(), memory.clone());
        service_fn(move |request: http::Request<Incoming>| {
            shared.begin(!request.body().is_end_stream());
            memory.begin_request();
            let (server, lifeline, peer, shared, memory) = (
                server.clone(),
                lifeline.clone(),
                peer.clone(),
                shared.clone(),
                memory.clone(),
            );
            let (scheme, proxy) = (None, proxy.clone());
            let mut exchange = Exchange {
                server,
                lifeline,
                peer,
                proxy,
                scheme,
                shared,
                memory,
                go_on: upgrade::go_on::<Io>,
            };
            let version = request.version();
            // Boxed: hyper would reserve the room for it as long as the connection lasts.
            Box::pin(async move {
                exchange.shared.requests.begin().await;
                let answer = exchange.answer(request).await;
                let answer = held::offer(&exchange.shared, version, answer).await;
                Ok::<_, Infallible>(answer.map(|body| exchange.shared.answer(version, body)))
            })
        })
    };
    let paced = Paced::new(
        stream,
        ahead,
        shared.clone(),
        memory.clone(),
        server.config.linger_bytes_max,
    );
    let mut connection = http1::Builder::new()
        // `Watch` times heads: it distinguishes an idle connection from a slow one.
        .header_read_timeout(None)
        .max_buf_size(server.config.header_bytes_max.max(READ_BYTES_MIN))
        .max_header_size(server.config.header_bytes_max)
        // A client may end its sending direction and still wait for its answer.
        .half_close(true)
        .serve_connection(TokioIo::new(paced), service)
        .with_upgrades();
    let mut stopped = pin!(stopping.wait_for(|stopping| *stopping));
    let (mut is_stopped, mut watch) = (false, Watch::new(&server.config));
    let mut hurries = memory.hurries();
    let end = poll_fn(|cx| {
        if !is_stopped && stopped.as_mut().poll(cx).is_ready() {
            is_stopped = true;
            Pin::new(&mut connection).graceful_shutdown();
            watch.drain();
        }
        if memory.is_evicted(cx.waker()) {
            return Poll::Ready(End::Over);
        }
        loop {
            shared.requests.begin_poll();
            match Pin::new(&mut connection).poll(cx) {
                Poll::Ready(_) if shared.is_given_up() => {
                    return Poll::Ready(End::Late(Late::Reader));
                }
                Poll::Ready(_) if shared.is_broken_off() => return Poll::Ready(End::BrokenOff),
                Poll::Ready(_) if memory.is_refused() => {
                    return Poll::Ready(End::Refused { has_begun: true });
                }
                // Errors come from the client: it left, or its bytes are not a request and hyper
                // has answered with an error.
                Poll::Ready(_) => return Poll::Ready(End::Answered),
                Poll::Pending => {}
            }
            // `offer` stores an answer while the connection is polled.
            if let Some(held) = held::take(&shared) {
                return Poll::Ready(End::Held(held));
            }
            // A drain waits for whole requests only; hyper would also wait for the rest of a head.
            if is_stopped && !shared.is_busy() && shared.is_flushed() {
                return Poll::Ready(End::Over);
            }
            let asked = memory.hurries();
            if std::mem::replace(&mut hurries, asked) != asked
                && shared.is_flushed()
                && let Some(late) = watch.has_waited(HURRIED_PATIENCE, &shared)
            {
                return Poll::Ready(End::Refused {
                    has_begun: late == Late::Head,
                });
            }
            match ready!(watch.poll_late(&shared, cx)) {
                // The body has ended for the app, which may answer now.
                Late::Body => count_late(&server, &peer, Late::Body),
                Late::Look => {}
                late => return Poll::Ready(End::Late(late)),
            }
        }
    });
    let end = end.await;
    let Some(http1::Parts { io, read_buf, .. }) = connection.into_parts() else {
        return Conversed::Over;
    };
    let mut stream = io.into_inner().into_inner();
    match end {
        End::Over => Conversed::Over,
        End::BrokenOff => {
            stream.abort();
            Conversed::Over
        }
        End::Answered => Conversed::Answered(stream),
        End::Held(held) => Conversed::Holds(stream, held, read_buf),
        End::Refused { has_begun } => {
            note_scarcity(&server);
            if has_begun {
                _ = write_at_once(&mut stream, answer::NO_SEAT).await;
            }
            Conversed::Over
        }
        End::Late(late) => {
            count_late(&server, &peer, late);
            match late {
                Late::Reader => stream.abort(),
                Late::Head => {
                    return answer_late(&mut stream)
                        .await
                        .map_or(Conversed::Over, |()| Conversed::Answered(stream));
                }
                Late::Answer if !shared.is_answered() => {
                    return answer_late(&mut stream)
                        .await
                        .map_or(Conversed::Over, |()| Conversed::Answered(stream));
                }
                Late::Idle | Late::Body | Late::Answer | Late::Left | Late::Look => {}
            }
            Conversed::Over
        }
    }
}

/// Maximum time without a whole request while connections are closed for lack of memory.
const HURRIED_PATIENCE: Duration = Duration::from_secs(1);

/// Counts a connection that ends for lack of memory.
fn note_scarcity(server: &Server) {
    server
        .sockets
        .note(SocketRefusal::Memory, server.hub.counters(), Instant::now());
}

/// Minimum size of hyper's buffer, in bytes.
const READ_BYTES_MIN: usize = 8 << 10;

fn count_late(server: &Server, peer: &str, late: Late) {
    let counters = server.hub.counters();
    let reason = match late {
        // There was no request, or it was counted when its body was given up.
        Late::Idle | Late::Answer | Late::Left | Late::Look => return,
        Late::Head => {
            counters.late_heads.add(1);
            "the head of its request took too long"
        }
        Late::Body => {
            counters.stalled_uploads.add(1);
            "it sent a body too slowly"
        }
        Late::Reader => {
            counters.stalled_readers.add(1);
            "it took its answer too slowly"
        }
    };
    tracing::debug!(target: ACCESS, peer, "closed a connection: {reason}");
}

/// Writes a 408 where hyper can't. Returns `None` if the socket does not take it at once.
async fn answer_late(stream: &mut impl Socket) -> Option<()> {
    let answer = b"HTTP/1.1 408 Request Timeout\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";
    write_at_once(stream, answer).await
}

/// Writes an answer where hyper can't. Returns `None` if the socket does not take it at once.
async fn write_at_once(stream: &mut impl Socket, answer: &[u8]) -> Option<()> {
    poll_fn(|cx| {
        Poll::Ready(
            matches!(
                Pin::new(&mut *stream).poll_write(cx, answer),
                Poll::Ready(Ok(_))
            )
            .then_some(()),
        )
    })
    .await
}

/// One request and the answer to it.
struct Exchange {
    server: Arc<Server>,
    lifeline: Lifeline,
    /// Address of the client: the socket's, or the one that a trusted proxy names.
    peer: Arc<str>,
    /// Seat of a trusted proxy's connection.
    proxy: Option<Arc<Seat>>,
    /// Scheme of the request, if a trusted proxy names it.
    scheme: Option<&'static str>,
    shared: Arc<Shared>,
    memory: Arc<Memory>,
    /// Function that continues with an upgraded connection.
    go_on: upgrade::GoOn,
}

impl Exchange {
    async fn answer(&mut self, request: http::Request<Incoming>) -> Answer {
        let mut answer = self.find_answer(request).await;
        if self.shared.is_body_abandoned() {
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
            Body::Stream(_) => match self.memory.stream_share() {
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
    async fn abandon_body(&self, mut answer: Answer) -> Answer {
        yield_to_reader().await;
        if answer
            .body()
            .size_hint()
            .upper()
            .is_none_or(|bytes| bytes > EARLY_BYTES_MAX)
        {
            answer = closing(answer);
            self.shared.discard_body();
        }
        answer
    }

    /// Reserves the memory of an answer until it is sent. If there is not enough, returns a refusal
    /// instead. A streamed answer has its share already, unless there was no memory for it.
    fn reserve(&self, answer: Answer, stream_share: Option<Share>) -> Answer {
        let (parts, body) = answer.into_parts();
        let body = match body {
            Body::Whole(Some(bytes)) => self
                .memory
                .answer(bytes)
                .map(|bytes| Body::Whole(Some(bytes))),
            Body::Stream(body) => stream_share.ok_or(OutOfMemory).map(|share| {
                Body::Stream(memory::stream(share, body, parts.headers.get(answer::ID)))
            }),
            Body::Held(body, lasts) => Ok(Body::Held(
                self.memory.hold(body, parts.headers.get(answer::ID)),
                lasts,
            )),
            body => Ok(body),
        };
        body.map_or_else(
            |_| answer::out_of_memory(),
            |body| Answer::from_parts(parts, body),
        )
    }

    async fn find_answer(&mut self, mut request: http::Request<Incoming>) -> Answer {
        self.server.hub.counters().requests.add(1);
        if forwarded::is_described(request.headers())
            && let Err(refusal) = self.forward(&mut request)
        {
            return *refusal;
        }
        let Named {
            authority,
            is_served,
        } = match Named::of(&request, &self.server.config.hosts, || {
            self.server.own_authority()
        }) {
            Ok(named) => named,
            Err(text) => return answer::text(StatusCode::BAD_REQUEST, text),
        };
        if request.uri().authority().is_some() {
            target::replace_host(request.headers_mut(), &authority);
        }
        match Form::of(&request) {
            Ok(Form::Path) => {}
            Ok(Form::Server) => {
                return if is_served {
                    target::about_server()
                } else {
                    refuse(&HostRefusal::Misdirected)
                };
            }
            Err((status, text)) => return answer::text(status, text),
        }
        let target = request
            .uri()
            .path_and_query()
            .map_or("/", |target| target.as_str())
            .to_owned();
        let path = match Path::parse(&target) {
            Ok(path) => path,
            Err(bad @ BadPath::TooLong) => {
                return answer::text(StatusCode::URI_TOO_LONG, &bad.to_string());
            }
            Err(bad) => return answer::text(StatusCode::BAD_REQUEST, &bad.to_string()),
        };
        self.admit(request, authority, &path, is_served).await
    }

    /// Applies a trusted proxy's description of its client before any part of the request is used.
    /// For other clients it removes those headers.
    fn forward(&mut self, request: &mut http::Request<Incoming>) -> Result<(), Box<Answer>> {
        let Some(seat) = &self.proxy else {
            forwarded::remove(request.headers_mut());
            return Ok(());
        };
        let described = forwarded::read(request.headers_mut(), &self.server.config.trusted)
            .map_err(|text| Box::new(answer::text(StatusCode::BAD_REQUEST, text)))?;
        if let Some(peer) = described.peer {
            self.peer = peer.to_string().into();
            seat.stand_for(peer.ip()).map_err(|refusal| {
                self.server
                    .sockets
                    .note(refusal, self.server.hub.counters(), Instant::now());
                Box::new(answer::retry_later("too many connections, try again later"))
            })?;
        }
        self.scheme = described.scheme;
        if let (Some(authority), Some(_)) = (described.authority, request.uri().authority()) {
            // A target in absolute form also names a host, and would take precedence over the
            // header.
            let mut parts = std::mem::take(request.uri_mut()).into_parts();
            parts.authority = authority.parse().ok();
            *request.uri_mut() = http::Uri::from_parts(parts).map_err(|_| {
                Box::new(answer::text(
                    StatusCode::BAD_REQUEST,
                    "the target and the host that the proxy names do not fit together",
                ))
            })?;
        }
        Ok(())
    }

    /// Takes the request through the steps before guest code, then through the others.
    async fn admit(
        &self,
        mut request: http::Request<Incoming>,
        authority: String,
        path: &Path<'_>,
        is_served: bool,
    ) -> Answer {
        let version = self.server.version();
        let method = request.method().clone();
        let facts = RequestFacts {
            method: method.as_str(),
            path,
            wants: wants(request.headers()),
            is_served,
            has_files: self.server.files.is_some(),
        };
        let mut dispatch = Dispatch::new(&version.router, facts);
        let mut handshake = None;
        loop {
            match dispatch.admit() {
                AdmissionStep::Admitted => break,
                AdmissionStep::Refuse(refusal) => return refuse(&refusal),
                AdmissionStep::HostEndpoint => return self.host_endpoint(request.method(), path),
                AdmissionStep::Loaders => return Box::pin(self.load(request, authority)).await,
                AdmissionStep::CheckFormOrigin => {
                    if let Err(refusal) = self.check_form_origin(&request, &authority) {
                        return *refusal;
                    }
                }
                AdmissionStep::CheckHandshake => match self.check_handshake(&request, &authority) {
                    Ok(read) => {
                        handshake = Some((read, hyper::upgrade::on(&mut request)));
                    }
                    Err(refusal) => return *refusal,
                },
            }
        }
        let route = dispatch.pattern();
        let place = Place {
            request: Some(path.target()),
            route,
            conn: None,
        };
        let (parts, body) = request.into_parts();
        let head = self.head(parts.method, authority, path.target(), parts.headers);
        let is_upgrade = handshake.is_some();
        // Pinned in place: the future is large, and each move would copy it.
        let run = pin!(self.run(&version, dispatch, head, path, handshake, body, place));
        let began = tracing::enabled!(target: ACCESS, tracing::Level::DEBUG).then(Instant::now);
        let answer = if is_upgrade {
            self.decide_in_time(run, place).await
        } else {
            run.await
        };
        if let Some(began) = began {
            let (status, took) = (answer.status().as_u16(), began.elapsed());
            tracing::debug!(target: ACCESS, route, status, ?took, peer = &*self.peer, "{method} {}", path.target());
        }
        answer
    }

    /// Takes the steps of an admitted request: guards, files, route or page, fallback.
    #[expect(
        clippy::too_many_arguments,
        reason = "they are the parts of one request"
    )]
    async fn run(
        &self,
        version: &Arc<Version>,
        mut dispatch: Dispatch<'_>,
        mut head: Request,
        path: &Path<'_>,
        handshake: Option<(handshake::Handshake, hyper::upgrade::OnUpgrade)>,
        body: Incoming,
        place: Place<'_>,
    ) -> Answer {
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
                DispatchStep::File => {
                    if let Some(file) = Box::pin(self.file(&dispatch, &head, path)).await {
                        break Ok(file);
                    }
                }
                DispatchStep::Respond(Destination {
                    route,
                    target,
                    params,
                }) => {
                    (head.route, head.params) = (route, params);
                    break self.respond(version, target, head, handshake, body).await;
                }
                DispatchStep::FallbackFile => {
                    if let Some(file) = Box::pin(self.fallback_file(&dispatch, &head, path)).await {
                        break Ok(file);
                    }
                }
                DispatchStep::LookForFile => {
                    let files = self.server.files.as_ref();
                    dispatch.set_has_file(files.is_some_and(|files| files.has(path)));
                }
                DispatchStep::Refuse(refusal) => break Ok(refuse(&refusal)),
            }
        };
        let answer = outcome.unwrap_or_else(|fault| self.answer_fault(&fault, place));
        self.with_headers(answer, added, place)
    }

    async fn file(
        &self,
        dispatch: &Dispatch<'_>,
        head: &Request,
        path: &Path<'_>,
    ) -> Option<Answer> {
        let files = self.server.files.as_ref()?;
        let file = files.file(&head.method, path, &head.headers).await?;
        Some(with_privacy(file, dispatch))
    }

    async fn fallback_file(
        &self,
        dispatch: &Dispatch<'_>,
        head: &Request,
        path: &Path<'_>,
    ) -> Option<Answer> {
        let files = self.server.files.as_ref()?;
        let file = files.fallback(&head.method, path, &head.headers).await?;
        Some(with_privacy(file, dispatch))
    }

    /// Lets the app decide an upgrade in time, or refuses it.
    async fn decide_in_time(
        &self,
        decide: Pin<&mut impl Future<Output = Answer>>,
        place: Place<'_>,
    ) -> Answer {
        match timeout(self.server.hub.limits().upgrade_within, decide).await {
            Ok(answer) => answer,
            Err(_) => {
                self.server.hub.counters().faults.add(1);
                let id = answer::log_fault(&Fault::Wall, place);
                answer::text(
                    StatusCode::SERVICE_UNAVAILABLE,
                    &format!("the app took too long to decide (id {id})"),
                )
            }
        }
    }

    /// Answers a fault. The fault of a call was counted where the call ended; an answer that
    /// violates the contract is detected here.
    fn answer_fault(&self, fault: &Fault, place: Place<'_>) -> Answer {
        if matches!(fault, Fault::Answer(_)) {
            self.server.hub.counters().faults.add(1);
        }
        let masked = answer::from_fault(fault, place);
        if self.server.config.pages.is_some() {
            dev::show_fault(fault, &masked)
        } else {
            masked
        }
    }

    /// Answers for the host's own paths.
    fn host_endpoint(&self, method: &Method, path: &Path<'_>) -> Answer {
        let [_, endpoint] = path.segments() else {
            return refuse(&HostRefusal::NotFound);
        };
        let pages = self.server.config.pages.as_deref();
        let answer = match &**endpoint {
            "health" => Some(self.health()),
            endpoint => pages::script(endpoint, pages.is_some())
                .or_else(|| dev::answer(endpoint, pages, self.lifeline.stopping.clone())),
        };
        match (answer, method) {
            (Some(answer), &Method::GET | &Method::HEAD) => answer,
            (Some(_), _) => refuse(&HostRefusal::MethodNotAllowed(
                FILE_METHODS.map(str::to_owned).to_vec(),
            )),
            (None, _) => refuse(&HostRefusal::NotFound),
        }
    }

    /// Answers whether everything that the app needs is available, for load balancers and
    /// supervisors.
    fn health(&self) -> Answer {
        match self.server.hub.storage_status() {
            EngineStatus::Open => answer::text(StatusCode::OK, "ok"),
            EngineStatus::Closed(why) => answer::text(
                StatusCode::SERVICE_UNAVAILABLE,
                &format!("the storage of rooms is closed: {why}"),
            ),
        }
    }

    fn with_headers(&self, mut answer: Answer, added: Vec<Header>, place: Place<'_>) -> Answer {
        match contract::append_headers(answer.headers_mut(), added) {
            Ok(()) => answer,
            Err(fault) => self.answer_fault(&fault, place),
        }
    }

    fn check_handshake(
        &self,
        request: &http::Request<Incoming>,
        authority: &str,
    ) -> Result<handshake::Handshake, Box<Answer>> {
        let handshake = handshake::read(request.method(), request.version(), request.headers())
            .map_err(|refused| Box::new(refusal(refused)))?;
        let config = &self.server.config;
        if config.origins.admit(
            request.headers(),
            authority,
            self.scheme,
            config.require_origin,
        ) {
            return Ok(handshake);
        }
        Err(Box::new(answer::text(
            StatusCode::FORBIDDEN,
            "this origin may not open a WebSocket here",
        )))
    }

    /// Runs one guard. Returns its response if it stops the request.
    async fn guard(
        &self,
        version: &Version,
        index: u32,
        head: &mut Request,
        added: &mut Vec<Header>,
    ) -> Result<Option<Answer>, Fault> {
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

    /// Calls the app for the route, or the page, of the request.
    async fn respond(
        &self,
        version: &Arc<Version>,
        target: Target,
        mut head: Request,
        handshake: Option<(handshake::Handshake, hyper::upgrade::OnUpgrade)>,
        body: Incoming,
    ) -> Result<Answer, Fault> {
        let server = &self.server;
        // These targets hold memory for long. A plain request is small, or its memory is checked
        // again with its body.
        if target != Target::Http {
            if self.memory.is_scarce() {
                return Ok(answer::out_of_memory());
            }
            self.shared.note_connection(&head.headers);
        }
        // All branches but the most common one are boxed: every request's future has room for its
        // largest inline branch.
        match (target, handshake) {
            (Target::Http, _) => self.http(version, head, body).await,
            (Target::Stream, _) => {
                head.id = answer::next_id();
                let streamed = version
                    .app
                    .stream(&head, Box::pin(Upload(self.shared.body(body))))
                    .await;
                // The client is at fault, whatever the app answers.
                if self.shared.is_late() {
                    Ok(too_slow())
                } else {
                    self.streamed(&head, streamed?)
                }
            }
            (Target::Feed, _) => Box::pin(self.events(version, head)).await,
            (Target::WebSocket, Some((handshake, on_upgrade))) => {
                let with = (handshake, on_upgrade, self.go_on);
                Box::pin(upgrade::upgrade(
                    server,
                    version.clone(),
                    self.lifeline.clone(),
                    head,
                    with,
                ))
                .await
            }
            (Target::Page, _) => Box::pin(self.page(version, head, body)).await,
            (Target::WebSocket, None) => {
                unreachable!("a handshake was read for every websocket route")
            }
        }
    }

    fn streamed(&self, head: &Request, streamed: hub::StreamingResponse) -> Result<Answer, Fault> {
        let accepts_trailers = trailers::are_accepted(&head.headers);
        let answer = heartbeats::add(
            answer::from_stream(streamed, head.id, accepts_trailers)?,
            self.server.hub.limits().comment_every,
        );
        // hyper would drop trailers that are not announced.
        let can_be_held = self.shared.has_read_body()
            && head.method != Method::HEAD
            && !answer.headers().contains_key(header::CONTENT_LENGTH);
        match answer.into_parts() {
            (parts, Body::Stream(body)) if accepts_trailers && can_be_held => {
                Ok(Answer::from_parts(parts, Body::Held(body, Lasts::ToItsEnd)))
            }
            (parts, body) => Ok(Answer::from_parts(parts, body)),
        }
    }

    async fn page(
        &self,
        version: &Arc<Version>,
        head: Request,
        body: Incoming,
    ) -> Result<Answer, Fault> {
        let is_form = head.method == Method::POST;
        let visit = self.visit(version, head);
        match is_form {
            true => {
                let collect = async |body| self.collect_body(body).await;
                pages::act::act(visit, self.shared.body(body), self.memory.form(), collect).await
            }
            false => pages::show::show(visit, None).await,
        }
    }

    fn visit(&self, version: &Arc<Version>, head: Request) -> Visit {
        let stopping = self.lifeline.stopping.clone();
        Visit::new(self.server.clone(), version.clone(), stopping, head)
    }

    /// Answers with one loader. The guards of its page cover it.
    async fn load(&self, request: http::Request<Incoming>, authority: String) -> Answer {
        if self.memory.is_scarce() {
            return answer::out_of_memory();
        }
        let version = self.server.version();
        let (parts, body) = request.into_parts();
        let form = match pages::load::form(&parts.headers) {
            Ok(form) => form,
            Err(problem) => return pages::load::refusal(&problem),
        };
        let body = match self.collect(body).await {
            Ok(body) => body,
            Err(refusal) => return refusal,
        };
        let (loader, wanted) = match pages::load::read(&version, &body) {
            Ok(wanted) => wanted,
            Err(problem) => return pages::load::refusal(&problem),
        };
        self.shared.note_connection(&parts.headers);
        let mut head = self.head(Method::GET, authority, &wanted.target, parts.headers);
        let page_path = Path::parse(&wanted.target).expect("it was parsed before");
        let loaders_path = Path::parse(LOADERS_PATH).expect("a path");
        let mut dispatch = Dispatch::of_loader(&version.router, &page_path, &loaders_path, &wanted);
        let route = dispatch.pattern();
        let place = Place {
            request: Some(LOADERS_PATH),
            route,
            conn: None,
        };
        let mut added = Vec::new();
        let answer = loop {
            match dispatch.next() {
                DispatchStep::Guard(index) => {
                    match self.guard(&version, index, &mut head, &mut added).await {
                        Ok(None) => {}
                        Ok(Some(refusal)) => break refusal,
                        Err(fault) => break self.answer_fault(&fault, place),
                    }
                }
                DispatchStep::Respond(destination) => {
                    (head.route, head.params) = (destination.route, destination.params);
                    break pages::load::answer(self.visit(&version, head), form, &loader).await;
                }
                // A loader has no files, and its page was found.
                DispatchStep::File | DispatchStep::FallbackFile | DispatchStep::LookForFile => {}
                DispatchStep::Refuse(refusal) => break refuse(&refusal),
            }
        };
        tracing::debug!(target: ACCESS, route, status = answer.status().as_u16(), peer = &*self.peer, "POST {LOADERS_PATH} {loader}");
        self.with_headers(answer, added, place)
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

    /// Checks whether a page of this origin may send forms here: the check against cross-site
    /// request forgery, before any guest code.
    fn check_form_origin(
        &self,
        request: &http::Request<Incoming>,
        authority: &str,
    ) -> Result<(), Box<Answer>> {
        let config = &self.server.config;
        match config.origins.admit_form(
            request.headers(),
            authority,
            self.scheme,
            config.require_origin,
        ) {
            true => Ok(()),
            false => Err(Box::new(answer::text(
                StatusCode::FORBIDDEN,
                "this origin may not send forms here",
            ))),
        }
    }

    async fn http(
        &self,
        version: &Version,
        head: Request,
        body: Incoming,
    ) -> Result<Answer, Fault> {
        let body = if body.is_end_stream() {
            Bytes::new()
        } else {
            match Box::pin(self.collect(body)).await {
                Ok(body) => body,
                Err(refusal) => return Ok(refusal),
            }
        };
        answer::from_app(version.app.handle(&head, body).await?)
    }

    /// Returns the whole body, or the answer that refuses it.
    async fn collect(&self, body: Incoming) -> Result<Bytes, Answer> {
        self.collect_body(self.shared.body(body)).await
    }

    async fn collect_body(&self, body: RequestBody) -> Result<Bytes, Answer> {
        let max = self.server.hub.limits().body_bytes_max;
        let too_large = || {
            closing(answer::text(
                StatusCode::PAYLOAD_TOO_LARGE,
                &format!("the body is larger than {max} bytes"),
            ))
        };
        if body.size_hint().lower() > max as u64 {
            return Err(too_large());
        }
        match timeout(
            self.server.config.body_within,
            self.memory.collect(Limited::new(body, max)),
        )
        .await
        {
            Ok(Ok(Some(body))) => Ok(body),
            Ok(Ok(None)) => Err(closing(answer::out_of_memory())),
            Ok(Err(error)) if error.is::<http_body_util::LengthLimitError>() => Err(too_large()),
            Ok(Err(error)) if matches!(error.downcast_ref(), Some(BodyFailure::Late)) => {
                Err(too_slow())
            }
            Ok(Err(_)) => Err(closing(answer::text(
                StatusCode::BAD_REQUEST,
                "the body broke off",
            ))),
            Err(_) => Err(too_slow()),
        }
    }

    async fn events(&self, version: &Version, head: Request) -> Result<Answer, Fault> {
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
                    Err(OutOfMemory) => return Ok(answer::out_of_memory()),
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
            Body::Whole(None)
        } else {
            Body::Held(Box::pin(body), Lasts::Live)
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
fn remove_content(answer: &mut Answer) {
    *answer.body_mut() = Body::Whole(None);
    answer.headers_mut().remove(header::CONTENT_LENGTH);
}

/// Returns the kind of answer that the request asks for, where a path has routes of several kinds.
fn wants(headers: &HeaderMap) -> Wants {
    let names = |name: HeaderName, value: &str| {
        let mut values = headers
            .get_all(name)
            .iter()
            .filter_map(|header| header.to_str().ok());
        values.any(|values| {
            values
                .split([',', ';'])
                .any(|given| given.trim().eq_ignore_ascii_case(value))
        })
    };
    if names(header::UPGRADE, "websocket") {
        Wants::WebSocket
    } else if names(header::ACCEPT, "text/event-stream") {
        Wants::Events
    } else {
        Wants::Other
    }
}

/// Converts the host's refusal into an answer.
fn refuse(refusal: &HostRefusal) -> Answer {
    let status = StatusCode::from_u16(refusal.status()).expect("a status of the hub");
    let mut answer = answer::text(status, &refusal.text());
    if let Some(allow) = refusal.allow() {
        let allow = HeaderValue::from_str(&allow).expect("the rules let only method names pass");
        answer.headers_mut().insert(header::ALLOW, allow);
    }
    answer
}

/// If a guard covers the path of a file, shared caches must not keep it.
fn with_privacy(mut file: Answer, dispatch: &Dispatch<'_>) -> Answer {
    if dispatch.is_guarded() {
        files::make_private(file.headers_mut());
    }
    file
}

fn refusal(refusal: Refusal) -> Answer {
    let mut answer = answer::text(refusal.status, refusal.text);
    if let Some((name, value)) = refusal.header {
        answer
            .headers_mut()
            .insert(name, HeaderValue::from_static(value));
    }
    answer
}

/// Marks an answer whose request's body will not be read: the connection can't be used again.
fn closing(mut answer: Answer) -> Answer {
    answer
        .headers_mut()
        .insert(header::CONNECTION, HeaderValue::from_static("close"));
    answer
}

fn too_slow() -> Answer {
    closing(answer::text(
        StatusCode::REQUEST_TIMEOUT,
        "the body took too long",
    ))
}

/// Body of a request on its way to the app.
struct Upload(RequestBody);

impl Stream for Upload {
    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame, BodyError>>> {
        Pin::new(&mut self.0).poll_frame(cx).map(|next| {
            next.map(|outcome| match outcome.map(http_body::Frame::into_data) {
                Ok(Ok(bytes)) => Ok(Frame::Data(bytes)),
                Ok(Err(frame)) => Ok(Frame::Trailers(frame.into_trailers().unwrap_or_default())),
                Err(error) => Err(BodyError(error.to_string())),
            })
        })
    }

    fn length(&self) -> Option<u64> {
        self.0.size_hint().exact()
    }
}
