//! Generated Rust types of `wit/`, which cross between guest and host. They are private to this
//! crate.

#![allow(missing_docs, unreachable_pub, unsafe_code, clippy::all)]

// The path is the workspace's. A release to a registry must include a copy of `wit/`.
wit_bindgen::generate!({ path: "../wit", world: "app", pub_export_macro: true, export_macro_name: "export_app" });
