//! What an app asks the host to mount (WIT `manifest`), and which handlers its component exports.

use std::fmt;

/// An app's routes and guards, as it described them: not yet checked.
///
/// ```
/// use tidegate_hub::{Exports, Manifest, Route, Table, Target};
/// let manifest = Manifest { routes: vec![Route::new("GET", "/users/{id}", Target::Http)], guards: vec![] };
/// assert!(Table::new(&manifest, Exports::ALL).is_ok());
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Manifest {
    /// In the order of the app; requests name them by index.
    pub routes: Vec<Route>,
    /// In the order in which they run.
    pub guards: Vec<Guard>,
}

impl Manifest {
    /// The route that answers what that one does, of this version or another.
    pub fn successor(&self, route: &Route) -> Option<u32> {
        self.routes.iter().position(|own| own.succeeds(route)).map(|index| index as u32)
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
        let methods = if method.is_empty() { vec![] } else { vec![method.to_owned()] };
        Route { methods, pattern: pattern.to_owned(), target, room: None }
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

/// Who answers a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Target {
    /// `http-handler`: bounded bodies, one plain call.
    Http,
    /// `wasi:http`: bodies streamed both ways.
    Stream,
    /// `websocket-handler`.
    WebSocket,
    /// `events-handler`: a feed that the host holds.
    Events,
}

impl Target {
    /// The interface that a component has to export for this target.
    pub fn interface(self) -> &'static str {
        match self {
            Target::Http => "tidegate:app/http-handler",
            Target::Stream => "wasi:http/incoming-handler",
            Target::WebSocket => "tidegate:app/websocket-handler",
            Target::Events => "tidegate:app/events-handler",
        }
    }
}

/// What a request asks for, as its headers tell: routes that answer different ones may have the same path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum AskedFor {
    /// Nothing in particular.
    Other,
    /// `Accept: text/event-stream`.
    Events,
    /// `Upgrade: websocket`.
    WebSocket,
}

impl Target {
    /// What it answers best.
    pub fn asked_for(self) -> AskedFor {
        match self {
            Target::WebSocket => AskedFor::WebSocket,
            Target::Events => AskedFor::Events,
            Target::Http | Target::Stream => AskedFor::Other,
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Target::Http => "http",
            Target::Stream => "stream",
            Target::WebSocket => "websocket",
            Target::Events => "events",
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
    /// `events-handler`
    pub events: bool,
    /// `room-handler`
    pub room: bool,
}

impl Exports {
    /// Every handler.
    pub const ALL: Exports = Exports { guard: true, http: true, stream: true, websocket: true, events: true, room: true };

    /// Whether there is a handler for this target.
    pub fn has(&self, target: Target) -> bool {
        match target {
            Target::Http => self.http,
            Target::Stream => self.stream,
            Target::WebSocket => self.websocket,
            Target::Events => self.events,
        }
    }
}
