//! Tests of the rules: what is accepted, what is refused, and by which rule.

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
    violations(&manifest, exports)
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
        // texts that are no pattern
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
        let broken: Vec<(usize, Rule)> = violations(&manifest, exports)
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
        violations(&manifest, exports)
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
        let broken: Vec<(usize, Rule)> = violations(&manifest, Exports::ALL)
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
        violations(
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
    let line = violations(&manifest, Exports::ALL)[0].to_string();
    assert_eq!(
        line,
        r#"route 0 (get "/a"): not a method of a route: methods are upper-case: write "GET""#
    );
}

/// Every violation of the manifest; none if it passes.
fn violations(manifest: &Manifest, exports: Exports) -> Vec<Violation> {
    check(manifest, exports).err().unwrap_or_default()
}
