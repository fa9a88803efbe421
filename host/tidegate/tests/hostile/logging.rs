//! Logging never blocks the server, and the output of two events is never joined.
