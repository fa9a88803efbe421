//! Tests of the router: where paths lead.

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
fn the_fallback_page_answers_paths_without_a_route() {
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
    let router =
        Router::new(&manifest, Exports::ALL).unwrap_or_else(|violations| panic!("{violations:?}"));
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
fn routes_of_one_path_differ_by_the_wanted_target() {
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
