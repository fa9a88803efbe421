//! The rules for an app's routes: what is refused at load, why, and what to write instead.

use crate::{
    manifest::{Exports, Manifest, Page, Route, Target},
    pattern::{BadPattern, GuardPattern, Pattern, Segment},
    room_class::RoomClass,
};
use std::{collections::HashMap, fmt};

/// A rule that a route or guard breaks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rule {
    /// Not a pattern.
    Pattern,
    /// Matches every path.
    CatchAll,
    /// Names a path whose first segment begins with two underscores.
    Reserved,
    /// The router can't tell it from an earlier one.
    Duplicate,
    /// An earlier one takes everything that it would match.
    Shadowed,
    /// Not a method that routes may have.
    Method,
    /// A method that the target can't have.
    TargetMethod,
    /// The component does not export the target's handler.
    Export,
    /// A room that can't be.
    Room,
    /// A route answers the page's path.
    PageRoute,
    /// A loader or an action that can't be.
    PageName,
    /// A segment that another router would take for a parameter.
    Wildcard,
}

impl Rule {
    /// Its code, for ever: "TG003". What it means is told by `tidegate explain`.
    pub fn code(&self) -> &'static str {
        match self {
            Rule::Pattern => "TG001",
            Rule::CatchAll => "TG002",
            Rule::Reserved => "TG003",
            Rule::Duplicate => "TG004",
            Rule::Shadowed => "TG005",
            Rule::Method => "TG006",
            Rule::TargetMethod => "TG007",
            Rule::Export => "TG008",
            Rule::Room => "TG009",
            Rule::PageRoute => "TG023",
            Rule::PageName => "TG024",
            Rule::Wildcard => "TG025",
        }
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Rule::Pattern => "not a valid pattern",
            Rule::CatchAll => "matches every path",
            Rule::Reserved => "a reserved path",
            Rule::Duplicate => "the same as an earlier route",
            Rule::Shadowed => "shadowed by an earlier route",
            Rule::Method => "not a method of a route",
            Rule::TargetMethod => "not a method of this target",
            Rule::Export => "its handler is not exported",
            Rule::Room => "not a route of a room",
            Rule::PageRoute => "a page where a route is",
            Rule::PageName => "not a name of a loader or an action",
            Rule::Wildcard => "a wildcard of another router",
        })
    }
}

/// One rule broken by one route or guard.
///
/// Its `Display` is one line: what, where, which rule and what to write instead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// "route", "guard" or "page".
    pub kind: &'static str,
    /// Its index in the manifest.
    pub index: usize,
    /// The route's methods; empty for any, and for what is no route.
    pub methods: Vec<String>,
    /// As the app wrote it.
    pub pattern: String,
    /// What it breaks.
    pub rule: Rule,
    /// What about it; empty where the rule says it all.
    pub why: String,
    /// What to write instead.
    pub help: String,
}

impl Violation {
    /// `route 4 (POST "/__loaders")`
    pub fn place(&self) -> String {
        let Violation {
            kind,
            index,
            pattern,
            ..
        } = self;
        let methods = match kind {
            &("guard" | "page") => String::new(),
            _ if self.methods.is_empty() => "any ".to_owned(),
            _ => self.methods.join(",") + " ",
        };
        format!("{kind} {index} ({methods}{pattern:?})")
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place(), self.rule)?;
        [&self.why, &self.help]
            .into_iter()
            .filter(|part| !part.is_empty())
            .try_for_each(|part| write!(f, ": {part}"))
    }
}

/// Takes a rule that is broken, what about it, and what to write instead.
trait Refuse: FnMut(Rule, String, &str) {}
impl<F: FnMut(Rule, String, &str)> Refuse for F {}

/// Methods that a route may have; the host answers no other.
const METHODS: [&str; 7] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];

/// Methods of a page's path that are the host's.
const PAGE_METHODS: [&str; 3] = ["GET", "HEAD", "POST"];

/// The name of a loader or an action.
const PAGE_NAME_BYTES_MAX: usize = 64;

/// Every rule that the manifest breaks, in its order; none if it may be served.
pub(crate) fn check(manifest: &Manifest, exports: Exports) -> Vec<Violation> {
    let mut violations = Vec::new();
    let mut earlier = Earlier::default();
    for (index, route) in manifest.routes.iter().enumerate() {
        let mut refuse = |rule: Rule, why: String, help: &str| {
            let (methods, pattern, help) = (
                route.methods.clone(),
                route.pattern.clone(),
                help.to_owned(),
            );
            violations.push(Violation {
                kind: "route",
                index,
                methods,
                pattern,
                rule,
                why,
                help,
            });
        };
        check_methods(route, &mut refuse);
        if !exports.has(route.target) {
            let help = format!(
                "export `{}` from the component, or give the route another target",
                route.target.interface()
            );
            refuse(Rule::Export, String::new(), &help);
        }
        check_room(route, exports, &mut refuse);
        match Pattern::parse(&route.pattern) {
            Err(why) => refuse_pattern(&why, &mut refuse),
            Ok(pattern) => {
                check_pattern(&pattern, &mut refuse);
                earlier.check(index, route, &pattern, &mut refuse);
            }
        }
    }
    for (index, guard) in manifest.guards.iter().enumerate() {
        let mut refuse = |rule: Rule, why: String, help: &str| {
            let (pattern, help) = (guard.pattern.clone(), help.to_owned());
            violations.push(Violation {
                kind: "guard",
                index,
                methods: vec![],
                pattern,
                rule,
                why,
                help,
            });
        };
        if !exports.guard {
            refuse(
                Rule::Export,
                String::new(),
                "export `tidegate:app/guard-handler` from the component",
            );
        }
        if let Err(why) = GuardPattern::parse(&guard.pattern) {
            refuse_pattern(&why, &mut refuse);
        }
    }
    for (index, page) in manifest.pages.iter().enumerate() {
        let mut refuse = |rule: Rule, why: String, help: &str| {
            let (pattern, help) = (page.pattern.clone(), help.to_owned());
            violations.push(Violation {
                kind: "page",
                index,
                methods: vec![],
                pattern,
                rule,
                why,
                help,
            });
        };
        if !exports.pages {
            refuse(
                Rule::Export,
                String::new(),
                "export `tidegate:app/pages` from the component",
            );
        }
        check_names(
            "loader",
            page.loaders.iter().map(|loader| &loader.name),
            &mut refuse,
        );
        check_names("action", page.actions.iter(), &mut refuse);
        match Pattern::parse(&page.pattern) {
            Err(why) => refuse_pattern(&why, &mut refuse),
            Ok(pattern) => {
                check_page(page, &pattern, &mut refuse);
                earlier.check_page(index, page, &pattern, &mut refuse);
            }
        }
    }
    violations
}

fn refuse_pattern(why: &BadPattern, refuse: &mut impl Refuse) {
    match why {
        BadPattern::Syntax(text) => refuse(Rule::Pattern, (*text).to_owned(), ""),
        BadPattern::Wildcard { segment, instead } => {
            refuse(
                Rule::Wildcard,
                format!("{segment:?} would match nothing but itself"),
                &format!("write {instead:?}"),
            );
        }
    }
}

fn check_names<'a>(
    kind: &str,
    names: impl Iterator<Item = &'a String> + Clone,
    refuse: &mut impl Refuse,
) {
    let is_valid = |name: &str| {
        let is_part = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        (1..=PAGE_NAME_BYTES_MAX).contains(&name.len()) && name.bytes().all(is_part)
    };
    for (at, name) in names.clone().enumerate() {
        if !is_valid(name) {
            refuse(
                Rule::PageName,
                format!("{name:?} is not a valid {kind} name"),
                "write 1 to 64 of letters, digits, '-', '_' and '.'",
            );
        } else if names.clone().take(at).any(|earlier| earlier == name) {
            refuse(
                Rule::PageName,
                format!("the page has two {kind}s of the name {name:?}"),
                "give one of them another name",
            );
        }
    }
}

fn check_page(page: &Page, pattern: &Pattern, refuse: &mut impl Refuse) {
    match (page.is_fallback, pattern.is_catch_all()) {
        (false, true) => {
            let why = "only the fallback page matches every path".to_owned();
            refuse(
                Rule::CatchAll,
                why,
                "make it the fallback page, or give it a first segment, as in \"/docs/{*rest}\"",
            );
        }
        (true, false) => {
            let why = "the fallback page answers what nothing else does".to_owned();
            refuse(
                Rule::CatchAll,
                why,
                "write \"/{*rest}\", or make it a page like the others",
            );
        }
        _ if pattern.is_reserved() => {
            refuse(
                Rule::Reserved,
                "paths that begin with \"__\" are the host's".into(),
                "begin with another segment",
            );
        }
        _ => {}
    }
}

fn check_methods(route: &Route, refuse: &mut impl Refuse) {
    let get_only = matches!(route.target, Target::WebSocket | Target::Feed);
    for method in &route.methods {
        let upper = method.to_ascii_uppercase();
        if !METHODS.contains(&method.as_str()) {
            match METHODS.contains(&upper.as_str()) {
                true => refuse(
                    Rule::Method,
                    "methods are upper-case".into(),
                    &format!("write {upper:?}"),
                ),
                false => refuse(
                    Rule::Method,
                    format!("{method:?} is none that a host of HTTP answers"),
                    &format!("write one of {}", METHODS.join(", ")),
                ),
            }
        } else if get_only && method != "GET" {
            let help = format!("leave {method} out, or add an http route for it");
            refuse(
                Rule::TargetMethod,
                format!("a {} route is reached by GET", route.target),
                &help,
            );
        }
    }
}

fn check_room(route: &Route, exports: Exports, refuse: &mut impl Refuse) {
    let Some(class) = &route.room else { return };
    if !exports.room {
        refuse(
            Rule::Export,
            String::new(),
            "export `tidegate:app/room-handler` from the component",
        );
    }
    if route.target == Target::Stream {
        refuse(
            Rule::Room,
            "a room answers whole, as part of its event".into(),
            "give the route the target http, websocket or events",
        );
    }
    if RoomClass::check(class).is_err() {
        refuse(
            Rule::Room,
            format!("{class:?} is no class of rooms"),
            "write 1 to 64 of a-z, 0-9, '-' and '_'",
        );
    }
}

fn check_pattern(pattern: &Pattern, refuse: &mut impl Refuse) {
    if pattern.is_catch_all() {
        let why = "the catch-all is the host's (pages, or --assets)".to_owned();
        refuse(
            Rule::CatchAll,
            why,
            "give the route a first segment, as in \"/api/{*rest}\"",
        );
    }
    if pattern.is_reserved() {
        refuse(
            Rule::Reserved,
            "paths that begin with \"__\" are the host's".into(),
            "begin with another segment; a guard may cover them",
        );
    }
}

/// The routes so far, by the shape that the router sees.
#[derive(Default)]
struct Earlier<'a> {
    by_shape: HashMap<String, Vec<(usize, &'a Route)>>,
    /// Those that answer POST, with their indices.
    posts: Vec<(usize, &'a Route, Pattern)>,
    pages: HashMap<String, usize>,
}

impl<'a> Earlier<'a> {
    fn check(
        &mut self,
        index: usize,
        route: &'a Route,
        pattern: &Pattern,
        refuse: &mut impl Refuse,
    ) {
        let same_shape = self.by_shape.entry(shape(pattern)).or_default();
        let clash = same_shape
            .iter()
            .find_map(|(at, other)| overlap(other, route).map(|rule| (*at, *other, rule)));
        if let Some((at, other, rule)) = clash {
            let named = if other.pattern == route.pattern {
                String::new()
            } else {
                format!(" ({:?})", other.pattern)
            };
            refuse(
                rule,
                format!("route {at}{named} already answers it"),
                "remove one of them, or give them different methods or paths",
            );
        }
        same_shape.push((index, route));
        if route.target.wants() == Target::Page.wants() && answers(route, &["POST"]) {
            self.posts.push((index, route, pattern.clone()));
        }
    }

    /// A page's path is its own, but for WebSockets and event streams, which are asked for by other requests.
    fn check_page(
        &mut self,
        index: usize,
        page: &Page,
        pattern: &Pattern,
        refuse: &mut impl Refuse,
    ) {
        let shape = shape(pattern);
        let takes = |route: &Route| {
            route.target.wants() == Target::Page.wants() && answers(route, &PAGE_METHODS)
        };
        let same_path = self
            .by_shape
            .get(&shape)
            .into_iter()
            .flatten()
            .find(|(_, route)| takes(route));
        // What the fallback page answers is nobody else's: it takes nothing from others, nor they from it.
        let takes_post = || {
            self.posts
                .iter()
                .find(|(_, _, route)| !page.is_fallback && route.includes(pattern))
                .map(|(at, route, _)| (at, route))
        };
        if let Some((at, route)) = same_path.map(|(at, route)| (at, route)).or_else(takes_post) {
            let methods = if route.methods.is_empty() {
                "any method".to_owned()
            } else {
                route.methods.join(", ")
            };
            let why = format!("route {at} answers {methods} of {:?}", route.pattern);
            refuse(
                Rule::PageRoute,
                why,
                "GET, HEAD and POST of a page's path are the host's: remove the route, or give one of them another path",
            );
        }
        match self.pages.get(&shape) {
            Some(earlier) => refuse(
                Rule::Duplicate,
                format!("page {earlier} already answers it ({:?})", page.pattern),
                "remove one of them",
            ),
            None => _ = self.pages.insert(shape, index),
        }
    }
}

fn answers(route: &Route, methods: &[&str]) -> bool {
    route.methods.is_empty()
        || route
            .methods
            .iter()
            .any(|method| methods.contains(&method.as_str()))
}

/// Which rule two routes of one shape break, if any. Those of one class of rooms may share a path: a request for a
/// WebSocket, one for an event stream and any other are told apart by their headers.
fn overlap(earlier: &Route, later: &Route) -> Option<Rule> {
    let one_class = earlier.room.is_some() && earlier.room == later.room;
    if one_class && earlier.target.wants() != later.target.wants() {
        return None;
    }
    match (earlier.methods.is_empty(), later.methods.is_empty()) {
        (true, true) => Some(Rule::Duplicate),
        (true, false) => Some(Rule::Shadowed),
        (false, true) => None,
        (false, false) => later
            .methods
            .iter()
            .any(|method| earlier.methods.contains(method))
            .then_some(Rule::Duplicate),
    }
}

/// Two patterns of one shape match the same paths.
fn shape(pattern: &Pattern) -> String {
    let step = |segment: &Segment| match segment {
        Segment::Literal(literal) => format!("/={literal}"),
        Segment::Parameter(_) => "/:".to_owned(),
        Segment::Rest(_) => "/*".to_owned(),
    };
    pattern.segments().iter().map(step).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::Guard;

    fn rules(routes: &[(&str, &str, Target)], exports: Exports) -> Vec<(usize, Rule)> {
        let routes = routes.iter().map(|(methods, pattern, target)| Route {
            methods: methods.split_terminator(',').map(str::to_owned).collect(),
            pattern: pattern.to_string(),
            target: *target,
            room: None,
        });
        let manifest = Manifest {
            routes: routes.collect(),
            guards: vec![],
            pages: vec![],
        };
        check(&manifest, exports)
            .into_iter()
            .map(|violation| (violation.index, violation.rule))
            .collect()
    }

    #[test]
    fn every_registration_is_taken_or_refused_by_its_rule() {
        use Rule::{CatchAll, Method, Pattern, Reserved, TargetMethod, Wildcard};
        use Target::{Feed, Http, Stream, WebSocket};
        let taken: Option<Rule> = None;
        let cases: Vec<(&str, &str, Target, Option<Rule>)> = vec![
            // plain paths and parameters
            ("GET", "/", Http, taken.clone()),
            ("", "/", Http, None),
            ("POST", "/", Http, None),
            ("GET", "/hello", Http, None),
            ("GET", "/hello/", Http, None),
            ("GET", "/users/{id}", Http, None),
            ("GET", "/{x}", Http, None),
            ("POST", "/{x}", Http, None),
            ("", "/{x}", Http, None),
            ("GET", "/{x}/{y}", Http, None),
            ("POST", "/{x}/{*rest}", Http, None),
            ("GET", "/files/{*rest}", Stream, None),
            ("GET", "/a/{b-c}/{d_1}", Http, None),
            ("GET", "/_", Http, None),
            ("GET", "/_loaders", Http, None),
            ("GET", "/a/__loaders", Http, None),
            ("GET", "/loaders__", Http, None),
            ("GET", "/caf%C3%A9", Http, None),
            ("GET", "/café", Http, None),
            ("GET,HEAD,POST,PUT,PATCH,DELETE,OPTIONS", "/all", Http, None),
            ("GET", "/ws", WebSocket, None),
            ("", "/ws", WebSocket, None),
            ("GET", "/feed", Feed, None),
            ("", "/feed", Feed, None),
            ("PUT", "/upload", Stream, None),
            // the catch-all, however it is spelled
            ("GET", "/{*rest}", Http, Some(CatchAll)),
            ("", "/{*rest}", Http, Some(CatchAll)),
            ("POST", "/{*any}", Stream, Some(CatchAll)),
            ("GET", "//{*rest}", Http, Some(CatchAll)),
            ("GET", "/./{*rest}", Http, Some(CatchAll)),
            ("GET", "/a/../{*rest}", Http, Some(CatchAll)),
            ("GET", "/{x}/../{*rest}", Http, Some(CatchAll)),
            ("GET", "/%2e/{*rest}", Http, Some(CatchAll)),
            ("GET", "/{*rest}/", Http, Some(CatchAll)),
            ("GET", "/{*ws}", WebSocket, Some(CatchAll)),
            // reserved paths, however they are spelled
            ("POST", "/__loaders", Http, Some(Reserved)),
            ("GET", "/__loaders", Http, Some(Reserved)),
            ("", "/__loaders", Http, Some(Reserved)),
            ("GET", "/__", Http, Some(Reserved)),
            ("GET", "/__tidegate/health", Http, Some(Reserved)),
            ("GET", "/__TIDEGATE/health", Http, Some(Reserved)),
            ("POST", "/__LOADERS", Http, Some(Reserved)),
            ("POST", "/__loaders/", Http, Some(Reserved)),
            ("POST", "//__loaders", Http, Some(Reserved)),
            ("POST", "/%5f%5floaders", Http, Some(Reserved)),
            ("POST", "/%5F_loaders", Http, Some(Reserved)),
            ("POST", "/_%5floaders", Http, Some(Reserved)),
            ("POST", "/./__loaders", Http, Some(Reserved)),
            ("POST", "/x/../__loaders", Http, Some(Reserved)),
            ("POST", "/x/%2e%2E/__loaders", Http, Some(Reserved)),
            ("GET", "/__x/{id}", Http, Some(Reserved)),
            ("GET", "/__x/{*rest}", Stream, Some(Reserved)),
            ("GET", "/__ws", WebSocket, Some(Reserved)),
            ("GET", "/__feed", Feed, Some(Reserved)),
            // what is no pattern
            ("GET", "", Http, Some(Pattern)),
            ("GET", "hello", Http, Some(Pattern)),
            ("GET", "*", Http, Some(Pattern)),
            ("GET", "/*", Http, Some(Wildcard)),
            ("GET", "/a/*", Http, Some(Wildcard)),
            ("GET", "/a/*/b", Http, Some(Wildcard)),
            ("GET", "/a*", Http, Some(Wildcard)),
            ("GET", "/*path", Http, Some(Wildcard)),
            ("GET", "/:id", Http, Some(Wildcard)),
            ("GET", "/:id?", Http, Some(Wildcard)),
            ("GET", "/:id{[0-9]+}", Http, Some(Wildcard)),
            ("GET", "/:path*", Http, Some(Wildcard)),
            ("GET", "/:a/:b", Http, Some(Wildcard)),
            ("GET", "/a:b", Http, None),
            ("GET", "/:", Http, None),
            ("GET", "/%3Aid", Http, None),
            ("GET", "/%2A", Http, None),
            ("GET", "/{}", Http, Some(Pattern)),
            ("GET", "/{*}", Http, Some(Pattern)),
            ("GET", "/{a b}", Http, Some(Pattern)),
            ("GET", "/{id}.json", Http, Some(Pattern)),
            ("GET", "/x{id}", Http, Some(Pattern)),
            ("GET", "/{id", Http, Some(Pattern)),
            ("GET", "/id}", Http, Some(Pattern)),
            ("GET", "/{*rest}/more", Http, Some(Pattern)),
            ("GET", "/{id}/{id}", Http, Some(Pattern)),
            ("GET", "/a?b=1", Http, Some(Pattern)),
            ("GET", "/a#b", Http, Some(Pattern)),
            ("GET", "/%zz", Http, Some(Pattern)),
            ("GET", "/%ff", Http, Some(Pattern)),
            ("GET", "/a%00b", Http, Some(Pattern)),
            // methods
            ("get", "/a", Http, Some(Method)),
            ("Post", "/a", Http, Some(Method)),
            ("FETCH", "/a", Http, Some(Method)),
            ("CONNECT", "/a", Http, Some(Method)),
            ("TRACE", "/a", Http, Some(Method)),
            ("GET POST", "/a", Http, Some(Method)),
            ("POST", "/ws", WebSocket, Some(TargetMethod)),
            ("GET,PUT", "/ws", WebSocket, Some(TargetMethod)),
            ("HEAD", "/feed", Feed, Some(TargetMethod)),
        ];
        assert!(cases.len() >= 60);
        for (methods, pattern, target, rule) in cases {
            let broken: Vec<Rule> = rules(&[(methods, pattern, target)], Exports::ALL)
                .into_iter()
                .map(|(_, rule)| rule)
                .collect();
            assert_eq!(
                broken,
                Vec::from_iter(rule),
                "{methods} {pattern:?} {target}"
            );
        }
    }

    #[test]
    fn rooms_have_a_class_a_handler_and_targets_that_answer_whole() {
        let chat = |class: &str, method: &str, target| Route {
            room: Some(class.into()),
            ..Route::new(method, "/rooms/{name}", target)
        };
        let all = [
            chat("chat", "GET", Target::WebSocket),
            chat("chat", "GET", Target::Feed),
            chat("chat", "", Target::Http),
        ];
        let other = [
            chat("chat", "GET", Target::WebSocket),
            chat("board", "GET", Target::Http),
        ];
        let none = Exports {
            room: false,
            ..Exports::ALL
        };
        let long = "c".repeat(65);
        type Broken<'a> = &'a [(usize, Rule)];
        let cases: [(&[Route], Exports, Broken<'_>); 7] = [
            (&all, Exports::ALL, &[]),
            (&other, Exports::ALL, &[(1, Rule::Duplicate)]),
            (
                &[all[0].clone(), all[0].clone()],
                Exports::ALL,
                &[(1, Rule::Duplicate)],
            ),
            (
                &[chat("chat", "GET", Target::Stream)],
                Exports::ALL,
                &[(0, Rule::Room)],
            ),
            (
                &[chat("Chat", "GET", Target::Http)],
                Exports::ALL,
                &[(0, Rule::Room)],
            ),
            (
                &[chat(&long, "GET", Target::Http)],
                Exports::ALL,
                &[(0, Rule::Room)],
            ),
            (&all[..1], none, &[(0, Rule::Export)]),
        ];
        for (index, (routes, exports, expected)) in cases.into_iter().enumerate() {
            let manifest = Manifest {
                routes: routes.to_vec(),
                guards: vec![],
                pages: vec![],
            };
            let broken: Vec<(usize, Rule)> = check(&manifest, exports)
                .into_iter()
                .map(|it| (it.index, it.rule))
                .collect();
            assert_eq!(broken, expected, "case {index}");
        }
    }

    #[test]
    fn routes_that_the_router_cannot_tell_apart_are_refused() {
        use Target::{Http, WebSocket};
        type Registration = (&'static str, &'static str, Target);
        type Broken = (usize, Rule);
        let cases: Vec<(&[Registration], &[Broken])> = vec![
            (
                &[("GET", "/a", Http), ("GET", "/a", Http)],
                &[(1, Rule::Duplicate)],
            ),
            (
                &[("GET", "/a", Http), ("GET", "/a/", Http)],
                &[(1, Rule::Duplicate)],
            ),
            (
                &[("GET", "/a", Http), ("GET", "/%61", Http)],
                &[(1, Rule::Duplicate)],
            ),
            (
                &[("GET", "/{x}", Http), ("GET", "/{y}", Http)],
                &[(1, Rule::Duplicate)],
            ),
            (
                &[("GET", "/f/{*x}", Http), ("GET", "/f/{*y}", Http)],
                &[(1, Rule::Duplicate)],
            ),
            (
                &[("GET,POST", "/a", Http), ("POST,PUT", "/a", Http)],
                &[(1, Rule::Duplicate)],
            ),
            (
                &[("", "/a", Http), ("GET", "/a", Http)],
                &[(1, Rule::Shadowed)],
            ),
            (
                &[("", "/a", Http), ("", "/a", Http)],
                &[(1, Rule::Duplicate)],
            ),
            (&[("GET", "/a", Http), ("", "/a", Http)], &[]),
            (&[("GET", "/a", Http), ("POST", "/a", Http)], &[]),
            (
                &[("GET", "/a", WebSocket), ("GET", "/a", Http)],
                &[(1, Rule::Duplicate)],
            ),
            (
                &[
                    ("GET", "/{x}", Http),
                    ("GET", "/a", Http),
                    ("GET", "/A", Http),
                ],
                &[],
            ),
            (&[("GET", "/f/{x}", Http), ("GET", "/f/{*x}", Http)], &[]),
        ];
        for (routes, expected) in cases {
            assert_eq!(rules(routes, Exports::ALL), expected, "{routes:?}");
        }
    }

    #[test]
    fn a_target_without_its_handler_is_refused_and_every_violation_is_listed() {
        let http_only = Exports {
            http: true,
            ..Exports::default()
        };
        let routes = [
            ("GET", "/ws", Target::WebSocket),
            ("get", "/__a", Target::Feed),
            ("GET", "/ok", Target::Http),
            ("GET", "/s", Target::Stream),
        ];
        let expected = [
            (0, Rule::Export),
            (1, Rule::Method),
            (1, Rule::Export),
            (1, Rule::Reserved),
            (3, Rule::Export),
        ];
        assert_eq!(rules(&routes, http_only), expected);
    }

    #[test]
    fn a_guard_may_cover_any_path_but_needs_its_handler_and_a_pattern() {
        let guards = [
            "/*",
            "/__loaders",
            "/{*rest}",
            "/private/*",
            "private",
            "/{}/*",
        ]
        .map(|pattern| Guard {
            pattern: pattern.into(),
        });
        let manifest = Manifest {
            routes: vec![],
            guards: guards.to_vec(),
            pages: vec![],
        };
        let broken = |exports| -> Vec<(usize, Rule)> {
            check(&manifest, exports)
                .into_iter()
                .map(|v| (v.index, v.rule))
                .collect()
        };
        assert_eq!(
            broken(Exports::ALL),
            [(4, Rule::Pattern), (5, Rule::Pattern)]
        );
        assert_eq!(
            broken(Exports::default())
                .iter()
                .filter(|(_, rule)| *rule == Rule::Export)
                .count(),
            6
        );
    }

    #[test]
    fn a_page_has_its_path_to_itself_and_names_that_can_be() {
        use crate::manifest::LoaderInfo;
        let page = |pattern: &str| Page {
            pattern: pattern.into(),
            ..Page::default()
        };
        let fallback = |pattern: &str| Page {
            is_fallback: true,
            ..page(pattern)
        };
        let loaders = |names: &[&str]| Page {
            loaders: names
                .iter()
                .map(|name| LoaderInfo {
                    name: name.to_string(),
                    ..LoaderInfo::default()
                })
                .collect(),
            ..page("/p")
        };
        let actions = |names: &[&str]| Page {
            actions: names.iter().map(ToString::to_string).collect(),
            ..page("/p")
        };
        let long = "n".repeat(65);
        type Case<'a> = (
            &'a [(&'a str, &'a str, Target)],
            &'a [Page],
            &'a [(usize, Rule)],
        );
        let cases: [Case<'_>; 28] = [
            (&[], &[page("/"), page("/products/{id}")], &[]),
            (
                &[
                    ("DELETE", "/p", Target::Http),
                    ("PUT", "/p", Target::Stream),
                ],
                &[page("/p")],
                &[],
            ),
            (
                &[
                    ("GET", "/p", Target::WebSocket),
                    ("GET", "/q", Target::Feed),
                ],
                &[page("/p"), page("/q")],
                &[],
            ),
            (&[("GET", "/p/{id}", Target::Http)], &[page("/p/new")], &[]),
            (
                &[
                    ("POST", "/p/new", Target::Http),
                    ("POST", "/p/{id}/more", Target::Http),
                ],
                &[page("/p/{id}")],
                &[],
            ),
            (
                &[("POST", "/p/{id}", Target::Http)],
                &[page("/p/new")],
                &[(0, Rule::PageRoute)],
            ),
            (
                &[("", "/{x}", Target::Stream)],
                &[page("/about")],
                &[(0, Rule::PageRoute)],
            ),
            (
                &[("POST", "/p/{*rest}", Target::Http)],
                &[page("/p/{id}/{of}"), page("/p")],
                &[(0, Rule::PageRoute)],
            ),
            (
                &[("POST", "/p/{*rest}", Target::Http)],
                &[fallback("/{*rest}")],
                &[],
            ),
            (
                &[("GET", "/p/{id}", Target::WebSocket)],
                &[page("/p/new")],
                &[],
            ),
            (
                &[("POST", "/p", Target::Http)],
                &[page("/p")],
                &[(0, Rule::PageRoute)],
            ),
            (
                &[("POST", "/p/", Target::Stream)],
                &[page("//p")],
                &[(0, Rule::PageRoute)],
            ),
            (
                &[("", "/p", Target::Http)],
                &[page("/p")],
                &[(0, Rule::PageRoute)],
            ),
            (
                &[("GET", "/p/{x}", Target::Http)],
                &[page("/p/{id}")],
                &[(0, Rule::PageRoute)],
            ),
            (
                &[("HEAD", "/p", Target::Http)],
                &[page("/q"), page("/%70")],
                &[(1, Rule::PageRoute)],
            ),
            (
                &[],
                &[page("/p/{a}"), page("/p/{b}")],
                &[(1, Rule::Duplicate)],
            ),
            (&[], &[page("/{*rest}")], &[(0, Rule::CatchAll)]),
            (&[], &[fallback("/{*rest}")], &[]),
            (
                &[],
                &[fallback("/{*a}"), fallback("/{*b}")],
                &[(1, Rule::Duplicate)],
            ),
            (&[], &[fallback("/p")], &[(0, Rule::CatchAll)]),
            (&[], &[page("/__loaders")], &[(0, Rule::Reserved)]),
            (&[], &[page("/%5f_x/{id}")], &[(0, Rule::Reserved)]),
            (&[], &[page("p")], &[(0, Rule::Pattern)]),
            (&[], &[loaders(&["a", "b-c_d.e"]), page("/q")], &[]),
            (&[], &[loaders(&["a", "a"])], &[(0, Rule::PageName)]),
            (&[], &[loaders(&[""])], &[(0, Rule::PageName)]),
            (
                &[],
                &[actions(&["a b", &long, "buy", "buy"])],
                &[
                    (0, Rule::PageName),
                    (0, Rule::PageName),
                    (0, Rule::PageName),
                ],
            ),
            (
                &[],
                &[Page {
                    actions: vec!["a".into()],
                    ..loaders(&["a"])
                }],
                &[],
            ),
        ];
        for (routes, pages, expected) in cases {
            let route = |(methods, pattern, target): &(&str, &str, Target)| {
                Route::new(methods, pattern, *target)
            };
            let manifest = Manifest {
                routes: routes.iter().map(route).collect(),
                guards: vec![],
                pages: pages.to_vec(),
            };
            let broken: Vec<(usize, Rule)> = check(&manifest, Exports::ALL)
                .into_iter()
                .map(|it| (it.index, it.rule))
                .collect();
            assert_eq!(broken, expected, "{routes:?} {pages:?}");
        }
        let manifest = Manifest {
            pages: vec![page("/p")],
            ..Manifest::default()
        };
        assert_eq!(
            check(
                &manifest,
                Exports {
                    pages: false,
                    ..Exports::ALL
                }
            )[0]
            .rule,
            Rule::Export
        );
    }

    #[test]
    fn every_rule_has_a_code_of_its_own() {
        use Rule::{
            CatchAll, Duplicate, Export, Method, PageName, PageRoute, Pattern, Reserved, Room,
            Shadowed, TargetMethod, Wildcard,
        };
        let all = [
            Pattern,
            CatchAll,
            Reserved,
            Duplicate,
            Shadowed,
            Method,
            TargetMethod,
            Export,
            Room,
            PageRoute,
            PageName,
            Wildcard,
        ];
        let codes: Vec<String> = all.iter().map(|rule| rule.code().to_owned()).collect();
        assert_eq!(
            codes,
            Vec::from_iter(
                (1..=9)
                    .chain(23..=25)
                    .map(|number| format!("TG{number:03}"))
            )
        );
    }

    #[test]
    fn a_violation_says_in_one_line_what_to_write_instead() {
        let manifest = Manifest {
            routes: vec![Route::new("get", "/a", Target::Http)],
            guards: vec![],
            pages: vec![],
        };
        let line = check(&manifest, Exports::ALL)[0].to_string();
        assert_eq!(
            line,
            r#"route 0 (get "/a"): not a method of a route: methods are upper-case: write "GET""#
        );
    }
}
