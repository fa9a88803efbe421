//! Behaviour that the host must bound, for the guests of both versions of `wasi:http`.

use std::hint::black_box;

/// Returns the names of headers that the host refuses, separated by spaces.
pub(crate) fn refused(is_refused: impl Fn(&str) -> bool) -> String {
    let names = ["date", "host", "connection", "keep-alive", "x-kept"];
    let refused: Vec<&str> = names.into_iter().filter(|name| is_refused(name)).collect();
    refused.join(" ")
}

/// Computes without end.
pub(crate) fn spin() -> ! {
    loop {
        black_box(());
    }
}

/// Allocates without end.
pub(crate) fn grow() -> ! {
    let mut pieces = Vec::new();
    loop {
        pieces.push(black_box(vec![1u8; 1 << 20]));
    }
}
