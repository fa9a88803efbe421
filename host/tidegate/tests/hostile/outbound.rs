//! Outbound HTTP of a guest cannot reach inside.
