//! Where a request goes, and which destinations were granted.

use std::{fmt, net::IpAddr};

/// A host that an app may send requests to, over one scheme and one port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    destination: OutboundDestination,
    private: bool,
}

/// Scheme, host and port of a request's target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct OutboundDestination {
    https: bool,
    host: DestinationHost,
    port: u16,
}

/// A host as it stands in a target. Names are compared as text: one that only looks like an address, such as `0x7f.1`, is a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum DestinationHost {
    /// In lower case.
    Name(String),
    /// In canonical form: no IPv4 inside IPv6.
    Address(IpAddr),
}

impl Grant {
    /// Reads `[SCHEME://]HOST[:PORT][::private]`. Without a scheme it is `https`; without a port it is the scheme's own, 443 or 80.
    /// `private` lets the name lead to addresses that are not public; a literal address needs no such permission.
    ///
    /// # Errors
    /// A sentence that says what to write instead.
    ///
    /// ```
    /// use tidegate_wasm::Grant;
    /// assert_eq!(Grant::parse("api.example.com").unwrap().to_string(), "https://api.example.com:443");
    /// assert_eq!(Grant::parse("http://db.internal:8080::private").unwrap().to_string(), "http://db.internal:8080::private");
    /// assert!(Grant::parse("https://api.example.com/path").is_err());
    /// ```
    pub fn parse(text: &str) -> Result<Grant, String> {
        let wrong = || {
            format!(
                "{text:?} is not a host: write [SCHEME://]HOST[:PORT][::private], as in \"api.example.com\" (https, port 443) \
                 or \"http://db.internal:8080::private\""
            )
        };
        let (target, private) = match text.strip_suffix("::private") {
            Some(target) => (target, true),
            None => (text, false),
        };
        let target = if target.contains("://") {
            target.to_owned()
        } else {
            format!("https://{target}")
        };
        let uri: http::Uri = target.parse().map_err(|_| wrong())?;
        if uri.path_and_query().is_some_and(|path| path != "/")
            || target.ends_with('/')
            || target.contains(['*', '#'])
        {
            return Err(wrong());
        }
        let destination = OutboundDestination::of(&uri).ok_or_else(wrong)?;
        Ok(Grant {
            destination,
            private,
        })
    }

    /// True if the name may lead to addresses that are not public.
    pub(super) fn is_private(&self) -> bool {
        self.private || matches!(self.destination.host, DestinationHost::Address(_))
    }

    pub(super) fn is_for(&self, destination: &OutboundDestination) -> bool {
        self.destination == *destination
    }
}

impl fmt::Display for Grant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let suffix = if self.private { "::private" } else { "" };
        write!(f, "{}{suffix}", self.destination)
    }
}

impl OutboundDestination {
    /// The destination of an absolute URI; none if the scheme is neither `http` nor `https`, or if the authority is anything but a
    /// host and a valid port: user information, an empty or too large port, brackets around no IPv6 address.
    pub(super) fn of(uri: &http::Uri) -> Option<OutboundDestination> {
        let https = match uri.scheme_str()? {
            "https" => true,
            "http" => false,
            _ => return None,
        };
        let authority = uri.authority()?;
        let port = match authority.as_str().strip_prefix(authority.host())? {
            "" => default_port(https),
            port => port
                .strip_prefix(':')
                .filter(|port| port.bytes().all(|b| b.is_ascii_digit()))?
                .parse()
                .ok()?,
        };
        Some(OutboundDestination {
            https,
            host: DestinationHost::parse(authority.host())?,
            port,
        })
    }

    pub(super) fn host(&self) -> &DestinationHost {
        &self.host
    }

    pub(super) fn port(&self) -> u16 {
        self.port
    }

    /// The URI that the client is given: the destination in normal form, so that one destination has one pool of connections.
    pub(super) fn authority(&self) -> String {
        match self.port == default_port(self.https) {
            true => self.host.to_string(),
            false => format!("{}:{}", self.host, self.port),
        }
    }
}

fn default_port(https: bool) -> u16 {
    if https { 443 } else { 80 }
}

impl fmt::Display for OutboundDestination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.https { "https" } else { "http" };
        write!(f, "{scheme}://{}:{}", self.host, self.port)
    }
}

impl DestinationHost {
    fn parse(text: &str) -> Option<DestinationHost> {
        if let Some(rest) = text.strip_prefix('[') {
            let address: IpAddr = rest.strip_suffix(']')?.parse().ok()?;
            return address
                .is_ipv6()
                .then(|| DestinationHost::Address(address.to_canonical()));
        }
        match text.parse() {
            Ok(address) => Some(DestinationHost::Address(address)),
            Err(_) => (!text.is_empty()).then(|| DestinationHost::Name(text.to_ascii_lowercase())),
        }
    }
}

impl fmt::Display for DestinationHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DestinationHost::Name(name) => f.write_str(name),
            DestinationHost::Address(IpAddr::V4(v4)) => v4.fmt(f),
            DestinationHost::Address(IpAddr::V6(v6)) => write!(f, "[{v6}]"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_grant_is_scheme_host_port_and_whether_it_may_lead_inside() {
        let cases = [
            ("api.example.com", Some("https://api.example.com:443")),
            ("API.example.com", Some("https://api.example.com:443")),
            (
                "https://api.example.com",
                Some("https://api.example.com:443"),
            ),
            ("http://api.example.com", Some("http://api.example.com:80")),
            ("api.example.com:8443", Some("https://api.example.com:8443")),
            (
                "http://localhost:3000::private",
                Some("http://localhost:3000::private"),
            ),
            (
                "db.internal::private",
                Some("https://db.internal:443::private"),
            ),
            ("10.0.0.1:80", Some("https://10.0.0.1:80")),
            ("[::1]:3000", Some("https://[::1]:3000")),
            ("http://[::ffff:10.0.0.1]", Some("http://10.0.0.1:80")),
            ("", None),
            ("::private", None),
            ("a b", None),
            ("*.example.com", None),
            ("https://", None),
            ("ftp://a.example", None),
            ("https://a.example/", None),
            ("https://a.example/path", None),
            ("a.example?x", None),
            ("a.example#x", None),
            ("user@a.example", None),
            ("a.example:", None),
            ("a.example:99999", None),
            ("a.example:+80", None),
            ("[::1", None),
            ("a.example::public", None),
        ];
        for (text, expected) in cases {
            assert_eq!(
                Grant::parse(text)
                    .ok()
                    .map(|grant| grant.to_string())
                    .as_deref(),
                expected,
                "{text:?}"
            );
        }
    }
}
