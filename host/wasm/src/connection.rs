//! The `connection` that a guest holds a handle to.

use std::sync::Arc;
use tidegate_hub::Conn;

/// What stands behind a `connection` in a guest's hands: none before the first event.
#[allow(unreachable_pub, reason = "the generated bindings export it again")]
pub struct Connection(pub(crate) Option<Arc<Conn>>);
