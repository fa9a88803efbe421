//! The app: its routes and guards, and the dispatch of events to their handlers.

use crate::{
    Accept, CloseEvent, Conn, Error, Feed, IntoResponse, Message, Outcome, Page, Pass, Request,
    Response, Result, Room, Socket, Upgrade,
    feed::{self, IntoFeed, RunFeed},
    guard::{IntoPass, RunGuard},
    page::PageEntry,
    room::{Class, DynRoom},
    socket::DynSocket,
    stream::{self, RunStream, StreamHandler},
    task, world,
};
use std::fmt;
use tidegate_routing::{Guard, Manifest, Path, Pattern, Route, Segment, Target};

/// Routes, guards, pages and rooms. Each instance builds its app with a function without arguments.
///
/// Values that a handler captures belong to one instance. Each event may run in another instance,
/// and a panic ends an instance: keep lasting state with a connection ([`Conn::set_state`]), in a
/// [room](Room), or in a service outside.
///
/// A pattern is made of literal segments, `{parameters}` and perhaps a last `{*rest}`; the most
/// literal route answers. The host refuses an app with a pattern that covers every path or one that
/// begins with `__`, or with two routes that it can't tell apart; [`testing`](crate::testing) does
/// too.
///
/// # Examples
///
/// ```
/// use tidegate::{prelude::*, testing};
///
/// fn app() -> App {
///     App::new()
///         .get("/", async |_| "hello")
///         .get("/users/{id}", async |req: Request| Ok::<_, Error>(format!("user {}", req.param::<u64>("id")?)))
///         .put("/files/{*path}", async |req: Request| req.param::<String>("path"))
///         .socket("/echo", async |conn: Conn, msg| conn.send(msg))
///         .feed("/feed", |_| Feed::follow("news").first("welcome"))
/// }
///
/// let mut server = testing::serve(app());
/// assert_eq!(server.get("/users/7").text(), "user 7");
/// assert_eq!(server.request("PUT", "/files/a/b", &[], b"").text(), "a/b");
/// assert_eq!(server.get("/files/a").status(), 405);
/// ```
#[derive(Default)]
pub struct App {
    routes: Vec<RouteEntry>,
    guards: Vec<GuardEntry>,
    pages: Vec<PageEntry>,
    classes: Vec<Class>,
}

/// A route of the manifest, and its handler.
struct RouteEntry {
    declared: Route,
    handler: RouteHandler,
}

/// A guard of the manifest, and its handler.
struct GuardEntry {
    declared: Guard,
    handler: RunGuard,
}

/// The handler of a route.
enum RouteHandler {
    Http(Box<dyn Fn(Request) -> Result<Response>>),
    Stream(RunStream),
    Socket(Box<dyn DynSocket>),
    Feed(RunFeed),
    /// The room of this class that the parameters name.
    Room(String, RoomEvents),
}

/// Kind of a room's events on a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum RoomEvents {
    Sockets,
    Feeds,
    Requests,
}

/// A handler of requests, or a guard: an async closure or function.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a request handler",
    label = "neither an `async` closure nor an `async fn` of one `Request`",
    note = "write `async |req: Request| ...`, or give the name of an `async fn(Request) -> ...`"
)]
pub trait Handler<R>: AsyncFn(Request) -> R {}

#[diagnostic::do_not_recommend]
impl<F, R> Handler<R> for F where F: AsyncFn(Request) -> R {}

impl App {
    /// Creates an app without routes.
    pub fn new() -> App {
        App::default()
    }

    /// Answers GET and HEAD.
    pub fn get<R: IntoResponse>(self, pattern: &str, handler: impl Handler<R> + 'static) -> App {
        self.route(&["GET"], pattern, handler)
    }

    /// Answers POST.
    pub fn post<R: IntoResponse>(self, pattern: &str, handler: impl Handler<R> + 'static) -> App {
        self.route(&["POST"], pattern, handler)
    }

    /// Answers PUT.
    pub fn put<R: IntoResponse>(self, pattern: &str, handler: impl Handler<R> + 'static) -> App {
        self.route(&["PUT"], pattern, handler)
    }

    /// Answers PATCH.
    pub fn patch<R: IntoResponse>(self, pattern: &str, handler: impl Handler<R> + 'static) -> App {
        self.route(&["PATCH"], pattern, handler)
    }

    /// Answers DELETE.
    pub fn delete<R: IntoResponse>(self, pattern: &str, handler: impl Handler<R> + 'static) -> App {
        self.route(&["DELETE"], pattern, handler)
    }

    /// Answers these methods, in upper case, or any method if the list is empty.
    pub fn route<R: IntoResponse>(
        self,
        methods: &[&str],
        pattern: &str,
        handler: impl Handler<R> + 'static,
    ) -> App {
        let handler = move |request| task::run(handler(request)).into_response();
        self.add(methods, pattern, RouteHandler::Http(Box::new(handler)))
    }

    /// Opens WebSockets, with a closure for messages or a [`Socket`].
    pub fn socket(self, pattern: &str, socket: impl Socket + 'static) -> App {
        self.add(&["GET"], pattern, RouteHandler::Socket(Box::new(socket)))
    }

    /// Opens feeds: event streams that the host holds.
    pub fn feed<R, When>(self, pattern: &str, handler: impl Fn(Request) -> R + 'static) -> App
    where
        R: IntoFeed<When>,
    {
        self.add(
            &["GET"],
            pattern,
            RouteHandler::Feed(feed::handler(handler)),
        )
    }

    /// Answers GET piece by piece: with an event stream, or with an answer that is too large or
    /// takes too long for [`get`](App::get).
    pub fn stream<R: Outcome>(
        self,
        pattern: &str,
        handler: impl StreamHandler<R> + 'static,
    ) -> App {
        self.stream_on("GET", pattern, handler)
    }

    /// Answers this method, in upper case, piece by piece; any method if it is empty.
    pub fn stream_on<R: Outcome>(
        self,
        method: &str,
        pattern: &str,
        handler: impl StreamHandler<R> + 'static,
    ) -> App {
        let methods: &[&str] = if method.is_empty() { &[] } else { &[method] };
        self.add(
            methods,
            pattern,
            RouteHandler::Stream(stream::handler(handler)),
        )
    }

    /// Opens rooms: WebSockets, feeds and other requests of this path go to the one room that its
    /// parameters name (see [`Cx::name`](crate::Cx::name)). Several patterns may lead to the rooms
    /// of one type. Panics if another type has the same [class](Room::class): their rooms would
    /// share their storage.
    pub fn room<R: Room>(mut self, pattern: &str) -> App {
        let class = Class::of::<R>();
        let name = class.name.clone();
        match self.classes.iter().find(|known| known.name == name) {
            Some(known) => assert!(
                known.of == class.of,
                "two types of rooms have the class {name:?}: write `Room::class` for one of them"
            ),
            None => self.classes.push(class),
        }
        let routes: [(&[&str], _); 3] = [
            (&["GET"], RoomEvents::Sockets),
            (&["GET"], RoomEvents::Feeds),
            (&[], RoomEvents::Requests),
        ];
        routes.into_iter().fold(self, |app, (methods, events)| {
            app.add(methods, pattern, RouteHandler::Room(name.clone(), events))
        })
    }

    /// Answers GET with a page, and POST with its actions. See [`Page`].
    pub fn page(mut self, pattern: &str, page: Page) -> App {
        self.pages.push(PageEntry::new(pattern, page, false));
        self
    }

    /// Sets the page for every path without any other answer, except "/". An app has at most one.
    pub fn fallback(mut self, page: Page) -> App {
        self.pages.push(PageEntry::new("/{*rest}", page, true));
        self
    }

    /// Adds a guard, which runs before every route that the pattern covers, including reserved
    /// paths. A guard's pattern may end in `/*`: that path and all below it. Guards run in the
    /// order of the app.
    pub fn guard<R: IntoPass>(mut self, pattern: &str, handler: impl Handler<R> + 'static) -> App {
        let handler = move |request| task::run(handler(request)).into_pass();
        let pattern = pattern.to_owned();
        self.guards.push(GuardEntry {
            declared: Guard { pattern },
            handler: Box::new(handler),
        });
        self
    }

    fn add(mut self, methods: &[&str], pattern: &str, handler: RouteHandler) -> App {
        let declared = Route {
            methods: methods.iter().copied().map(str::to_owned).collect(),
            pattern: pattern.to_owned(),
            target: handler.target(),
            room: handler.class().map(str::to_owned),
        };
        self.routes.push(RouteEntry { declared, handler });
        self
    }
}

/// Dispatch of events. The host counts routes, guards and pages in the order of the manifest.
impl App {
    /// Returns the declaration of the app for the host.
    pub(crate) fn manifest(&self) -> Manifest {
        let routes = self.routes.iter().map(|route| route.declared.clone());
        let guards = self.guards.iter().map(|guard| guard.declared.clone());
        let pages = self.pages.iter().map(|page| page.declared.clone());
        Manifest {
            routes: routes.collect(),
            guards: guards.collect(),
            pages: pages.collect(),
        }
    }

    /// Returns the page of this index.
    pub(crate) fn page_at(&self, index: u32) -> &PageEntry {
        self.pages
            .get(index as usize)
            .expect("the host counts pages in the order of the manifest")
    }

    pub(crate) fn check(&self, guard: u32, request: Request) -> Result<Pass, Response> {
        let Some(guard) = self.guards.get(guard as usize) else {
            return Err(no_route());
        };
        (guard.handler)(request)
            .map_err(|error| error.answer(format_args!("guard {}", guard.declared.pattern)))
    }

    pub(crate) fn handle(&self, request: Request) -> Response {
        match self.route_of(request.head.route) {
            Some((route, RouteHandler::Http(handler))) => {
                handler(request).unwrap_or_else(|error| error.answer(format_args!("{route}")))
            }
            _ => no_route(),
        }
    }

    pub(crate) fn stream_to(&self, request: Request, outgoing: world::Outgoing) {
        let missing: RunStream = Box::new(|_, _| Err(no_route().into()));
        match self.route_of(request.head.route) {
            Some((route, RouteHandler::Stream(handler))) => {
                stream::answer(handler, request, outgoing, format_args!("{route}"))
            }
            _ => stream::answer(&missing, request, outgoing, format_args!("")),
        }
    }

    pub(crate) fn upgrade(&self, upgrade: Upgrade) -> Result<Accept, Response> {
        match self.route_of(upgrade.head.route) {
            Some((route, RouteHandler::Socket(socket))) => {
                socket.upgrade(upgrade, format_args!("{route}"))
            }
            _ => Err(no_route()),
        }
    }

    pub(crate) fn open(&self, conn: &Conn, request: Request) {
        if let Some((route, RouteHandler::Socket(socket))) = self.route_of(request.head.route) {
            socket.open(conn, request, format_args!("{route}"));
        }
    }

    pub(crate) fn messages(
        &self,
        route: u32,
        conn: &Conn,
        messages: &mut dyn Iterator<Item = Message>,
    ) {
        if let Some((route, RouteHandler::Socket(socket))) = self.route_of(route) {
            socket.messages(conn, messages, format_args!("{route}"));
        }
    }

    pub(crate) fn close(&self, route: u32, conn: &Conn, info: CloseEvent) {
        if let Some((route, RouteHandler::Socket(socket))) = self.route_of(route) {
            socket.close(conn, info, format_args!("{route}"));
        }
    }

    pub(crate) fn subscribe(&self, request: Request) -> Result<Feed, Response> {
        match self.route_of(request.head.route) {
            Some((route, RouteHandler::Feed(handler))) => {
                handler(request).map_err(|error| error.answer(format_args!("{route}")))
            }
            _ => Err(no_route()),
        }
    }

    /// Returns the stream route of a `wasi:http` request, which does not carry the host's route.
    /// The result is the route that the host's router finds, and the parameters.
    pub(crate) fn find_stream(
        &self,
        method: &str,
        path: &str,
    ) -> Option<(u32, Vec<(String, String)>)> {
        let path = Path::parse(path).ok()?;
        let streams = self
            .routes
            .iter()
            .zip(0..)
            .filter(|(route, _)| matches!(route.handler, RouteHandler::Stream(_)));
        let matches = streams.filter_map(|(route, index)| {
            let by_method = route.rank(method)?;
            let (literalness, params) =
                hold(&Pattern::parse(&route.declared.pattern).ok()?, &path)?;
            Some(((literalness, by_method), index, params))
        });
        let (_, index, params) = matches.min_by(|(one, ..), (other, ..)| one.cmp(other))?;
        Some((index, params))
    }

    /// Creates a room of this class, which is not yet awake.
    pub(crate) fn make_room(&self, class: &str) -> Option<Box<dyn DynRoom>> {
        self.classes
            .iter()
            .find(|known| known.name == class)
            .map(|class| (class.make)())
    }

    /// Returns the socket route if there is exactly one. Routes of rooms do not count.
    #[cfg(target_family = "wasm")]
    pub(crate) fn only_socket(&self) -> Option<u32> {
        let mut sockets = (0..)
            .zip(&self.routes)
            .filter(|(_, route)| matches!(route.handler, RouteHandler::Socket(_)));
        match (sockets.next(), sockets.next()) {
            (Some((only, _)), None) => Some(only),
            _ => None,
        }
    }

    fn route_of(&self, index: u32) -> Option<(&RouteEntry, &RouteHandler)> {
        let route = self.routes.get(index as usize)?;
        Some((route, &route.handler))
    }
}

impl RouteHandler {
    /// Returns the target that the route declares.
    fn target(&self) -> Target {
        match self {
            RouteHandler::Http(_) | RouteHandler::Room(_, RoomEvents::Requests) => Target::Http,
            RouteHandler::Stream(_) => Target::Stream,
            RouteHandler::Socket(_) | RouteHandler::Room(_, RoomEvents::Sockets) => {
                Target::WebSocket
            }
            RouteHandler::Feed(_) | RouteHandler::Room(_, RoomEvents::Feeds) => Target::Feed,
        }
    }

    /// Returns the class if the events belong to rooms.
    fn class(&self) -> Option<&str> {
        match self {
            RouteHandler::Room(class, _) => Some(class),
            _ => None,
        }
    }
}

impl RouteEntry {
    /// Returns the rank of the route for the method; a lower rank fits better.
    fn rank(&self, method: &str) -> Option<u8> {
        let methods = &self.declared.methods;
        let has = |method: &str| methods.iter().any(|own| own == method);
        match methods.is_empty() {
            true => Some(2),
            false if has(method) => Some(0),
            false => (method == "HEAD" && has("GET")).then_some(1),
        }
    }
}

/// "GET /users/{id}", for the operator.
impl fmt::Display for RouteEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Route {
            methods, pattern, ..
        } = &self.declared;
        match methods.as_slice() {
            [] => write!(f, "any {pattern}"),
            methods => write!(f, "{} {pattern}", methods.join(",")),
        }
    }
}

/// Names and values of parameters.
type Params = Vec<(String, String)>;

/// Matches a path with a pattern. Returns a rank for each segment, a literal before a parameter
/// before a rest, and the parameters' values.
fn hold(pattern: &Pattern, path: &Path<'_>) -> Option<(Vec<u8>, Params)> {
    let (mut ranks, mut params) = (Vec::new(), Vec::new());
    let mut given = path.segments();
    for segment in pattern.segments() {
        let (first, behind) = given.split_first()?;
        given = behind;
        let (rank, param) = match segment {
            Segment::Literal(literal) if literal == first => (0, None),
            Segment::Literal(_) => return None,
            Segment::Parameter(name) => (1, Some((name.clone(), first.to_string()))),
            Segment::Rest(name) => {
                let rest = std::iter::once(first)
                    .chain(std::mem::take(&mut given))
                    .map(|segment| &**segment);
                (2, Some((name.clone(), rest.collect::<Vec<_>>().join("/"))))
            }
        };
        ranks.push(rank);
        params.extend(param);
    }
    given.is_empty().then_some((ranks, params))
}

/// Returns the answer to a route that the manifest does not have: the host has another version of
/// the app.
fn no_route() -> Response {
    Error::fault("the host asked for a route that this app doesn't have")
        .answer(format_args!("tidegate"))
}
