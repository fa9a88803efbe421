//! The client of one app version: a pool of connections, TLS with the system's roots, and limits on each exchange.

use super::{
    connect::{CONNECT_WITHIN, ConnectError, Connector},
    destination::OutboundDestination,
};
use crate::host_body;
use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, Uri, header::HOST};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt as _;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{self, Client},
    rt::{TokioExecutor, TokioTimer},
};
use rustls::{ClientConfig, RootCertStore, pki_types::CertificateDer};
use std::{
    error::Error as StdError,
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    task::{Context, Poll},
    time::Duration,
};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Sleep, sleep, timeout},
};
use tower_service::Service;
use wasmtime_wasi_http::{Error, RequestOptions, WasiBody};

/// Idle connections to one destination that are kept for the next request.
const IDLE_PER_HOST_MAX: usize = 16;
/// Time for which an idle connection is kept.
const IDLE_WITHIN: Duration = Duration::from_secs(30);
/// Bytes of the head of a response.
const HEAD_BYTES_MAX: usize = 64 << 10;

/// Bytes that an upstream may send over HTTP/2 before the guest reads them, for one response and for all of a connection.
const STREAM_WINDOW_BYTES: u32 = 256 << 10;
const CONNECTION_WINDOW_BYTES: u32 = 1 << 20;

/// Bounds of one exchange.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    /// Time without progress: to the head of the response once the request is sent, and between two pieces of its body.
    pub(super) silence_max: Duration,
    /// Bytes of a response's body.
    pub(super) body_bytes_max: u64,
    /// Requests in progress at a time.
    pub(super) requests_max: usize,
}

pub(super) struct HttpClient {
    client: Client<Deadline, OutboundBody>,
    bounds: Bounds,
    permits: Arc<Semaphore>,
}

impl HttpClient {
    /// `extra_roots`: certificates that are trusted beside the system's.
    pub(super) fn new(
        connector: Connector,
        extra_roots: &[CertificateDer<'static>],
        bounds: Bounds,
    ) -> HttpClient {
        let https = HttpsConnectorBuilder::new()
            .with_tls_config(tls(extra_roots))
            .https_or_http()
            .enable_http1()
            .enable_http2()
            .wrap_connector(connector);
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE_WITHIN)
            .pool_max_idle_per_host(IDLE_PER_HOST_MAX)
            .http1_max_buf_size(HEAD_BYTES_MAX)
            .http2_max_header_list_size(HEAD_BYTES_MAX as u32)
            .http2_initial_stream_window_size(STREAM_WINDOW_BYTES)
            .http2_initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .build(Deadline(https));
        HttpClient {
            client,
            bounds,
            permits: Arc::new(Semaphore::new(bounds.requests_max)),
        }
    }

    /// Sends a request to a destination that was granted. The response's body is bounded in bytes and in time without progress.
    pub(super) async fn send(
        &self,
        destination: &OutboundDestination,
        request: Request<WasiBody>,
        options: Option<RequestOptions>,
    ) -> Result<Response<WasiBody>, SendFailure> {
        if request.method() == Method::CONNECT {
            return Err(SendFailure::Other(Error::HttpRequestMethodInvalid));
        }
        let shorter =
            |asked: Option<Duration>, max: Duration| asked.map_or(max, |asked| asked.min(max));
        let connect = shorter(
            options.and_then(|options| options.connect_timeout),
            CONNECT_WITHIN,
        );
        let first_byte = shorter(
            options.and_then(|options| options.first_byte_timeout),
            self.bounds.silence_max,
        );
        let between_bytes = shorter(
            options.and_then(|options| options.between_bytes_timeout),
            self.bounds.silence_max,
        );

        let permit = timeout(connect, self.permits.clone().acquire_owned()).await;
        let Ok(Ok(permit)) = permit else {
            return Err(SendFailure::Other(Error::ConnectionLimitReached));
        };
        let sent = Arc::new(AtomicBool::new(false));
        let request = prepared(destination, request)?.map(|body| OutboundBody {
            body,
            moved: sent.clone(),
        });
        let mut response = self.client.request(request);
        let mut patience = connect + first_byte;
        let response = loop {
            match timeout(patience, &mut response).await {
                Ok(outcome) => break outcome.map_err(|error| SendFailure::of(&error))?,
                // The request's body is still being sent: the response is owed from its end on.
                Err(_) if sent.swap(false, Relaxed) => patience = first_byte,
                Err(_) => return Err(SendFailure::Other(Error::HttpResponseTimeout)),
            }
        };
        let left = self.bounds.body_bytes_max;
        Ok(response.map(|body| {
            // The head promised more than came.
            let body = body
                .map_err(|_| Error::HttpResponseIncomplete)
                .boxed_unsync();
            ResponseBody {
                body,
                left,
                bytes_max: left,
                between_bytes,
                silence: None,
                _permit: permit,
            }
            .boxed_unsync()
        }))
    }
}

/// The request for exactly this destination. A `DestinationHost` of the guest's own would name another one.
fn prepared(
    destination: &OutboundDestination,
    request: Request<WasiBody>,
) -> Result<Request<WasiBody>, SendFailure> {
    let (mut parts, body) = request.into_parts();
    let authority = destination.authority();
    let host = HeaderValue::from_str(&authority)
        .map_err(|_| SendFailure::Other(Error::HttpRequestUriInvalid))?;
    parts.headers.insert(HOST, host);
    parts.version = http::Version::HTTP_11;
    let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
    let scheme = parts.uri.scheme_str().unwrap_or("https");
    let uri = Uri::builder()
        .scheme(scheme)
        .authority(authority)
        .path_and_query(path)
        .build();
    parts.uri = uri.map_err(|_| SendFailure::Other(Error::HttpRequestUriInvalid))?;
    Ok(Request::from_parts(parts, body))
}

fn tls(extra_roots: &[CertificateDer<'static>]) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() {
        // Containers often have no certificates of their own.
        roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    }
    roots.add_parsable_certificates(extra_roots.iter().cloned());
    ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("the provider has the suites of TLS 1.2 and 1.3")
        .with_root_certificates(roots)
        .with_no_client_auth()
}

/// A connector that gives up after [`CONNECT_WITHIN`], TLS included.
#[derive(Clone)]
struct Deadline(HttpsConnector<Connector>);

type ClientStream = <HttpsConnector<Connector> as Service<Uri>>::Response;
type BoxError = Box<dyn StdError + Send + Sync>;

impl Service<Uri> for Deadline {
    type Response = ClientStream;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<ClientStream, BoxError>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let connecting = self.0.call(uri);
        Box::pin(async move {
            timeout(CONNECT_WITHIN, connecting)
                .await
                .map_err(|_| ConnectError::TimedOut)?
        })
    }
}

/// A request's body, which notes that it moves.
struct OutboundBody {
    body: WasiBody,
    moved: Arc<AtomicBool>,
}

impl Body for OutboundBody {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let poll = Pin::new(&mut self.body).poll_frame(cx);
        if poll.is_ready() {
            self.moved.store(true, Relaxed);
        }
        poll
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A response's body within its bounds. The time runs only while the guest waits for the next piece.
struct ResponseBody {
    body: WasiBody,
    left: u64,
    bytes_max: u64,
    between_bytes: Duration,
    silence: Option<Pin<Box<Sleep>>>,
    _permit: OwnedSemaphorePermit,
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        host_body::note_poll();
        let this = &mut *self;
        let Poll::Ready(frame) = Pin::new(&mut this.body).poll_frame(cx) else {
            let silence = this
                .silence
                .get_or_insert_with(|| Box::pin(sleep(this.between_bytes)));
            return silence
                .as_mut()
                .poll(cx)
                .map(|()| Some(Err(Error::ConnectionReadTimeout)));
        };
        this.silence = None;
        if let Some(Ok(frame)) = &frame {
            let bytes = frame.data_ref().map_or(0, Bytes::len) as u64;
            let Some(left) = this.left.checked_sub(bytes) else {
                return Poll::Ready(Some(Err(Error::HttpResponseBodySize(Some(this.bytes_max)))));
            };
            this.left = left;
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Why a request has no response.
pub(super) enum SendFailure {
    /// The connector refused, which the operator should read.
    Refused(String, Error),
    /// Anything else.
    Other(Error),
}

impl SendFailure {
    fn of(error: &legacy::Error) -> SendFailure {
        if let Some(error) = find::<ConnectError>(error) {
            return SendFailure::of_connect(error);
        }
        if let Some(error) = find::<rustls::Error>(error) {
            return SendFailure::Other(match error {
                rustls::Error::InvalidCertificate(_) => Error::TlsCertificateError,
                rustls::Error::AlertReceived(alert) => Error::TlsAlertReceived {
                    alert_id: Some(u8::from(*alert)),
                    alert_message: Some(format!("{alert:?}")),
                },
                _ => Error::TlsProtocolError,
            });
        }
        SendFailure::Other(match find::<io::Error>(error).map(io::Error::kind) {
            Some(_) if error.is_connect() => Error::DestinationUnavailable,
            Some(_) => Error::ConnectionTerminated,
            None => Error::HttpProtocolError,
        })
    }

    fn of_connect(error: &ConnectError) -> SendFailure {
        let refused = |code| SendFailure::Refused(error.to_string(), code);
        match error {
            ConnectError::NotGranted => refused(Error::HttpRequestDenied),
            ConnectError::Prohibited(_) | ConnectError::Own(_) => {
                refused(Error::DestinationIpProhibited)
            }
            ConnectError::NotFound => SendFailure::Other(Error::DestinationNotFound),
            ConnectError::Lookup(_) => SendFailure::Other(Error::DnsError {
                rcode: None,
                info_code: None,
            }),
            ConnectError::Connect(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                SendFailure::Other(Error::ConnectionRefused)
            }
            ConnectError::Connect(_) => SendFailure::Other(Error::DestinationUnavailable),
            ConnectError::TimedOut => SendFailure::Other(Error::ConnectionTimeout),
        }
    }
}

/// The first error of this type in the chain; an [`io::Error`] hides what it was made from.
fn find<'a, T: StdError + 'static>(error: &'a (dyn StdError + 'static)) -> Option<&'a T> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref::<T>() {
            return Some(found);
        }
        next = match error
            .downcast_ref::<io::Error>()
            .and_then(io::Error::get_ref)
        {
            Some(inner) => Some(inner),
            None => error.source(),
        };
    }
    None
}
