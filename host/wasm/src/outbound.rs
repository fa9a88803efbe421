//! Which hosts an app may send requests to.

use http_body_util::BodyExt;
use std::{net::IpAddr, sync::Arc};
use wasmtime_wasi_http::{Error, RequestOptions, WasiBody, WasiHttpHooks, default_send_request};

type Work = Box<dyn Future<Output = Result<(), Error>> + Send>;
type Sent = Result<(http::Response<WasiBody>, Work), Error>;

/// The hosts that were granted by name, each with or without a port. A name that leads to an address of this
/// machine or network is refused unless the grant names that port as well, or the address itself; the name is
/// looked up once more for the connection, so this is a net for accidents, not a firewall.
#[derive(Clone)]
pub(crate) struct Outbound {
    granted: Arc<[String]>,
}

impl Outbound {
    pub(crate) fn new(granted: &[String]) -> Outbound {
        Outbound { granted: granted.iter().map(|host| host.to_ascii_lowercase()).collect() }
    }

    /// Whether the authority was granted, and whether by its port or address too.
    fn grant(&self, authority: &http::uri::Authority) -> Option<Exact> {
        let (whole, host) = (authority.as_str().to_ascii_lowercase(), authority.host().to_ascii_lowercase());
        if whole.contains('@') {
            return None;
        }
        let is_address = host.trim_matches(['[', ']']).parse::<IpAddr>().is_ok();
        let mut granted = self.granted.iter();
        if self.granted.contains(&whole) && (authority.port().is_some() || is_address) {
            return Some(Exact(true));
        }
        granted.any(|granted| *granted == host).then_some(Exact(is_address))
    }
}

/// The grant names the very place, so that it may be a private one.
#[derive(Debug, PartialEq, Eq)]
struct Exact(bool);

impl WasiHttpHooks for Outbound {
    fn send_request(
        &mut self,
        request: http::Request<WasiBody>,
        options: Option<RequestOptions>,
        _: Work,
    ) -> Box<dyn Future<Output = Sent> + Send> {
        let grant = request.uri().authority().and_then(|authority| self.grant(authority));
        Box::new(async move {
            let Some(Exact(exact)) = grant else {
                tracing::warn!(target: "app", "a request to {} was refused: grant it with --allow-outbound", request.uri());
                return Err(Error::HttpRequestDenied);
            };
            if !exact && leads_inside(request.uri()).await {
                tracing::warn!(target: "app", "a request to {} was refused: it leads to a private address; grant it with its port", request.uri());
                return Err(Error::DestinationIpProhibited);
            }
            let (response, work) = default_send_request(request, options).await?;
            Ok((response.map(BodyExt::boxed_unsync), Box::new(work) as Work))
        })
    }
}

async fn leads_inside(uri: &http::Uri) -> bool {
    let Some(host) = uri.host() else { return true };
    match tokio::net::lookup_host((host.trim_matches(['[', ']']), 0)).await {
        Ok(mut addresses) => addresses.any(|address| is_inside(address.ip())),
        Err(_) => false, // the request itself will say so
    }
}

/// Loopback, private, link-local (where clouds keep their metadata), or no single host.
fn is_inside(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(v4) => {
            v4.is_loopback() || v4.is_private() || v4.is_link_local() || v4.is_unspecified() || v4.is_multicast() || v4.is_broadcast()
        }
        IpAddr::V6(v6) => {
            v6.is_loopback() || v6.is_unique_local() || v6.is_unicast_link_local() || v6.is_unspecified() || v6.is_multicast()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_granted_hosts_are_reached() {
        let outbound = Outbound::new(&["api.example.com".into(), "localhost:3000".into(), "10.0.0.1".into()]);
        let cases = [
            ("api.example.com", Some(Exact(false))),
            ("API.example.com:8443", Some(Exact(false))),
            ("localhost:3000", Some(Exact(true))),
            ("localhost:3001", None),
            ("localhost", None),
            ("10.0.0.1:80", Some(Exact(true))),
            ("evil.example.com", None),
            ("api.example.com.evil.org", None),
        ];
        for (authority, grant) in cases {
            assert_eq!(outbound.grant(&authority.parse().unwrap()), grant, "{authority}");
        }
        assert_eq!(outbound.grant(&"evil@api.example.com".parse().unwrap()), None);
    }

    #[test]
    fn addresses_inside_are_known() {
        for inside in [
            "127.0.0.1",
            "10.1.2.3",
            "192.168.0.1",
            "172.16.0.1",
            "169.254.169.254",
            "0.0.0.0",
            "::1",
            "fd00::1",
            "fe80::1",
            "::ffff:127.0.0.1",
        ] {
            assert!(is_inside(inside.parse().unwrap()), "{inside}");
        }
        for outside in ["93.184.216.34", "2606:2800:220:1::1"] {
            assert!(!is_inside(outside.parse().unwrap()), "{outside}");
        }
    }
}
