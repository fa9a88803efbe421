//! The same route as that of `errand`, over `wasi:http` 0.3: sends a request to the authority in
//! its query, and answers with the outcome.

#[cfg(target_family = "wasm")]
mod app;
