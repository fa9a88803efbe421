//! One reading of a path, by random tables and random spellings: the guards that run are those of the path that the app receives,
//! however the app reads it.

use proptest::{collection::vec, prelude::*, sample::select};
use tidegate_hub::{Exports, Found, Guard, Manifest, Route, Table, Target, manifest::AskedFor, path::Path};

/// Pieces that patterns and paths are made of: few, so that they meet.
const NAMES: [&str; 4] = ["files", "secret", "a", ".well-known"];
const ROUTES: [&str; 9] =
    ["/", "/{a}", "/{a}/{b}", "/{a}/{b}/{c}", "/files/{*path}", "/files/{name}", "/a/{*rest}", "/a/secret", "/files/{name}/a"];
const GUARDS: [&str; 14] = [
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
/// Raw segments, and parts of them.
const PARTS: [&str; 20] = [
    "files",
    "secret",
    "a",
    "%73ecret",
    "%66iles",
    "%2Ewell-known",
    "",
    ".",
    "..",
    "%2e",
    "%2E%2e",
    "%2f",
    "%2F",
    "%5c",
    "\\",
    "%252F",
    ";x",
    "%3b",
    "x",
    "%C3%A9",
];

fn spelling() -> impl Strategy<Value = String> {
    let segment = vec(select(&PARTS[..]), 1..4).prop_map(|parts| parts.concat());
    let whole = select(&PARTS[..]).prop_map(str::to_owned);
    let ends = select(&["", "/", "?q=/files/secret", "#x", "?a#b", "//"][..]);
    (vec(prop_oneof![3 => whole, 1 => segment], 0..6), ends).prop_map(|(segments, end)| format!("/{}{end}", segments.join("/")))
}

/// Routes and guards, each once.
fn patterns() -> impl Strategy<Value = (Vec<&'static str>, Vec<&'static str>)> {
    let some = |all: &'static [&'static str], least| {
        vec(select(all), least..6).prop_map(|mut some| {
            some.sort_unstable();
            some.dedup();
            some
        })
    };
    (some(&ROUTES, 1), some(&GUARDS, 0))
}

fn table(routes: &[&str], guards: &[&str]) -> Table {
    let routes = routes.iter().map(|pattern| Route::new("GET", pattern, Target::Http)).collect();
    let guards = guards.iter().map(|pattern| Guard { pattern: (*pattern).into() }).collect();
    Table::new(&Manifest { routes, guards, pages: vec![] }, Exports::ALL).unwrap_or_else(|violations| panic!("{violations:?}"))
}

/// A reader of its own: percent-decoded bytes as text, where that is possible.
fn decoded(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        let code = (bytes[at] == b'%').then(|| text.get(at + 1..at + 3)).flatten().and_then(|hex| u8::from_str_radix(hex, 16).ok());
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

/// Whether a guard's pattern covers these segments, told by its text alone.
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
    fits && fixed.iter().zip(given).all(|(step, given)| step.starts_with('{') || step == given)
}

fn covering<'a>(guards: &[&'a str], given: &[String]) -> Vec<&'a str> {
    guards.iter().copied().filter(|guard| covers(guard, given)).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 20_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_guards_that_run_are_those_of_the_path_that_the_app_receives(sent in spelling(), (routes, guards) in patterns()) {
        let table = table(&routes, &guards);
        let Ok(path) = Path::parse(&sent) else { return Ok(()) };
        let received = path.target();

        // The app's path is in normal form, and is read as what it was made of.
        let again = Path::parse(received).unwrap();
        prop_assert_eq!((again.segments(), again.target()), (path.segments(), received));
        let (bare, _) = received.split_once('?').unwrap_or((received, ""));
        prop_assert!(!received.contains('#') && !bare.contains(['\\', ' ']) && !bare.contains("//"), "{}", received);

        let found = table.find("GET", AskedFor::Other, &path);
        let run: Vec<&str> = table.guards(&[&path]).map(|index| guards[index as usize]).collect();

        // An app that splits it and then decodes reads what the host read.
        let split_first: Vec<String> = bare.split('/').filter(|segment| !segment.is_empty()).map(decoded).collect();
        prop_assert_eq!(&split_first[..], path.segments());
        prop_assert_eq!(&run, &covering(&guards, &split_first));

        if found != Found::Ambiguous {
            // One that decodes and then splits, in whatever way, reads nothing that another guard covers.
            let decoded_first = decoded(bare);
            let readings = [resolved(decoded_first.split('/')), resolved(decoded_first.split(['/', '\\']))];
            for reading in readings {
                let missed: Vec<&str> = covering(&guards, &reading).into_iter().filter(|guard| !run.contains(guard)).collect();
                prop_assert!(missed.is_empty(), "{} as {:?} passes {:?}", received, reading, missed);
            }
        }
        match found {
            Found::Route { index, params, .. } => {
                let pattern = &table.route(index).unwrap().pattern;
                for (name, value) in &params {
                    let is_rest = pattern.contains(&format!("{{*{name}}}"));
                    let segments: Vec<&str> = if is_rest { value.split('/').collect() } else { vec![value] };
                    let all = segments.iter().all(|segment| path.segments().iter().any(|own| own == segment));
                    prop_assert!(all, "{}: {} is {:?}", pattern, name, value);
                    prop_assert!(!(is_rest && value.contains('\\')), "{}: {} is {:?}", pattern, name, value);
                }
            }
            Found::Nothing => prop_assert!(!path.has_separator(), "{}", sent),
            Found::Methods(_) | Found::Ambiguous => {}
        }
    }

    #[test]
    fn no_spelling_of_a_path_changes_where_it_leads(names in vec(select(&NAMES[..]), 0..5), noise in vec(0_usize..8, 5), (routes, guards) in patterns()) {
        let table = table(&routes, &guards);
        let plain = format!("/{}", names.join("/"));
        let spelled: String = names.iter().zip(&noise).map(|(name, noise)| match noise {
            0 => format!("/{name}"),
            1 => format!("//{name}"),
            2 => format!("/./{name}"),
            3 => format!("/x/../{name}"),
            4 => format!("/%2E/%78/%2e%2E/{name}"),
            5 => format!("/%{:02x}{}", name.as_bytes()[0], &name[1..]),
            6 => format!("/%{:02X}{}", name.as_bytes()[0], &name[1..]),
            _ => format!("/{name}/."),
        }).collect();
        let (plain, spelled) = (Path::parse(&plain).unwrap(), Path::parse(&spelled).unwrap());
        prop_assert_eq!(plain.segments(), spelled.segments());
        prop_assert_eq!(plain.target().trim_end_matches('/'), spelled.target().trim_end_matches('/'));
        prop_assert_eq!(table.find("GET", AskedFor::Other, &plain), table.find("GET", AskedFor::Other, &spelled));
        prop_assert!(table.guards(&[&plain]).eq(table.guards(&[&spelled])));
    }
}
