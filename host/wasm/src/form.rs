//! The `form` that an action of a guest reads.

/// The host's side of a guest's `form` resource.
#[allow(unreachable_pub, reason = "the generated bindings export it again")]
pub struct FormResource(pub(crate) Box<dyn tidegate_hub::page::Form>);
