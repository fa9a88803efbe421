//! The surface that browsers and HTTP clients see, against the real binary: one module for each kind.

#[path = "../support/mod.rs"]
mod support;

mod browser;
mod forms;
mod streams;
