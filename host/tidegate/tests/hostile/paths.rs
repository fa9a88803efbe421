//! Every consumer of a request's path reads it in the same way.
