//! A component that exports `wasi:http/handler` 0.3 and uses no interface of Tidegate.

#[cfg(target_family = "wasm")]
mod app;
#[cfg(target_family = "wasm")]
mod body;
#[cfg(target_family = "wasm")]
mod ends;
#[cfg(target_family = "wasm")]
mod excess;
#[cfg(target_family = "wasm")]
mod world;
