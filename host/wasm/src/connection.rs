//! The `connection` that a guest holds a handle to.

use std::sync::Arc;
use tidegate_hub::Conn;

/// The connection that a handle stands for.
#[allow(unreachable_pub, reason = "the generated bindings export it again")]
pub enum Connection {
    /// That of the event that runs, which the instance's state has: one handle for each event in turn.
    OfEvent,
    /// One that the guest found.
    Found(Arc<Conn>),
}
