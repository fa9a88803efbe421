//! Storage that failed recovers by itself.
