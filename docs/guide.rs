//! The Rust of the guide and of the README, compiled and tested: each block is a module (`build.rs`).

#![allow(dead_code, missing_docs, unreachable_pub)]

include!(concat!(env!("OUT_DIR"), "/modules.rs"));
