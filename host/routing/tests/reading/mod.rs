//! Properties that hold for any path, checked by readers that share no code with the host's own.

use tidegate_routing::{Exports, Guard, Manifest, Path, Route, RouteMatch, Router, Target, Wants};

/// Patterns of routes, which meet each other and the paths of the tests.
pub(crate) const ROUTES: [&str; 9] = [
    "/",
    "/{a}",
    "/{a}/{b}",
    "/{a}/{b}/{c}",
    "/files/{*path}",
    "/files/{name}",
    "/a/{*rest}",
    "/a/secret",
    "/files/{name}/a",
];

/// Patterns of guards.
pub(crate) const GUARDS: [&str; 14] = [
    "/*",
    "/",
    "/files",
    "/files/*",
    "/files/secret",
    "/files/secret/*",
    "/files/secret/a",
    "/files/{name}",
    "/files/{name}/*",
    "/files/{name}/a",
    "/files/{*rest}",
    "/{x}/secret/*",
    "/a/{*rest}",
    "/.well-known/*",
];

/// A table of some of [`ROUTES`] and [`GUARDS`].
pub(crate) fn table(routes: &[&str], guards: &[&str]) -> Router {
    let routes = routes
        .iter()
        .map(|pattern| Route::new("GET", pattern, Target::Http))
        .collect();
    let guards = guards
        .iter()
        .map(|pattern| Guard {
            pattern: (*pattern).into(),
        })
        .collect();
    Router::new(
        &Manifest {
            routes,
            guards,
            pages: vec![],
        },
        Exports::ALL,
    )
    .unwrap_or_else(|violations| panic!("{violations:?}"))
}

/// Panics unless the guards that run are those of the path that the app receives, however the app
/// decodes it.
pub(crate) fn check(sent: &str, guards: &[&str], table: &Router) {
    let Ok(path) = Path::parse(sent) else { return };
    let received = path.target();

    // The app's path is in normal form, and parsing it gives the same segments.
    let again = Path::parse(received).unwrap();
    assert_eq!(
        (again.segments(), again.target()),
        (path.segments(), received)
    );
    let (bare, _) = received.split_once('?').unwrap_or((received, ""));
    assert!(
        !received.contains('#') && !bare.contains(['\\', ' ']) && !bare.contains("//"),
        "{}",
        received
    );

    let found = table.find("GET", Wants::Other, &path);
    let run: Vec<&str> = table
        .guards(&[&path])
        .map(|index| guards[index as usize])
        .collect();

    // An app that splits the path and then decodes it gets the host's segments.
    let split_first: Vec<String> = bare
        .split('/')
        .filter(|segment| !segment.is_empty())
        .map(decoded)
        .collect();
    assert_eq!(&split_first[..], path.segments());
    assert_eq!(&run, &covering(guards, &split_first));

    if found != RouteMatch::Ambiguous {
        // A reader that decodes first and then splits, with or without backslashes as separators,
        // gets no path that another guard covers.
        let decoded_first = decoded(bare);
        let readings = [
            resolved(decoded_first.split('/')),
            resolved(decoded_first.split(['/', '\\'])),
        ];
        for reading in readings {
            let missed: Vec<&str> = covering(guards, &reading)
                .into_iter()
                .filter(|guard| !run.contains(guard))
                .collect();
            assert!(
                missed.is_empty(),
                "{} as {:?} passes {:?}",
                received,
                reading,
                missed
            );
        }
    }
    match found {
        RouteMatch::Route { index, params, .. } => {
            let pattern = &table.route(index).unwrap().pattern;
            for (name, value) in &params {
                let is_rest = pattern.contains(&format!("{{*{name}}}"));
                let segments: Vec<&str> = if is_rest {
                    value.split('/').collect()
                } else {
                    vec![value]
                };
                let all = segments
                    .iter()
                    .all(|segment| path.segments().iter().any(|own| own == segment));
                assert!(all, "{}: {} is {:?}", pattern, name, value);
                assert!(
                    !(is_rest && value.contains('\\')),
                    "{}: {} is {:?}",
                    pattern,
                    name,
                    value
                );
            }
        }
        RouteMatch::NotFound => assert!(!path.has_separator(), "{}", sent),
        RouteMatch::MethodNotAllowed(_) | RouteMatch::Ambiguous => {}
    }
}

/// A decoder of the test's own: percent-decoded bytes as text, where that is possible.
fn decoded(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        let code = (bytes[at] == b'%')
            .then(|| text.get(at + 1..at + 3))
            .flatten()
            .and_then(|hex| u8::from_str_radix(hex, 16).ok());
        out.push(code.unwrap_or(bytes[at]));
        at += if code.is_some() { 3 } else { 1 };
    }
    String::from_utf8(out).expect("the path was UTF-8")
}

/// Segments without the empty and the dot segments.
fn resolved<'a>(segments: impl Iterator<Item = &'a str>) -> Vec<String> {
    let mut kept: Vec<String> = Vec::new();
    for segment in segments {
        match segment {
            "" | "." => {}
            ".." => _ = kept.pop(),
            segment => kept.push(segment.to_owned()),
        }
    }
    kept
}

/// Returns true if a guard's pattern covers these segments, judged by its text alone.
fn covers(pattern: &str, given: &[String]) -> bool {
    let steps: Vec<&str> = pattern.split('/').filter(|step| !step.is_empty()).collect();
    let (fixed, least) = match steps.split_last() {
        Some((&"*", fixed)) => (fixed, Some(0)),
        Some((last, fixed)) if last.starts_with("{*") => (fixed, Some(1)),
        _ => (&steps[..], None),
    };
    let fits = match least {
        Some(least) => given.len() >= fixed.len() + least,
        None => given.len() == fixed.len(),
    };
    fits && fixed
        .iter()
        .zip(given)
        .all(|(step, given)| step.starts_with('{') || step == given)
}

fn covering<'a>(guards: &[&'a str], given: &[String]) -> Vec<&'a str> {
    guards
        .iter()
        .copied()
        .filter(|guard| covers(guard, given))
        .collect()
}
