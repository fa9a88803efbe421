//! Where to listen: an address as people write it, opened as a socket.

use crate::failure::Failure;
use anyhow::anyhow;
use std::{
    fmt,
    io::{self, ErrorKind},
    net::{SocketAddr, TcpListener, ToSocketAddrs},
    str::FromStr,
};
use tokio::net::TcpSocket;

/// Connections that wait to be accepted: a burst of them is not refused.
const BACKLOG: u32 = 1024;

/// Host and port; a name is resolved when the socket is opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Listen(String);

impl Default for Listen {
    fn default() -> Listen {
        Listen("127.0.0.1:8080".into())
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Listen {
    type Err = String;

    fn from_str(text: &str) -> Result<Listen, String> {
        let parts = text.rsplit_once(':').and_then(|(host, port)| Some((host, port.parse::<u16>().ok()?)));
        let is_host = |host: &str| {
            let name = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '.';
            !host.is_empty() && host.chars().all(name) || text.parse::<SocketAddr>().is_ok()
        };
        match parts {
            Some((host, _)) if is_host(host) => Ok(Listen(text.to_owned())),
            _ => Err(format!("{text:?} is no address: write host and port, as in \"127.0.0.1:8080\" or \"[::1]:8080\"")),
        }
    }
}

impl Listen {
    /// Opens the socket; the runtime that this is called in gives it up again.
    pub(crate) fn open(&self) -> Result<TcpListener, Failure> {
        let mut addresses = self.0.to_socket_addrs().map_err(|error| Failure::usage(format!("can't find the address {self}: {error}")))?;
        let address = addresses.next().ok_or_else(|| Failure::usage(format!("{self} has no address")))?;
        open(address).map_err(|error| refused(address, &error))
    }
}

fn refused(address: SocketAddr, error: &io::Error) -> Failure {
    let other = SocketAddr::new(address.ip(), address.port().checked_add(1).unwrap_or(8080));
    let advice = format!("pass another address, as in --listen {other} (port 0 for any free one)");
    match error.kind() {
        ErrorKind::AddrInUse => anyhow!("{address} is in use: {advice}").into(),
        _ => anyhow!("can't listen on {address}: {error}: {advice}").into(),
    }
}

fn open(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)?.into_std()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_a_host_and_a_port() {
        let cases = [
            ("127.0.0.1:8080", true),
            ("127.0.0.1:0", true),
            ("localhost:8080", true),
            ("[::1]:8080", true),
            ("my-host.example:80", true),
            ("8080", false),
            (":8080", false),
            ("localhost", false),
            ("127.0.0.1:", false),
            ("127.0.0.1:65536", false),
            ("::1:8080", false),
            ("http://localhost:8080", false),
            ("local host:80", false),
            ("", false),
        ];
        for (text, valid) in cases {
            assert_eq!(text.parse::<Listen>().is_ok(), valid, "{text:?}");
        }
    }
}
