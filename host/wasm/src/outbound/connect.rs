//! The one place from which a guest's requests connect: a name is resolved once, its addresses are filtered, and the connection goes
//! to one of those that are left. No other lookup happens in between, so a resolver that answers otherwise the second time gains
//! nothing.

use super::{
    Grant,
    address::{is_host, is_public},
    destination::{DestinationHost, OutboundDestination},
};
use hyper_util::rt::TokioIo;
use std::{
    error::Error,
    fmt, io,
    net::{IpAddr, SocketAddr, UdpSocket},
    pin::Pin,
    sync::{Arc, OnceLock},
    task::{Context, Poll},
    time::Duration,
};
use tokio::{
    net::{TcpStream, lookup_host},
    time::{Instant, timeout, timeout_at},
};
use tower_service::Service;

/// Time for the lookup, all attempts to connect, and the TLS handshake together.
pub(super) const CONNECT_WITHIN: Duration = Duration::from_secs(10);
/// Addresses of one name that are tried.
const ADDRESSES_MAX: usize = 8;

type PendingWork<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// Looks names up. One implementation asks the system, the other is a script of tests.
pub(super) trait Resolve: Send + Sync + 'static {
    fn resolve(&self, name: String) -> PendingWork<io::Result<Vec<IpAddr>>>;
}

/// The system's resolver.
pub(super) struct SystemResolver;

impl Resolve for SystemResolver {
    fn resolve(&self, name: String) -> PendingWork<io::Result<Vec<IpAddr>>> {
        Box::pin(async move {
            Ok(lookup_host((name, 0))
                .await?
                .map(|address| address.ip())
                .collect())
        })
    }
}

/// The addresses at which this server listens. Clones share them; they are set once, when the sockets are open.
#[derive(Clone, Debug, Default)]
pub struct OwnAddresses(Arc<OnceLock<Vec<SocketAddr>>>);

impl OwnAddresses {
    /// Sets the addresses to which no guest's request is sent. Later calls have no effect.
    pub fn set(&self, addresses: Vec<SocketAddr>) {
        _ = self.0.set(addresses);
    }

    fn is_at(&self, ip: IpAddr, port: u16) -> bool {
        self.0.get().into_iter().flatten().any(|own| {
            let own_ip = own.ip().to_canonical();
            own.port() == port && (own_ip == ip || own_ip.is_unspecified() && is_local(ip))
        })
    }
}

/// True if the address is one of this machine's: only those can be bound.
fn is_local(ip: IpAddr) -> bool {
    UdpSocket::bind((ip, 0)).is_ok()
}

/// Connects to what was granted, and to nothing else.
#[derive(Clone)]
pub(super) struct Connector(Arc<Rules>);

struct Rules {
    grants: Vec<Grant>,
    own: OwnAddresses,
    resolver: Box<dyn Resolve>,
}

/// Why there is no connection.
#[derive(Debug)]
pub(super) enum ConnectError {
    /// No grant has this scheme, host and port.
    NotGranted,
    /// The name has addresses, and none that it may lead to; one of them.
    Prohibited(IpAddr),
    /// The destination is this server itself.
    Own(SocketAddr),
    /// The name has no address.
    NotFound,
    /// The lookup failed.
    Lookup(io::Error),
    /// The last attempt to connect failed.
    Connect(io::Error),
    /// Nothing of it was ready in time.
    TimedOut,
}

impl Connector {
    pub(super) fn new(grants: Vec<Grant>, own: OwnAddresses, resolver: impl Resolve) -> Connector {
        Connector(Arc::new(Rules {
            grants,
            own,
            resolver: Box::new(resolver),
        }))
    }

    pub(super) fn is_granted(&self, destination: &OutboundDestination) -> bool {
        self.0.grant(destination).is_some()
    }

    async fn connect(self, uri: http::Uri) -> Result<TcpStream, ConnectError> {
        let destination = OutboundDestination::of(&uri).ok_or(ConnectError::NotGranted)?;
        let deadline = Instant::now() + CONNECT_WITHIN;
        let addresses = timeout_at(deadline, self.0.addresses(&destination))
            .await
            .map_err(|_| ConnectError::TimedOut)??;
        let mut last = ConnectError::NotFound;
        for (tried, address) in addresses.iter().enumerate() {
            // One silent address leaves time for those after it.
            let share = deadline.saturating_duration_since(Instant::now())
                / (addresses.len() - tried) as u32;
            last = match timeout(share, TcpStream::connect((*address, destination.port()))).await {
                Ok(Ok(stream)) => {
                    _ = stream.set_nodelay(true);
                    return Ok(stream);
                }
                Ok(Err(error)) => ConnectError::Connect(error),
                Err(_) => ConnectError::TimedOut,
            };
        }
        Err(last)
    }
}

impl Rules {
    fn grant(&self, destination: &OutboundDestination) -> Option<&Grant> {
        self.grants.iter().find(|grant| grant.is_for(destination))
    }

    /// The addresses that a connection may go to: at least one.
    async fn addresses(
        &self,
        destination: &OutboundDestination,
    ) -> Result<Vec<IpAddr>, ConnectError> {
        let grant = self.grant(destination).ok_or(ConnectError::NotGranted)?;
        let found = match destination.host() {
            DestinationHost::Address(address) => vec![*address],
            DestinationHost::Name(name) => self
                .resolver
                .resolve(name.clone())
                .await
                .map_err(ConnectError::Lookup)?,
        };
        let mut refusal = ConnectError::NotFound;
        let mut allowed = Vec::new();
        for address in found.into_iter().map(|address| address.to_canonical()) {
            if !is_host(address) || !grant.is_private() && !is_public(address) {
                refusal = ConnectError::Prohibited(address);
            } else if self.own.is_at(address, destination.port()) {
                refusal = ConnectError::Own(SocketAddr::new(address, destination.port()));
            } else if allowed.len() < ADDRESSES_MAX && !allowed.contains(&address) {
                allowed.push(address);
            }
        }
        if allowed.is_empty() {
            Err(refusal)
        } else {
            Ok(allowed)
        }
    }
}

impl Service<http::Uri> for Connector {
    type Response = TokioIo<TcpStream>;
    type Error = ConnectError;
    type Future = PendingWork<Result<TokioIo<TcpStream>, ConnectError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), ConnectError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: http::Uri) -> Self::Future {
        let connector = self.clone();
        Box::pin(async move { connector.connect(uri).await.map(TokioIo::new) })
    }
}

impl fmt::Display for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ConnectError::NotGranted => f.write_str("it is not granted"),
            ConnectError::Prohibited(address) => {
                write!(f, "it leads to {address}, which is not a public address")
            }
            ConnectError::Own(address) => {
                write!(f, "it leads to {address}, where this server listens")
            }
            ConnectError::NotFound => f.write_str("the name has no address"),
            ConnectError::Lookup(error) => write!(f, "the name can't be looked up: {error}"),
            ConnectError::Connect(error) => write!(f, "can't connect: {error}"),
            ConnectError::TimedOut => {
                write!(f, "no connection within {} s", CONNECT_WITHIN.as_secs())
            }
        }
    }
}

impl Error for ConnectError {}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{collections::VecDeque, sync::Mutex};

    /// Gives the next answer of its script at each lookup; after the last there is none.
    struct Script(Mutex<VecDeque<io::Result<Vec<IpAddr>>>>);

    impl Script {
        /// Answers are separated by `|`, addresses by spaces; `!` is a lookup that fails.
        fn new(script: &str) -> Script {
            let answer = |answer: &str| match answer.trim() {
                "!" => Err(io::Error::other("SERVFAIL")),
                addresses => Ok(addresses
                    .split_whitespace()
                    .map(|address| address.parse().unwrap())
                    .collect()),
            };
            Script(Mutex::new(script.split('|').map(answer).collect()))
        }
    }

    impl Resolve for Script {
        fn resolve(&self, _: String) -> PendingWork<io::Result<Vec<IpAddr>>> {
            let answer = self
                .0
                .lock()
                .unwrap()
                .pop_front()
                .unwrap_or_else(|| panic!("one more lookup than the script has"));
            Box::pin(async { answer })
        }
    }

    const PUBLIC: &str = "93.184.216.34";

    /// The addresses that a request to `uri` may connect to, or the refusal, in words.
    async fn addresses(grants: &[&str], own: Option<&str>, uri: &str, script: &str) -> String {
        let grants = grants
            .iter()
            .map(|grant| Grant::parse(grant).unwrap())
            .collect();
        let own_addresses = OwnAddresses::default();
        own_addresses.set(
            own.unwrap_or_default()
                .split_whitespace()
                .map(|own| own.parse().unwrap())
                .collect(),
        );
        let Connector(rules) = Connector::new(grants, own_addresses, Script::new(script));
        let Some(destination) = uri.parse().ok().as_ref().and_then(OutboundDestination::of) else {
            return "no destination".into();
        };
        match rules.addresses(&destination).await {
            Ok(addresses) => addresses
                .iter()
                .map(IpAddr::to_string)
                .collect::<Vec<_>>()
                .join(" "),
            Err(ConnectError::NotGranted) => "not granted".into(),
            Err(ConnectError::Prohibited(_)) => "prohibited".into(),
            Err(ConnectError::Own(_)) => "own".into(),
            Err(ConnectError::NotFound) => "not found".into(),
            Err(ConnectError::Lookup(_)) => "lookup".into(),
            Err(error) => panic!("{error}"),
        }
    }

    #[tokio::test]
    async fn targets_that_no_grant_names_are_refused() {
        let grants = [
            "api.example.com",
            "http://plain.example:8080",
            "http://10.0.0.1",
            "[fd00::1]:8443",
        ];
        let refused = [
            "http://api.example.com/",
            "https://api.example.com:80/",
            "https://api.example.com:22/",
            "https://api.example.com:6379/",
            "https://api.example.com:99999/",
            "https://api.example.com:/",
            "https://api.example.com./",
            "https://api.example.com.evil.org/",
            "https://evil.org/api.example.com",
            "https://xapi.example.com/",
            "https://example.com/",
            "https://user@api.example.com/",
            "https://api.example.com@evil.org/",
            "https://api.example.com:443@evil.org/",
            "https://%61pi.example.com/",
            "https://plain.example:8080/",
            "http://plain.example/",
            "http://plain.example:80/",
            "https://10.0.0.1/",
            "http://10.0.0.1:8080/",
            "http://10.0.0.2/",
            "http://10.0.1/",
            "http://0x0a000001/",
            "http://167772161/",
            "http://012.0.0.1/",
            "http://10.0.0.1./",
            "http://127.0.0.1/",
            "http://169.254.169.254/latest/meta-data/",
            "http://[::1]/",
            "https://[fd00::1]/",
            "https://[fd00::2]:8443/",
            "http://[::ffff:169.254.169.254]/",
            "http://[fe80::1%25eth0]/",
            "http://[v1.x]/",
            "ftp://api.example.com/",
            "//api.example.com/",
            "/",
        ];
        for uri in refused {
            let outcome = addresses(&grants, None, uri, PUBLIC).await;
            assert!(
                ["not granted", "no destination"].contains(&outcome.as_str()),
                "{uri}: {outcome}"
            );
        }
        let allowed = [
            ("https://api.example.com/", PUBLIC),
            ("https://API.EXAMPLE.COM:443/", PUBLIC),
            ("http://plain.example:8080/", PUBLIC),
            ("http://10.0.0.1/", "10.0.0.1"),
            ("http://10.0.0.1:80/", "10.0.0.1"),
            ("http://[::ffff:10.0.0.1]/", "10.0.0.1"),
            ("https://[fd00:0:0::1]:8443/", "fd00::1"),
        ];
        for (uri, expected) in allowed {
            assert_eq!(
                addresses(&grants, None, uri, PUBLIC).await,
                expected,
                "{uri}"
            );
        }
    }

    #[tokio::test]
    async fn a_name_leads_only_to_addresses_that_its_grant_allows() {
        let cases = [
            ("api.example.com", "93.184.216.34", "93.184.216.34"),
            ("api.example.com", "127.0.0.1", "prohibited"),
            ("api.example.com", "10.0.0.1", "prohibited"),
            ("api.example.com", "192.168.1.1", "prohibited"),
            ("api.example.com", "172.16.0.1", "prohibited"),
            ("api.example.com", "169.254.169.254", "prohibited"),
            ("api.example.com", "100.100.100.200", "prohibited"),
            ("api.example.com", "192.0.0.192", "prohibited"),
            ("api.example.com", "168.63.129.16", "prohibited"),
            ("api.example.com", "198.18.0.1", "prohibited"),
            ("api.example.com", "240.0.0.1", "prohibited"),
            ("api.example.com", "0.0.0.0", "prohibited"),
            ("api.example.com", "::1", "prohibited"),
            ("api.example.com", "::ffff:127.0.0.1", "prohibited"),
            ("api.example.com", "::127.0.0.1", "prohibited"),
            ("api.example.com", "64:ff9b::169.254.169.254", "prohibited"),
            ("api.example.com", "64:ff9b:1::a00:1", "prohibited"),
            ("api.example.com", "2002:7f00:1::", "prohibited"),
            ("api.example.com", "2001:0:7f00:1::", "prohibited"),
            ("api.example.com", "fd00:ec2::254", "prohibited"),
            ("api.example.com", "fe80::1", "prohibited"),
            ("api.example.com", "fec0::1", "prohibited"),
            ("api.example.com", "", "not found"),
            ("api.example.com", "!", "lookup"),
            // Addresses that are not allowed are left out, and the rest is used.
            (
                "api.example.com",
                "127.0.0.1 93.184.216.34",
                "93.184.216.34",
            ),
            ("api.example.com", "93.184.216.34 fd00::1", "93.184.216.34"),
            (
                "api.example.com",
                "10.0.0.1 ::1 169.254.169.254",
                "prohibited",
            ),
            // A port in the grant is no permission to go inside.
            ("api.example.com:443", "127.0.0.1", "prohibited"),
            // The first lookup counts; a second one would end the test.
            (
                "api.example.com",
                "93.184.216.34 | 127.0.0.1",
                "93.184.216.34",
            ),
            ("api.example.com", "! | 169.254.169.254", "lookup"),
            (
                "api.example.com::private",
                "10.0.0.1 93.184.216.34",
                "10.0.0.1 93.184.216.34",
            ),
            ("api.example.com::private", "127.0.0.1", "127.0.0.1"),
            ("api.example.com::private", "0.0.0.0", "prohibited"),
            ("api.example.com::private", "::", "prohibited"),
            ("api.example.com::private", "224.0.0.1", "prohibited"),
            ("api.example.com::private", "255.255.255.255", "prohibited"),
        ];
        for (grant, script, expected) in cases {
            assert_eq!(
                addresses(&[grant], None, "https://api.example.com/", script).await,
                expected,
                "{grant} {script}"
            );
        }
    }

    #[tokio::test]
    async fn no_request_comes_back_to_this_server() {
        let cases = [
            (
                "http://localhost:8080::private",
                "127.0.0.1:8080",
                "http://localhost:8080/",
                "127.0.0.1",
                "own",
            ),
            (
                "http://localhost:8080::private",
                "127.0.0.1:8081",
                "http://localhost:8080/",
                "127.0.0.1",
                "127.0.0.1",
            ),
            (
                "http://127.0.0.1:8080",
                "127.0.0.1:8080",
                "http://127.0.0.1:8080/",
                "",
                "own",
            ),
            (
                "http://127.0.0.1:8080",
                "[::1]:8080 127.0.0.1:8080",
                "http://127.0.0.1:8080/",
                "",
                "own",
            ),
            (
                "http://[::1]:8080",
                "[::1]:8080 127.0.0.1:8080",
                "http://[::1]:8080/",
                "",
                "own",
            ),
            (
                "http://[::ffff:127.0.0.1]:8080",
                "127.0.0.1:8080",
                "http://[::ffff:127.0.0.1]:8080/",
                "",
                "own",
            ),
            (
                "http://127.0.0.2:8080",
                "0.0.0.0:8080",
                "http://127.0.0.2:8080/",
                "",
                "own",
            ),
            (
                "http://127.0.0.2:8080",
                "[::]:8080",
                "http://127.0.0.2:8080/",
                "",
                "own",
            ),
            (
                "http://a.example:8080",
                "0.0.0.0:8080",
                "http://a.example:8080/",
                PUBLIC,
                PUBLIC,
            ),
        ];
        for (grant, own, uri, script, expected) in cases {
            assert_eq!(
                addresses(&[grant], Some(own), uri, script).await,
                expected,
                "{grant} {own} {uri}"
            );
        }
    }
}
