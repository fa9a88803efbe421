//! The order in which the host handles a request. It exists only here.
//!
//! [`Dispatch`] is a state machine without I/O. It owns the order and the result of routing; its
//! driver owns the request. The driver asks for one step after another, carries it out, and ends
//! the exchange with the first step that gives a response. Three drivers use it: the exchange of
//! the edge, `POST /__loaders`, and the SDK's `testing`.
//!
//! It has two phases. Steps of [`admit`](Dispatch::admit) come first: host endpoint, `/__loaders`,
//! and the checks of handshake and origin. No guest code and no file is reached before they are
//! over. Steps of [`next`](Dispatch::next) follow: guards, files, then the route or page. Without
//! a route the fallback file is tried; then the request is refused with 405 or 404.
//!
//! Invariant: every guard that covers the path has passed before a file is opened or a route
//! runs. For a loader the path is that of its page, which the router has led back to this page,
//! so a client cannot choose guards by the URL that it names.
//!
//! The machine knows no HTTP version, headers or bodies: the driver reads the handshake, compares
//! origins and calls the app. A step allocates nothing.

use crate::page::HandlerError;
use http::{StatusCode, uri::PathAndQuery};
use std::{collections::BTreeMap, mem};
use tidegate_routing::{AMBIGUOUS, Path, Pattern, RouteMatch, Router, Target, Wants};

/// Path at which clients ask for one loader of a page.
pub const LOADERS_PATH: &str = "/__loaders";

/// Methods that a file answers, and the host endpoints.
pub const FILE_METHODS: [&str; 2] = ["GET", "HEAD"];

/// The properties of a request and of its server on which the order depends.
#[derive(Clone, Copy, Debug)]
pub struct RequestFacts<'a> {
    /// Method, as the client sent it.
    pub method: &'a str,
    /// Path, in normal form.
    pub path: &'a Path<'a>,
    /// Kind of response that the client asks for.
    pub wants: Wants,
    /// True if the request names a host that the server serves.
    pub is_served: bool,
    /// True if the server has a directory of files.
    pub has_files: bool,
}

/// Order of handling of one request.
///
/// ```
/// use tidegate_hub::dispatch::{AdmissionStep, Dispatch, DispatchStep, RequestFacts};
/// use tidegate_routing::{Wants, Exports, Guard, Manifest, Path, Route, Router, Target};
///
/// let manifest = Manifest {
///     routes: vec![Route::new("GET", "/users/{id}", Target::Http)],
///     guards: vec![Guard { pattern: "/users/*".into() }],
///     pages: vec![],
/// };
/// let router = Router::new(&manifest, Exports::ALL).unwrap();
/// let path = Path::parse("/users/7").unwrap();
/// let mut dispatch = Dispatch::new(&router, RequestFacts {
///     method: "GET",
///     path: &path,
///     wants: Wants::Other,
///     is_served: true,
///     has_files: false,
/// });
/// assert_eq!(dispatch.admit(), AdmissionStep::Admitted);
/// assert_eq!(dispatch.next(), DispatchStep::Guard(0));
/// let DispatchStep::Respond(destination) = dispatch.next() else { panic!() };
/// assert_eq!((destination.route, destination.params), (0, vec![("id".into(), "7".into())]));
/// ```
pub struct Dispatch<'a> {
    router: &'a Router,
    facts: RequestFacts<'a>,
    /// The path of the loaders, if `facts.path` is that of a page whose loader is asked for.
    loaders_path: Option<&'a Path<'a>>,
    state: DispatchState,
    found: RouteMatch,
    has_file: bool,
}

/// Position in the order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum DispatchState {
    Entered,
    /// The origin of a request to `/__loaders` has been checked.
    LoadersAdmitted,
    /// The guards before this index have passed.
    Guards(u32),
    Files,
    Destination,
    FallbackFile,
    FileLookup,
    Refused,
}

/// A step before any guest code and any file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AdmissionStep {
    /// Respond with this refusal.
    Refuse(HostRefusal),
    /// Respond as the host endpoint below `/__tidegate/`.
    HostEndpoint,
    /// Check that a page of this origin may send forms here. If so, ask for the next step.
    CheckFormOrigin,
    /// Read the opening handshake, and check that a page of this origin may open WebSockets here.
    /// If so, ask for the next step.
    CheckHandshake,
    /// Read which loader is asked for, and go on with [`Dispatch::of_loader`].
    Loaders,
    /// Go on with [`Dispatch::next`].
    Admitted,
}

/// A step of a request that was admitted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DispatchStep {
    /// Run the guard of this index. If it passes, ask for the next step.
    Guard(u32),
    /// Respond with the file of this path. If there is none, ask for the next step.
    File,
    /// Respond as this route or page does, or with the loader that was asked for.
    Respond(MatchedRoute),
    /// Respond with the file for paths that nothing else answers. If it is not for this request,
    /// ask for the next step.
    FallbackFile,
    /// Look whether there is a file of this path, call [`Dispatch::set_has_file`], and ask for the
    /// next step.
    LookForFile,
    /// Respond with this refusal.
    Refuse(HostRefusal),
}

/// A route, and the values of its parameters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MatchedRoute {
    /// Index of the route in the router.
    pub route: u32,
    /// Kind of the route.
    pub target: Target,
    /// Names and values of the parameters, in the order of the pattern.
    pub params: Vec<(String, String)>,
}

/// A response of the host that refuses a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HostRefusal {
    /// The request names a host that is not served (RFC 9110 section 15.5.20).
    Misdirected,
    /// An encoded slash or backslash stands where programs read the path in two ways.
    Ambiguous,
    /// Nothing has this path.
    NotFound,
    /// The path answers only these methods.
    MethodNotAllowed(Vec<String>),
}

impl HostRefusal {
    /// Returns the status.
    pub fn status(&self) -> StatusCode {
        match self {
            HostRefusal::Misdirected => StatusCode::MISDIRECTED_REQUEST,
            HostRefusal::Ambiguous => StatusCode::BAD_REQUEST,
            HostRefusal::NotFound => StatusCode::NOT_FOUND,
            HostRefusal::MethodNotAllowed(_) => StatusCode::METHOD_NOT_ALLOWED,
        }
    }

    /// Returns the text for the client.
    pub fn text(&self) -> String {
        match self {
            HostRefusal::Misdirected => {
                "this server does not serve the host that the request names".to_owned()
            }
            HostRefusal::Ambiguous => AMBIGUOUS.to_owned(),
            HostRefusal::NotFound => "nothing is here".to_owned(),
            HostRefusal::MethodNotAllowed(allow) => {
                format!("this path answers {}", allow.join(", "))
            }
        }
    }

    /// Returns the value of the header `Allow`, which a 405 must have (RFC 9110 section 15.5.6).
    pub fn allow(&self) -> Option<String> {
        match self {
            HostRefusal::MethodNotAllowed(allow) => Some(allow.join(", ")),
            _ => None,
        }
    }
}

impl<'a> Dispatch<'a> {
    /// Begins with a request.
    pub fn new(router: &'a Router, facts: RequestFacts<'a>) -> Dispatch<'a> {
        Dispatch {
            router,
            facts,
            loaders_path: None,
            state: DispatchState::Entered,
            found: RouteMatch::NotFound,
            has_file: false,
        }
    }

    /// Begins with a loader that a request to `loaders_path` asks for: guards cover that path, and
    /// the path of the page, as which `page_path` was parsed from `loader`. The request has been
    /// admitted.
    pub fn of_loader(
        router: &'a Router,
        page_path: &'a Path<'a>,
        loaders_path: &'a Path<'a>,
        loader: &LoaderTarget,
    ) -> Dispatch<'a> {
        let facts = RequestFacts {
            method: "GET",
            path: page_path,
            wants: Wants::Other,
            is_served: true,
            has_files: false,
        };
        Dispatch {
            loaders_path: Some(loaders_path),
            state: DispatchState::Guards(0),
            found: RouteMatch::Route {
                index: loader.route,
                target: Target::Page,
                params: loader.params.clone(),
            },
            ..Dispatch::new(router, facts)
        }
    }

    /// Returns the next step before guest code. After [`AdmissionStep::Admitted`] there is no
    /// other.
    pub fn admit(&mut self) -> AdmissionStep {
        match self.state {
            DispatchState::Entered => self.enter(),
            DispatchState::LoadersAdmitted => AdmissionStep::Loaders,
            _ => AdmissionStep::Admitted,
        }
    }

    fn enter(&mut self) -> AdmissionStep {
        let RequestFacts {
            method,
            path,
            wants,
            is_served,
            ..
        } = self.facts;
        if !is_served && !is_health(path) {
            return AdmissionStep::Refuse(HostRefusal::Misdirected);
        }
        if path.is_reserved() && path.has_separator() {
            return AdmissionStep::Refuse(HostRefusal::Ambiguous);
        }
        if path.is_host() {
            return AdmissionStep::HostEndpoint;
        }
        if is_loaders(path) && self.router.has_pages() {
            if method != "POST" {
                let allow = vec!["POST".to_owned()];
                return AdmissionStep::Refuse(HostRefusal::MethodNotAllowed(allow));
            }
            self.state = DispatchState::LoadersAdmitted;
            return AdmissionStep::CheckFormOrigin;
        }
        self.state = DispatchState::Guards(0);
        self.found = self.router.find(method, wants, path);
        match &self.found {
            RouteMatch::Ambiguous => AdmissionStep::Refuse(HostRefusal::Ambiguous),
            RouteMatch::Route {
                target: Target::WebSocket,
                ..
            } => AdmissionStep::CheckHandshake,
            RouteMatch::Route {
                target: Target::Page,
                ..
            } if method == "POST" => AdmissionStep::CheckFormOrigin,
            _ => AdmissionStep::Admitted,
        }
    }

    /// Returns the next step of a request that was admitted. The driver asks again only if the last
    /// step gave no response.
    #[expect(
        clippy::should_implement_trait,
        reason = "an iterator would end; the last step here is a refusal"
    )]
    pub fn next(&mut self) -> DispatchStep {
        loop {
            match self.state {
                DispatchState::Entered
                | DispatchState::LoadersAdmitted
                | DispatchState::Guards(_) => {
                    if let Some(guard) = self.next_guard() {
                        self.state = DispatchState::Guards(guard + 1);
                        return DispatchStep::Guard(guard);
                    }
                    self.state = DispatchState::Files;
                }
                DispatchState::Files => {
                    self.state = DispatchState::Destination;
                    if self.facts.has_files {
                        return DispatchStep::File;
                    }
                }
                DispatchState::Destination => match &mut self.found {
                    RouteMatch::Route {
                        index,
                        target,
                        params,
                    } => {
                        let destination = MatchedRoute {
                            route: *index,
                            target: *target,
                            params: mem::take(params),
                        };
                        self.state = DispatchState::Refused;
                        return DispatchStep::Respond(destination);
                    }
                    RouteMatch::MethodNotAllowed(_) => self.state = DispatchState::FileLookup,
                    RouteMatch::NotFound | RouteMatch::Ambiguous => {
                        self.state = DispatchState::FallbackFile
                    }
                },
                DispatchState::FallbackFile => {
                    self.state = DispatchState::FileLookup;
                    if self.facts.has_files {
                        return DispatchStep::FallbackFile;
                    }
                }
                DispatchState::FileLookup => {
                    self.state = DispatchState::Refused;
                    if self.facts.has_files {
                        return DispatchStep::LookForFile;
                    }
                }
                DispatchState::Refused => return DispatchStep::Refuse(self.refuse()),
            }
        }
    }

    fn next_guard(&self) -> Option<u32> {
        let from = match self.state {
            DispatchState::Guards(from) => from,
            _ => 0,
        };
        match self.loaders_path {
            None => self.router.next_guard(from, &[self.facts.path]),
            Some(own) => self.router.next_guard(from, &[self.facts.path, own]),
        }
    }

    /// Sets the answer to [`DispatchStep::LookForFile`].
    pub fn set_has_file(&mut self, has_file: bool) {
        self.has_file = has_file;
    }

    fn refuse(&mut self) -> HostRefusal {
        let mut allow = match &mut self.found {
            RouteMatch::MethodNotAllowed(allow) => mem::take(allow),
            _ => Vec::new(),
        };
        if self.has_file {
            for method in FILE_METHODS {
                if !allow.iter().any(|own| own == method) {
                    allow.push(method.to_owned());
                }
            }
        }
        if allow.is_empty() {
            HostRefusal::NotFound
        } else {
            HostRefusal::MethodNotAllowed(allow)
        }
    }

    /// Returns true if a guard covers the request: the response is for its client alone.
    pub fn is_guarded(&self) -> bool {
        self.router.next_guard(0, &[self.facts.path]).is_some()
    }

    /// Returns the pattern of the route that the request leads to, if there is one.
    pub fn pattern(&self) -> Option<&'a str> {
        match self.found {
            RouteMatch::Route { index, .. } => Some(&self.router.route(index)?.pattern),
            _ => None,
        }
    }
}

/// Returns true for `/__tidegate/health`, which answers for any host: a health check does not know
/// the server's names.
fn is_health(path: &Path<'_>) -> bool {
    path.is_host() && matches!(path.segments(), [_, endpoint] if endpoint == "health")
}

fn is_loaders(path: &Path<'_>) -> bool {
    matches!(path.segments(), [only] if only == &LOADERS_PATH[1..])
}

/// A loader as its client names it: by the page, never by a URL.
#[derive(Clone, Copy, Debug)]
pub struct LoaderName<'a> {
    /// Pattern of the page, as the app wrote it.
    pub page: &'a str,
    /// Name of the loader in the page.
    pub loader: &'a str,
    /// Value of each parameter of the pattern.
    pub params: &'a BTreeMap<String, String>,
    /// Query of the page, with or without its question mark.
    pub search: &'a str,
}

/// A loader that exists, with the request that its page would get.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoaderTarget {
    /// Index of the page's route in the router.
    pub route: u32,
    /// Path and query of the page with these parameters, in normal form.
    pub target: String,
    /// Names and values of the parameters, in the order of the pattern.
    pub params: Vec<(String, String)>,
}

impl LoaderTarget {
    /// Finds the loader. The path that the page's pattern makes with the parameters must lead back
    /// to the page; otherwise guards of another path would decide.
    pub fn find(router: &Router, name: LoaderName<'_>) -> Result<LoaderTarget, HandlerError> {
        let LoaderName {
            page,
            loader,
            params,
            search,
        } = name;
        let (route, page) = router
            .page_of(page)
            .ok_or_else(|| problem(StatusCode::NOT_FOUND, "there is no such page"))?;
        if page.loader(loader).is_none() {
            return Err(problem(
                StatusCode::NOT_FOUND,
                "the page has no such loader",
            ));
        }
        let pattern = router
            .pattern(route)
            .ok_or_else(|| problem(StatusCode::NOT_FOUND, "there is no such page"))?;
        let mut target =
            path_of(pattern, params).map_err(|why| problem(StatusCode::BAD_REQUEST, why))?;
        let query = search.trim_start_matches('?');
        if !query.is_empty() {
            target.push('?');
            target.push_str(query);
        }
        let target: PathAndQuery = target
            .parse()
            .map_err(|_| problem(StatusCode::BAD_REQUEST, "\"search\" is not a query"))?;
        let path = Path::parse(target.as_str()).map_err(|bad| {
            problem(
                StatusCode::BAD_REQUEST,
                format!("with these parameters {bad}"),
            )
        })?;
        match router.find("GET", Wants::Other, &path) {
            RouteMatch::Route { index, params, .. } if index == route => Ok(LoaderTarget {
                route,
                target: path.target().to_owned(),
                params,
            }),
            RouteMatch::Ambiguous => Err(problem(StatusCode::BAD_REQUEST, AMBIGUOUS)),
            _ => Err(problem(
                StatusCode::NOT_FOUND,
                "with these parameters it is another page",
            )),
        }
    }
}

/// Returns the path that a pattern makes with these parameters, or why there is none.
fn path_of(pattern: &Pattern, params: &BTreeMap<String, String>) -> Result<String, String> {
    if let Some(other) = params
        .keys()
        .find(|name| pattern.names().all(|own| own != name.as_str()))
    {
        return Err(format!("the page has no parameter {other:?}"));
    }
    pattern
        .path(|name| params.get(name).map(String::as_str))
        .map_err(|name| format!("the parameter {name:?} is missing, or empty"))
}

fn problem(status: StatusCode, message: impl Into<String>) -> HandlerError {
    HandlerError {
        status,
        message: message.into(),
    }
}

#[cfg(test)]
mod tests;
