//! Reads a manifest, one entry per line. If the rules accept it, every pattern must be found in its
//! router, and no reserved path may be.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tidegate_routing::{Exports, RouteMatch, Guard, Manifest, Page, Route, Router, Target, Wants, LoaderInfo, Path, Pattern};

/// "http GET,POST /a/{b} room", "guard /a/*", "page /a loader,loader action,action", "fallback
/// /{*rest}"
fn read(text: &str) -> Manifest {
    let mut manifest = Manifest::default();
    let list = |text: Option<&str>| {
        text.unwrap_or_default()
            .split_terminator(',')
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    for line in text.lines() {
        let mut words = line.split(' ');
        let (kind, second, third, fourth) =
            (words.next(), words.next(), words.next(), words.next());
        let target = match kind {
            Some("http") => Target::Http,
            Some("stream") => Target::Stream,
            Some("websocket") => Target::WebSocket,
            Some("feed") => Target::Feed,
            Some("guard") => {
                manifest.guards.push(Guard {
                    pattern: second.unwrap_or_default().into(),
                });
                continue;
            }
            Some(kind @ ("page" | "fallback")) => {
                let loaders = list(third)
                    .into_iter()
                    .map(|name| LoaderInfo {
                        name,
                        ..LoaderInfo::default()
                    })
                    .collect();
                let pattern = second.unwrap_or_default().into();
                manifest.pages.push(Page {
                    pattern,
                    loaders,
                    actions: list(fourth),
                    is_fallback: kind == "fallback",
                });
                continue;
            }
            _ => continue,
        };
        let (pattern, room) = (third.unwrap_or_default().into(), fourth.map(str::to_owned));
        manifest.routes.push(Route {
            methods: list(second),
            pattern,
            target,
            room,
        });
    }
    manifest
}

fuzz_target!(|text: &str| {
    let manifest = read(text);
    let router = match Router::new(&manifest, Exports::ALL) {
        Ok(router) => router,
        Err(violations) => {
            assert!(
                !violations.is_empty()
                    && violations
                        .iter()
                        .all(|violation| !format!("{violation:?}").is_empty())
            );
            return;
        }
    };
    let patterns = manifest
        .routes
        .iter()
        .map(|route| &route.pattern)
        .chain(manifest.pages.iter().map(|page| &page.pattern));
    for text in patterns {
        let pattern =
            Pattern::parse(text).unwrap_or_else(|why| panic!("{text:?} passed the rules: {why}"));
        let path = pattern
            .path(|_| Some("v"))
            .expect("every parameter has a value");
        let path =
            Path::parse(&path).unwrap_or_else(|why| panic!("{text:?} makes {path:?}: {why}"));
        assert_eq!(path.segments().len(), pattern.segments().len(), "{text:?}");
        let found = router.find("GET", Wants::Other, &path);
        assert!(
            matches!(found, RouteMatch::Route { .. } | RouteMatch::MethodNotAllowed(_)),
            "{text:?} is not found: {found:?}"
        );
        assert_eq!(
            router.guards(&[&path]).count() <= manifest.guards.len(),
            true
        );
    }
    for reserved in ["/__x", "/__loaders", "/%5F_tidegate/a", "/a/../__x/y"] {
        assert_eq!(
            router.find(
                "GET",
                Wants::Other,
                &Path::parse(reserved).expect("a path")
            ),
            RouteMatch::NotFound
        );
    }
});
