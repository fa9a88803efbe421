//! The surface for browsers and HTTP clients, and components of other toolchains, against the real
//! binary: one module for each kind.

#[path = "../support/mod.rs"]
mod support;

mod answers;
mod browser;
mod close;
mod files;
mod foreign;
mod forms;
mod messages;
mod pings;
mod streams;
