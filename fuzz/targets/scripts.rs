//! A script of `tidegate test`: steps, or the line of what is wrong.
#![no_main]

#[allow(dead_code, reason = "the command uses all of it")]
#[path = "../../host/tidegate/src/hex.rs"]
mod hex;
#[allow(dead_code, reason = "the command uses all of it")]
#[path = "../../host/tidegate/src/quantity.rs"]
mod quantity;
#[allow(dead_code, reason = "the command uses all of it")]
#[path = "../../host/tidegate/src/script.rs"]
mod script;

use libfuzzer_sys::fuzz_target;
use std::path::Path;

fuzz_target!(|text: &str| {
    let lines = text.lines().count() + 1;
    match script::parse(text, Path::new("/folder")) {
        Ok(tests) => assert!(
            tests
                .iter()
                .flat_map(|test| &test.steps)
                .all(|step| (1..=lines).contains(&step.line))
        ),
        Err(wrong) => assert!(
            (1..=lines).contains(&wrong.line) && !wrong.to_string().is_empty(),
            "{wrong}"
        ),
    }
});
