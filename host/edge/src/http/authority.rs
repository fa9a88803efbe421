//! Host and port in a request (RFC 3986 section 3.2), without a copy, and the hosts that are
//! served.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    str::FromStr,
};

/// A host and an optional port, as in `Host` and in an absolute target. User information is
/// invalid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Authority<'a> {
    pub(crate) host: UriHost<'a>,
    /// 1 to 65535.
    pub(crate) port: Option<u16>,
}

/// A host in one of its two forms.
#[derive(Clone, Copy, Debug)]
pub(crate) enum UriHost<'a> {
    Ip(IpAddr),
    /// Letters, digits, `-`, `_`, `.` and `~`, in any case.
    Name(&'a str),
}

impl<'a> Authority<'a> {
    /// Returns `None` if the text is not exactly a host, or a host, a colon and a port.
    pub(crate) fn parse(text: &'a str) -> Option<Authority<'a>> {
        let (host, port) = match text.strip_prefix('[') {
            Some(rest) => {
                let (address, port) = rest.split_once(']')?;
                (
                    UriHost::Ip(IpAddr::V6(address.parse::<Ipv6Addr>().ok()?)),
                    port,
                )
            }
            None => {
                let (host, port) = text.split_at(text.find(':').unwrap_or(text.len()));
                (UriHost::parse_name(host)?, port)
            }
        };
        let port = match port.strip_prefix(':') {
            None if port.is_empty() => None,
            None => return None,
            // A colon without a port is valid (RFC 3986 section 3.2.3).
            Some("") => None,
            Some(port) => Some(parse_port(port)?),
        };
        Some(Authority { host, port })
    }
}

fn parse_port(text: &str) -> Option<u16> {
    let is_number = text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|port| is_number && *port > 0)
}

impl<'a> UriHost<'a> {
    fn parse_name(text: &'a str) -> Option<UriHost<'a>> {
        let is_name =
            |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~');
        if text.is_empty() || !text.bytes().all(is_name) {
            return None;
        }
        // Only a text that begins with a digit can be an address.
        let address = if text.as_bytes()[0].is_ascii_digit() {
            text.parse::<Ipv4Addr>().ok()
        } else {
            None
        };
        Some(address.map_or(UriHost::Name(text), |address| UriHost::Ip(address.into())))
    }
}

impl PartialEq for UriHost<'_> {
    fn eq(&self, other: &UriHost<'_>) -> bool {
        match (self, other) {
            (UriHost::Ip(one), UriHost::Ip(other)) => one == other,
            (UriHost::Name(one), UriHost::Name(other)) => one.eq_ignore_ascii_case(other),
            _ => false,
        }
    }
}

impl Eq for UriHost<'_> {}

/// Hosts that the server answers to. A request for another host gets 421 before any guest code;
/// only `/__tidegate/health` answers for all hosts.
///
/// ```
/// use tidegate_edge::Hosts;
/// let hosts = Hosts::List(vec!["example.org".parse().unwrap(), "*.example.org".parse().unwrap()]);
/// assert_ne!(hosts, Hosts::Any);
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Hosts {
    /// Any host, as the default: the operator has not set it.
    #[default]
    Any,
    /// `localhost`, names below it, and IP addresses. An attacker can't point any of these at this
    /// server.
    Local,
    /// Hosts that match one of the patterns.
    List(Vec<HostPattern>),
}

/// A host in [`Hosts::List`]. Ports are not compared. Names are parsed and matched without regard
/// to case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HostPattern {
    /// `*`: any host.
    Any,
    /// `example.org`: this name and no other.
    Name(String),
    /// `*.example.org`: every name below this one, at any depth, but not the name itself.
    Below(String),
    /// `192.0.2.1` or `[2001:db8::1]`: this address.
    Ip(IpAddr),
}

impl Hosts {
    /// Returns true if a request may name this host. Allocates nothing.
    pub(crate) fn admit(&self, host: UriHost<'_>) -> bool {
        match self {
            Hosts::Any => true,
            Hosts::Local => match host {
                UriHost::Ip(_) => true,
                UriHost::Name(name) => {
                    relative(name).eq_ignore_ascii_case("localhost")
                        || is_below(relative(name), "localhost")
                }
            },
            Hosts::List(patterns) => patterns.iter().any(|pattern| pattern.matches(host)),
        }
    }
}

impl HostPattern {
    fn matches(&self, host: UriHost<'_>) -> bool {
        match (self, host) {
            (HostPattern::Any, _) => true,
            (HostPattern::Ip(own), UriHost::Ip(given)) => *own == given,
            (HostPattern::Name(own), UriHost::Name(given)) => {
                own.eq_ignore_ascii_case(relative(given))
            }
            (HostPattern::Below(own), UriHost::Name(given)) => is_below(relative(given), own),
            (HostPattern::Ip(_), UriHost::Name(_))
            | (HostPattern::Name(_) | HostPattern::Below(_), UriHost::Ip(_)) => false,
        }
    }
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            HostPattern::Any => f.write_str("*"),
            HostPattern::Name(name) => f.write_str(name),
            HostPattern::Below(name) => write!(f, "*.{name}"),
            HostPattern::Ip(IpAddr::V4(address)) => write!(f, "{address}"),
            HostPattern::Ip(IpAddr::V6(address)) => write!(f, "[{address}]"),
        }
    }
}

impl FromStr for HostPattern {
    type Err = String;

    fn from_str(text: &str) -> Result<HostPattern, String> {
        let advice = "write a name, \"*.\" and a name, an address, or \"*\" for any, as in \"example.org\", \"*.example.org\" or \"[::1]\"";
        if text == "*" {
            return Ok(HostPattern::Any);
        }
        let below = text.strip_prefix("*.");
        match Authority::parse(below.unwrap_or(text)) {
            Some(Authority { port, .. }) if port.is_some() || text.ends_with(':') => Err(format!(
                "{text:?} has a port, which is not compared: {advice}"
            )),
            Some(Authority {
                host: UriHost::Name(name),
                ..
            }) if is_dns_name(relative(name)) => {
                let name = relative(name).to_ascii_lowercase();
                Ok(if below.is_some() {
                    HostPattern::Below(name)
                } else {
                    HostPattern::Name(name)
                })
            }
            Some(Authority {
                host: UriHost::Ip(address),
                ..
            }) if below.is_none() => Ok(HostPattern::Ip(address)),
            _ => Err(format!("{text:?} is no host: {advice}")),
        }
    }
}

/// Returns the name without a final dot, which marks a complete name.
fn relative(name: &str) -> &str {
    name.strip_suffix('.').unwrap_or(name)
}

/// Returns true if no label is empty.
fn is_dns_name(name: &str) -> bool {
    name.split('.').all(|label| !label.is_empty())
}

fn is_below(name: &str, above: &str) -> bool {
    let Some(at) = name.len().checked_sub(above.len() + 1).filter(|at| *at > 0) else {
        return false;
    };
    // A name is ASCII, so it can be split at any byte.
    name.as_bytes()[at] == b'.'
        && name.as_bytes()[at + 1..].eq_ignore_ascii_case(above.as_bytes())
        && is_dns_name(&name[..at])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_authority_is_a_host_and_perhaps_a_port() {
        let name = UriHost::Name;
        let ip = |text: &str| UriHost::Ip(text.parse().unwrap());
        let cases = [
            ("a.example", Some((name("A.example"), None))),
            ("a.example:8080", Some((name("a.example"), Some(8080)))),
            ("a.example:00080", Some((name("a.example"), Some(80)))),
            ("a.example:", Some((name("a.example"), None))),
            ("a_b-c~d.e.", Some((name("a_b-c~d.e."), None))),
            ("127.0.0.1:80", Some((ip("127.0.0.1"), Some(80)))),
            ("[::1]:80", Some((ip("::1"), Some(80)))),
            ("[0:0::1]", Some((ip("::1"), None))),
            ("127.1", Some((name("127.1"), None))),
            ("", None),
            (":80", None),
            ("a:0", None),
            ("a:65536", None),
            ("a:99999999999999999999", None),
            ("a:-1", None),
            ("a:+1", None),
            ("a:x", None),
            ("a:80:80", None),
            ("a:80 ", None),
            ("::1", None),
            ("[::1", None),
            ("[::1]x", None),
            ("[::1]80", None),
            ("[::1%25eth0]", None),
            ("[127.0.0.1]", None),
            ("[v1.x]", None),
            ("user@a", None),
            ("user:password@a:80", None),
            ("a/b", None),
            ("a#b", None),
            ("a?b", None),
            ("a,b", None),
            ("a b", None),
            ("a%2Eb", None),
            ("é", None),
        ];
        for (text, expected) in cases {
            let parsed = Authority::parse(text).map(|authority| (authority.host, authority.port));
            assert_eq!(parsed, expected, "{text:?}");
        }
    }

    #[test]
    fn a_host_is_served_as_the_setting_says() {
        let list = |patterns: &[&str]| {
            Hosts::List(
                patterns
                    .iter()
                    .map(|pattern| pattern.parse().unwrap())
                    .collect(),
            )
        };
        let listed = list(&["a.example", "*.B.example", "192.0.2.1", "[2001:db8::1]"]);
        let cases = [
            (&Hosts::Any, "evil.example", true),
            (&Hosts::Local, "localhost:8080", true),
            (&Hosts::Local, "LOCALHOST.", true),
            (&Hosts::Local, "talk.localhost", true),
            (&Hosts::Local, "a.talk.localhost.", true),
            (&Hosts::Local, "127.0.0.1:8080", true),
            (&Hosts::Local, "192.168.1.7", true),
            (&Hosts::Local, "[::1]:8080", true),
            (&Hosts::Local, "evil.example", false),
            (&Hosts::Local, "localhost.evil.example", false),
            (&Hosts::Local, "evillocalhost", false),
            (&Hosts::Local, ".localhost", false),
            (&Hosts::Local, "..localhost", false),
            (&Hosts::Local, ".a.localhost", false),
            (&Hosts::Local, "a..localhost", false),
            (&Hosts::Local, "localhost..", false),
            (&Hosts::Local, "127.0.0.1.evil.example", false),
            (&Hosts::Local, "127.1", false),
            (&Hosts::Local, "2130706433", false),
            (&listed, "A.example:1", true),
            (&listed, "a.example.", true),
            (&listed, "x.a.example", false),
            (&listed, "b.example", false),
            (&listed, "x.b.example", true),
            (&listed, "x.y.b.example", true),
            (&listed, "xb.example", false),
            (&listed, "..b.example", false),
            (&listed, "x..b.example", false),
            (&listed, "192.0.2.1", true),
            (&listed, "192.0.2.2", false),
            (&listed, "[2001:db8:0::1]", true),
            (&listed, "localhost", false),
            (&list(&["*"]), "evil.example", true),
            (&list(&[]), "a.example", false),
        ];
        for (hosts, authority, admitted) in cases {
            let host = Authority::parse(authority).unwrap().host;
            assert_eq!(hosts.admit(host), admitted, "{hosts:?} {authority}");
        }
    }

    #[test]
    fn a_pattern_is_a_host_without_a_port() {
        for text in [
            "",
            "*.",
            "**",
            "*example.org",
            "a.*",
            "*.*",
            "http://a.example",
            "a.example:80",
            "a:",
            "[::1]:80",
            "::1",
            "a..b",
            ".a",
            "a/",
            "*.[::1]",
            "*.127.0.0.1",
            "a b",
        ] {
            assert!(text.parse::<HostPattern>().is_err(), "{text:?}");
        }
    }
}
