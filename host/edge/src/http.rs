//! HTTP: connections, heads of requests, and answers.
//!
//! `http1` is one HTTP/1.1 connection. Its parts, `paced_socket`, `request_body` and `http1_body`,
//! record their events in `connection_state`. `exchange` is one request of any version of HTTP and
//! the answer to it; `refusal` has the host's reasons against a request.
//!
//! `lateness` and `pace` are the clock of a connection, `delivery` is the clock of the bytes in the
//! kernel, `held` writes long answers, and `linger` closes a socket whose client still sends.
//! `target`, `authority`, `origin`, `forwarded`, `media` and `trailers` read fields of a head, and
//! `network` is a set of addresses.

pub(crate) mod answer;
pub(crate) mod authority;
pub(crate) mod connection_state;
pub(crate) mod delivery;
pub(crate) mod exchange;
pub(crate) mod forwarded;
pub(crate) mod held;
pub(crate) mod http1;
pub(crate) mod http1_body;
pub(crate) mod lateness;
pub(crate) mod linger;
pub(crate) mod media;
pub(crate) mod network;
pub(crate) mod origin;
pub(crate) mod pace;
pub(crate) mod paced_socket;
pub(crate) mod refusal;
pub(crate) mod request_body;
pub(crate) mod target;
pub(crate) mod trailers;
pub(crate) mod turn;
