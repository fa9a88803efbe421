//! Origins of pages that may open a WebSocket: the check against cross-site hijacking, before any
//! guest code.

use crate::http::authority::{Authority, UriHost};
use http::{HeaderMap, header};

/// Policy for the `Origin` of an upgrade (RFC 6455 section 10.2).
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
    /// The page comes from one of these origins, each in the form of a browser:
    /// `https://example.org`.
    List(Vec<String>),
    /// Any page, even without an origin of its own (`null`): only for APIs that require credentials
    /// which no browser adds automatically.
    Any,
}

impl Origins {
    /// Returns true if a request with these headers may send a form to this host. It does the same
    /// as [`admit`](Origins::admit), with one exception: a page with `Referrer-Policy: no-referrer`
    /// sends `null` as its origin (Fetch, "append a request `Origin` header"). Then
    /// `Sec-Fetch-Site` shows whether the page is from this host. No script can set that header,
    /// and the opaque origin of a sandbox is `cross-site`.
    pub(crate) fn admit_form(
        &self,
        headers: &HeaderMap,
        authority: &str,
        scheme: Option<&str>,
        require_origin: bool,
    ) -> bool {
        let only = |name: &str| {
            let mut values = headers.get_all(name).iter();
            values
                .next()
                .filter(|_| values.next().is_none())
                .map(http::HeaderValue::as_bytes)
        };
        let is_own_page =
            only("origin") == Some(b"null") && only("sec-fetch-site") == Some(b"same-origin");
        match self {
            Origins::SameOrigin if is_own_page => true,
            Origins::List(list) if is_own_page => list
                .iter()
                .filter_map(|listed| WebOrigin::parse(listed))
                .any(|listed| listed.is_of(authority, scheme)),
            _ => self.admit(headers, authority, scheme, require_origin),
        }
    }

    /// Returns true if a request with these headers may open a WebSocket to this host. `scheme` is
    /// that of the request, if a trusted proxy names it.
    pub(crate) fn admit(
        &self,
        headers: &HeaderMap,
        authority: &str,
        scheme: Option<&str>,
        require_origin: bool,
    ) -> bool {
        let mut given = headers.get_all(header::ORIGIN).iter();
        let (Some(origin), None) = (given.next(), given.next()) else {
            return !headers.contains_key(header::ORIGIN) && !require_origin;
        };
        let origin = origin.to_str().unwrap_or_default();
        match (self, WebOrigin::parse(origin)) {
            (Origins::Any, None) => origin == "null",
            (Origins::Any, Some(_)) => true,
            (Origins::List(list), Some(origin)) => list
                .iter()
                .filter_map(|listed| WebOrigin::parse(listed))
                .any(|listed| listed == origin),
            (Origins::SameOrigin, Some(origin)) => origin.is_of(authority, scheme),
            (_, None) => false,
        }
    }
}

/// Returns true if a text is the origin of a web page: `http` or `https`, a host and an optional
/// port, and nothing else.
///
/// ```
/// assert!(tidegate_edge::is_web_origin("https://example.org:8443"));
/// assert!(!tidegate_edge::is_web_origin("https://example.org/"));
/// ```
pub fn is_web_origin(text: &str) -> bool {
    WebOrigin::parse(text).is_some_and(|origin| origin.default_port().is_some())
}

/// Value of the `Origin` header (RFC 6454 section 7.1), except `null`.
#[derive(Clone, Copy, Debug)]
struct WebOrigin<'a> {
    scheme: &'a str,
    host: UriHost<'a>,
    port: Option<u16>,
}

impl<'a> WebOrigin<'a> {
    /// Returns `None` if the text is not exactly a scheme, a host and an optional valid port.
    fn parse(text: &'a str) -> Option<WebOrigin<'a>> {
        let (scheme, authority) = text.split_once("://")?;
        let is_letter =
            |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.');
        let is_scheme = scheme.starts_with(|first: char| first.is_ascii_alphabetic())
            && scheme.bytes().all(is_letter);
        let Authority { host, port } =
            Authority::parse(authority).filter(|_| is_scheme && !authority.ends_with(':'))?;
        Some(WebOrigin { scheme, host, port })
    }

    fn default_port(&self) -> Option<u16> {
        match self.scheme {
            scheme if scheme.eq_ignore_ascii_case("https") => Some(443),
            scheme if scheme.eq_ignore_ascii_case("http") => Some(80),
            _ => None,
        }
    }

    fn port(&self) -> Option<u16> {
        self.port.or(self.default_port())
    }

    /// Compares host and port with those in a request, and the scheme if it is known. A missing
    /// port is the default port of the page's scheme, because a proxy that ends TLS may hide the
    /// scheme of the request.
    fn is_of(&self, authority: &str, scheme: Option<&str>) -> bool {
        let (Some(target), Some(default_port)) = (Authority::parse(authority), self.default_port())
        else {
            return false;
        };
        scheme.is_none_or(|scheme| self.scheme.eq_ignore_ascii_case(scheme))
            && self.host == target.host
            && self.port() == Some(target.port.unwrap_or(default_port))
    }
}

impl PartialEq for WebOrigin<'_> {
    fn eq(&self, other: &WebOrigin<'_>) -> bool {
        self.scheme.eq_ignore_ascii_case(other.scheme)
            && self.host == other.host
            && self.port() == other.port()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Checks which origins may open a WebSocket to these hosts. "-" is a request without an origin.
    fn check(origins: &Origins, cases: &[(&str, &str, bool)]) {
        for (origin, authority, expected) in cases {
            let mut headers = HeaderMap::new();
            if *origin != "-" {
                headers.insert(header::ORIGIN, origin.parse().unwrap());
            }
            let is_admitted = origins.admit(&headers, authority, None, false);
            assert_eq!(is_admitted, *expected, "{origins:?} {origin:?} {authority}");
        }
    }

    #[test]
    fn a_page_of_the_host_that_it_connects_to_is_admitted() {
        let cases = [
            ("http://localhost:8080", "localhost:8080", true),
            ("http://LOCALHOST:8080", "localhost:8080", true),
            ("http://localhost", "localhost:80", true),
            ("https://a.example", "a.example", true),
            ("https://a.example", "a.example:443", true),
            ("https://a.example:8443", "a.example", false),
            ("http://localhost:8081", "localhost:8080", false),
            ("http://evil.example", "localhost:8080", false),
            (
                "http://localhost.evil.example:8080",
                "localhost:8080",
                false,
            ),
            ("http://evil@localhost:8080", "localhost:8080", false),
            (
                "http://localhost:8080@localhost:8080",
                "localhost:8080",
                false,
            ),
            ("https://a.example/", "a.example", false),
            ("https://a.example/path", "a.example", false),
            ("https://a.example?x", "a.example", false),
            ("https://a.example#x", "a.example", false),
            ("https://a.example:", "a.example", false),
            ("https://a.example:0", "a.example", false),
            ("https://a.example:443x", "a.example", false),
            ("https://a.example:65979", "a.example", false),
            ("https://a.example:0443", "a.example", true),
            ("https://a.example.", "a.example", false),
            ("https:a.example", "a.example", false),
            ("//a.example", "a.example", false),
            ("a.example", "a.example", false),
            ("https://", "a.example", false),
            ("https://a.example https://a.example", "a.example", false),
            ("file://a.example", "a.example", false),
            ("ws://a.example", "a.example", false),
            ("http://[::1]:8080", "[::1]:8080", true),
            ("http://[0:0::1]:8080", "[::1]:8080", true),
            ("http://127.0.0.1", "127.0.0.1", true),
            ("null", "localhost:8080", false),
            ("file://", "localhost:8080", false),
            ("", "localhost:8080", false),
            ("-", "localhost:8080", true),
        ];
        check(&Origins::SameOrigin, &cases);
    }

    #[test]
    fn a_page_of_a_listed_origin_is_admitted() {
        let cases = [
            ("https://a.example", "b.example", true),
            ("HTTPS://A.example:443", "b.example", true),
            ("https://a.example:444", "b.example", false),
            ("https://a.example/", "b.example", false),
            ("http://a.example", "a.example", false),
            ("-", "a.example", true),
        ];
        check(&Origins::List(vec!["https://a.example".into()]), &cases);
    }

    #[test]
    fn a_policy_for_any_page_admits_every_valid_origin() {
        let cases = [
            ("null", "a.example", true),
            ("chrome-extension://abcdef", "a.example", true),
            ("https://b.example/path", "a.example", false),
            ("https://b.example:99999", "a.example", false),
            ("", "a.example", false),
        ];
        check(&Origins::Any, &cases);
    }

    #[test]
    fn a_page_of_another_scheme_has_another_origin_where_the_scheme_is_known() {
        for (origin, scheme, admitted) in [
            ("https://a.example", Some("https"), true),
            ("https://a.example:443", Some("https"), true),
            ("http://a.example", Some("https"), false),
            ("https://a.example", Some("http"), false),
            ("http://a.example", Some("http"), true),
            ("http://a.example", None, true),
        ] {
            let headers = HeaderMap::from_iter([(header::ORIGIN, origin.parse().unwrap())]);
            assert_eq!(
                Origins::SameOrigin.admit(&headers, "a.example", scheme, false),
                admitted,
                "{origin} {scheme:?}"
            );
        }
    }

    #[test]
    fn a_form_of_a_page_without_referrer_is_admitted_if_the_browser_says_that_the_page_is_ours() {
        let (ours, other) = (
            Origins::List(vec!["https://a.example".into()]),
            Origins::List(vec!["https://b.example".into()]),
        );
        let cases = [
            (&Origins::SameOrigin, "null", &["same-origin"][..], true),
            (&Origins::SameOrigin, "null", &["same-site"], false),
            (&Origins::SameOrigin, "null", &["cross-site"], false),
            (&Origins::SameOrigin, "null", &["none"], false),
            (
                &Origins::SameOrigin,
                "null",
                &["same-origin", "same-origin"],
                false,
            ),
            (&Origins::SameOrigin, "null", &[], false),
            (
                &Origins::SameOrigin,
                "https://b.example",
                &["same-origin"],
                false,
            ),
            (
                &Origins::SameOrigin,
                "https://a.example",
                &["cross-site"],
                true,
            ),
            (&ours, "null", &["same-origin"], true),
            (&ours, "null", &["cross-site"], false),
            (&other, "null", &["same-origin"], false),
            (&Origins::Any, "null", &["cross-site"], true),
        ];
        for (origins, origin, sites, admitted) in cases {
            let mut headers = HeaderMap::from_iter([(header::ORIGIN, origin.parse().unwrap())]);
            sites
                .iter()
                .for_each(|site| _ = headers.append("sec-fetch-site", site.parse().unwrap()));
            assert_eq!(
                origins.admit_form(&headers, "a.example", None, true),
                admitted,
                "{origins:?} {origin} {sites:?}"
            );
        }
    }

    #[test]
    fn a_request_without_origin_is_refused_where_one_is_required_and_two_are_refused_everywhere() {
        let mut headers = HeaderMap::new();
        assert!(!Origins::Any.admit(&headers, "a", None, true));
        headers.append(header::ORIGIN, "http://a".parse().unwrap());
        headers.append(header::ORIGIN, "http://b".parse().unwrap());
        assert!(!Origins::Any.admit(&headers, "a", None, false));
    }
}
