//! A component that exports `wasi:http/incoming-handler` 0.2 and nothing of Tidegate: it never heard of it.

#[cfg(target_family = "wasm")]
mod app;
#[cfg(target_family = "wasm")]
mod body;
#[cfg(target_family = "wasm")]
mod ends;
#[cfg(target_family = "wasm")]
mod world;
