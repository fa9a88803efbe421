//! The rules for an app's routes, guards and pages, checked when the app is loaded.
//!
//! [`check`] is the only way from a [`Manifest`], as an app wrote it, to a
//! [`CheckedManifest`], which holds parsed patterns. The router is built from the latter, so no
//! code after this module parses a pattern again or proves once more that it is one.
//!
//! All violations are collected before the app is refused, so that its author sees them at once.
//! The rules are about three things: the host's own paths, which no route may take; routes that the
//! router could not tell apart; and targets that the component has no handler for. Patterns are
//! decoded as paths are, so that no spelling of a path escapes a rule.

use crate::{
    manifest::{Exports, LoaderInfo, Manifest, Page, Route, Target},
    pattern::{BadPattern, GuardPattern, Pattern, Segment},
    room_class::RoomClass,
    violation::{Rule, Subject, Violation},
};
use std::collections::HashMap;

/// A manifest that breaks no rule, with its patterns parsed.
pub(crate) struct CheckedManifest {
    /// Routes in the order of the manifest.
    pub(crate) routes: Vec<(Route, Pattern)>,
    /// Guards in the order in which they run.
    pub(crate) guards: Vec<GuardPattern>,
    /// Pages in the order of the manifest.
    pub(crate) pages: Vec<(Page, Pattern)>,
}

/// Methods that a route may have. The host answers no other.
const METHODS: [&str; 7] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];

/// Methods that the host answers on the path of a page.
const PAGE_METHODS: [&str; 3] = ["GET", "HEAD", "POST"];

/// Maximum length of the name of a loader or an action, in bytes.
const PAGE_NAME_BYTES_MAX: usize = 64;

/// Checks a manifest. Returns every violation, in the order of the manifest, if there is one.
pub(crate) fn check(
    manifest: &Manifest,
    exports: Exports,
) -> Result<CheckedManifest, Vec<Violation>> {
    let mut violations = Vec::new();
    let mut earlier = Earlier::default();
    let mut routes = Vec::new();
    for (index, route) in manifest.routes.iter().enumerate() {
        let mut check = SubjectCheck::route(&mut violations, index, route);
        if let Some(pattern) = check_route(index, route, exports, &mut earlier, &mut check) {
            routes.push((route.clone(), pattern));
        }
    }
    let mut guards = Vec::new();
    for (index, guard) in manifest.guards.iter().enumerate() {
        let mut check = SubjectCheck::new(&mut violations, Subject::Guard, index, &guard.pattern);
        if !exports.guard {
            check.refuse_export("tidegate:app/guard-handler");
        }
        guards.extend(check.parsed(GuardPattern::parse(&guard.pattern)));
    }
    let mut pages = Vec::new();
    for (index, page) in manifest.pages.iter().enumerate() {
        let mut check = SubjectCheck::new(&mut violations, Subject::Page, index, &page.pattern);
        if let Some(pattern) = check_page(index, page, exports, &mut earlier, &mut check) {
            pages.push((page.clone(), pattern));
        }
    }
    if violations.is_empty() {
        Ok(CheckedManifest {
            routes,
            guards,
            pages,
        })
    } else {
        Err(violations)
    }
}

/// Violations of one route, guard or page.
struct SubjectCheck<'a> {
    violations: &'a mut Vec<Violation>,
    subject: Subject,
    index: usize,
    methods: &'a [String],
    pattern: &'a str,
}

impl<'a> SubjectCheck<'a> {
    fn new(
        violations: &'a mut Vec<Violation>,
        subject: Subject,
        index: usize,
        pattern: &'a str,
    ) -> SubjectCheck<'a> {
        SubjectCheck {
            violations,
            subject,
            index,
            methods: &[],
            pattern,
        }
    }

    fn route(
        violations: &'a mut Vec<Violation>,
        index: usize,
        route: &'a Route,
    ) -> SubjectCheck<'a> {
        SubjectCheck {
            methods: &route.methods,
            ..SubjectCheck::new(violations, Subject::Route, index, &route.pattern)
        }
    }

    /// Adds a violation: the rule, the reason (may be empty), and what to write instead.
    fn refuse(&mut self, rule: Rule, why: impl Into<String>, help: impl Into<String>) {
        self.violations.push(Violation {
            subject: self.subject,
            index: self.index,
            methods: self.methods.to_vec(),
            pattern: self.pattern.to_owned(),
            rule,
            why: why.into(),
            help: help.into(),
        });
    }

    fn refuse_export(&mut self, interface: &str) {
        let help = format!("export `{interface}` from the component");
        self.refuse(Rule::Export, "", help);
    }

    fn refuse_reserved(&mut self, help: &str) {
        let why = "paths that begin with \"__\" are the host's";
        self.refuse(Rule::Reserved, why, help);
    }

    /// Returns the pattern, or reports why it is none.
    fn parsed<T>(&mut self, pattern: Result<T, BadPattern>) -> Option<T> {
        match pattern {
            Ok(pattern) => return Some(pattern),
            Err(BadPattern::Syntax(why)) => self.refuse(Rule::Pattern, why, ""),
            Err(BadPattern::Wildcard { segment, instead }) => self.refuse(
                Rule::Wildcard,
                format!("{segment:?} would match nothing but itself"),
                format!("write {instead:?}"),
            ),
        }
        None
    }
}

fn check_route<'a>(
    index: usize,
    route: &'a Route,
    exports: Exports,
    earlier: &mut Earlier<'a>,
    check: &mut SubjectCheck<'_>,
) -> Option<Pattern> {
    check_methods(route, check);
    if !exports.has(route.target) {
        let interface = route.target.interface();
        check.refuse(
            Rule::Export,
            "",
            format!("export `{interface}` from the component, or give the route another target"),
        );
    }
    check_room(route, exports, check);
    let pattern = check.parsed(Pattern::parse(&route.pattern))?;
    if pattern.is_catch_all() {
        check.refuse(
            Rule::CatchAll,
            "the catch-all is the host's (pages, or --assets)",
            "give the route a first segment, as in \"/api/{*rest}\"",
        );
    }
    if pattern.is_reserved() {
        check.refuse_reserved("begin with another segment; a guard may cover them");
    }
    earlier.check_route(index, route, &pattern, check);
    Some(pattern)
}

fn check_methods(route: &Route, check: &mut SubjectCheck<'_>) {
    let is_get_only = matches!(route.target, Target::WebSocket | Target::Feed);
    for method in &route.methods {
        let upper = method.to_ascii_uppercase();
        if METHODS.contains(&method.as_str()) {
            if is_get_only && method != "GET" {
                check.refuse(
                    Rule::TargetMethod,
                    format!("a {} route is reached by GET", route.target),
                    format!("leave {method} out, or add an http route for it"),
                );
            }
        } else if METHODS.contains(&upper.as_str()) {
            let help = format!("write {upper:?}");
            check.refuse(Rule::Method, "methods are upper-case", help);
        } else {
            check.refuse(
                Rule::Method,
                format!("{method:?} is none that a host of HTTP answers"),
                format!("write one of {}", METHODS.join(", ")),
            );
        }
    }
}

fn check_room(route: &Route, exports: Exports, check: &mut SubjectCheck<'_>) {
    let Some(class) = &route.room else { return };
    if !exports.room {
        check.refuse_export("tidegate:app/room-handler");
    }
    if route.target == Target::Stream {
        check.refuse(
            Rule::Room,
            "a room answers whole, as part of its event",
            "give the route the target http, websocket or feed",
        );
    }
    if RoomClass::check(class).is_err() {
        check.refuse(
            Rule::Room,
            format!("{class:?} is no class of rooms"),
            "write 1 to 64 of a-z, 0-9, '-' and '_'",
        );
    }
}

fn check_page<'a>(
    index: usize,
    page: &'a Page,
    exports: Exports,
    earlier: &mut Earlier<'a>,
    check: &mut SubjectCheck<'_>,
) -> Option<Pattern> {
    if !exports.pages {
        check.refuse_export("tidegate:app/pages");
    }
    let loaders: Vec<&str> = page.loaders.iter().map(LoaderInfo::name).collect();
    let actions: Vec<&str> = page.actions.iter().map(String::as_str).collect();
    check_names("loader", &loaders, check);
    check_names("action", &actions, check);
    let pattern = check.parsed(Pattern::parse(&page.pattern))?;
    if pattern.is_catch_all() && !page.is_fallback {
        check.refuse(
            Rule::CatchAll,
            "only the fallback page matches every path",
            "make it the fallback page, or give it a first segment, as in \"/docs/{*rest}\"",
        );
    } else if page.is_fallback && !pattern.is_catch_all() {
        check.refuse(
            Rule::CatchAll,
            "the fallback page answers what nothing else does",
            "write \"/{*rest}\", or make it a page like the others",
        );
    } else if pattern.is_reserved() {
        check.refuse_reserved("begin with another segment");
    }
    earlier.check_page(index, page, &pattern, check);
    Some(pattern)
}

/// Checks the names of a page's loaders or actions.
fn check_names(kind: &str, names: &[&str], check: &mut SubjectCheck<'_>) {
    for (at, name) in names.iter().enumerate() {
        if !is_page_name(name) {
            check.refuse(
                Rule::PageName,
                format!("{name:?} is not a valid {kind} name"),
                "write 1 to 64 of letters, digits, '-', '_' and '.'",
            );
        } else if names[..at].contains(name) {
            check.refuse(
                Rule::PageName,
                format!("the page has two {kind}s of the name {name:?}"),
                "give one of them another name",
            );
        }
    }
}

fn is_page_name(name: &str) -> bool {
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    (1..=PAGE_NAME_BYTES_MAX).contains(&name.len()) && name.bytes().all(is_allowed)
}

/// The routes and pages that were checked before, by the shape of their patterns.
#[derive(Default)]
struct Earlier<'a> {
    routes: HashMap<String, Vec<(usize, &'a Route)>>,
    /// Routes that answer a plain POST, with their indices.
    posts: Vec<(usize, &'a Route, Pattern)>,
    pages: HashMap<String, usize>,
}

impl<'a> Earlier<'a> {
    fn check_route(
        &mut self,
        index: usize,
        route: &'a Route,
        pattern: &Pattern,
        check: &mut SubjectCheck<'_>,
    ) {
        let same_shape = self.routes.entry(shape(pattern)).or_default();
        let clash = same_shape
            .iter()
            .find_map(|(at, other)| overlap(other, route).map(|rule| (*at, *other, rule)));
        if let Some((at, other, rule)) = clash {
            let pattern = if other.pattern == route.pattern {
                String::new()
            } else {
                format!(" ({:?})", other.pattern)
            };
            check.refuse(
                rule,
                format!("route {at}{pattern} already answers it"),
                "remove one of them, or give them different methods or paths",
            );
        }
        same_shape.push((index, route));
        if answers_like_a_page(route, &["POST"]) {
            self.posts.push((index, route, pattern.clone()));
        }
    }

    /// Checks a page. The host answers its path; an app's routes there can be for WebSockets and
    /// feeds only, which other requests ask for.
    fn check_page(
        &mut self,
        index: usize,
        page: &Page,
        pattern: &Pattern,
        check: &mut SubjectCheck<'_>,
    ) {
        let shape = shape(pattern);
        let same_path = self
            .routes
            .get(&shape)
            .into_iter()
            .flatten()
            .find(|(_, route)| answers_like_a_page(route, &PAGE_METHODS))
            .copied();
        // A route of another shape that matches the page's path would take its forms. The fallback
        // page has only the paths that no route matches, so it loses none.
        let takes_forms = self
            .posts
            .iter()
            .find(|(_, _, other)| !page.is_fallback && other.includes(pattern))
            .map(|(at, route, _)| (*at, *route));
        if let Some((at, route)) = same_path.or(takes_forms) {
            let methods = if route.methods.is_empty() {
                "any method".to_owned()
            } else {
                route.methods.join(", ")
            };
            check.refuse(
                Rule::PageRoute,
                format!("route {at} answers {methods} of {:?}", route.pattern),
                "GET, HEAD and POST of a page's path are the host's: remove the route, \
                 or give one of them another path",
            );
        }
        match self.pages.get(&shape) {
            Some(earlier) => check.refuse(
                Rule::Duplicate,
                format!("page {earlier} already answers it ({:?})", page.pattern),
                "remove one of them",
            ),
            None => _ = self.pages.insert(shape, index),
        }
    }
}

/// Returns true if the route answers one of these methods for the requests that pages are for.
fn answers_like_a_page(route: &Route, methods: &[&str]) -> bool {
    let has_method = route.methods.is_empty()
        || route
            .methods
            .iter()
            .any(|method| methods.contains(&method.as_str()));
    route.target.wants() == Target::Page.wants() && has_method
}

/// Returns the rule that two routes of one shape break. Routes of one room class may share a path,
/// because the headers of a request say whether it is for a WebSocket, a feed or neither.
fn overlap(earlier: &Route, later: &Route) -> Option<Rule> {
    let is_one_class = earlier.room.is_some() && earlier.room == later.room;
    if is_one_class && earlier.target.wants() != later.target.wants() {
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

/// Returns the pattern without the names of its parameters. Patterns of one shape match the same
/// paths.
fn shape(pattern: &Pattern) -> String {
    let step = |segment: &Segment| match segment {
        Segment::Literal(literal) => format!("/={literal}"),
        Segment::Parameter(_) => "/:".to_owned(),
        Segment::Rest(_) => "/*".to_owned(),
    };
    pattern.segments().iter().map(step).collect()
}

#[cfg(test)]
mod tests;
