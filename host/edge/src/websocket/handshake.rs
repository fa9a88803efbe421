//! The client's half of the opening handshake (RFC 6455 section 4.2.1): its offer, or the reason
//! for its refusal.

use http::{HeaderMap, HeaderName, Method, StatusCode, Version, header};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

/// A valid opening handshake.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Handshake {
    /// Value of `Sec-WebSocket-Accept`.
    pub(crate) accept_key: String,
    /// Subprotocols in the client's order, without repetition.
    pub(crate) offered: Vec<String>,
}

/// Answer to an invalid handshake.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct HandshakeRefusal {
    pub(crate) status: StatusCode,
    /// Header with the correct value.
    pub(crate) header: Option<(HeaderName, &'static str)>,
    pub(crate) text: &'static str,
}

/// Reads the handshake from a request's head.
pub(crate) fn read(
    method: &Method,
    version: Version,
    headers: &HeaderMap,
) -> Result<Handshake, HandshakeRefusal> {
    if method != Method::GET {
        return Err(refuse(
            StatusCode::METHOD_NOT_ALLOWED,
            Some((header::ALLOW, "GET")),
            "a WebSocket begins with GET",
        ));
    }
    if version != Version::HTTP_11 {
        return Err(refuse(
            StatusCode::BAD_REQUEST,
            None,
            "a WebSocket handshake is HTTP/1.1",
        ));
    }
    if !has_token(headers, header::UPGRADE, "websocket")
        || !has_token(headers, header::CONNECTION, "upgrade")
    {
        return Err(refuse(
            StatusCode::UPGRADE_REQUIRED,
            None,
            "this path is a WebSocket: connect with ws://",
        ));
    }
    if single(headers, header::SEC_WEBSOCKET_VERSION) != Some("13") {
        let supported = Some((header::SEC_WEBSOCKET_VERSION, "13"));
        return Err(refuse(
            StatusCode::UPGRADE_REQUIRED,
            supported,
            "Sec-WebSocket-Version has to be 13",
        ));
    }
    let key = single(headers, header::SEC_WEBSOCKET_KEY).filter(|key| is_key(key));
    let Some(key) = key else {
        return Err(refuse(
            StatusCode::BAD_REQUEST,
            None,
            "Sec-WebSocket-Key has to be 16 bytes in base64",
        ));
    };
    let Some(offered) = offered(headers) else {
        return Err(refuse(
            StatusCode::BAD_REQUEST,
            None,
            "Sec-WebSocket-Protocol has to be a list of distinct tokens",
        ));
    };
    Ok(Handshake {
        accept_key: derive_accept_key(key.as_bytes()),
        offered,
    })
}

fn refuse(
    status: StatusCode,
    header: Option<(HeaderName, &'static str)>,
    text: &'static str,
) -> HandshakeRefusal {
    HandshakeRefusal {
        status,
        header,
        text,
    }
}

fn has_token(headers: &HeaderMap, name: HeaderName, token: &str) -> bool {
    let values = headers
        .get_all(name)
        .into_iter()
        .filter_map(|value| value.to_str().ok());
    values
        .flat_map(|value| value.split(','))
        .any(|given| given.trim().eq_ignore_ascii_case(token))
}

/// Returns the header's value if the header occurs exactly once.
fn single(headers: &HeaderMap, name: HeaderName) -> Option<&str> {
    let mut values = headers.get_all(name).into_iter();
    match (values.next(), values.next()) {
        (Some(value), None) => value.to_str().ok().map(str::trim),
        _ => None,
    }
}

/// Returns true for base64 of 16 bytes: 22 digits, the last of which carries two bits, and the
/// padding.
fn is_key(key: &str) -> bool {
    let Some(digits) = key.strip_suffix("==") else {
        return false;
    };
    let is_digit = |b: u8| b.is_ascii_alphanumeric() || b == b'+' || b == b'/';
    digits.len() == 22 && digits.bytes().all(is_digit) && digits.ends_with(['A', 'Q', 'g', 'w'])
}

/// Returns `None` if an element is not a token or is repeated (RFC 6455 section 4.1). Empty
/// elements are ignored (RFC 9110 section 5.6.1.2).
fn offered(headers: &HeaderMap) -> Option<Vec<String>> {
    let mut offered: Vec<String> = Vec::new();
    for value in headers.get_all(header::SEC_WEBSOCKET_PROTOCOL) {
        for protocol in value
            .to_str()
            .ok()?
            .split(',')
            .map(str::trim)
            .filter(|protocol| !protocol.is_empty())
        {
            let is_token = protocol
                .bytes()
                .all(|b| b.is_ascii_graphic() && !b"()<>@,;:\\\"/[]?={}".contains(&b));
            if !is_token || offered.iter().any(|other| other == protocol) {
                return None;
            }
            offered.push(protocol.to_owned());
        }
    }
    Some(offered)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &[(&str, &str)] = &[
        ("upgrade", "websocket"),
        ("connection", "Upgrade"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ];

    fn headers(changes: &[(&str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        let kept = GOOD
            .iter()
            .filter(|(name, _)| !changes.iter().any(|(changed, _)| changed == name));
        for (name, value) in kept.chain(changes).filter(|(_, value)| !value.is_empty()) {
            for value in value.split('|') {
                headers.append(name.parse::<HeaderName>().unwrap(), value.parse().unwrap());
            }
        }
        headers
    }

    #[test]
    fn the_example_of_the_rfc_is_accepted() {
        let handshake = read(&Method::GET, Version::HTTP_11, &headers(&[])).unwrap();
        assert_eq!(
            handshake,
            Handshake {
                accept_key: "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=".into(),
                offered: vec![]
            }
        );
    }

    #[test]
    fn every_handshake_has_its_answer() {
        let cases: [(&[(&str, &str)], u16); 27] = [
            (&[("upgrade", "WebSocket")], 101),
            (&[("upgrade", "h2c, WEBSOCKET")], 101),
            (&[("connection", "keep-alive, uPGRADE")], 101),
            (&[("connection", "keep-alive|upgrade")], 101),
            (&[("sec-websocket-protocol", "a, b")], 101),
            (&[("sec-websocket-protocol", "a|b")], 101),
            (&[("upgrade", "")], 426),
            (&[("upgrade", "h2c")], 426),
            (&[("connection", "")], 426),
            (&[("connection", "keep-alive")], 426),
            (&[("sec-websocket-version", "")], 426),
            (&[("sec-websocket-version", "8")], 426),
            (&[("sec-websocket-version", "14")], 426),
            (&[("sec-websocket-version", "13, 8")], 426),
            (&[("sec-websocket-version", "13|13")], 426),
            (&[("sec-websocket-key", "")], 400),
            (&[("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ")], 400),
            (&[("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZR==")], 400),
            (&[("sec-websocket-key", "dGhlIHNhbXBsZSBub25j")], 400),
            (
                &[("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==AAAA")],
                400,
            ),
            (&[("sec-websocket-key", "!GhlIHNhbXBsZSBub25jZQ==")], 400),
            (
                &[(
                    "sec-websocket-key",
                    "dGhlIHNhbXBsZSBub25jZQ==|dGhlIHNhbXBsZSBub25jZQ==",
                )],
                400,
            ),
            (&[("sec-websocket-protocol", "a, a")], 400),
            (&[("sec-websocket-protocol", "a,,b")], 101),
            (&[("sec-websocket-protocol", "a b")], 400),
            (&[("sec-websocket-protocol", "a/b")], 400),
            (&[("sec-websocket-protocol", "a, ")], 101),
        ];
        for (changes, status) in cases {
            let outcome = read(&Method::GET, Version::HTTP_11, &headers(changes));
            let given = outcome.map_or_else(|refusal| refusal.status.as_u16(), |_| 101);
            assert_eq!(given, status, "{changes:?}");
        }
        assert_eq!(
            read(&Method::POST, Version::HTTP_11, &headers(&[]))
                .unwrap_err()
                .status,
            405
        );
        assert_eq!(
            read(&Method::GET, Version::HTTP_10, &headers(&[]))
                .unwrap_err()
                .status,
            400
        );
    }

    #[test]
    fn a_wrong_version_is_told_the_right_one() {
        let refusal = read(
            &Method::GET,
            Version::HTTP_11,
            &headers(&[("sec-websocket-version", "8")]),
        )
        .unwrap_err();
        assert_eq!(refusal.header, Some((header::SEC_WEBSOCKET_VERSION, "13")));
    }

    #[test]
    fn offers_keep_their_order_and_case() {
        let handshake = read(
            &Method::GET,
            Version::HTTP_11,
            &headers(&[("sec-websocket-protocol", "v2.Chat, v1.chat")]),
        )
        .unwrap();
        assert_eq!(handshake.offered, ["v2.Chat", "v1.chat"]);
    }
}
