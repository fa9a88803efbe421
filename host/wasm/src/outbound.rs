//! Outbound HTTP of guests: which hosts a request may go to, and the client that sends it.
//!
//! A request passes two gates. Its target, read as scheme, host and port, has to be one that was granted (`destination`). Then a
//! connector resolves the name once and connects to one of the addresses that the grant allows (`connect`, `address`): without
//! `private` only public ones, and never the address at which this server listens. Both hold for every connection, since the
//! pool (`client`) opens connections by that connector alone. Redirects are not followed: a guest that follows one sends a new
//! request, which passes the same gates.

mod address;
mod client;
mod connect;
mod destination;

pub use connect::OwnAddresses;
pub use destination::Grant;

use client::{Bounds, HttpClient, SendFailure};
use connect::{Connector, SystemResolver};
use destination::OutboundDestination;
use rustls::pki_types::{CertificateDer, pem::PemObject as _};
use std::{
    path::Path,
    sync::{Arc, OnceLock},
    time::Duration,
};
use wasmtime_wasi_http::{Error, RequestOptions, WasiBody, WasiHttpHooks};

/// Outbound HTTP of an app. A plain struct: take the default, which grants nothing, and change what you must.
#[derive(Clone, Debug)]
pub struct OutboundOptions {
    /// Hosts that requests may be sent to.
    pub grants: Vec<Grant>,
    /// Certificates of authorities that are trusted beside the system's.
    pub authorities: Vec<CertificateAuthority>,
    /// Time without progress: to the head of a response once its request is sent, and between two pieces of its body. A guest may
    /// ask for less.
    pub silence_max: Duration,
    /// Bytes of one response's body.
    pub body_bytes_max: u64,
    /// Requests in progress at a time; one more waits for up to ten seconds, then fails with `connection-limit-reached`.
    pub requests_max: usize,
    /// This server's own address, which no request reaches.
    pub own: OwnAddresses,
}

impl Default for OutboundOptions {
    fn default() -> OutboundOptions {
        OutboundOptions {
            grants: Vec::new(),
            authorities: Vec::new(),
            silence_max: Duration::from_secs(30),
            body_bytes_max: 100 << 20,
            requests_max: 128,
            own: OwnAddresses::default(),
        }
    }
}

/// The certificate of an authority.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateAuthority(CertificateDer<'static>);

impl CertificateAuthority {
    /// All certificates of a PEM file.
    ///
    /// # Errors
    /// A sentence that says what is wrong with the file.
    pub fn read(path: &Path) -> Result<Vec<CertificateAuthority>, String> {
        let certificates =
            CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
        match certificates {
            Ok(certificates) if certificates.is_empty() => {
                Err(format!("{} has no certificate in PEM", path.display()))
            }
            Ok(certificates) => Ok(certificates.into_iter().map(CertificateAuthority).collect()),
            Err(error) => Err(format!(
                "can't read certificates from {}: {error}",
                path.display()
            )),
        }
    }
}

/// State that the instances of one app version share for their requests. The first request makes the client.
#[derive(Clone)]
pub(crate) struct Outbound(Arc<OutboundState>);

struct OutboundState {
    options: OutboundOptions,
    connector: Connector,
    client: OnceLock<HttpClient>,
}

impl Outbound {
    pub(crate) fn new(options: &OutboundOptions) -> Outbound {
        let connector = Connector::new(options.grants.clone(), options.own.clone(), SystemResolver);
        Outbound(Arc::new(OutboundState {
            options: options.clone(),
            connector,
            client: OnceLock::new(),
        }))
    }
}

impl OutboundState {
    fn client(&self) -> &HttpClient {
        self.client.get_or_init(|| {
            let OutboundOptions {
                silence_max,
                body_bytes_max,
                requests_max,
                authorities,
                ..
            } = &self.options;
            let authorities: Vec<_> = authorities
                .iter()
                .map(|CertificateAuthority(certificate)| certificate.clone())
                .collect();
            let bounds = Bounds {
                silence_max: *silence_max,
                body_bytes_max: *body_bytes_max,
                requests_max: *requests_max,
            };
            HttpClient::new(self.connector.clone(), &authorities, bounds)
        })
    }

    async fn send(
        &self,
        request: http::Request<WasiBody>,
        options: Option<RequestOptions>,
    ) -> Result<http::Response<WasiBody>, Error> {
        let Some(destination) = OutboundDestination::of(request.uri()) else {
            tracing::warn!(target: "app", "a request was refused: its target is not a scheme, a host and a port");
            return Err(Error::HttpRequestUriInvalid);
        };
        if !self.connector.is_granted(&destination) {
            tracing::warn!(target: "app", "a request to {destination} was refused: grant it with --allow-outbound {destination}");
            return Err(Error::HttpRequestDenied);
        }
        self.client().send(&destination, request, options).await.map_err(|failure| match failure {
            SendFailure::Refused(reason, code) => {
                tracing::warn!(
                    target: "app",
                    "a request to {destination} was refused: {reason}; --allow-outbound {destination}::private lets it lead inside"
                );
                code
            }
            SendFailure::Other(code) => code,
        })
    }
}

type ConnectionWork = Box<dyn Future<Output = Result<(), Error>> + Send>;
type SendResult = Result<(http::Response<WasiBody>, ConnectionWork), Error>;

/// Bytes of a guest's body that are passed on at once. A few such chunks wait for a slow reader.
const CHUNK_BYTES: usize = 64 << 10;

impl WasiHttpHooks for Outbound {
    fn p2_outgoing_body_chunk_size(&mut self) -> usize {
        CHUNK_BYTES
    }

    fn p3_outgoing_body_chunk_size(&mut self) -> usize {
        CHUNK_BYTES
    }

    fn send_request(
        &mut self,
        request: http::Request<WasiBody>,
        options: Option<RequestOptions>,
        _: ConnectionWork,
    ) -> Box<dyn Future<Output = SendResult> + Send> {
        let shared = self.0.clone();
        Box::new(async move {
            let response = shared.send(request, options).await?;
            // The pool drives its connections itself.
            Ok((response, Box::new(async { Ok(()) }) as ConnectionWork))
        })
    }
}
