//! The router: from the method and the path of a request to guards and one route.
//!
//! It is our own code because patterns are matched on decoded segments, and because a parameter and
//! a rest may be at the same place. Routes form a tree by segments; the most literal route that
//! matches answers:
//!
//! - a literal before a parameter, a parameter before a rest;
//! - then a route for what the request wants (a WebSocket, a feed, or neither) before others;
//! - then a named method before a route for any method. HEAD is answered by GET.
//!
//! A walk that finds nothing below a literal comes back and tries the parameter. The fallback page
//! has a tree of its own, which is asked when nothing else matches.
//!
//! An encoded slash or backslash stands in a path only where one parameter takes it. Everywhere
//! else the path is [ambiguous](RouteMatch::Ambiguous), because an app that decodes before it
//! splits would read another path than the guards did.

use crate::{
    manifest::{Exports, Manifest, Page, Route, Target, Wants},
    path::{Path, SEPARATORS},
    pattern::{GuardPattern, Pattern, Segment},
    rules::{self, CheckedManifest},
    violation::Violation,
};
use std::{borrow::Cow, collections::HashMap, sync::Arc};

/// Routes, guards and pages of an app that broke no rule.
///
/// ```
/// use tidegate_routing::{Exports, Manifest, Path, Route, RouteMatch, Router, Target, Wants};
/// let routes = vec![Route::new("GET", "/users/{id}", Target::Http)];
/// let router = Router::new(&Manifest { routes, ..Manifest::default() }, Exports::ALL).unwrap();
/// let found = router.find("GET", Wants::Other, &Path::parse("/users/7").unwrap());
/// let params = vec![("id".into(), "7".into())];
/// assert_eq!(found, RouteMatch::Route { index: 0, target: Target::Http, params });
/// ```
pub struct Router {
    /// Routes of the manifest, then one for each page.
    routes: Vec<CompiledRoute>,
    root: Node,
    guards: Vec<GuardPattern>,
    pages: Vec<Page>,
    /// Tree of the fallback page.
    fallback: Node,
}

struct CompiledRoute {
    route: Arc<Route>,
    pattern: Pattern,
}

/// Result of the search for a route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RouteMatch {
    /// This route answers.
    Route {
        /// Index of the route in the router.
        index: u32,
        /// The handler that answers.
        target: Target,
        /// Names and values of the parameters, in the order of the pattern.
        params: Vec<(String, String)>,
    },
    /// Routes match the path, but none has the method: 405, with these methods in `Allow`.
    MethodNotAllowed(Vec<String>),
    /// No route matches.
    NotFound,
    /// An encoded slash or backslash stands where programs read the path in two ways: 400, before
    /// any guard runs.
    Ambiguous,
}

/// Text for the client whose path is [`RouteMatch::Ambiguous`].
pub const AMBIGUOUS: &str =
    "an encoded slash or backslash may stand only in a single parameter of the path";

#[derive(Default)]
struct Node {
    literals: HashMap<String, Node>,
    parameter: Option<Box<Node>>,
    /// Routes that end here.
    here: Vec<u32>,
    /// Routes that match everything below.
    rest: Vec<u32>,
}

impl Router {
    /// Checks the manifest and builds its router.
    ///
    /// # Errors
    /// Every violation of a rule, if there is one.
    pub fn new(manifest: &Manifest, exports: Exports) -> Result<Router, Vec<Violation>> {
        rules::check(manifest, exports).map(Router::build)
    }

    fn build(manifest: CheckedManifest) -> Router {
        let mut router = Router::empty();
        for (route, pattern) in manifest.routes {
            router.add(route, pattern, false);
        }
        for (page, pattern) in manifest.pages {
            router.add(page.route(), pattern, page.is_fallback);
            router.pages.push(page);
        }
        router.guards = manifest.guards;
        router
    }

    /// Returns the router of a component of `wasi:http` alone, which was built for any host: it
    /// answers every path that is not reserved.
    pub fn for_wasi_http() -> Router {
        let mut router = Router::empty();
        for (text, pattern) in [("/", Pattern::root()), ("/{*rest}", Pattern::catch_all())] {
            router.add(Route::new("", text, Target::Stream), pattern, false);
        }
        router
    }

    fn empty() -> Router {
        Router {
            routes: Vec::new(),
            root: Node::default(),
            guards: Vec::new(),
            pages: Vec::new(),
            fallback: Node::default(),
        }
    }

    fn add(&mut self, route: Route, pattern: Pattern, is_fallback: bool) {
        let index = self.routes.len() as u32;
        let tree = if is_fallback {
            &mut self.fallback
        } else {
            &mut self.root
        };
        tree.insert(pattern.segments(), index);
        self.routes.push(CompiledRoute {
            route: Arc::new(route),
            pattern,
        });
    }

    /// Returns the route with this index.
    pub fn route(&self, index: u32) -> Option<&Arc<Route>> {
        self.routes.get(index as usize).map(|entry| &entry.route)
    }

    /// Returns the pattern of the route with this index.
    pub fn pattern(&self, index: u32) -> Option<&Pattern> {
        self.routes.get(index as usize).map(|entry| &entry.pattern)
    }

    /// Returns true if the app has pages.
    pub fn has_pages(&self) -> bool {
        !self.pages.is_empty()
    }

    /// Returns the page that the route with this index leads to, and the page's index.
    pub fn page(&self, route: u32) -> Option<(u32, &Page)> {
        let index = route.checked_sub(self.first_page())?;
        Some((index, self.pages.get(index as usize)?))
    }

    /// Returns the page with this pattern, as the app wrote it, and the index of its route.
    pub fn page_of(&self, pattern: &str) -> Option<(u32, &Page)> {
        let index = self.pages.iter().position(|page| page.pattern == pattern)?;
        Some((self.first_page() + index as u32, &self.pages[index]))
    }

    fn first_page(&self) -> u32 {
        (self.routes.len() - self.pages.len()) as u32
    }

    /// Returns true if a route of this app answers what `route` of another version does.
    pub fn has_successor(&self, route: &Route) -> bool {
        self.successor(route).is_some()
    }

    /// Returns the index of the route that answers what `route` of another version does.
    pub fn successor(&self, route: &Route) -> Option<u32> {
        self.routes
            .iter()
            .position(|entry| entry.route.succeeds(route))
            .map(|index| index as u32)
    }

    /// Returns the indices of the guards that run before one of these paths, in their order.
    pub fn guards<'a>(&'a self, paths: &'a [&'a Path<'_>]) -> impl Iterator<Item = u32> + 'a {
        let covers = |cover: &GuardPattern| paths.iter().any(|path| cover.covers(path));
        self.guards
            .iter()
            .enumerate()
            .filter(move |(_, cover)| covers(cover))
            .map(|(index, _)| index as u32)
    }

    /// Returns the index of the first guard from index `from` on that covers one of these paths.
    pub fn next_guard(&self, from: u32, paths: &[&Path<'_>]) -> Option<u32> {
        let (from, covers) = (from as usize, self.guards.get(from as usize..)?);
        let at = covers
            .iter()
            .position(|cover| paths.iter().any(|path| cover.covers(path)))?;
        Some((from + at) as u32)
    }

    /// Returns the route for a method and a path, by the order at the head of this module. No route
    /// has a reserved path.
    pub fn find(&self, method: &str, wants: Wants, path: &Path<'_>) -> RouteMatch {
        if path.has_separator() && self.guards_may_be_misread(path) {
            return RouteMatch::Ambiguous;
        }
        let mut found = RouteMatch::NotFound;
        if !path.is_reserved() {
            found = self.find_in(&self.root, method, wants, path);
            if found == RouteMatch::NotFound {
                found = self.find_in(&self.fallback, method, wants, path);
            }
        }
        // Without a route no parameter takes the separator, and a file's name must not have one.
        if found == RouteMatch::NotFound && path.has_separator() {
            RouteMatch::Ambiguous
        } else {
            found
        }
    }

    fn guards_may_be_misread(&self, path: &Path<'_>) -> bool {
        let decoded_first = path.decoded_first();
        self.guards
            .iter()
            .any(|cover| cover.may_be_misread(path, &decoded_first))
    }

    fn find_in(&self, tree: &Node, method: &str, wants: Wants, path: &Path<'_>) -> RouteMatch {
        let has_separator = path.has_separator();
        let mut search = Search {
            router: self,
            method,
            wants,
            allow: Vec::new(),
            params: Vec::new(),
            has_separator,
            is_ambiguous: false,
        };
        match search.walk(tree, path.segments()) {
            _ if search.is_ambiguous => RouteMatch::Ambiguous,
            Some(index) => {
                let entry = &self.routes[index as usize];
                let params = entry
                    .pattern
                    .names()
                    .map(str::to_owned)
                    .zip(search.params)
                    .collect();
                RouteMatch::Route {
                    index,
                    target: entry.route.target,
                    params,
                }
            }
            None if search.allow.is_empty() => RouteMatch::NotFound,
            None => RouteMatch::MethodNotAllowed(search.allow),
        }
    }
}

impl CompiledRoute {
    /// Returns how well the route fits the method, the lower the better; none if it does not.
    fn rank(&self, method: &str) -> Option<u8> {
        let has = |method: &str| self.route.methods.iter().any(|own| own == method);
        match method {
            _ if has(method) => Some(0),
            "HEAD" if has("GET") => Some(1),
            _ => self.route.methods.is_empty().then_some(2),
        }
    }
}

impl Node {
    fn insert(&mut self, segments: &[Segment], index: u32) {
        match segments.split_first() {
            None => self.here.push(index),
            Some((Segment::Rest(_), _)) => self.rest.push(index),
            Some((Segment::Literal(literal), rest)) => self
                .literals
                .entry(literal.clone())
                .or_default()
                .insert(rest, index),
            Some((Segment::Parameter(_), rest)) => {
                self.parameter.get_or_insert_default().insert(rest, index)
            }
        }
    }
}

/// One walk through a tree.
struct Search<'a> {
    router: &'a Router,
    method: &'a str,
    wants: Wants,
    /// Methods of the routes that match the path, but not the request's method.
    allow: Vec<String>,
    /// Values of the parameters on the way to the present node.
    params: Vec<String>,
    /// True if a segment of the path has a separator.
    has_separator: bool,
    /// True if the route that was found takes such a segment as part of its rest.
    is_ambiguous: bool,
}

impl Search<'_> {
    fn walk(&mut self, node: &Node, segments: &[Cow<'_, str>]) -> Option<u32> {
        let Some((first, rest)) = segments.split_first() else {
            return self.pick(&node.here);
        };
        if let Some(found) = node
            .literals
            .get(&**first)
            .and_then(|next| self.walk(next, rest))
        {
            return Some(found);
        }
        if let Some(next) = &node.parameter {
            self.params.push(first.clone().into_owned());
            match self.walk(next, rest) {
                Some(found) => return Some(found),
                None => _ = self.params.pop(),
            }
        }
        let allowed = self.allow.len();
        let found = self.pick(&node.rest);
        if self.has_separator && segments.iter().any(|segment| segment.contains(SEPARATORS)) {
            self.is_ambiguous = found.is_some();
            self.allow.truncate(allowed);
        }
        let found = found?;
        self.params.push(segments.join("/"));
        Some(found)
    }

    fn pick(&mut self, routes: &[u32]) -> Option<u32> {
        let rank = |index: &u32| {
            let entry = &self.router.routes[*index as usize];
            let by_method = entry.rank(self.method)?;
            let serves = entry.route.target.wants();
            // If no route is for what the request wants, a plain one goes before the others.
            Some((serves != self.wants, serves, by_method, *index))
        };
        let found = routes
            .iter()
            .filter_map(rank)
            .min()
            .map(|(.., index)| index);
        if found.is_none() {
            self.add_allowed(routes);
        }
        found
    }

    fn add_allowed(&mut self, routes: &[u32]) {
        let methods = routes
            .iter()
            .flat_map(|index| &self.router.routes[*index as usize].route.methods);
        for method in methods {
            let implied = (method == "GET").then_some("HEAD");
            for name in [Some(method.as_str()), implied].into_iter().flatten() {
                if !self.allow.iter().any(|allowed| allowed == name) {
                    self.allow.push(name.to_owned());
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
