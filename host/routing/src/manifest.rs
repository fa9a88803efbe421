//! The routes, guards and pages that an app asks the host to mount (WIT `manifest`), and the
//! handlers that its component exports.

use std::fmt;

/// An app's routes, guards and pages, as it described them. They are not checked yet.
///
/// ```
/// use tidegate_routing::{Exports, Manifest, Route, Router, Target};
/// let manifest = Manifest { routes: vec![Route::new("GET", "/users/{id}", Target::Http)], guards: vec![], pages: vec![] };
/// assert!(Router::new(&manifest, Exports::ALL).is_ok());
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Manifest {
    /// Routes in the order of the app. Requests name them by index.
    pub routes: Vec<Route>,
    /// Guards in the order in which they run.
    pub guards: Vec<Guard>,
    /// Pages in the order of the app, with indices of their own.
    pub pages: Vec<Page>,
}

impl Manifest {
    /// Returns the index of the route that answers the requests of `route`, which may be of another
    /// version.
    pub fn successor(&self, route: &Route) -> Option<u32> {
        self.routes
            .iter()
            .position(|own| own.succeeds(route))
            .map(|index| index as u32)
    }

    /// Returns the pattern for an index in a request: that of a route, or of a page after all
    /// routes.
    pub fn pattern(&self, index: u32) -> Option<&str> {
        let (index, routes) = (index as usize, self.routes.len());
        match self.routes.get(index) {
            Some(route) => Some(&route.pattern),
            None => self
                .pages
                .get(index - routes)
                .map(|page| page.pattern.as_str()),
        }
    }

    /// Returns true if any route belongs to a room.
    pub fn has_rooms(&self) -> bool {
        self.routes.iter().any(|route| route.room.is_some())
    }
}

/// A route: its methods, its pattern and its target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// Methods in upper case; empty for any method.
    pub methods: Vec<String>,
    /// Pattern, such as "/users/{id}" or "/files/{*rest}".
    pub pattern: String,
    /// Handler of the route.
    pub target: Target,
    /// Room class: events go to the room that class and parameters name.
    pub room: Option<String>,
}

impl Route {
    /// Returns a route for one method, or for any if `method` is empty.
    pub fn new(method: &str, pattern: &str, target: Target) -> Route {
        let methods = if method.is_empty() {
            vec![]
        } else {
            vec![method.to_owned()]
        };
        Route {
            methods,
            pattern: pattern.to_owned(),
            target,
            room: None,
        }
    }

    /// Returns true if it answers the requests of `other`, a route of another version of the app:
    /// pattern, target and room class are the same.
    pub fn succeeds(&self, other: &Route) -> bool {
        (&self.pattern, self.target, &self.room) == (&other.pattern, other.target, &other.room)
    }
}

/// App code that runs before the routes that it covers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Guard {
    /// Pattern as that of a route, or "/private/*".
    pub pattern: String,
}

/// HTML with which the host answers GET, and the forms of a page, which come by POST (WIT
/// `pages.page`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// Pattern as that of a route.
    pub pattern: String,
    /// Loaders of its values.
    pub loaders: Vec<LoaderInfo>,
    /// Names of its actions.
    pub actions: Vec<String>,
    /// True if it answers the paths that no route matches.
    pub is_fallback: bool,
}

impl Page {
    /// Returns the route that leads to it.
    pub fn route(&self) -> Route {
        let methods: &[&str] = if self.actions.is_empty() {
            &["GET"]
        } else {
            &["GET", "POST"]
        };
        let methods = methods.iter().copied().map(str::to_owned).collect();
        Route {
            methods,
            ..Route::new("", &self.pattern, Target::Page)
        }
    }

    /// Returns its loader of this name.
    pub fn loader(&self, name: &str) -> Option<&LoaderInfo> {
        self.loaders.iter().find(|loader| loader.name == name)
    }
}

/// A source of values for a page (WIT `pages.loader-info`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LoaderInfo {
    /// Name in the page.
    pub name: String,
    /// True if it has no deadline.
    pub is_live: bool,
    /// Time of its first value.
    pub first_value: FirstValue,
}

impl LoaderInfo {
    pub(crate) fn name(&self) -> &str {
        &self.name
    }
}

/// How long the shell of a page waits for a loader's first value (WIT `pages.due`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FirstValue {
    /// The shell waits for the setting `first_within`, and only if the loader can have a value by
    /// then.
    #[default]
    Soon,
    /// The shell waits for as long as the loader may take.
    Awaited,
    /// The shell does not wait: the loader begins after the shell.
    Deferred,
}

impl fmt::Display for FirstValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            FirstValue::Soon => "soon",
            FirstValue::Awaited => "awaited",
            FirstValue::Deferred => "deferred",
        })
    }
}

/// Handler of a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Target {
    /// `http-handler`: bounded bodies, one plain call.
    Http,
    /// `wasi:http`: bodies streamed both ways.
    Stream,
    /// `websocket-handler`.
    WebSocket,
    /// `feed-handler`: a feed that the host holds.
    Feed,
    /// `pages`: HTML and forms.
    Page,
}

impl Target {
    /// Returns the interface that a component has to export for this target.
    pub fn interface(self) -> &'static str {
        match self {
            Target::Http => "tidegate:app/http-handler",
            Target::Stream => "wasi:http/incoming-handler",
            Target::WebSocket => "tidegate:app/websocket-handler",
            Target::Feed => "tidegate:app/feed-handler",
            Target::Page => "tidegate:app/pages",
        }
    }
}

/// Kind of response that a request asks for by its headers. Routes for different kinds may have the
/// same path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Wants {
    /// No special kind.
    Other,
    /// `Accept: text/event-stream`.
    Events,
    /// `Upgrade: websocket`.
    WebSocket,
}

impl Target {
    /// Returns the kind of response that the target serves best.
    pub fn wants(self) -> Wants {
        match self {
            Target::WebSocket => Wants::WebSocket,
            Target::Feed => Wants::Events,
            Target::Http | Target::Stream | Target::Page => Wants::Other,
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Target::Http => "http",
            Target::Stream => "stream",
            Target::WebSocket => "websocket",
            Target::Feed => "feed",
            Target::Page => "page",
        })
    }
}

/// Handlers that a component exports.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Exports {
    /// `guard-handler`
    pub guard: bool,
    /// `http-handler`
    pub http: bool,
    /// `wasi:http/incoming-handler@0.2` or `wasi:http/handler@0.3`
    pub stream: bool,
    /// `websocket-handler`
    pub websocket: bool,
    /// `feed-handler`
    pub feed: bool,
    /// `room-handler`
    pub room: bool,
    /// `pages`
    pub pages: bool,
}

impl Exports {
    /// Exports of every handler.
    pub const ALL: Exports = Exports {
        guard: true,
        http: true,
        stream: true,
        websocket: true,
        feed: true,
        room: true,
        pages: true,
    };

    /// Returns true if there is a handler for this target.
    pub fn has(&self, target: Target) -> bool {
        match target {
            Target::Http => self.http,
            Target::Stream => self.stream,
            Target::WebSocket => self.websocket,
            Target::Feed => self.feed,
            Target::Page => self.pages,
        }
    }
}
