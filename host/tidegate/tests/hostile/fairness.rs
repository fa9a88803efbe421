//! A client that floods or a guest that spins leaves the others their share of a worker.
