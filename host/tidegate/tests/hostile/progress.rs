//! Every wait that a client can hold has a deadline or a minimum rate, and connections are capped.
