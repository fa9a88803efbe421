//! The router: from a method and a path to the one route that answers, by the most literal pattern.

use crate::{
    manifest::{Exports, Manifest, Page, Route, Target, Wants},
    path::{Path, SEPARATORS},
    pattern::{GuardPattern, Pattern, Segment},
    rules::{self, Violation},
};
use std::{borrow::Cow, collections::HashMap, sync::Arc};

/// The routes and guards of an app that broke no rule.
///
/// ```
/// use tidegate_routing::{Wants, Exports, RouteMatch, Manifest, Path, Route, Router, Target};
/// let manifest = Manifest { routes: vec![Route::new("GET", "/users/{id}", Target::Http)], guards: vec![], pages: vec![] };
/// let router = Router::new(&manifest, Exports::ALL).unwrap();
/// let found = router.find("GET", Wants::Other, &Path::parse("/users/7").unwrap());
/// assert_eq!(found, RouteMatch::Route { index: 0, target: Target::Http, params: vec![("id".into(), "7".into())] });
/// ```
pub struct Router {
    routes: Vec<Entry>,
    root: Node,
    guards: Vec<GuardPattern>,
    /// Their routes are rest all others.
    pages: Vec<Page>,
    /// The page that answers paths which are nobody's in the tree.
    fallback: Node,
}

struct Entry {
    route: Arc<Route>,
    /// Of its parameters.
    names: Vec<String>,
}

/// Where a path leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RouteMatch {
    /// This route.
    Route {
        /// Its index in the manifest.
        index: u32,
        /// Who answers.
        target: Target,
        /// Names and values of the parameters.
        params: Vec<(String, String)>,
    },
    /// There are routes for the path, but none for the method: 405 with these in `Allow`.
    MethodNotAllowed(Vec<String>),
    /// There is no route.
    NotFound,
    /// An encoded slash or backslash stands where programs read the path in two ways: 400, before any guard.
    Ambiguous,
}

/// Why a path is [`RouteMatch::Ambiguous`], for its client.
pub const AMBIGUOUS: &str =
    "an encoded slash or backslash may stand only in a single parameter of the path";

#[derive(Default)]
struct Node {
    literals: HashMap<String, Node>,
    parameter: Option<Box<Node>>,
    /// Routes that end here.
    here: Vec<u32>,
    /// Routes that take whatever comes rest.
    rest: Vec<u32>,
}

impl Router {
    /// Checks the manifest and builds its router; every violation otherwise.
    pub fn new(manifest: &Manifest, exports: Exports) -> Result<Router, Vec<Violation>> {
        let violations = rules::check(manifest, exports);
        if !violations.is_empty() {
            return Err(violations);
        }
        let mut router = Router::empty();
        let routes = manifest.routes.iter().map(|route| (route.clone(), false));
        for (route, is_fallback) in routes.chain(
            manifest
                .pages
                .iter()
                .map(|page| (page.route(), page.is_fallback)),
        ) {
            let pattern = Pattern::parse(&route.pattern).expect("the rules let only patterns pass");
            let index = router.add(&pattern, route);
            let tree = if is_fallback {
                &mut router.fallback
            } else {
                &mut router.root
            };
            tree.insert(pattern.segments(), index);
        }
        router.pages = manifest.pages.clone();
        let covers = manifest
            .guards
            .iter()
            .map(|guard| GuardPattern::parse(&guard.pattern));
        router.guards = covers
            .collect::<Result<_, _>>()
            .expect("the rules let only patterns pass");
        Ok(router)
    }

    /// A component of `wasi:http` alone, built for any host: it answers every path that is not reserved.
    pub fn for_wasi_http() -> Router {
        let mut router = Router::empty();
        for text in ["/", "/{*rest}"] {
            let pattern = Pattern::parse(text).expect("a pattern");
            let index = router.add(&pattern, Route::new("", text, Target::Stream));
            router.root.insert(pattern.segments(), index);
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

    /// Its index; it is still in no tree.
    fn add(&mut self, pattern: &Pattern, route: Route) -> u32 {
        self.routes.push(Entry {
            route: Arc::new(route),
            names: pattern.names().map(str::to_owned).collect(),
        });
        self.routes.len() as u32 - 1
    }

    /// The route of this index.
    pub fn route(&self, index: u32) -> Option<&Arc<Route>> {
        self.routes.get(index as usize).map(|entry| &entry.route)
    }

    /// Whether there are any.
    pub fn has_pages(&self) -> bool {
        !self.pages.is_empty()
    }

    /// The page that a route of this index leads to, and its index among the pages.
    pub fn page(&self, route: u32) -> Option<(u32, &Page)> {
        let index = route.checked_sub(self.first_page())?;
        Some((index, self.pages.get(index as usize)?))
    }

    /// The page of this pattern, as the app wrote it, and the index of its route.
    pub fn page_of(&self, pattern: &str) -> Option<(u32, &Page)> {
        let index = self.pages.iter().position(|page| page.pattern == pattern)?;
        Some((self.first_page() + index as u32, &self.pages[index]))
    }

    fn first_page(&self) -> u32 {
        (self.routes.len() - self.pages.len()) as u32
    }

    /// Whether a route answers what that one of another version does.
    pub fn has_successor(&self, route: &Route) -> bool {
        self.successor(route).is_some()
    }

    /// The route that answers what that one of another version does.
    pub fn successor(&self, route: &Route) -> Option<u32> {
        self.routes
            .iter()
            .position(|entry| entry.route.succeeds(route))
            .map(|index| index as u32)
    }

    /// Indices of the guards that run before one of these paths, in their order.
    pub fn guards<'a>(&'a self, paths: &'a [&'a Path<'_>]) -> impl Iterator<Item = u32> + 'a {
        let covers = |cover: &GuardPattern| paths.iter().any(|path| cover.covers(path));
        self.guards
            .iter()
            .enumerate()
            .filter(move |(_, cover)| covers(cover))
            .map(|(index, _)| index as u32)
    }

    /// Index of the first guard from index `from` on that covers one of these paths.
    pub fn next_guard(&self, from: u32, paths: &[&Path<'_>]) -> Option<u32> {
        let (from, covers) = (from as usize, self.guards.get(from as usize..)?);
        let at = covers
            .iter()
            .position(|cover| paths.iter().any(|path| cover.covers(path)))?;
        Some((from + at) as u32)
    }

    /// The route for a method and path. A literal segment goes before a parameter, a parameter
    /// before a rest, a route for what is asked for before others, a named method before any; HEAD is answered by GET.
    /// The fallback page has what no other route knows, with any method. A reserved path has none.
    /// A path that [has a separator](Path::has_separator) leads to a route only if a single parameter takes that segment and no guard
    /// could be passed by it; otherwise it is ambiguous.
    pub fn find(&self, method: &str, asked: Wants, path: &Path<'_>) -> RouteMatch {
        if path.has_separator() && self.guards_may_be_misread(path) {
            return RouteMatch::Ambiguous;
        }
        let found = match path.is_reserved() {
            true => RouteMatch::NotFound,
            false => match self.find_in(&self.root, method, asked, path) {
                RouteMatch::NotFound => self.find_in(&self.fallback, method, asked, path),
                found => found,
            },
        };
        // Without a route no parameter takes the separator: it may be meant for the name of a file.
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

    fn find_in(&self, tree: &Node, method: &str, asked: Wants, path: &Path<'_>) -> RouteMatch {
        let has_separator = path.has_separator();
        let mut search = Search {
            router: self,
            method,
            asked,
            allow: Vec::new(),
            params: Vec::new(),
            has_separator,
            is_ambiguous: false,
        };
        match search.walk(tree, path.segments()) {
            _ if search.is_ambiguous => RouteMatch::Ambiguous,
            Some(index) => {
                let entry = &self.routes[index as usize];
                let params = entry.names.iter().cloned().zip(search.params).collect();
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

impl Entry {
    /// How well it fits the method: the less the better.
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

/// One walk through the tree; backtracks where a deeper step finds nothing.
struct Search<'a> {
    router: &'a Router,
    method: &'a str,
    asked: Wants,
    /// Methods of routes that match the path but not the method.
    allow: Vec<String>,
    /// Values of the parameters on the way.
    params: Vec<String>,
    /// Whether a segment of the path has a separator.
    has_separator: bool,
    /// Whether the route that was found takes such a segment as a part of its rest.
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
            let asked_for = entry.route.target.wants();
            // What is asked for by nothing in particular can be answered to anybody, a WebSocket only to who asks for one.
            Some((asked_for != self.asked, asked_for, by_method, *index))
        };
        let found = routes
            .iter()
            .filter_map(rank)
            .min()
            .map(|(.., index)| index);
        if found.is_none() {
            self.note_allowed(routes);
        }
        found
    }

    fn note_allowed(&mut self, routes: &[u32]) {
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
mod tests {
    use super::*;

    const ROUTES: [(&str, &str); 12] = [
        ("GET", "/"),
        ("GET", "/users/{id}"),
        ("POST", "/users/{id}"),
        ("GET", "/users/me"),
        ("", "/any"),
        ("PUT", "/any"),
        ("GET", "/files/{*path}"),
        ("GET", "/files/{name}/info"),
        ("GET", "/{x}"),
        ("POST", "/{x}/{y}"),
        ("GET", "/a/b/c"),
        ("GET", "/{x}/b/d"),
    ];

    fn router() -> Router {
        let mut routes: Vec<Route> = ROUTES
            .iter()
            .map(|(method, pattern)| Route::new(method, pattern, Target::Http))
            .collect();
        routes.swap(4, 5); // a named method before "any"
        Router::new(
            &Manifest {
                routes,
                guards: vec![],
                pages: vec![],
            },
            Exports::ALL,
        )
        .unwrap_or_else(|violations| panic!("{violations:?}"))
    }

    #[test]
    fn the_fallback_page_answers_what_is_nobody_else_s() {
        let page = |pattern: &str, fallback| Page {
            pattern: pattern.into(),
            is_fallback: fallback,
            ..Page::default()
        };
        let routes = vec![
            Route::new("POST", "/api", Target::Http),
            Route::new("GET", "/files/{*path}", Target::Http),
        ];
        let manifest = Manifest {
            routes,
            guards: vec![],
            pages: vec![page("/{*rest}", true), page("/about", false)],
        };
        let router = Router::new(&manifest, Exports::ALL)
            .unwrap_or_else(|violations| panic!("{violations:?}"));
        let cases = [
            // method, path, index of the route or the methods that there are
            ("GET", "/nowhere/at/all", Ok(2)),
            ("HEAD", "/nowhere", Ok(2)),
            ("POST", "/nowhere", Err("GET, HEAD")),
            ("GET", "/about", Ok(3)),
            ("GET", "/api", Err("POST")),
            ("PUT", "/files/x", Err("GET, HEAD")),
            ("GET", "/__loaders", Err("")),
            ("GET", "/", Err("")),
        ];
        for (method, path, expected) in cases {
            let found = match router.find(method, Wants::Other, &Path::parse(path).unwrap()) {
                RouteMatch::Route { index, .. } => Ok(index),
                RouteMatch::MethodNotAllowed(allow) => Err(allow.join(", ")),
                RouteMatch::NotFound | RouteMatch::Ambiguous => Err(String::new()),
            };
            assert_eq!(found, expected.map_err(str::to_owned), "{method} {path}");
        }
    }

    #[test]
    fn a_path_leads_to_its_most_literal_route() {
        let cases = [
            ("GET", "/", "0"),
            ("GET", "/users/7", "1 id=7"),
            ("POST", "/users/7", "2 id=7"),
            ("GET", "/users/me", "3"),
            ("POST", "/users/me", "2 id=me"),
            ("GET", "/users/a%2Fb", "1 id=a/b"),
            ("GET", "/users/a%5cb%2f", "1 id=a\\b/"),
            ("PUT", "/users/a%2Fb", "405 GET,HEAD,POST"),
            ("GET", "/files/a%2Fb", "400"),
            ("PUT", "/files/a%2Fb", "405 POST"),
            ("PUT", "/files/a/b%2Fc", "400"),
            ("GET", "/files/a/b%5C/c", "400"),
            ("GET", "/files/a%2Fb/info", "7 name=a/b"),
            ("GET", "/files/a%2Fb/else", "400"),
            ("GET", "/nowhere/at/all%2F", "400"),
            ("GET", "/__x%2Fy", "400"),
            ("GET", "/users/%7B", "1 id={"),
            ("HEAD", "/users/me", "3"),
            ("PUT", "/any", "4"),
            ("DELETE", "/any", "5"),
            ("GET", "/files/a/b%20c/d", "6 path=a/b c/d"),
            ("GET", "/files/a/info", "7 name=a"),
            ("GET", "/files/a/b/info", "6 path=a/b/info"),
            ("GET", "/files", "8 x=files"),
            ("GET", "/a/b/c", "10"),
            ("GET", "/a/b/d", "11 x=a"),
            ("GET", "//a/./b//d/", "11 x=a"),
            ("GET", "/Users/me", "405 POST"),
            ("PUT", "/users/7", "405 GET,HEAD,POST"),
            ("POST", "/", "405 GET,HEAD"),
            ("GET", "/a/b/x", "404"),
            ("GET", "/__loaders", "404"),
            ("GET", "/%5f%5floaders", "404"),
            ("POST", "/__x/y", "404"),
        ];
        let router = router();
        for (method, path, expected) in cases {
            let found = match router.find(method, Wants::Other, &Path::parse(path).unwrap()) {
                RouteMatch::NotFound => "404".to_owned(),
                RouteMatch::Ambiguous => "400".to_owned(),
                RouteMatch::MethodNotAllowed(allow) => format!("405 {}", allow.join(",")),
                RouteMatch::Route { index, params, .. } => {
                    let params: String = params
                        .iter()
                        .map(|(name, value)| format!(" {name}={value}"))
                        .collect();
                    format!("{index}{params}")
                }
            };
            assert_eq!(found, expected, "{method} {path}");
        }
    }

    #[test]
    fn a_separator_leads_past_no_guard() {
        let routes = [
            ("GET", "/{a}"),
            ("GET", "/{a}/{b}"),
            ("GET", "/{a}/{b}/{c}"),
        ];
        let cases = [
            // the guard, the path, whether it is served
            ("/a/b/*", "/a%2Fb/c", false),
            ("/a/b/*", "/a%5Cb/c", false),
            ("/a/b/*", "/a/b%2Fc", false),
            ("/a/b/*", "/a/x%2Fc", false),
            ("/a/b/*", "/x/b%2Fc", true),
            ("/a/b/*", "/a/b/c%2Fd", true),
            ("/a/b/*", "/x/..%2F..%2Fa%2Fb%2Fc", false),
            ("/a/b/*", "/x/..%2F..%2Fa%2Fc", true),
            ("/a/{id}/b", "/a/7%2Fb", false),
            ("/a/{id}/b", "/a/7%2F8/b", false),
            ("/a/{id}", "/a/7%2F8", true),
            ("/a/{id}/*", "/a/7%2F8", true),
            ("/a/{*rest}", "/a/7%2F8", true),
            ("/a", "/a/%2F", false),
            ("/a", "/a%2F", false),
            ("/a/*", "/a/%2F", true),
            ("/", "/%2F", false),
            ("/*", "/a%2Fb/c%5C", true),
        ];
        for (guard, path, is_served) in cases {
            let routes = routes
                .iter()
                .map(|(method, pattern)| Route::new(method, pattern, Target::Http))
                .collect();
            let guards = vec![crate::manifest::Guard {
                pattern: guard.into(),
            }];
            let router = Router::new(
                &Manifest {
                    routes,
                    guards,
                    pages: vec![],
                },
                Exports::ALL,
            )
            .unwrap_or_else(|violations| panic!("{violations:?}"));
            let found = router.find("GET", Wants::Other, &Path::parse(path).unwrap());
            assert_eq!(
                matches!(found, RouteMatch::Route { .. }),
                is_served,
                "{guard} before {path}: {found:?}"
            );
            assert_eq!(
                found == RouteMatch::Ambiguous,
                !is_served,
                "{guard} before {path}: {found:?}"
            );
        }
    }

    #[test]
    fn routes_of_one_path_are_told_apart_by_what_is_asked_for() {
        use Wants::{Events, Other, WebSocket};
        let router = |targets: &[(&str, Target)]| {
            let route = |(method, target): &(&str, Target)| Route {
                room: Some("tea".into()),
                ..Route::new(method, "/tea", *target)
            };
            let routes = targets.iter().map(route).collect();
            Router::new(
                &Manifest {
                    routes,
                    guards: vec![],
                    pages: vec![],
                },
                Exports::ALL,
            )
            .unwrap_or_else(|violations| panic!("{violations:?}"))
        };
        let all = [
            ("GET", Target::WebSocket),
            ("GET", Target::Feed),
            ("", Target::Http),
        ];
        let cases = [
            (&all[..], [WebSocket, Events, Other], ["0", "1", "2"]),
            (&all[..2], [WebSocket, Events, Other], ["0", "1", "1"]),
            (&all[1..], [WebSocket, Events, Other], ["1", "0", "1"]),
            (&all[..1], [WebSocket, Events, Other], ["0", "0", "0"]),
        ];
        for (targets, asked, expected) in cases {
            let router = router(targets);
            let found =
                asked.map(
                    |asked| match router.find("GET", asked, &Path::parse("/tea").unwrap()) {
                        RouteMatch::Route { index, .. } => index.to_string(),
                        other => format!("{other:?}"),
                    },
                );
            assert_eq!(found, expected, "{targets:?}");
        }
    }

    #[test]
    fn a_whole_component_answers_everything_but_reserved_paths() {
        let router = Router::for_wasi_http();
        for (path, answered) in [
            ("/", true),
            ("/a/b", true),
            ("/a%2Fb", false),
            ("/__loaders", false),
            ("/__tidegate/x", false),
        ] {
            let found = router.find("PUT", Wants::Other, &Path::parse(path).unwrap());
            assert_eq!(
                matches!(
                    found,
                    RouteMatch::Route {
                        target: Target::Stream,
                        ..
                    }
                ),
                answered,
                "{path}"
            );
        }
    }
}
