//! The Rust of the guide, compiled and tested: each block of `src` is a module (see `build.rs`).

#![allow(dead_code, missing_docs, unreachable_pub)]

include!(concat!(env!("OUT_DIR"), "/modules.rs"));
