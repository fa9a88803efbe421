//! Every kind of misbehaviour of guest code, by name.

use std::{hint::black_box, time::Duration};
use tidegate::prelude::*;

/// A text in every panic and error, which no client may read.
const SECRET: &str = "the app's own secret";

/// Misbehaves as `how` says. `fail` is the only way in which the app itself answers.
pub(crate) async fn misbehave(how: &str) -> Result {
    println!("about to {how}");
    match how {
        "panic" => panic!("{SECRET}"),
        "abort" => std::process::abort(),
        "exit" => std::process::exit(0),
        "recurse" => drop(recurse(1)),
        "spin" => spin(),
        "eat" => eat(),
        "sleep" => sleep(Duration::from_secs(3600)).await,
        "fail" => return Err(Error::fault(SECRET)),
        how => {
            return Err(Error::bad_request(format!(
                "no way to misbehave is called {how:?}"
            )));
        }
    }
    Ok(())
}

/// Exhausts the stack.
fn recurse(depth: u64) -> u64 {
    let frame = black_box([depth; 64]);
    if depth == 0 {
        return 0;
    }
    frame[0] + recurse(black_box(depth + 1)) + frame[63]
}

fn spin() {
    let mut turns = 0_u64;
    loop {
        turns = black_box(turns).wrapping_add(1);
    }
}

fn eat() {
    let mut eaten = Vec::new();
    loop {
        eaten.push(black_box(vec![1_u8; 1 << 20]));
    }
}
