//! The component's exports: each hands its event to the app, which is built once an instance.

use super::{Form, Handle, inward, io};
use crate::{
    App, CloseInfo, Conn, Cx, Request, Response, Serve, Upgrade,
    app::{Answers, RoomEvents},
    bindings::{
        exports::tidegate::app::{
            events_handler::{self, First},
            guard_handler::{self, Passed, Verdict},
            http_handler,
            manifest::{self, Target},
            pages, room_handler,
            websocket_handler::{self, Decision},
        },
        tidegate::app::{forms, types, websockets::Connection},
    },
    form::{Denied, Done},
    loader::{Progress, Running},
    page::{First as Initial, Mounted, View},
    request::Head,
    room::Live,
    stream::Body,
};
use std::{
    cell::{OnceCell, RefCell},
    fmt,
    io::{Write as _, stdout},
    marker::PhantomData,
    panic::{self, PanicHookInfo},
    time::Duration,
};
use tidegate_hub::Due;
use wasip2::{
    exports::http::incoming_handler,
    http::types::{IncomingRequest, ResponseOutparam},
};

thread_local! {
    static APP: OnceCell<App> = const { OnceCell::new() };
    /// The room that this instance stands for, if it was woken as one.
    static ROOM: RefCell<Option<(Cx, Box<dyn Live>)>> = const { RefCell::new(None) };
}

/// Exports the app of `S`.
pub struct Served<S>(PhantomData<S>);

fn with<S: Serve, T>(event: impl FnOnce(&App) -> T) -> T {
    let _end = EndOutput;
    APP.with(|app| event(app.get_or_init(build::<S>)))
}

/// At the end of an event: text printed without a line's end would stay in the buffer of the standard library, and begin the output of
/// a later event.
struct EndOutput;

impl Drop for EndOutput {
    fn drop(&mut self) {
        // The host refuses no output.
        _ = stdout().flush();
    }
}

/// Hands the event to the room, if this instance is one, and to the app otherwise.
fn with_room<S: Serve, E, T>(
    event: E,
    of_room: impl FnOnce(&mut dyn Live, &Cx, E) -> T,
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
    // Before the app is built: it may have a better one.
    panic::set_hook(Box::new(|panic| eprintln!("{}", OneLine(panic))));
    S::app()
}

/// A panic as the operator reads it: the host logs each line by itself, so there is only one.
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

impl<S: Serve> manifest::Guest for Served<S> {
    fn describe() -> manifest::App {
        with::<S, _>(|app| {
            let routes = app.routes.iter().map(|route| manifest::Route {
                methods: route.methods.clone(),
                pattern: route.pattern.clone(),
                target: match route.handler {
                    Answers::Http(_) | Answers::Room(_, RoomEvents::Requests) => Target::Http,
                    Answers::Stream(_) => Target::Stream,
                    Answers::Socket(_) | Answers::Room(_, RoomEvents::Sockets) => Target::Websocket,
                    Answers::Feed(_) | Answers::Room(_, RoomEvents::Feeds) => Target::Events,
                },
                room: route.handler.class().map(str::to_owned),
            });
            let guards = app.guards.iter().map(|guard| manifest::Guard {
                pattern: guard.pattern.clone(),
            });
            manifest::App {
                routes: routes.collect(),
                guards: guards.collect(),
            }
        })
    }
}

impl<S: Serve> guard_handler::Guest for Served<S> {
    fn check(guard: u32, request: types::Request) -> Verdict {
        match with::<S, _>(|app| app.check(guard, whole(request, Vec::new()))) {
            Ok(pass) => Verdict::Pass(Passed {
                headers: pass.headers,
                context: pass.context,
            }),
            Err(response) => Verdict::Answer(answer(response)),
        }
    }
}

impl<S: Serve> http_handler::Guest for Served<S> {
    fn handle(request: types::Request, body: Vec<u8>) -> types::Response {
        let request = whole(request, body);
        answer(with_room::<S, _, _>(
            request,
            |room, cx, request| room.request(cx, request),
            |app, request| app.handle(request),
        ))
    }
}

impl<S: Serve> websocket_handler::Guest for Served<S> {
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
            Some(close) => Decision::AcceptThenClose(close),
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

    fn on_close(connection: &Connection, info: websocket_handler::CloseInfo) {
        let websocket_handler::CloseInfo {
            code,
            reason,
            clean,
            by_peer,
        } = info;
        let info = CloseInfo {
            code,
            reason,
            clean,
            by_peer,
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

/// The socket route that the connection came by; none if this version of the app has it no more. Where there is one such route,
/// nobody has to be asked.
fn route_of(app: &App, connection: &Connection) -> Option<u32> {
    app.only_socket().or_else(|| connection.route())
}

impl<S: Serve> events_handler::Guest for Served<S> {
    fn on_subscribe(
        mut request: types::Request,
        last_event_id: Option<String>,
    ) -> Result<events_handler::Feed, types::Response> {
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
        let first = feed
            .first
            .into_iter()
            .map(|(data, event)| First { data, event });
        Ok(events_handler::Feed {
            topics: feed.topics,
            first: first.collect(),
        })
    }
}

impl<S: Serve> room_handler::Guest for Served<S> {
    fn wake(class: String, name: String) -> Result<(), String> {
        let room = with::<S, _>(|app| app.make_room(&class));
        let mut room =
            room.ok_or_else(|| format!("this app has no rooms of the class {class:?}"))?;
        let cx = Cx::new(class, name);
        let _end = EndOutput;
        room.wake(&cx)?;
        ROOM.set(Some((cx, room)));
        Ok(())
    }

    fn on_call(payload: Vec<u8>) -> Result<Vec<u8>, (u16, String)> {
        with_room::<S, _, _>(
            payload,
            |room, cx, payload| room.call(cx, payload),
            |_, _| panic!("a call outside of a room"),
        )
    }

    fn on_alarm(attempt: u32) {
        with_room::<S, _, _>(
            attempt,
            |room, cx, attempt| room.alarm(cx, attempt),
            |_, _| panic!("an alarm outside of a room"),
        );
    }
}

/// A run of a loader or an action, in an instance that it has to itself. Its output ends after it was dropped.
#[doc(hidden)]
pub struct Run<T>(RefCell<Running<T>>, EndOutput);

fn with_page<S: Serve, T>(page: u32, event: impl FnOnce(&Mounted) -> T) -> T {
    with::<S, _>(|app| {
        event(
            app.pages
                .get(page as usize)
                .expect("the host counts pages as they were described"),
        )
    })
}

impl<S: Serve> pages::Guest for Served<S> {
    type Loader = Run<()>;
    type Attempt = Run<Done>;

    fn describe() -> Vec<pages::Page> {
        with::<S, _>(|app| {
            let page = |page: &Mounted| pages::Page {
                pattern: page.pattern.clone(),
                loaders: page
                    .loaders
                    .iter()
                    .map(|it| pages::LoaderInfo {
                        name: it.name.into(),
                        live: it.live,
                        due: due(it.due),
                    })
                    .collect(),
                actions: page.actions.iter().map(ToString::to_string).collect(),
                fallback: page.fallback,
            };
            app.pages.iter().map(page).collect()
        })
    }

    fn load(page: u32, loader: String, request: types::Request) -> pages::Loader {
        let run = with_page::<S, _>(page, |page| page.load(loader, whole(request, Vec::new())));
        pages::Loader::new(Run(RefCell::new(run), EndOutput))
    }

    fn render(page: u32, request: types::Request, view: pages::View) -> pages::Shell {
        let first = view.first.into_iter().map(|(name, first)| {
            let first = match first {
                pages::First::Value(json) => Initial::Value(json),
                pages::First::Failed(problem) => Initial::Failed(problem.status, problem.message),
                pages::First::Pending => Initial::Pending,
            };
            (name, first)
        });
        let denied = view.denied.map(|(action, denial)| {
            let pages::Denial {
                status,
                message,
                errors,
                values,
            } = denial;
            (
                action,
                Done::Deny(Denied {
                    status,
                    message,
                    errors,
                    values,
                }),
            )
        });
        let view = View {
            first: first.collect(),
            nonce: view.nonce,
            denied,
        };
        let Response {
            status,
            headers,
            body,
        } = with_page::<S, _>(page, |page| page.render(&whole(request, Vec::new()), &view));
        let html = String::from_utf8(body)
            .unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned());
        pages::Shell {
            status,
            headers,
            html,
        }
    }

    fn act(
        page: u32,
        action: String,
        request: types::Request,
        form: forms::Form,
    ) -> pages::Attempt {
        let run = with_page::<S, _>(page, |page| {
            page.act(action, whole(request, Vec::new()), Form(form))
        });
        pages::Attempt::new(Run(RefCell::new(run), EndOutput))
    }
}

impl pages::GuestLoader for Run<()> {
    fn next(&self) -> Result<pages::Step, pages::Problem> {
        let _end = EndOutput;
        let mut run = self.0.borrow_mut();
        match run.next() {
            Progress::Value(json) => Ok(pages::Step::Value(json)),
            Progress::Later(wait) => Ok(pages::Step::Later(millis(wait))),
            Progress::Ended(Ok(())) => Ok(pages::Step::End),
            Progress::Ended(Err(error)) => Err(problem(run.told(error))),
        }
    }
}

impl pages::GuestAttempt for Run<Done> {
    fn next(&self) -> pages::Update {
        let _end = EndOutput;
        let mut run = self.0.borrow_mut();
        let done = match run.next() {
            Progress::Value(json) => return pages::Update::Progress(json),
            Progress::Later(wait) => return pages::Update::Later(millis(wait)),
            Progress::Ended(Ok(done)) => done,
            Progress::Ended(Err(error)) => {
                return pages::Update::Done(Err(problem(run.told(error))));
            }
        };
        pages::Update::Done(Ok(match done {
            Done::Success(value, stale) => pages::Outcome::Success((value, stale)),
            Done::Redirect(status, location) => pages::Outcome::Redirect((status, location)),
            Done::Deny(Denied {
                status,
                message,
                errors,
                values,
            }) => pages::Outcome::Deny(pages::Denial {
                status,
                message,
                errors,
                values,
            }),
        }))
    }
}

fn due(due: Due) -> pages::Due {
    match due {
        Due::Soon => pages::Due::Soon,
        Due::Awaited => pages::Due::Awaited,
        Due::Deferred => pages::Due::Deferred,
    }
}

/// Not a moment too early: the timer would not be ready yet.
fn millis(wait: Duration) -> u32 {
    wait.as_nanos()
        .div_ceil(1_000_000)
        .try_into()
        .unwrap_or(u32::MAX)
}

fn problem((status, message): (u16, String)) -> pages::Problem {
    pages::Problem { status, message }
}

impl<S: Serve> incoming_handler::Guest for Served<S> {
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

fn whole(request: types::Request, body: Vec<u8>) -> Request {
    let types::Request {
        method,
        scheme,
        authority,
        path,
        headers,
        params,
        peer,
        route,
        context,
    } = request;
    Request {
        head: Head {
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
