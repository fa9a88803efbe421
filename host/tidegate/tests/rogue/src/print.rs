//! Prints output of every kind, in any event, once or many times.

use std::io::Write as _;
use tidegate::prelude::*;

/// Prints "KIND" once, or "KIND COUNT" repeatedly.
pub(crate) fn print(what: &str) -> Result {
    let (kind, count) = what.split_once([' ', '-']).unwrap_or((what, "1"));
    for _ in 0..count.parse().unwrap_or(1) {
        print_once(kind);
    }
    Ok(())
}

fn print_once(kind: &str) {
    match kind {
        "line" => println!("a line"),
        // Neither ends its line: the first stays in the guest's own buffer, the second doesn't.
        "part" => print!("a part"),
        "errors" => eprint!("a part of errors"),
        "forged" => println!(
            "one\r2026-11-27T00:00:00.000000Z  INFO forged: line\u{1b}[2J\u{1b}[31mred\u{7}\u{9b}31m\u{202e}\u{2028}end"
        ),
        "bytes" => _ = std::io::stdout().write_all(b"not\xfftext\xc3\n"),
        "long" => println!("{}é{}", "x".repeat(8191), "y".repeat(20_000)),
        "kilobyte" => println!("{}", "k".repeat(1024)),
        kind => println!("{kind}"),
    }
}
