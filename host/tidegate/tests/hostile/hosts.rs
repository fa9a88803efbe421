//! Only hosts that may be named are served.
