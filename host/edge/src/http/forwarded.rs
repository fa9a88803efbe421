//! The client of a request as trusted proxies describe it: `X-Forwarded-For`, `X-Forwarded-Proto`,
//! `X-Forwarded-Host` and `Forwarded` (RFC 7239).
//!
//! A proxy appends the address of its own client to a list, so a list is read from its end: the
//! addresses of trusted proxies are skipped, and the next one is the client. The client may have
//! written any entry before that one, so these are ignored.
//!
//! Invariant: after this module, a request from a socket that is not a trusted proxy has none of
//! these headers. Neither the host nor the app can therefore mistake a client's claim for a proxy's
//! statement.

use crate::http::{authority::Authority, network::Network};
use http::{HeaderMap, HeaderName, HeaderValue, header};
use std::net::SocketAddr;

/// Description of a request by trusted proxies. A field is `None` if no proxy gives it.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct ClientDescription {
    /// Address of the client. The port is 0 if the proxy does not name it.
    pub(crate) peer: Option<SocketAddr>,
    pub(crate) scheme: Option<&'static str>,
    pub(crate) authority: Option<String>,
}

const FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const HOST: HeaderName = HeaderName::from_static("x-forwarded-host");

/// Returns true if a request has one of the headers that only a trusted proxy may send. It is
/// cheap, since it runs for every request.
pub(crate) fn is_described(headers: &HeaderMap) -> bool {
    headers.keys().any(|name| match name.as_str() {
        name if name.len() < 9 => false,
        name => matches!(
            name,
            "forwarded" | "x-forwarded-for" | "x-forwarded-proto" | "x-forwarded-host"
        ),
    })
}

/// Removes these headers from a request that does not come from a trusted proxy.
pub(crate) fn remove(headers: &mut HeaderMap) {
    for name in [FOR, PROTO, HOST, header::FORWARDED] {
        headers.remove(name);
    }
}

/// Reads the headers of a request from a trusted proxy. The `Host` header becomes the host that
/// they name.
///
/// # Errors
/// Returns the text of a 400 if a header is invalid, or if `Forwarded` and the other headers
/// contradict each other: then one of them comes from the client, and the host can't know which.
pub(crate) fn read(
    headers: &mut HeaderMap,
    trusted: &[Network],
) -> Result<ClientDescription, &'static str> {
    let of_each = [FOR, PROTO, HOST]
        .iter()
        .any(|name| headers.contains_key(name))
        .then(|| of_headers(headers, trusted))
        .transpose()?;
    let of_one = headers
        .contains_key(header::FORWARDED)
        .then(|| of_forwarded(headers, trusted))
        .transpose()?;
    let described = match (of_each, of_one) {
        (Some(one), Some(other)) if one != other => {
            return Err(
                "Forwarded and X-Forwarded-* disagree: the proxy has to remove those that it does not set",
            );
        }
        (one, other) => one.or(other).unwrap_or_default(),
    };
    if let Some(authority) = &described.authority {
        headers.insert(
            header::HOST,
            HeaderValue::from_str(authority).expect("a valid authority"),
        );
    }
    Ok(described)
}

/// A step of the request's way, as described by the proxy after it.
type Hop = Option<SocketAddr>;

/// Returns the index of the client in the list of steps, and its address. Returns `None` if the
/// proxy names no address of its client.
fn client(hops: &[Hop], trusted: &[Network]) -> Option<(usize, SocketAddr)> {
    let mut client = None;
    for (index, hop) in hops.iter().enumerate().rev() {
        let Some(address) = *hop else { break };
        client = Some((index, address));
        if !trusted.iter().any(|network| network.contains(address.ip())) {
            break;
        }
    }
    client
}

fn of_headers(headers: &HeaderMap, trusted: &[Network]) -> Result<ClientDescription, &'static str> {
    let hops: Vec<Hop> = list(headers, &FOR)?.into_iter().map(node).collect();
    let client = client(&hops, trusted);
    // A proxy that appends to one list appends to all. A proxy that sets a single value describes
    // its own client.
    let of_client = |values: Vec<&str>| match client {
        Some((index, _)) if values.len() == hops.len() => {
            values.get(index).map(ToString::to_string)
        }
        _ => values.last().map(ToString::to_string),
    };
    let scheme = of_client(list(headers, &PROTO)?)
        .map(|value| scheme(&value))
        .transpose()?;
    let authority = of_client(list(headers, &HOST)?)
        .map(authority)
        .transpose()?;
    Ok(ClientDescription {
        peer: client.map(|(_, address)| address),
        scheme,
        authority,
    })
}

fn of_forwarded(
    headers: &HeaderMap,
    trusted: &[Network],
) -> Result<ClientDescription, &'static str> {
    const NOT_VALID: &str = "the Forwarded header is not valid (RFC 7239 section 4)";
    let mut elements = Vec::new();
    for line in headers.get_all(header::FORWARDED) {
        elements.extend(parse(line.to_str().map_err(|_| NOT_VALID)?).ok_or(NOT_VALID)?);
    }
    let hops: Vec<Hop> = elements
        .iter()
        .map(|element| element.node.as_deref().and_then(node))
        .collect();
    let client = client(&hops, trusted);
    let of_client = client.map_or(elements.len().checked_sub(1), |(index, _)| Some(index));
    let element = of_client
        .map(|index| std::mem::take(&mut elements[index]))
        .unwrap_or_default();
    let scheme = element.proto.map(|value| scheme(&value)).transpose()?;
    let authority = element.host.map(authority).transpose()?;
    Ok(ClientDescription {
        peer: client.map(|(_, address)| address),
        scheme,
        authority,
    })
}

/// Returns the elements of a list header, which may have several lines (RFC 9110 section 5.6.1).
fn list<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Vec<&'a str>, &'static str> {
    let mut elements = Vec::new();
    for line in headers.get_all(name) {
        let line = line
            .to_str()
            .map_err(|_| "a header of the proxy is not ASCII")?;
        elements.extend(
            line.split(',')
                .map(str::trim)
                .filter(|element| !element.is_empty()),
        );
    }
    Ok(elements)
}

/// Returns the address, which may have a port; `None` for "unknown" and for obfuscated names (RFC
/// 7239 section 6).
fn node(text: &str) -> Hop {
    let text = without_obfuscated_port(text);
    let inner = text
        .strip_prefix('[')
        .and_then(|text| text.strip_suffix(']'))
        .unwrap_or(text);
    let parsed = text
        .parse()
        .ok()
        .or_else(|| Some(SocketAddr::new(inner.parse().ok()?, 0)));
    parsed.map(|address| SocketAddr::new(address.ip().to_canonical(), address.port()))
}

/// Returns the address before an obfuscated port, such as `192.0.2.1:_web` (RFC 7239 section 6,
/// `obfport`), and any other text unchanged.
fn without_obfuscated_port(text: &str) -> &str {
    let is_hidden = |port: &str| {
        !port.is_empty()
            && port
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
    };
    match text.rsplit_once(":_") {
        // If a port follows, an IPv6 address has brackets around its colons.
        Some((address, port))
            if is_hidden(port) && (address.ends_with(']') || !address.contains(':')) =>
        {
            address
        }
        _ => text,
    }
}

/// The scheme of a WebSocket is that of its opening request.
fn scheme(text: &str) -> Result<&'static str, &'static str> {
    match text {
        text if ["https", "wss"]
            .iter()
            .any(|own| text.eq_ignore_ascii_case(own)) =>
        {
            Ok("https")
        }
        text if ["http", "ws"]
            .iter()
            .any(|own| text.eq_ignore_ascii_case(own)) =>
        {
            Ok("http")
        }
        _ => Err("the scheme that the proxy names is neither http nor https"),
    }
}

fn authority(text: String) -> Result<String, &'static str> {
    if Authority::parse(&text).is_some() {
        Ok(text)
    } else {
        Err("the host that the proxy names is not a host, or a host and a port")
    }
}

/// One element of `Forwarded`.
#[derive(Debug, Default, PartialEq, Eq)]
struct Element {
    node: Option<String>,
    proto: Option<String>,
    host: Option<String>,
}

/// Returns the elements of one line, or `None` if it is invalid. A repeated parameter makes an
/// element invalid (RFC 7239 section 4).
fn parse(line: &str) -> Option<Vec<Element>> {
    let mut elements = vec![Element::default()];
    let mut rest = line.trim_start();
    while !rest.is_empty() {
        if let Some(after) = rest.strip_prefix([',', ';']) {
            if rest.starts_with(',') {
                elements.push(Element::default());
            }
            rest = after.trim_start();
            continue;
        }
        let (name, after) = rest.split_once('=')?;
        let (value, after) = value(after)?;
        let element = elements.last_mut().expect("there is one from the start");
        let place = match name {
            name if name.eq_ignore_ascii_case("for") => &mut element.node,
            name if name.eq_ignore_ascii_case("proto") => &mut element.proto,
            name if name.eq_ignore_ascii_case("host") => &mut element.host,
            name if is_token(name) => &mut None,
            _ => return None,
        };
        if place.replace(value).is_some() {
            return None;
        }
        rest = after.trim_start();
        if !rest.is_empty() && !rest.starts_with([',', ';']) {
            return None;
        }
    }
    elements.retain(|element| *element != Element::default());
    Some(elements)
}

/// Returns a token or a quoted string (RFC 9110 section 5.6), and the text after it.
fn value(text: &str) -> Option<(String, &str)> {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find([',', ';', ' ', '\t']).unwrap_or(text.len());
        let (token, rest) = text.split_at(end);
        // An address with a port should be quoted, but often is not.
        let is_value = |byte: u8| is_token_byte(byte) || b":[]".contains(&byte);
        return (!token.is_empty() && token.bytes().all(is_value))
            .then(|| (token.to_owned(), rest));
    };
    let mut value = String::new();
    let mut characters = quoted.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return Some((value, &quoted[at + 1..])),
            '\\' => value.push(characters.next()?.1),
            character => value.push(character),
        }
    }
    None
}

fn is_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(is_token_byte)
}

fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn networks(texts: &[&str]) -> Vec<Network> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn the_client_is_the_last_address_that_is_no_trusted_proxy() {
        let trusted = networks(&["10.0.0.0/8", "fd00::/8"]);
        let cases: [(&[(&str, &str)], &str); 47] = [
            (&[], "- - -"),
            (&[("x-forwarded-for", "192.0.2.1")], "192.0.2.1:0 - -"),
            (
                &[("x-forwarded-for", "192.0.2.1:4711")],
                "192.0.2.1:4711 - -",
            ),
            (&[("x-forwarded-for", "2001:db8::1")], "[2001:db8::1]:0 - -"),
            (
                &[("x-forwarded-for", "[2001:db8::1]:443")],
                "[2001:db8::1]:443 - -",
            ),
            (
                &[("x-forwarded-for", "::ffff:192.0.2.1")],
                "192.0.2.1:0 - -",
            ),
            (
                &[("x-forwarded-for", "8.8.8.8, 192.0.2.1")],
                "192.0.2.1:0 - -",
            ),
            (
                &[("x-forwarded-for", "8.8.8.8, 192.0.2.1, 10.0.0.2, 10.0.0.1")],
                "192.0.2.1:0 - -",
            ),
            (
                &[
                    ("x-forwarded-for", "8.8.8.8"),
                    ("x-forwarded-for", "192.0.2.1"),
                ],
                "192.0.2.1:0 - -",
            ),
            (
                &[("x-forwarded-for", "10.0.0.3, 10.0.0.2")],
                "10.0.0.3:0 - -",
            ),
            (
                &[("x-forwarded-for", "8.8.8.8, unknown, 10.0.0.2")],
                "10.0.0.2:0 - -",
            ),
            (
                &[("forwarded", "for=\"192.0.2.1:_p.0-x_\"")],
                "192.0.2.1:0 - -",
            ),
            (
                &[("forwarded", "for=\"[2001:db8::1]:_port\", for=10.0.0.2")],
                "[2001:db8::1]:0 - -",
            ),
            (
                &[("forwarded", "for=192.0.2.1, for=\"10.0.0.2:_a\"")],
                "192.0.2.1:0 - -",
            ),
            (&[("forwarded", "for=\"192.0.2.1:_\"")], "- - -"),
            (&[("forwarded", "for=\"2001:db8::1:_a\"")], "- - -"),
            (&[("forwarded", "for=\"unknown:_a\"")], "- - -"),
            (&[("x-forwarded-for", "8.8.8.8, <script>")], "- - -"),
            (&[("x-forwarded-for", ", ,192.0.2.1,")], "192.0.2.1:0 - -"),
            (&[("x-forwarded-for", "")], "- - -"),
            (&[("x-forwarded-proto", "https")], "- https -"),
            (&[("x-forwarded-proto", "WSS")], "- https -"),
            (&[("x-forwarded-proto", "ws")], "- http -"),
            (&[("x-forwarded-proto", "gopher")], "400"),
            (&[("x-forwarded-host", "a.example")], "- - a.example"),
            (
                &[("x-forwarded-host", "a.example:8443")],
                "- - a.example:8443",
            ),
            (&[("x-forwarded-host", "user@a.example")], "400"),
            (&[("x-forwarded-host", "a.example/x")], "400"),
            (
                &[
                    ("x-forwarded-for", "9.9.9.9, 192.0.2.1, 10.0.0.2"),
                    ("x-forwarded-proto", "http, https, http"),
                ],
                "192.0.2.1:0 https -",
            ),
            (
                &[
                    ("x-forwarded-for", "9.9.9.9, 192.0.2.1, 10.0.0.2"),
                    ("x-forwarded-proto", "https"),
                ],
                "192.0.2.1:0 https -",
            ),
            (
                &[
                    ("x-forwarded-for", "192.0.2.1"),
                    ("x-forwarded-host", "evil.example, a.example"),
                ],
                "192.0.2.1:0 - a.example",
            ),
            (
                &[("forwarded", "for=192.0.2.1;proto=https;host=a.example")],
                "192.0.2.1:0 https a.example",
            ),
            (
                &[("forwarded", "For=\"[2001:db8::1]:4711\"; Proto=HTTPS")],
                "[2001:db8::1]:4711 https -",
            ),
            (
                &[(
                    "forwarded",
                    "for=8.8.8.8;host=evil.example, for=192.0.2.1;host=a.example;by=10.0.0.1",
                )],
                "192.0.2.1:0 - a.example",
            ),
            (
                &[(
                    "forwarded",
                    "for=8.8.8.8, for=192.0.2.1;proto=https, for=10.0.0.2;proto=http",
                )],
                "192.0.2.1:0 https -",
            ),
            (
                &[("forwarded", "for=8.8.8.8"), ("forwarded", "for=192.0.2.1")],
                "192.0.2.1:0 - -",
            ),
            (
                &[("forwarded", "for=8.8.8.8, for=_hidden;proto=https")],
                "- https -",
            ),
            (&[("forwarded", "for=\"192.0.2.1, for=8.8.8.8")], "400"),
            (
                &[("forwarded", "for=\"a\\\"b\", for=192.0.2.1")],
                "192.0.2.1:0 - -",
            ),
            (&[("forwarded", "for=192.0.2.1;for=8.8.8.8")], "400"),
            (&[("forwarded", "for")], "400"),
            (&[("forwarded", "for=")], "400"),
            (&[("forwarded", "for=192.0.2.1 proto=https")], "400"),
            (
                &[("forwarded", "for=192.0.2.1;ext=\"a,b;c\"")],
                "192.0.2.1:0 - -",
            ),
            (
                &[
                    ("forwarded", "for=192.0.2.1"),
                    ("x-forwarded-for", "192.0.2.1"),
                ],
                "192.0.2.1:0 - -",
            ),
            (
                &[
                    ("forwarded", "for=8.8.8.8"),
                    ("x-forwarded-for", "192.0.2.1"),
                ],
                "400",
            ),
            (
                &[
                    ("forwarded", "host=evil.example"),
                    ("x-forwarded-for", "192.0.2.1"),
                ],
                "400",
            ),
        ];
        for (given, expected) in cases {
            let mut headers = HeaderMap::new();
            for (name, value) in given {
                headers.append(name.parse::<HeaderName>().unwrap(), value.parse().unwrap());
            }
            assert_eq!(is_described(&headers), !given.is_empty(), "{given:?}");
            let read = read(&mut headers, &trusted).map_or_else(
                |_| "400".to_owned(),
                |ClientDescription {
                     peer,
                     scheme,
                     authority,
                 }| {
                    assert_eq!(
                        headers
                            .get(header::HOST)
                            .and_then(|host| host.to_str().ok()),
                        authority.as_deref()
                    );
                    let peer = peer.map_or("-".to_owned(), |peer| peer.to_string());
                    format!(
                        "{peer} {} {}",
                        scheme.unwrap_or("-"),
                        authority.as_deref().unwrap_or("-")
                    )
                },
            );
            assert_eq!(read, expected, "{given:?}");
        }
    }
}
