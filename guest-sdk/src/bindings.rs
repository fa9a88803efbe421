//! `wit/` as Rust, generated: the types that cross between guest and host. They are private to this crate.

#![allow(missing_docs, unreachable_pub, unsafe_code, clippy::all)]

// The path is the workspace's; a release to a registry has to bring a copy of `wit/` along.
wit_bindgen::generate!({ path: "../wit", world: "app", pub_export_macro: true, export_macro_name: "export_app" });
