//! One request, led through the order of handling as the host has it: guards, then the route.

use super::{
    ConnRef, Connect, FeedRef, Reply, Server, client::Client, listener::Listener,
    reply::within_contract, stage::Membership,
};
use crate::{
    Conn, Request, Upgrade,
    request::Head,
    stream::Body,
    world::{Handle, Incoming, Outgoing},
};
use std::sync::Arc;
use tidegate_hub::{FeedEvent, Positions, RoomId, contract};
use tidegate_routing::{AMBIGUOUS, BadPath, Path, RouteMatch, Target, Wants};

/// Bytes of a piece of a streamed body: few, so that a test's body has several.
const PIECE_BYTES: usize = 64;

/// A request that is on its way.
pub(super) struct Call<'a> {
    pub(super) method: &'a str,
    pub(super) connect: Connect,
    pub(super) asked: Wants,
    pub(super) body: &'a [u8],
    /// Of a streamed answer; then the client goes away.
    pub(super) pieces_max: usize,
}

impl Call<'_> {
    pub(super) fn get(connect: Connect, pieces_max: usize) -> Self {
        let accepts = |(name, value): &(String, String)| {
            name.eq_ignore_ascii_case("accept") && value.contains("text/event-stream")
        };
        let asked = if connect.headers.iter().any(accepts) {
            Wants::Events
        } else {
            Wants::Other
        };
        Call {
            method: "GET",
            connect,
            asked,
            body: b"",
            pieces_max,
        }
    }

    /// Returns the head of the request, with the path as the host read it.
    pub(super) fn head(&self, path: &Path<'_>) -> Head {
        let headers = self
            .connect
            .headers
            .iter()
            .map(|(name, value)| (name.clone(), value.clone().into_bytes()));
        Head {
            method: self.method.to_owned(),
            scheme: "http".to_owned(),
            authority: "localhost".to_owned(),
            path: path.target().to_owned(),
            headers: headers.collect(),
            params: Vec::new(),
            peer: "127.0.0.1:1".to_owned(),
            route: 0,
            context: Vec::new(),
        }
    }
}

/// What a client gets.
pub(super) struct Answer {
    pub(super) reply: Reply,
    pub(super) opened: Opened,
}

/// What the answer is the beginning of.
pub(super) enum Opened {
    Nothing,
    Conn(ConnRef),
    Feed(FeedRef),
}

impl From<Reply> for Answer {
    fn from(reply: Reply) -> Answer {
        Answer {
            reply,
            opened: Opened::Nothing,
        }
    }
}

type Headers = Vec<(String, Vec<u8>)>;

impl Server {
    pub(super) fn call(&mut self, call: Call<'_>) -> Answer {
        let path = match Path::parse(&call.connect.path) {
            Ok(path) => path,
            Err(bad @ BadPath::TooLong) => return Reply::of_host(414, &bad.to_string()).into(),
            Err(bad) => return Reply::of_host(400, &bad.to_string()).into(),
        };
        if path.is_reserved() && path.has_separator() {
            return Reply::of_host(400, AMBIGUOUS).into();
        }
        if path.is_host() {
            return Reply::of_host(404, "nothing is here").into();
        }
        let found = self.router.find(call.method, call.asked, &path);
        if found == RouteMatch::Ambiguous {
            return Reply::of_host(400, AMBIGUOUS).into();
        }
        if matches!(
            found,
            RouteMatch::Route {
                target: Target::WebSocket,
                ..
            }
        ) && call.asked != Wants::WebSocket
        {
            return Reply::of_host(426, "a WebSocket is here")
                .with("upgrade", "websocket")
                .into();
        }
        let mut head = call.head(&path);
        let mut answer = match self.guard(&mut head, &[&path]) {
            (added, Ok(())) => self.dispatch(head, found, &call).with_headers(added),
            (added, Err(refusal)) => Answer::from(refusal).with_headers(added),
        };
        if let Opened::Conn(conn) = answer.opened {
            self.clients[conn.0].handshake = answer.reply.clone();
        }
        self.settle();
        if call.method == "HEAD" {
            answer.reply = answer.reply.without_body();
        }
        answer
    }

    /// The headers that guards added, and whether all let the request pass.
    pub(super) fn guard(
        &self,
        head: &mut Head,
        paths: &[&Path<'_>],
    ) -> (Headers, Result<(), Reply>) {
        let mut added = Headers::new();
        for index in self.router.guards(paths) {
            let request = Request {
                head: Head {
                    route: index,
                    ..head.clone()
                },
                body: Body::default(),
            };
            match self.stage.event(|app| app.check(index, request)) {
                None => return (added, Err(Reply::trap())),
                Some(Err(refusal)) => return (added, Err(Reply::of_app(refusal))),
                Some(Ok(pass)) => {
                    within_contract(contract::check_context(&pass.context));
                    added.extend(pass.headers);
                    head.context.extend(pass.context);
                }
            }
        }
        (added, Ok(()))
    }

    fn dispatch(&mut self, mut head: Head, found: RouteMatch, call: &Call<'_>) -> Answer {
        let target = match found {
            RouteMatch::Ambiguous => unreachable!("it was refused before the guards"),
            RouteMatch::NotFound => return Reply::of_host(404, "nothing is here").into(),
            RouteMatch::MethodNotAllowed(allow) => {
                return Reply::of_host(405, "the path has no such method")
                    .with("allow", &allow.join(", "))
                    .into();
            }
            RouteMatch::Route {
                index,
                target,
                params,
            } => {
                head.route = index;
                head.params = params;
                target
            }
        };
        match target {
            Target::Http if call.body.len() > self.stage.hub.limits().body_bytes_max => {
                Reply::of_host(413, "the body is too large").into()
            }
            Target::Http => self
                .answer(head, call)
                .unwrap_or_else(|refusal| refusal)
                .into(),
            Target::Stream => self.run_stream(head, call).into(),
            Target::Page => self
                .page(head, call)
                .unwrap_or_else(|refusal| refusal)
                .into(),
            Target::WebSocket => self.upgrade(head, call).unwrap_or_else(Answer::from),
            Target::Feed => self.open_feed(head).unwrap_or_else(Answer::from),
        }
    }

    fn answer(&mut self, head: Head, call: &Call<'_>) -> Result<Reply, Reply> {
        let room = self.room_of(head.route, &head.params)?;
        let request = Request {
            head,
            body: Body::of_bytes(call.body.to_vec()),
        };
        let answer = match room {
            None => self.stage.event(|app| app.handle(request)),
            Some(room) => self
                .stage
                .room_event(&room, Membership::Stays, |live, cx, _| {
                    live.request(cx, request)
                }),
        };
        answer.map(Reply::of_app).ok_or_else(Reply::trap)
    }

    fn run_stream(&self, mut head: Head, call: &Call<'_>) -> Reply {
        // `wasi:http` says nothing of route, peer and context: the app finds the route again.
        let again = self.stage.app().find_stream(call.method, &head.path);
        assert_eq!(
            again,
            Some((head.route, head.params.clone())),
            "guest and host agree on the route"
        );
        head.peer.clear();
        head.context.clear();
        let pieces = call.body.chunks(PIECE_BYTES).map(<[u8]>::to_vec).collect();
        let outgoing = Outgoing::new(call.pieces_max);
        let request = Request {
            head,
            body: Body::of_pieces(Incoming(pieces)),
        };
        self.stage
            .event(|app| app.stream_to(request, outgoing.clone()));
        Reply::of_stream(outgoing.recorded())
    }

    fn upgrade(&mut self, head: Head, call: &Call<'_>) -> Result<Answer, Reply> {
        let offered = call.connect.protocols.clone();
        let upgrade = Upgrade {
            request: Request {
                head: head.clone(),
                body: Body::default(),
            },
            offered,
        };
        let room = self.room_of(head.route, &head.params)?;
        let decided = match &room {
            None => self.stage.event(|app| app.upgrade(upgrade)),
            Some(room) => self
                .stage
                .room_event(room, Membership::Stays, |live, cx, _| {
                    live.upgrade(cx, upgrade)
                }),
        };
        let accept = decided.ok_or_else(Reply::trap)?.map_err(Reply::of_app)?;
        let close = accept
            .close
            .clone()
            .map(|(code, reason)| within_contract(contract::check_final_close(code, reason)));
        within_contract(contract::check_protocol(
            accept.protocol.as_deref(),
            &call.connect.protocols,
        ));
        let reply = Reply::of_upgrade(&accept);
        let client = Client::open(
            &self.stage.hub,
            head.route,
            room.clone(),
            accept,
            reply.clone(),
        );
        let client = within_contract(client.map_err(contract::bad_accept));
        self.clients.push(client);
        let conn = ConnRef(self.clients.len() - 1);
        match close {
            Some(close) => self.clients[conn.0].refuse(close),
            None => self.open(
                conn,
                room,
                Request {
                    head,
                    body: Body::default(),
                },
            ),
        }
        Ok(Answer {
            reply,
            opened: Opened::Conn(conn),
        })
    }

    fn open(&mut self, conn: ConnRef, room: Option<RoomId>, request: Request) {
        let Some(room) = room else {
            return self.socket_event(conn, |app, _, conn| app.open(conn, request));
        };
        let opened = Arc::clone(
            self.clients[conn.0]
                .opened
                .as_ref()
                .expect("it was opened just now"),
        );
        let done =
            self.stage
                .room_event(&room, Membership::Joins(opened.clone()), |live, cx, _| {
                    Conn::lend(Handle(opened), |conn| live.open(cx, conn, request));
                });
        self.close_if_failed(conn, done);
    }

    fn open_feed(&mut self, head: Head) -> Result<Answer, Reply> {
        let room = self.room_of(head.route, &head.params)?;
        let last = head
            .headers
            .iter()
            .find(|(name, _)| name.eq_ignore_ascii_case("last-event-id"));
        let since = last.and_then(|(_, id)| Some(Positions::parse(std::str::from_utf8(id).ok()?)));
        let again = since.clone();
        let request = Request {
            head,
            body: Body::default(),
        };
        let mut slot = None;
        let admitted = match room {
            None => self.stage.event(|app| app.subscribe(request)),
            Some(room) => {
                self.stage
                    .room_event(&room, Membership::Stays, |live, cx, transaction| {
                        let feed = live.feed(cx, request)?;
                        slot = Some(
                            transaction
                                .subscribe(feed.topics.clone(), again)
                                .expect("memory can be read"),
                        );
                        Ok(feed)
                    })
            }
        };
        let feed = admitted.ok_or_else(Reply::trap)?.map_err(Reply::of_app)?;
        let first: Vec<FeedEvent> = feed
            .first
            .iter()
            .map(|(data, event)| FeedEvent {
                data: data.clone(),
                event: event.clone(),
            })
            .collect();
        within_contract(contract::check_first_events(
            &first,
            self.stage.hub.limits().outbox_bytes_max,
        ));
        let opened = within_contract(
            slot.and_then(|slot| slot.take())
                .transpose()
                .map_err(contract::bad_topics),
        );
        let listener = Listener::open(&self.stage.hub, feed, since.as_ref(), opened);
        let listener = within_contract(listener.map_err(contract::bad_topics));
        self.listeners.push(listener);
        Ok(Answer {
            reply: Reply::of_feed(),
            opened: Opened::Feed(FeedRef(self.listeners.len() - 1)),
        })
    }
}

impl Answer {
    fn with_headers(mut self, headers: Headers) -> Answer {
        self.reply = self.reply.with_headers(headers);
        self
    }
}
