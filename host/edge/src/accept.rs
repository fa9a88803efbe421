//! Accepts connections, hands each one to a worker, and drains them all when the shutdown begins.

use crate::{
    drain::DrainGuard,
    http::answer::NO_SEAT,
    http::http1::{self, Peer},
    http::pace::{self, PaceRule},
    memory,
    server::Server,
    sockets::{SeatRefusal, SeatedSocket},
};
use std::{
    fs::File,
    future::{Future, poll_fn},
    io,
    net::{SocketAddr, TcpListener},
    pin::pin,
    sync::Arc,
    task::Poll,
    time::{Duration, Instant},
};
use tidegate_hub::{
    Close,
    budget::{Charge, MemoryKind},
};
use tokio::{
    net::TcpStream,
    runtime::Handle,
    sync::watch,
    time::{sleep, timeout},
};

/// Time before the next try when a connection can be neither accepted nor refused.
const PAUSE: Duration = Duration::from_millis(50);

/// Result of the drain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Drained {
    /// True if every connection ended within `drain_within`. Otherwise the remaining ones are
    /// closed.
    pub in_time: bool,
}

/// Serves until `shutdown` is ready. Then it stops accepting, closes WebSockets with 1001, ends
/// feeds and waits for requests. `listeners` has at least one element. Their connections go to the
/// runtimes in `workers` in turn; the caller keeps these running.
///
/// # Errors
/// Returns an error if a listener can't be used.
pub async fn serve(
    listeners: Vec<TcpListener>,
    server: Arc<Server>,
    workers: &[Handle],
    shutdown: impl Future<Output = ()>,
) -> io::Result<Drained> {
    let (drain, stop, mut all_gone) = DrainGuard::new();

    accept(listeners, &server, workers, &drain, &stop, shutdown).await?;

    server
        .hub
        .connections()
        .close_all(&Close::new(1001, "the server is going away"));
    stop.send_replace(true);
    drop(drain);
    let in_time = timeout(server.config.drain_within, all_gone.recv())
        .await
        .is_ok();
    Ok(Drained { in_time })
}

async fn accept(
    listeners: Vec<TcpListener>,
    server: &Arc<Server>,
    workers: &[Handle],
    drain: &DrainGuard,
    stop: &watch::Sender<bool>,
    shutdown: impl Future<Output = ()>,
) -> io::Result<()> {
    // A server with several addresses, or one that listens again, keeps the first address: only
    // requests without `Host` use it.
    _ = server.address.set(listeners[0].local_addr()?);
    let mut listeners = Listeners::new(listeners)?;
    let mut shutdown = pin!(shutdown);
    let mut turn = workers.iter().cycle();
    let mut reserve = SpareDescriptor::new();
    loop {
        let accepted = tokio::select! {
            accepted = listeners.accept() => accepted,
            () = server.hub.budget().hurried() => {
                // This wakes every connection; each one checks whether it has to end.
                stop.send_modify(|_| {});
                continue;
            }
            () = &mut shutdown => return Ok(()),
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            // The connection ended before it was accepted; the next one may be fine.
            Err(error) if is_of_one_connection(&error) => continue,
            Err(error) => {
                if is_out_of_descriptors(&error) {
                    server.sockets.note(
                        SeatRefusal::Descriptors,
                        server.hub.counters(),
                        Instant::now(),
                    );
                }
                // Without the reserve, or with another error, the next `accept` would fail at once.
                // The loop must not take a whole core.
                if !reserve.refuse_one(&mut listeners).await {
                    sleep(PAUSE).await;
                }
                continue;
            }
        };
        // A socket that listens on IPv6 reports IPv4 clients as mapped addresses.
        let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
        let is_proxy = server
            .config
            .trusted
            .iter()
            .any(|network| network.contains(peer.ip()));
        let seat = if is_proxy {
            server.sockets.take_shared()
        } else {
            server.sockets.take_seat(peer.ip())
        };
        let mut buffers = Charge::new(MemoryKind::Socket);
        let seat = seat.and_then(|seat| {
            memory::admit(&mut buffers, server.hub.budget())
                .map(|()| Arc::new(seat))
                .map_err(|_| SeatRefusal::Memory)
        });
        let seat = match seat {
            Ok(seat) => seat,
            Err(refusal) => {
                server
                    .sockets
                    .note(refusal, server.hub.counters(), Instant::now());
                refuse(&stream);
                continue;
            }
        };
        // A socket belongs to the runtime that first uses it, so this runtime gives it up.
        if let (Ok(stream), Some(worker)) = (stream.into_std(), turn.next()) {
            let (server, drain) = (server.clone(), drain.clone());
            worker.spawn(async move {
                if let Ok(stream) = TcpStream::from_std(stream) {
                    _ = stream.set_nodelay(true);
                    pace::bound(&stream, server.config.write_within);
                    let rule = PaceRule::new(
                        server.config.write_within,
                        server.config.bytes_per_second_min,
                    );
                    let proxy = is_proxy.then(|| seat.clone());
                    http1::serve(
                        SeatedSocket::new(stream, seat, rule),
                        Peer {
                            address: peer,
                            proxy,
                            buffers,
                        },
                        server,
                        drain,
                    )
                    .await;
                }
            });
        }
    }
}

/// Sockets that listen at the addresses of one name. No socket can starve the others.
struct Listeners {
    sockets: Vec<tokio::net::TcpListener>,
    next: usize,
}

impl Listeners {
    fn new(listeners: Vec<TcpListener>) -> io::Result<Listeners> {
        let sockets = listeners.into_iter().map(|listener| {
            listener.set_nonblocking(true)?;
            tokio::net::TcpListener::from_std(listener)
        });
        Ok(Listeners {
            sockets: sockets.collect::<io::Result<_>>()?,
            next: 0,
        })
    }

    async fn accept(&mut self) -> io::Result<(TcpStream, SocketAddr)> {
        poll_fn(|cx| {
            for _ in 0..self.sockets.len() {
                let accepted = self.sockets[self.next].poll_accept(cx);
                self.next = (self.next + 1) % self.sockets.len();
                if accepted.is_ready() {
                    return accepted;
                }
            }
            Poll::Pending
        })
        .await
    }
}

/// Writes a 503 as far as the socket takes it without waiting. The caller then closes the socket.
fn refuse(stream: &TcpStream) {
    // Nothing was sent before, so the socket's buffer takes the whole answer.
    _ = stream.try_write(NO_SEAT);
    // If a socket with unread bytes is closed, the kernel sends a reset, which may overtake the
    // answer.
    _ = stream.try_read(&mut [0; 4096]);
}

/// Returns true for errors that `accept` reports about the accepted connection (accept(2), "Error
/// handling").
fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::*;
    matches!(
        error.kind(),
        ConnectionAborted
            | ConnectionReset
            | Interrupted
            | PermissionDenied
            | NetworkDown
            | NetworkUnreachable
            | HostUnreachable
    )
}

/// Returns true for EMFILE and ENFILE, which have no `ErrorKind`. Every Unix has the same numbers.
fn is_out_of_descriptors(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(23 | 24))
}

/// A spare descriptor for the time when no other is left. It is then closed to accept the next
/// connection, so that the server can refuse that one instead of leaving it in the queue without an
/// answer.
struct SpareDescriptor(Option<File>);

impl SpareDescriptor {
    fn new() -> SpareDescriptor {
        SpareDescriptor(File::open("/dev/null").ok())
    }

    /// Accepts and refuses one connection with the reserve's descriptor. Returns false if there was
    /// no connection or no reserve.
    async fn refuse_one(&mut self, listeners: &mut Listeners) -> bool {
        if self.0.take().is_none() {
            *self = SpareDescriptor::new();
            return false;
        }
        let accepted = timeout(Duration::ZERO, listeners.accept()).await;
        if let Ok(Ok((stream, _))) = &accepted {
            refuse(stream);
        }
        let is_refused = matches!(accepted, Ok(Ok(_)));
        // The refused socket gives its descriptor back to the reserve.
        drop(accepted);
        *self = SpareDescriptor::new();
        is_refused
    }
}
