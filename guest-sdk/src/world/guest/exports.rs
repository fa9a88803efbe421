//! The component's exports: each passes its event to the app, which is built once per instance.

use super::{Handle, inward, io};
use crate::{
    App, CloseEvent, Conn, Cx, Request, Response, Serve, Upgrade,
    bindings::{
        exports::tidegate::app::{
            feed_handler::{self, FeedEvent},
            guard_handler::{self, Verdict},
            http_handler, manifest, room_handler,
            websocket_handler::{self, Decision},
        },
        tidegate::app::{types, websockets::Connection},
    },
    request::RequestHead,
    room::DynRoom,
    stream::Body,
};
use std::{
    cell::{OnceCell, RefCell},
    fmt,
    io::{Write as _, stdout},
    marker::PhantomData,
    panic::{self, PanicHookInfo},
};
use tidegate_routing::{Manifest, Target};
use wasip2::{
    exports::http::incoming_handler,
    http::types::{IncomingRequest, ResponseOutparam},
};

thread_local! {
    static APP: OnceCell<App> = const { OnceCell::new() };
    /// The room of this instance, if it was woken as one.
    static ROOM: RefCell<Option<(Cx, Box<dyn DynRoom>)>> = const { RefCell::new(None) };
}

/// Exports the app of `S`.
pub struct AppExports<S>(PhantomData<S>);

pub(super) fn with<S: Serve, T>(event: impl FnOnce(&App) -> T) -> T {
    let _end = EndOutput;
    APP.with(|app| event(app.get_or_init(build::<S>)))
}

/// Flushes the output at the end of an event: text without a line end would stay in the buffer of
/// the standard library, and precede the output of a later event.
pub(super) struct EndOutput;

impl Drop for EndOutput {
    fn drop(&mut self) {
        // The host accepts all output.
        _ = stdout().flush();
    }
}

/// Passes the event to the room if this instance is one, and to the app otherwise.
fn with_room<S: Serve, E, T>(
    event: E,
    of_room: impl FnOnce(&mut dyn DynRoom, &Cx, E) -> T,
    of_app: impl FnOnce(&App, E) -> T,
) -> T {
    ROOM.with_borrow_mut(|room| match room {
        Some((cx, room)) => {
            let _end = EndOutput;
            of_room(&mut **room, cx, event)
        }
        None => with::<S, _>(|app| of_app(app, event)),
    })
}

fn build<S: Serve>() -> App {
    // This comes before the app is built, which may set a better hook.
    panic::set_hook(Box::new(|panic| eprintln!("{}", OneLine(panic))));
    S::app()
}

/// A panic for the operator on one line, since the host logs each line separately.
struct OneLine<'a>(&'a PanicHookInfo<'a>);

impl fmt::Display for OneLine<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("panic")?;
        if let Some(location) = self.0.location() {
            write!(f, " at {location}")?;
        }
        let message = self
            .0
            .payload_as_str()
            .unwrap_or("with a value that is no text");
        message
            .lines()
            .map(str::trim)
            .try_for_each(|line| write!(f, ": {line}"))
    }
}

impl<S: Serve> manifest::Guest for AppExports<S> {
    fn describe() -> manifest::App {
        let Manifest { routes, guards, .. } = with::<S, _>(App::manifest);
        let routes = routes.into_iter().map(|route| manifest::Route {
            methods: route.methods,
            pattern: route.pattern,
            target: target(route.target),
            room: route.room,
        });
        let guards = guards.into_iter().map(|guard| manifest::Guard {
            pattern: guard.pattern,
        });
        manifest::App {
            routes: routes.collect(),
            guards: guards.collect(),
        }
    }
}

fn target(target: Target) -> manifest::Target {
    match target {
        Target::Http => manifest::Target::Http,
        Target::Stream => manifest::Target::Stream,
        Target::WebSocket => manifest::Target::Websocket,
        Target::Feed => manifest::Target::Feed,
        Target::Page => unreachable!("a page is no route of its app"),
    }
}

impl<S: Serve> guard_handler::Guest for AppExports<S> {
    fn check(guard: u32, request: types::Request) -> Verdict {
        match with::<S, _>(|app| app.check(guard, whole(request, Vec::new()))) {
            Ok(pass) => Verdict::Pass(guard_handler::Pass {
                headers: pass.headers,
                context: pass.context,
            }),
            Err(response) => Verdict::Respond(answer(response)),
        }
    }
}

impl<S: Serve> http_handler::Guest for AppExports<S> {
    fn handle(request: types::Request, body: Vec<u8>) -> types::Response {
        let request = whole(request, body);
        answer(with_room::<S, _, _>(
            request,
            |room, cx, request| room.request(cx, request),
            |app, request| app.handle(request),
        ))
    }
}

impl<S: Serve> websocket_handler::Guest for AppExports<S> {
    fn on_upgrade(request: types::Request, offered: Vec<String>) -> Decision {
        let upgrade = Upgrade {
            request: whole(request, Vec::new()),
            offered,
        };
        let decided = with_room::<S, _, _>(
            upgrade,
            |room, cx, upgrade| room.upgrade(cx, upgrade),
            |app, upgrade| app.upgrade(upgrade),
        );
        let accept = match decided {
            Ok(accept) => accept,
            Err(response) => return Decision::Reject(answer(response)),
        };
        match accept.close {
            Some((code, reason)) => {
                Decision::AcceptThenClose(websocket_handler::CloseFrame { code, reason })
            }
            None => Decision::Accept(websocket_handler::Accept {
                protocol: accept.protocol,
                headers: accept.headers,
                attachment: accept.attachment,
                tags: accept.tags,
            }),
        }
    }

    fn on_open(connection: &Connection, request: types::Request) {
        Conn::lend(Handle::lent(connection), |conn| {
            let request = whole(request, Vec::new());
            with_room::<S, _, _>(
                request,
                |room, cx, request| room.open(cx, conn, request),
                |app, request| app.open(conn, request),
            );
        });
    }

    fn on_messages(connection: &Connection, messages: Vec<types::Message>) {
        let messages = messages.into_iter().map(inward);
        Conn::lend(Handle::lent(connection), |conn| {
            with_room::<S, _, _>(
                messages,
                |room, cx, messages| room.messages(cx, conn, messages.collect()),
                |app, mut messages| {
                    if let Some(route) = route_of(app, connection) {
                        app.messages(route, conn, &mut messages);
                    }
                },
            );
        });
    }

    fn on_close(connection: &Connection, event: websocket_handler::CloseEvent) {
        let websocket_handler::CloseEvent {
            code,
            reason,
            was_clean,
            is_peer_initiated,
        } = event;
        let info = CloseEvent {
            code,
            reason,
            was_clean,
            is_peer_initiated,
        };
        Conn::lend(Handle::lent(connection), |conn| {
            with_room::<S, _, _>(
                info,
                |room, cx, info| room.close(cx, conn, info),
                |app, info| {
                    if let Some(route) = route_of(app, connection) {
                        app.close(route, conn, info);
                    }
                },
            );
        });
    }
}

/// Returns the socket route of the connection; `None` if this version of the app no longer has it.
/// If there is only one such route, the host is not asked.
fn route_of(app: &App, connection: &Connection) -> Option<u32> {
    app.only_socket().or_else(|| connection.route())
}

impl<S: Serve> feed_handler::Guest for AppExports<S> {
    fn on_subscribe(
        mut request: types::Request,
        last_event_id: Option<String>,
    ) -> Result<feed_handler::Feed, types::Response> {
        let has_header = request
            .headers
            .iter()
            .any(|(name, _)| name == "last-event-id");
        if let Some(id) = last_event_id.filter(|_| !has_header) {
            request
                .headers
                .push(("last-event-id".to_owned(), id.into_bytes()));
        }
        let request = whole(request, Vec::new());
        let feed = with_room::<S, _, _>(
            request,
            |room, cx, request| room.feed(cx, request),
            |app, request| app.subscribe(request),
        );
        let feed = feed.map_err(answer)?;
        let initial_events = feed
            .first
            .into_iter()
            .map(|(data, event)| FeedEvent { data, event });
        Ok(feed_handler::Feed {
            topics: feed.topics,
            initial_events: initial_events.collect(),
        })
    }
}

impl<S: Serve> room_handler::Guest for AppExports<S> {
    fn on_wake(class: String, name: String) -> Result<(), String> {
        let room = with::<S, _>(|app| app.make_room(&class));
        let mut room =
            room.ok_or_else(|| format!("this app has no rooms of the class {class:?}"))?;
        let cx = Cx::new(class, name);
        let _end = EndOutput;
        room.wake(&cx)?;
        ROOM.set(Some((cx, room)));
        Ok(())
    }

    fn on_call(payload: Vec<u8>) -> Result<Vec<u8>, types::HandlerError> {
        let answer = with_room::<S, _, _>(
            payload,
            |room, cx, payload| room.call(cx, payload),
            |_, _| panic!("a call outside of a room"),
        );
        answer.map_err(handler_error)
    }

    fn on_alarm(attempt: u32) {
        with_room::<S, _, _>(
            attempt,
            |room, cx, attempt| room.alarm(cx, attempt),
            |_, _| panic!("an alarm outside of a room"),
        );
    }
}

pub(super) fn handler_error((status, message): (u16, String)) -> types::HandlerError {
    types::HandlerError { status, message }
}

impl<S: Serve> incoming_handler::Guest for AppExports<S> {
    fn handle(request: IncomingRequest, outparam: ResponseOutparam) {
        let outgoing = io::Outgoing::new(outparam);
        let mut request = io::read(request);
        with::<S, _>(
            |app| match app.find_stream(request.method(), request.uri()) {
                Some((route, params)) => {
                    request.head.route = route;
                    request.head.params = params;
                    app.stream_to(request, outgoing);
                }
                None => io::answer(outgoing, Response::text("not found").with_status(404)),
            },
        );
    }
}

pub(super) fn whole(request: types::Request, body: Vec<u8>) -> Request {
    let types::Request {
        method,
        scheme,
        authority,
        path_with_query: path,
        headers,
        params,
        peer,
        route,
        context,
    } = request;
    Request {
        head: RequestHead {
            method,
            scheme,
            authority,
            path,
            headers,
            params,
            peer,
            route,
            context,
        },
        body: Body::of_bytes(body),
    }
}

fn answer(response: Response) -> types::Response {
    let Response {
        status,
        headers,
        body,
    } = response;
    types::Response {
        status,
        headers,
        body,
    }
}
