//! A path, and which routes and guards there are: the guards that run are those of the path that
//! the app receives.
#![no_main]

#[path = "../../host/routing/tests/reading/mod.rs"]
mod reading;

use libfuzzer_sys::fuzz_target;
use reading::{GUARDS, ROUTES};

fn chosen<'a>(all: &[&'a str], bits: [u8; 2]) -> Vec<&'a str> {
    let bits = u16::from_le_bytes(bits);
    all.iter()
        .enumerate()
        .filter(|(at, _)| bits >> at & 1 == 1)
        .map(|(_, pattern)| *pattern)
        .collect()
}

fuzz_target!(|data: &[u8]| {
    let [a, b, c, d, path @ ..] = data else {
        return;
    };
    let Ok(path) = std::str::from_utf8(path) else {
        return;
    };
    let (routes, guards) = (chosen(&ROUTES, [*a, *b]), chosen(&GUARDS, [*c, *d]));
    reading::check(path, &guards, &reading::table(&routes, &guards));
});
