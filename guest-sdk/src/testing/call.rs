//! One request on its way through the host's order of handling.

use super::{
    ClientResponse, ConnRef, Connect, FeedRef, Server, client::TestClient, listener::FeedClient,
};
use crate::world::Recording;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use std::sync::Arc;
use tidegate_hub::{
    Accept, App as _, Conn, Decision, Fault, Header, Pass, Positions, Request, RequestId, Verdict,
    contract,
    dispatch::{AdmissionStep, Dispatch, DispatchStep, RequestFacts},
    page::Form,
};
use tidegate_routing::{BadPath, Path, Target, Wants};

/// Size of a piece of a streamed body, in bytes: small, so that a test's body has several.
const PIECE_BYTES: usize = 64;

/// A request of a client.
pub(super) struct ClientRequest<'a> {
    pub(super) method: &'a str,
    pub(super) connect: Connect,
    pub(super) wants: Wants,
    pub(super) body: ClientBody<'a>,
    /// Number of pieces of a streamed answer after which the client leaves.
    pub(super) pieces_max: usize,
}

/// Body of a request.
pub(super) enum ClientBody<'a> {
    Bytes(&'a [u8]),
    /// Name of an action, and its form.
    Form(String, Box<dyn Form>),
}

impl ClientRequest<'_> {
    pub(super) fn get(connect: Connect, pieces_max: usize) -> Self {
        let accepts = |(name, value): &(String, String)| {
            name.eq_ignore_ascii_case("accept") && value.contains("text/event-stream")
        };
        let wants = if connect.headers.iter().any(accepts) {
            Wants::Events
        } else {
            Wants::Other
        };
        ClientRequest {
            method: "GET",
            connect,
            wants,
            body: ClientBody::Bytes(b""),
            pieces_max,
        }
    }

    /// Returns the head of the request, with the path as the host read it. Panics if the method or
    /// a header is not one of HTTP: no client sends it.
    pub(super) fn head(&self, path: &Path<'_>) -> Request {
        let mut headers = HeaderMap::new();
        for (name, value) in &self.connect.headers {
            let name: HeaderName = name.parse().expect("the name of a header");
            headers.append(
                name,
                HeaderValue::from_str(value).expect("a header of text"),
            );
        }
        Request {
            method: Method::from_bytes(self.method.as_bytes()).expect("a method"),
            scheme: "http",
            authority: "localhost".to_owned(),
            path: path.target().to_owned(),
            headers,
            params: Vec::new(),
            peer: "127.0.0.1:1".to_owned(),
            route: 0,
            context: Vec::new(),
            id: RequestId::default(),
        }
    }
}

/// Result of a request: the answer, and the connection or feed that it opens.
pub(super) struct RequestResult {
    pub(super) reply: ClientResponse,
    pub(super) opens: ClientRef,
}

/// A connection or a feed of a client.
pub(super) enum ClientRef {
    None,
    Conn(ConnRef),
    Feed(FeedRef),
}

impl From<ClientResponse> for RequestResult {
    fn from(reply: ClientResponse) -> RequestResult {
        RequestResult {
            reply,
            opens: ClientRef::None,
        }
    }
}

impl Server {
    pub(super) fn call(&mut self, request: ClientRequest<'_>) -> RequestResult {
        let (method, target) = (request.method, request.connect.path.clone());
        let mut result = match Path::parse(&target) {
            Ok(path) => self.handle(request, &path),
            Err(bad @ BadPath::TooLong) => ClientResponse::of_host(414, &bad.to_string()).into(),
            Err(bad) => ClientResponse::of_host(400, &bad.to_string()).into(),
        };
        if let ClientRef::Conn(conn) = result.opens {
            self.clients[conn.0].handshake = result.reply.clone();
        }
        self.settle();
        if method == "HEAD" {
            result.reply = result.reply.without_body();
        }
        result
    }

    fn handle(&mut self, request: ClientRequest<'_>, path: &Path<'_>) -> RequestResult {
        let router = self.host.router.clone();
        let facts = RequestFacts {
            method: request.method,
            path,
            wants: request.wants,
            is_served: true,
            has_files: false,
        };
        let mut dispatch = Dispatch::new(&router, facts);
        loop {
            match dispatch.admit() {
                AdmissionStep::Admitted => break,
                AdmissionStep::Refuse(refusal) => {
                    return ClientResponse::of_refusal(&refusal).into();
                }
                // Every client of a test counts as a page of the app's own origin.
                AdmissionStep::CheckFormOrigin => {}
                AdmissionStep::CheckHandshake if request.wants == Wants::WebSocket => {}
                AdmissionStep::CheckHandshake => {
                    return ClientResponse::of_host(426, "a WebSocket is here")
                        .with("upgrade", "websocket")
                        .into();
                }
                AdmissionStep::HostEndpoint => {
                    return ClientResponse::of_host(404, "nothing is here").into();
                }
                AdmissionStep::Loaders => {
                    return ClientResponse::of_host(404, "under test, call `Server::load`").into();
                }
            }
        }
        let mut head = request.head(path);
        let mut added = Vec::new();
        let outcome = self.run(
            &mut dispatch,
            &mut head,
            &mut added,
            |server, head, target| server.respond(head, target, request),
        );
        let result = outcome.unwrap_or_else(|fault| ClientResponse::of_fault(&fault).into());
        RequestResult {
            reply: result.reply.with_headers(added),
            ..result
        }
    }

    /// Takes the steps of an admitted request. `respond` answers for the route.
    pub(super) fn run<T: From<ClientResponse>>(
        &mut self,
        dispatch: &mut Dispatch<'_>,
        head: &mut Request,
        added: &mut Vec<Header>,
        respond: impl FnOnce(&mut Server, Request, Target) -> Result<T, Fault>,
    ) -> Result<T, Fault> {
        loop {
            match dispatch.next() {
                DispatchStep::Guard(index) => {
                    if let Some(refusal) = self.guard(index, head, added)? {
                        return Ok(refusal.into());
                    }
                }
                DispatchStep::Respond(destination) => {
                    head.route = destination.route;
                    head.params = destination.params;
                    return respond(self, head.clone(), destination.target);
                }
                // A test has no files.
                DispatchStep::File | DispatchStep::FallbackFile | DispatchStep::LookForFile => {}
                DispatchStep::Refuse(refusal) => {
                    return Ok(ClientResponse::of_refusal(&refusal).into());
                }
            }
        }
    }

    /// Runs one guard. Returns its refusal if it stops the request.
    fn guard(
        &self,
        index: u32,
        head: &mut Request,
        added: &mut Vec<Header>,
    ) -> Result<Option<ClientResponse>, Fault> {
        head.route = index;
        let verdict = self.host.call(self.host.app.check(index, head))?;
        match verdict {
            Verdict::Answer(refusal) => Ok(Some(ClientResponse::of_app(refusal))),
            Verdict::Pass(Pass { headers, context }) => {
                contract::check_context(&context)?;
                added.extend(headers);
                head.context.extend(context);
                Ok(None)
            }
        }
    }

    fn respond(
        &mut self,
        head: Request,
        target: Target,
        request: ClientRequest<'_>,
    ) -> Result<RequestResult, Fault> {
        let app = self.host.app.clone();
        let body = match (target, request.body) {
            (Target::Page, body) => {
                return self
                    .page(head, request.method, body)
                    .map(RequestResult::from);
            }
            (_, ClientBody::Bytes(body)) => body,
            (_, ClientBody::Form(action, _)) => panic!("no page has the action {action:?} here"),
        };
        match target {
            Target::Http if body.len() > self.host.limits().body_bytes_max => {
                Ok(ClientResponse::of_host(413, "the body is too large").into())
            }
            Target::Http => {
                let body = Bytes::copy_from_slice(body);
                let response = self.host.call(app.handle(&head, body))?;
                Ok(ClientResponse::of_app(response).into())
            }
            Target::Stream => {
                self.host.set_pieces_max(request.pieces_max);
                let body = Recording::whole(body.chunks(PIECE_BYTES));
                let streamed = self.host.call(app.stream(&head, Box::pin(body)))?;
                Ok(ClientResponse::of_stream(streamed).into())
            }
            Target::WebSocket => self.upgrade(head, &request.connect.protocols),
            Target::Feed => self.open_feed(&head),
            Target::Page => unreachable!("a page has answered above"),
        }
    }

    fn upgrade(&mut self, head: Request, offered: &[String]) -> Result<RequestResult, Fault> {
        let app = self.host.app.clone();
        let (mut accept, close) = match self.host.call(app.upgrade(&head, offered))? {
            Decision::Reject(refusal) => return Ok(ClientResponse::of_app(refusal).into()),
            Decision::Accept(accept) => (accept, None),
            Decision::AcceptThenClose(code, reason) => {
                let close = contract::check_final_close(code, reason)?;
                (Accept::default(), Some(close))
            }
        };
        contract::check_protocol(accept.protocol.as_deref(), offered)?;
        let reply = ClientResponse::of_upgrade(&accept);
        accept.route = self.host.router.route(head.route).cloned();
        let opened = self.host.hub().open(accept);
        let opened = opened.map_err(contract::bad_accept)?;
        let conn = Arc::clone(&opened);
        self.clients.push(TestClient::new(opened, reply.clone()));
        let client = ConnRef(self.clients.len() - 1);
        match close {
            Some(close) => self.clients[client.0].refuse(close),
            None => {
                let outcome = self.host.call(app.open(conn.clone(), head));
                self.end_event(&conn, outcome);
            }
        }
        Ok(RequestResult {
            reply,
            opens: ClientRef::Conn(client),
        })
    }

    /// Closes the connection if its event failed.
    pub(super) fn end_event(&self, conn: &Arc<Conn>, outcome: Result<(), Fault>) {
        match outcome {
            Ok(()) => conn.handle_opening(),
            Err(_) => conn.close(1011, "internal error").expect("a valid code"),
        }
    }

    fn open_feed(&mut self, head: &Request) -> Result<RequestResult, Fault> {
        let last = head
            .headers
            .get("last-event-id")
            .and_then(|id| id.to_str().ok());
        let app = self.host.app.clone();
        let feed = match self.host.call(app.subscribe(head, last))? {
            Ok(feed) => feed,
            Err(refusal) => return Ok(ClientResponse::of_app(refusal).into()),
        };
        contract::check_first_events(&feed.first, self.host.limits().outbox_bytes_max)?;
        let since = last.map(Positions::parse);
        let opened = feed
            .opened
            .unwrap_or_else(|| self.host.hub().subscribe(feed.topics, since.as_ref()));
        let opened = opened.map_err(contract::bad_topics)?;
        self.listeners.push(FeedClient::open(&feed.first, opened));
        Ok(RequestResult {
            reply: ClientResponse::of_feed(),
            opens: ClientRef::Feed(FeedRef(self.listeners.len() - 1)),
        })
    }
}
