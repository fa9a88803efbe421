//! What an app asks the host to mount (WIT `manifest`), and which handlers its component exports.

use std::fmt;

/// An app's routes and guards, as it described them: not yet checked.
///
/// ```
/// use tidegate_routing::{Exports, Manifest, Route, Router, Target};
/// let manifest = Manifest { routes: vec![Route::new("GET", "/users/{id}", Target::Http)], guards: vec![], pages: vec![] };
/// assert!(Router::new(&manifest, Exports::ALL).is_ok());
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Manifest {
    /// In the order of the app; requests name them by index.
    pub routes: Vec<Route>,
    /// In the order in which they run.
    pub guards: Vec<Guard>,
    /// In the order of the app, which counts them on their own.
    pub pages: Vec<Page>,
}

impl Manifest {
    /// The route that answers what that one does, of this version or another.
    pub fn successor(&self, route: &Route) -> Option<u32> {
        self.routes
            .iter()
            .position(|own| own.succeeds(route))
            .map(|index| index as u32)
    }

    /// The pattern of what requests name by this index: a route, or a page behind all routes.
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

    /// Whether any route is of a room.
    pub fn has_rooms(&self) -> bool {
        self.routes.iter().any(|route| route.room.is_some())
    }
}

/// Methods, pattern and who answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// Upper-case; empty for any.
    pub methods: Vec<String>,
    /// "/users/{id}", "/files/{*rest}"
    pub pattern: String,
    /// Who answers.
    pub target: Target,
    /// A room class: events go to the one room that class and parameters name.
    pub room: Option<String>,
}

impl Route {
    /// A route for one method, or for any if `method` is empty.
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

    /// Whether it answers what the other one does, in another version of the app: by the same pattern, with the same target and room class.
    pub fn succeeds(&self, other: &Route) -> bool {
        (&self.pattern, self.target, &self.room) == (&other.pattern, other.target, &other.room)
    }
}

/// App code that runs before the routes it covers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Guard {
    /// As a route's, or "/private/*".
    pub pattern: String,
}

/// HTML that the host answers GET with, and forms that it answers POST with (WIT `pages.page`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// As a route's.
    pub pattern: String,
    /// What brings its values.
    pub loaders: Vec<LoaderInfo>,
    /// What its forms do, by name.
    pub actions: Vec<String>,
    /// Whether it answers what nothing else does.
    pub is_fallback: bool,
}

impl Page {
    /// The route that leads to it.
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

    /// Its loader of this name.
    pub fn loader(&self, name: &str) -> Option<&LoaderInfo> {
        self.loaders.iter().find(|loader| loader.name == name)
    }
}

/// What brings values to a page (WIT `pages.loader-info`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LoaderInfo {
    /// Of its page's own.
    pub name: String,
    /// Whether it has no deadline.
    pub is_live: bool,
    /// When its first value is.
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
    /// For the setting `first_within`, and only if the loader can have one by then.
    #[default]
    Soon,
    /// For as long as the loader may take.
    Awaited,
    /// Not at all: it begins behind the shell.
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

/// Who answers a route.
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
    /// The interface that a component has to export for this target.
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

/// What a request asks for, as its headers tell: routes that answer different ones may have the same path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Wants {
    /// Nothing in particular.
    Other,
    /// `Accept: text/event-stream`.
    Events,
    /// `Upgrade: websocket`.
    WebSocket,
}

impl Target {
    /// What it answers best.
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

/// Which handlers a component exports.
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
    /// Every handler.
    pub const ALL: Exports = Exports {
        guard: true,
        http: true,
        stream: true,
        websocket: true,
        feed: true,
        room: true,
        pages: true,
    };

    /// Whether there is a handler for this target.
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
