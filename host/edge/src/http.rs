//! HTTP: connections, heads of requests, and answers.
//!
//! `http1` is one HTTP/1.1 connection. `exchange` is one request of any version of HTTP and the
//! answer to it; `request_body` is its body, and `refusal` the host's reasons against it. `paced`
//! and `pace` are the clock of a connection, `delivery` is the clock of the bytes in the kernel,
//! `held` writes long answers, and `linger` closes a socket whose client still sends. `target`,
//! `authority`, `origin`, `forwarded`, `media` and `trailers` read fields of a head.

pub(crate) mod answer;
pub(crate) mod authority;
pub(crate) mod delivery;
pub(crate) mod exchange;
pub(crate) mod forwarded;
pub(crate) mod held;
pub(crate) mod http1;
pub(crate) mod linger;
pub(crate) mod media;
pub(crate) mod origin;
pub(crate) mod pace;
pub(crate) mod paced;
pub(crate) mod refusal;
pub(crate) mod request_body;
pub(crate) mod target;
pub(crate) mod trailers;
pub(crate) mod turn;
