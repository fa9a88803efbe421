//! Measures a server from outside: a load generator, the process it loads, and the figures of both.
//!
//! Nothing here knows Tidegate, but for one yardstick that is its storage alone: a server is a
//! command line that prints its address. The binaries are
//! `load` (one scenario, one server), `native` (the yardstick servers) and `compare` (all of it, side by side).

pub mod answer;
pub mod frame;

pub mod connection;
pub mod crowd;
pub mod inbox;

pub mod machine;
pub mod neighbours;
pub mod process;
pub mod server;

pub mod board;
pub mod outcome;
pub mod stamp;
pub mod talks;

pub mod echo;
pub mod fanout;
pub mod first_byte;
pub mod idle;
pub mod pages;
pub mod request;
pub mod start;
pub mod wake;

pub mod scenario;
