//! The `form` that an action of a guest reads.

/// What stands behind a `form` in a guest's hands.
#[allow(unreachable_pub, reason = "the generated bindings export it again")]
pub struct Form(pub(crate) Box<dyn tidegate_hub::page::Form>);
