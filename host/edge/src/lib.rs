//! The network wall.
