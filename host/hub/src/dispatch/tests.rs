//! The order of handling, as the trace of its steps.

use super::*;
use tidegate_routing::{Exports, FirstValue, Guard, LoaderInfo, Manifest, Page, Route};

/// Routes, guards and pages that the cases are about.
fn router() -> Router {
    let page = |pattern: &str, fallback| Page {
        pattern: pattern.to_owned(),
        loaders: vec![LoaderInfo {
            name: "stock".to_owned(),
            is_live: false,
            first_value: FirstValue::Soon,
        }],
        actions: vec!["buy".to_owned()],
        is_fallback: fallback,
    };
    let guard = |pattern: &str| Guard {
        pattern: pattern.to_owned(),
    };
    let manifest = Manifest {
        routes: vec![
            Route::new("GET", "/a", Target::Http),
            Route::new("PUT", "/b/c", Target::Stream),
            Route::new("GET", "/chat", Target::WebSocket),
            Route::new("GET", "/news", Target::Feed),
            Route::new("GET", "/secret/{x}", Target::Http),
        ],
        guards: vec![
            guard("/secret/*"),
            guard("/__loaders"),
            guard("/secret/{x}"),
        ],
        pages: vec![page("/shop/{id}", false), page("/shop/sale", false)],
    };
    Router::new(&manifest, Exports::ALL).unwrap_or_else(|violations| panic!("{violations:?}"))
}

/// Steps of a driver for which every check passes, every guard passes and no step has a file.
fn trace(router: &Router, facts: RequestFacts<'_>, has_file: bool) -> String {
    let mut dispatch = Dispatch::new(router, facts);
    let mut steps = Vec::new();
    loop {
        let (text, is_last) = match dispatch.admit() {
            AdmissionStep::CheckFormOrigin => ("origin".to_owned(), false),
            AdmissionStep::CheckHandshake => ("handshake".to_owned(), false),
            AdmissionStep::Refuse(refusal) => (describe(&refusal), true),
            AdmissionStep::HostEndpoint => ("host endpoint".to_owned(), true),
            AdmissionStep::Loaders => ("loaders".to_owned(), true),
            AdmissionStep::Admitted => break,
        };
        steps.push(text);
        if is_last {
            return steps.join(", ");
        }
    }
    steps.extend(rest(&mut dispatch, has_file));
    steps.join(", ")
}

fn rest(dispatch: &mut Dispatch<'_>, has_file: bool) -> Vec<String> {
    let mut steps = Vec::new();
    loop {
        let (text, is_last) = match dispatch.next() {
            DispatchStep::Guard(index) => (format!("guard {index}"), false),
            DispatchStep::File => ("file".to_owned(), false),
            DispatchStep::FallbackFile => ("fallback file".to_owned(), false),
            DispatchStep::LookForFile => {
                dispatch.set_has_file(has_file);
                ("look".to_owned(), false)
            }
            DispatchStep::Respond(destination) => (format!("route {}", destination.route), true),
            DispatchStep::Refuse(refusal) => (describe(&refusal), true),
        };
        steps.push(text);
        if is_last {
            return steps;
        }
    }
}

fn describe(refusal: &HostRefusal) -> String {
    match refusal.allow() {
        Some(allow) => format!("{} {allow}", refusal.status().as_u16()),
        None => refusal.status().as_u16().to_string(),
    }
}

#[test]
fn every_request_takes_the_steps_in_one_order() {
    let cases = [
        // method, path, steps without files, steps with files of which none has the path
        ("GET", "/a", "route 0", "file, route 0"),
        ("HEAD", "/a", "route 0", "file, route 0"),
        ("POST", "/a", "405 GET, HEAD", "file, look, 405 GET, HEAD"),
        ("PUT", "/b/c", "route 1", "file, route 1"),
        ("GET", "/b/c", "405 PUT", "file, look, 405 PUT"),
        ("GET", "/none", "404", "file, fallback file, look, 404"),
        (
            "GET",
            "/chat",
            "handshake, route 2",
            "handshake, file, route 2",
        ),
        ("GET", "/news", "route 3", "file, route 3"),
        (
            "GET",
            "/secret/1",
            "guard 0, guard 2, route 4",
            "guard 0, guard 2, file, route 4",
        ),
        (
            "GET",
            "/secret/1/2",
            "guard 0, 404",
            "guard 0, file, fallback file, look, 404",
        ),
        ("GET", "/shop/7", "route 5", "file, route 5"),
        (
            "POST",
            "/shop/7",
            "origin, route 5",
            "origin, file, route 5",
        ),
        (
            "DELETE",
            "/shop/7",
            "405 GET, HEAD, POST",
            "file, look, 405 GET, HEAD, POST",
        ),
        (
            "GET",
            "/__tidegate/health",
            "host endpoint",
            "host endpoint",
        ),
        ("POST", "/__tidegate/x", "host endpoint", "host endpoint"),
        ("POST", "/__loaders", "origin, loaders", "origin, loaders"),
        ("GET", "/__loaders", "405 POST", "405 POST"),
        ("GET", "/__other", "404", "file, fallback file, look, 404"),
        ("GET", "/__tidegate%2Fhealth", "400", "400"),
        ("GET", "/x/a%2Fb", "400", "400"),
        (
            "GET",
            "/secret/a%2Fb",
            "guard 0, guard 2, route 4",
            "guard 0, guard 2, file, route 4",
        ),
    ];
    let router = router();
    for (method, path, plain, with_files) in cases {
        let path = Path::parse(path).unwrap();
        for (has_files, expected) in [(false, plain), (true, with_files)] {
            let facts = RequestFacts {
                method,
                path: &path,
                wants: Wants::Other,
                is_served: true,
                has_files,
            };
            assert_eq!(
                trace(&router, facts, false),
                expected,
                "{method} {}, has_files: {has_files}",
                path.target()
            );
        }
    }
}

#[test]
fn a_host_that_is_not_served_reaches_only_the_health_endpoint() {
    let router = router();
    for (path, expected) in [
        ("/__tidegate/health", "host endpoint"),
        ("/__tidegate/client.js", "421"),
        ("/__tidegate/health/x", "421"),
        ("/__loaders", "421"),
        ("/a", "421"),
        ("/secret/1", "421"),
    ] {
        let path = Path::parse(path).unwrap();
        let facts = RequestFacts {
            method: "GET",
            path: &path,
            wants: Wants::Other,
            is_served: false,
            has_files: true,
        };
        assert_eq!(trace(&router, facts, true), expected, "{}", path.target());
    }
}

#[test]
fn a_file_adds_its_methods_to_those_of_the_routes() {
    let router = router();
    for (method, path, expected) in [
        ("POST", "/none", "file, fallback file, look, 405 GET, HEAD"),
        ("GET", "/b/c", "file, look, 405 PUT, GET, HEAD"),
        ("POST", "/a", "file, look, 405 GET, HEAD"),
    ] {
        let path = Path::parse(path).unwrap();
        let facts = RequestFacts {
            method,
            path: &path,
            wants: Wants::Other,
            is_served: true,
            has_files: true,
        };
        assert_eq!(
            trace(&router, facts, true),
            expected,
            "{method} {}",
            path.target()
        );
    }
}

#[test]
fn without_pages_the_loaders_path_is_like_every_other() {
    let router = Router::new(
        &Manifest {
            routes: vec![Route::new("GET", "/a", Target::Http)],
            guards: vec![Guard {
                pattern: "/__loaders".to_owned(),
            }],
            pages: vec![],
        },
        Exports::ALL,
    )
    .unwrap();
    let path = Path::parse(LOADERS_PATH).unwrap();
    let facts = RequestFacts {
        method: "POST",
        path: &path,
        wants: Wants::Other,
        is_served: true,
        has_files: false,
    };
    assert_eq!(trace(&router, facts, false), "guard 0, 404");
}

/// `id=7,x=1` as a map.
fn map(params: &str) -> BTreeMap<String, String> {
    params
        .split_terminator(',')
        .filter_map(|pair| pair.split_once('='))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}

#[test]
fn a_loader_is_found_by_its_page_and_guarded_as_the_page_is() {
    let manifest = Manifest {
        routes: vec![],
        guards: vec![
            Guard {
                pattern: "/secret/*".to_owned(),
            },
            Guard {
                pattern: "/__loaders".to_owned(),
            },
        ],
        pages: ["/secret/{id}", "/open", "/open/{*rest}"]
            .into_iter()
            .map(|pattern| Page {
                pattern: pattern.to_owned(),
                loaders: vec![LoaderInfo {
                    name: "stock".to_owned(),
                    is_live: false,
                    first_value: FirstValue::Soon,
                }],
                ..Page::default()
            })
            .collect(),
    };
    let router =
        Router::new(&manifest, Exports::ALL).unwrap_or_else(|violations| panic!("{violations:?}"));
    let cases = [
        // page, loader, parameters, query, expected
        ("/open", "stock", "", "", "/open: guard 1, route 1"),
        ("/open", "stock", "", "?a=b", "/open?a=b: guard 1, route 1"),
        (
            "/secret/{id}",
            "stock",
            "id=7",
            "tab=1",
            "/secret/7?tab=1: guard 0, guard 1, route 0",
        ),
        (
            "/open/{*rest}",
            "stock",
            "rest=a/b c",
            "",
            "/open/a/b%20c: guard 1, route 2",
        ),
        (
            "/open/{*rest}",
            "stock",
            "rest=../secret/7",
            "",
            "404 with these parameters it is another page",
        ),
        (
            "/secret/{id}",
            "stock",
            "",
            "",
            "400 the parameter \"id\" is missing, or empty",
        ),
        (
            "/secret/{id}",
            "stock",
            "id=7,x=1",
            "",
            "400 the page has no parameter \"x\"",
        ),
        ("/open", "none", "", "", "404 the page has no such loader"),
        ("/none", "stock", "", "", "404 there is no such page"),
        ("/open", "stock", "", " ", "400 \"search\" is not a query"),
    ];
    let loaders_path = Path::parse(LOADERS_PATH).unwrap();
    for (page, loader, params, search, expected) in cases {
        let name = LoaderName {
            page,
            loader,
            params: &map(params),
            search,
        };
        let outcome = match LoaderTarget::find(&router, name) {
            Err(problem) => format!("{} {}", problem.status.as_u16(), problem.message),
            Ok(loader) => {
                let path = Path::parse(&loader.target).unwrap();
                let mut dispatch = Dispatch::of_loader(&router, &path, &loaders_path, &loader);
                assert_eq!(dispatch.admit(), AdmissionStep::Admitted);
                format!(
                    "{}: {}",
                    loader.target,
                    rest(&mut dispatch, false).join(", ")
                )
            }
        };
        assert_eq!(outcome, expected, "{page} {loader} {params} {search:?}");
    }
}

#[test]
fn a_page_s_path_is_made_of_its_pattern_and_parameters() {
    let cases = [
        ("/", "", Ok("/")),
        ("/products/{id}", "id=7", Ok("/products/7")),
        ("/p/{a}/{b}", "a=x y,b=é/", Ok("/p/x%20y/%C3%A9%2F")),
        ("/docs/{*rest}", "rest=a/b c", Ok("/docs/a/b%20c")),
        ("/caf%C3%A9", "", Ok("/caf%C3%A9")),
        (
            "/products/{id}",
            "",
            Err("the parameter \"id\" is missing, or empty"),
        ),
        (
            "/products/{id}",
            "id=",
            Err("the parameter \"id\" is missing, or empty"),
        ),
        (
            "/products/{id}",
            "id=7,x=1",
            Err("the page has no parameter \"x\""),
        ),
    ];
    for (pattern, params, expected) in cases {
        let made = path_of(&Pattern::parse(pattern).unwrap(), &map(params));
        assert_eq!(
            made.as_deref().map_err(String::as_str),
            expected,
            "{pattern} {params}"
        );
    }
}
