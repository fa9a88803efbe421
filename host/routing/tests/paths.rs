//! A path has one reading. Random tables and random spellings check that the guards that run are
//! those of the path that the app receives, however the app decodes it.

mod reading;

use proptest::{collection::vec, prelude::*, sample::select};
use reading::{GUARDS, ROUTES, table};
use tidegate_routing::{Path, Wants};

/// Parts of patterns and paths: they are few, so that they meet.
const NAMES: [&str; 4] = ["files", "secret", "a", ".well-known"];
/// Raw segments, and parts of segments.
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
    (vec(prop_oneof![3 => whole, 1 => segment], 0..6), ends)
        .prop_map(|(segments, end)| format!("/{}{end}", segments.join("/")))
}

/// Generates routes and guards without repetition.
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

proptest! {
    #![proptest_config(ProptestConfig { cases: 20_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_guards_that_run_are_those_of_the_path_that_the_app_receives(sent in spelling(), (routes, guards) in patterns()) {
        let table = table(&routes, &guards);
        reading::check(&sent, &guards, &table);
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
        prop_assert_eq!(table.find("GET", Wants::Other, &plain), table.find("GET", Wants::Other, &spelled));
        prop_assert!(table.guards(&[&plain]).eq(table.guards(&[&spelled])));
    }
}
