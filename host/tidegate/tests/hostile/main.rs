//! Hostile clients, hostile guests and faults of the machine against the real binary: one module
//! for each kind.
//!
//! Each test lowers a limit by a setting instead of waiting for its default, and checks that only
//! the offender notices.

#[path = "../support/mod.rs"]
mod support;

mod caps;
mod events;
mod fairness;
mod hosts;
mod instances;
mod limits;
mod logging;
mod memory;
mod operator;
mod outbound;
mod paths;
mod progress;
mod proxies;
mod retries;
mod shares;
mod storage;
