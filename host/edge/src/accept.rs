//! Accepts connections, hands each to a worker, and drains them all when it is told to stop.

use crate::{
    http::answer::NO_SEAT,
    http::http1::{self, Peer},
    http::pace,
    lifeline::Lifeline,
    memory,
    server::Server,
    sockets::{Refusal, Seated},
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
    budget::{Charge, Kind},
};
use tokio::{
    net::TcpStream,
    runtime::Handle,
    sync::watch,
    time::{sleep, timeout},
};

/// Time before the next try when a connection can be neither accepted nor refused.
const PAUSE: Duration = Duration::from_millis(50);

/// How the drain went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Drained {
    /// Whether every connection ended within `drain_within`; otherwise the rest is cut off.
    pub in_time: bool,
}

/// Serves until `shutdown` is ready, then stops accepting, closes WebSockets with 1001, ends feeds
/// and waits for requests. Connections of all `listeners`, of which there is at least one, go to `workers` in turn: runtimes that others
/// keep running.
///
/// # Errors
/// If a listener can't be used.
pub async fn serve(
    listeners: Vec<TcpListener>,
    server: Arc<Server>,
    workers: &[Handle],
    shutdown: impl Future<Output = ()>,
) -> io::Result<Drained> {
    let (lifeline, stop, mut all_gone) = Lifeline::new();

    accept(listeners, &server, workers, (&lifeline, &stop), shutdown).await?;

    server
        .hub
        .connections()
        .close_all(&Close::new(1001, "the server is going away"));
    stop.send_replace(true);
    drop(lifeline);
    let in_time = timeout(server.config.drain_within, all_gone.recv())
        .await
        .is_ok();
    Ok(Drained { in_time })
}

async fn accept(
    listeners: Vec<TcpListener>,
    server: &Arc<Server>,
    workers: &[Handle],
    (lifeline, stop): (&Lifeline, &watch::Sender<bool>),
    shutdown: impl Future<Output = ()>,
) -> io::Result<()> {
    // A server that listens at several addresses, or again, keeps the first one: only requests without `Host` see it.
    _ = server.address.set(listeners[0].local_addr()?);
    let mut listeners = Listeners::new(listeners)?;
    let mut shutdown = pin!(shutdown);
    let mut turn = workers.iter().cycle();
    let mut reserve = Reserve::new();
    loop {
        let accepted = tokio::select! {
            accepted = listeners.accept() => accepted,
            () = server.hub.budget().hurried() => {
                // Wakes every connection. Each one sees for itself whether it has to go.
                stop.send_modify(|_| {});
                continue;
            }
            () = &mut shutdown => return Ok(()),
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            // It was over before it began: the next one may be fine.
            Err(error) if is_of_one_connection(&error) => continue,
            Err(error) => {
                if is_out_of_descriptors(&error) {
                    server.sockets.note(
                        Refusal::Descriptors,
                        server.hub.counters(),
                        Instant::now(),
                    );
                }
                // Without the reserve, or with any other error, the next try would fail at once: it must not take a core.
                if !reserve.refuse_one(&mut listeners).await {
                    sleep(PAUSE).await;
                }
                continue;
            }
        };
        // A socket that listens on IPv6 sees IPv4 clients as mapped addresses.
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
        let mut buffers = Charge::new(Kind::Socket);
        let seat = seat.and_then(|seat| {
            memory::admit(&mut buffers, server.hub.budget())
                .map(|()| Arc::new(seat))
                .map_err(|_| Refusal::Memory)
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
        // A socket belongs to the runtime where it is first used: this one gives it up.
        if let (Ok(stream), Some(worker)) = (stream.into_std(), turn.next()) {
            let (server, lifeline) = (server.clone(), lifeline.clone());
            worker.spawn(async move {
                if let Ok(stream) = TcpStream::from_std(stream) {
                    _ = stream.set_nodelay(true);
                    pace::bound(&stream, server.config.write_within);
                    let proxy = is_proxy.then(|| seat.clone());
                    http1::serve(
                        Seated::new(stream, seat),
                        Peer {
                            address: peer,
                            proxy,
                            buffers,
                        },
                        server,
                        lifeline,
                    )
                    .await;
                }
            });
        }
    }
}

/// Sockets that listen at the addresses of one name. None of them can keep the others waiting.
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

/// Answers 503, as far as that goes without waiting, before the socket is closed.
fn refuse(stream: &TcpStream) {
    // Nothing was sent yet, so the socket's buffer takes it whole.
    _ = stream.try_write(NO_SEAT);
    // Closing a socket with unread bytes sends a reset, which may overtake the answer.
    _ = stream.try_read(&mut [0; 4096]);
}

/// Errors that `accept` passes on from the one connection that it took (accept(2), "Error handling").
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

/// EMFILE or ENFILE, which have no kind of their own: the numbers are those of every Unix.
fn is_out_of_descriptors(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(23 | 24))
}

/// A descriptor that is kept for the time when none is left: then it is given up for the next connection, which so can be
/// refused instead of waiting in the queue without an answer.
struct Reserve(Option<File>);

impl Reserve {
    fn new() -> Reserve {
        Reserve(File::open("/dev/null").ok())
    }

    /// Accepts and refuses one connection in the place of the reserve; false if there was none, or no reserve.
    async fn refuse_one(&mut self, listeners: &mut Listeners) -> bool {
        if self.0.take().is_none() {
            *self = Reserve::new();
            return false;
        }
        let accepted = timeout(Duration::ZERO, listeners.accept()).await;
        if let Ok(Ok((stream, _))) = &accepted {
            refuse(stream);
        }
        let is_refused = matches!(accepted, Ok(Ok(_)));
        // The socket that was refused gives its descriptor back to the reserve.
        drop(accepted);
        *self = Reserve::new();
        is_refused
    }
}
