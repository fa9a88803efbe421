//! The listen address: parsing and opening sockets.

use crate::command_error::CommandError;
use anyhow::anyhow;
use rustix::io::Errno;
use std::{
    collections::BTreeSet,
    fmt,
    io::{self, ErrorKind},
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, ToSocketAddrs},
    str::FromStr,
};
use tokio::net::TcpSocket;

/// Number of connections that the kernel queues until they are accepted, so that a burst is not
/// refused.
const BACKLOG: u32 = 1024;

/// Number of ports to try for port 0 if the host has several addresses.
const PORT_TRIES: u32 = 10;

/// Host and port. A name is resolved when the sockets are opened.
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
        let parts = text
            .rsplit_once(':')
            .and_then(|(host, port)| Some((host, port.parse::<u16>().ok()?)));
        let is_host = |host: &str| {
            let name = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '.';
            !host.is_empty() && host.chars().all(name) || text.parse::<SocketAddr>().is_ok()
        };
        match parts {
            Some((host, _)) if is_host(host) => Ok(Listen(text.to_owned())),
            _ => Err(format!(
                "{text:?} is not an address: write host and port, as in \"127.0.0.1:8080\" or \"[::1]:8080\""
            )),
        }
    }
}

impl Listen {
    /// Returns the addresses of the host. `localhost` is always both loopback addresses, without
    /// the machine's resolver (RFC 6761 section 6.3).
    fn addresses(&self) -> io::Result<BTreeSet<SocketAddr>> {
        match self.0.rsplit_once(':') {
            Some((host, port)) if host.eq_ignore_ascii_case("localhost") => {
                let port = port.parse().expect("it was checked when the text was read");
                Ok(BTreeSet::from([
                    SocketAddr::from((Ipv4Addr::LOCALHOST, port)),
                    SocketAddr::from((Ipv6Addr::LOCALHOST, port)),
                ]))
            }
            _ => Ok(self.0.to_socket_addrs()?.collect()),
        }
    }

    /// Opens a socket for each address of the host, IPv4 first, all with the same port. An address
    /// that this machine lacks is skipped if another one can be opened: `localhost` includes `::1`
    /// even where IPv6 is off. Must be called in a runtime, which creates the sockets.
    pub(crate) fn open(&self) -> Result<Vec<TcpListener>, CommandError> {
        let addresses = self
            .addresses()
            .map_err(|error| CommandError::usage(format!("can't resolve {self}: {error}")))?;
        if addresses.is_empty() {
            return Err(CommandError::usage(format!("{self} has no address")));
        }
        let mut tries = PORT_TRIES;
        loop {
            match open_all(&addresses) {
                Ok(listeners) => return Ok(listeners),
                // The free port of the first address may be in use at the second.
                Err((address, error))
                    if error.kind() == ErrorKind::AddrInUse
                        && self.0.ends_with(":0")
                        && tries > 1 =>
                {
                    tracing::debug!("{address} is in use, so another port is tried");
                    tries -= 1;
                }
                Err((address, error)) => return Err(refused(address, &error)),
            }
        }
    }
}

fn open_all(addresses: &BTreeSet<SocketAddr>) -> Result<Vec<TcpListener>, (SocketAddr, io::Error)> {
    let mut listeners: Vec<TcpListener> = Vec::new();
    let mut missing = None;
    for &address in addresses {
        let port = listeners
            .first()
            .and_then(|first| Some(first.local_addr().ok()?.port()))
            .unwrap_or(address.port());
        let address = SocketAddr::new(address.ip(), port);
        match open(address) {
            Ok(listener) => listeners.push(listener),
            Err(error) if is_missing(&error) => missing = Some((address, error)),
            Err(error) => return Err((address, error)),
        }
    }
    match missing {
        Some(missing) if listeners.is_empty() => Err(missing),
        _ => Ok(listeners),
    }
}

/// True if this machine lacks the address, or its address family.
fn is_missing(error: &io::Error) -> bool {
    error.kind() == ErrorKind::AddrNotAvailable
        || error.raw_os_error() == Some(Errno::AFNOSUPPORT.raw_os_error())
}

fn refused(address: SocketAddr, error: &io::Error) -> CommandError {
    let other = SocketAddr::new(address.ip(), address.port().checked_add(1).unwrap_or(8080));
    let advice =
        format!("choose another address, as in --listen {other} (port 0 for any free one)");
    match error.kind() {
        ErrorKind::AddrInUse => anyhow!("{address} is in use: {advice}").into(),
        _ => anyhow!("can't listen on {address}: {error}: {advice}").into(),
    }
}

fn open(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() {
        TcpSocket::new_v4()
    } else {
        TcpSocket::new_v6()
    }?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)?.into_std()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn localhost_has_both_families() {
        let addresses = |text: &str| {
            text.parse::<Listen>()
                .unwrap()
                .addresses()
                .unwrap()
                .into_iter()
                .map(|address| address.to_string())
        };
        assert_eq!(
            addresses("LocalHost:80").collect::<Vec<_>>(),
            ["127.0.0.1:80", "[::1]:80"]
        );
        assert_eq!(addresses("[::1]:80").collect::<Vec<_>>(), ["[::1]:80"]);
    }

    #[test]
    fn every_address_of_a_name_is_opened_with_one_port() {
        let addresses = |text: &[&str]| {
            text.iter()
                .map(|address| address.parse().unwrap())
                .collect::<BTreeSet<SocketAddr>>()
        };
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let _entered = runtime.enter();
        let opened = open_all(&addresses(&["127.0.0.2:0", "127.0.0.1:0"])).unwrap();
        let opened: Vec<SocketAddr> = opened
            .iter()
            .map(|listener| listener.local_addr().unwrap())
            .collect();
        assert_eq!(
            opened
                .iter()
                .map(|address| address.ip().to_string())
                .collect::<Vec<_>>(),
            ["127.0.0.1", "127.0.0.2"]
        );
        assert!(
            opened[0].port() == opened[1].port() && opened[0].port() != 0,
            "{opened:?}"
        );
        // No machine has the address 192.0.2.1 (RFC 5737).
        assert_eq!(
            open_all(&addresses(&["127.0.0.1:0", "192.0.2.1:0"]))
                .unwrap()
                .len(),
            1
        );
        assert!(open_all(&addresses(&["192.0.2.1:0"])).is_err());
    }

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
