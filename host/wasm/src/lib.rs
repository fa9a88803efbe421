//! The guest wall.
