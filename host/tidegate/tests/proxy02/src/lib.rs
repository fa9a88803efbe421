//! A component that exports `wasi:http/incoming-handler` 0.2 and uses no interface of Tidegate.

#[cfg(target_family = "wasm")]
mod app;
#[cfg(target_family = "wasm")]
mod body;
#[cfg(target_family = "wasm")]
mod ends;
#[cfg(target_family = "wasm")]
#[path = "../../proxy03/src/excess.rs"]
mod excess;
#[cfg(target_family = "wasm")]
mod world;
