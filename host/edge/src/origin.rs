//! Which pages may open a WebSocket: the check against cross-site hijacking, before any guest code.

use http::{HeaderMap, Uri, header};

/// A policy for the `Origin` of an upgrade (RFC 6455 section 10.2).
///
/// ```
/// use tidegate_edge::Origins;
/// let origins = Origins::List(vec!["https://example.org".into()]);
/// assert_ne!(origins, Origins::default());
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Origins {
    /// The page comes from the host that it connects to.
    #[default]
    SameOrigin,
    /// The page comes from one of these, each as a browser sends it: `https://example.org`.
    List(Vec<String>),
    /// Any page: only for APIs that ask for credentials that no browser adds by itself.
    Any,
}

impl Origins {
    /// Whether a request with these headers to this host may open a WebSocket.
    pub(crate) fn admit(&self, headers: &HeaderMap, authority: &str, require_origin: bool) -> bool {
        let mut given = headers.get_all(header::ORIGIN).iter();
        let (Some(origin), None) = (given.next(), given.next()) else {
            return !headers.contains_key(header::ORIGIN) && !require_origin;
        };
        let origin = origin.to_str().unwrap_or_default();
        match self {
            Origins::Any => true,
            Origins::List(list) => list.iter().any(|listed| listed.eq_ignore_ascii_case(origin)),
            Origins::SameOrigin => is_same(origin, authority),
        }
    }
}

/// Compares hosts and ports; a missing port is the default one of the page's scheme, which is what
/// a proxy that ends TLS leaves to compare.
fn is_same(origin: &str, authority: &str) -> bool {
    let Ok(origin) = origin.parse::<Uri>() else { return false };
    let Ok(target) = authority.parse::<http::uri::Authority>() else { return false };
    let default_port = match origin.scheme_str() {
        Some("https") => 443,
        Some("http") => 80,
        _ => return false,
    };
    let host = origin.host().unwrap_or_default();
    let port = origin.port_u16().unwrap_or(default_port);
    host.eq_ignore_ascii_case(target.host()) && port == target.port_u16().unwrap_or(default_port)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_admitted_as_the_policy_says() {
        let list = Origins::List(vec!["https://a.example".into()]);
        let same = Origins::SameOrigin;
        let cases = [
            (&same, Some("http://localhost:8080"), "localhost:8080", true),
            (&same, Some("http://LOCALHOST:8080"), "localhost:8080", true),
            (&same, Some("http://localhost"), "localhost:80", true),
            (&same, Some("https://a.example"), "a.example", true),
            (&same, Some("https://a.example"), "a.example:443", true),
            (&same, Some("https://a.example:8443"), "a.example", false),
            (&same, Some("http://localhost:8081"), "localhost:8080", false),
            (&same, Some("http://evil.example"), "localhost:8080", false),
            (&same, Some("http://localhost.evil.example:8080"), "localhost:8080", false),
            (&same, Some("http://evil@localhost:8080"), "localhost:8080", true),
            (&same, Some("null"), "localhost:8080", false),
            (&same, Some("file://"), "localhost:8080", false),
            (&same, Some(""), "localhost:8080", false),
            (&same, None, "localhost:8080", true),
            (&list, Some("https://a.example"), "b.example", true),
            (&list, Some("http://a.example"), "a.example", false),
            (&list, None, "a.example", true),
            (&Origins::Any, Some("null"), "a.example", true),
        ];
        for (origins, origin, authority, admitted) in cases {
            let mut headers = HeaderMap::new();
            origin.map(|origin| headers.insert(header::ORIGIN, origin.parse().unwrap()));
            assert_eq!(origins.admit(&headers, authority, false), admitted, "{origins:?} {origin:?} {authority}");
        }
    }

    #[test]
    fn a_request_without_origin_is_refused_where_one_is_required_and_two_are_refused_everywhere() {
        let mut headers = HeaderMap::new();
        assert!(!Origins::Any.admit(&headers, "a", true));
        headers.append(header::ORIGIN, "http://a".parse().unwrap());
        headers.append(header::ORIGIN, "http://b".parse().unwrap());
        assert!(!Origins::Any.admit(&headers, "a", false));
    }
}
