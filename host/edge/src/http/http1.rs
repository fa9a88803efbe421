//! One HTTP/1.1 connection.
//!
//! Owner: each connection is one task, which runs `serve`. It alternates between two states. In
//! `serve_requests` hyper reads heads and writes answers; `PacedSocket` is its socket, and `Watch`
//! decides after each poll whether the client is late. While an answer is held, `held` writes to
//! the socket without hyper and its buffers. `serve_requests` ends with a `ServingEnd`: a lost or
//! refused client, the last answer, a held answer, or a late client. An upgrade takes the socket to
//! a task of its own. After the last answer, `linger` closes the socket in two stages.
//!
//! Invariant: an answer that breaks off ends its connection, so that a client can't take it for a
//! whole one.
//!
//! The future of `serve_requests` is on the heap: nothing of it is left while an answer is held.
//!
//! Left to others: each request to `exchange`, clocks to `lateness` and `pace`, memory to `memory`,
//! seats to `sockets`.

use crate::{
    drain::DrainGuard,
    http::answer::{self, ACCESS, HeldAnswer, HeldFraming},
    http::connection_state::ConnectionState,
    http::exchange::Exchange,
    http::held,
    http::http1_body::Http1Body,
    http::lateness::{Lateness, Watch},
    http::linger,
    http::pace::ClientSocket,
    http::paced_socket::PacedSocket,
    http::request_body::RequestBody,
    memory::{self, ConnectionMemory},
    server::Server,
    sockets::{Seat, SeatRefusal},
    websocket::upgrade::UpgradeHandle,
};
use bytes::Bytes;
use http_body::Body as _;
use hyper::{body::Incoming, server::conn::http1, service::service_fn, upgrade::OnUpgrade};
use hyper_util::rt::TokioIo;
use std::{
    convert::Infallible,
    future::{Future, poll_fn},
    io,
    net::SocketAddr,
    pin::{Pin, pin},
    sync::Arc,
    task::{Poll, ready},
    time::{Duration, Instant},
};
use tidegate_hub::budget::Charge;

/// The other end of a connection.
pub(crate) struct Peer {
    pub(crate) address: SocketAddr,
    /// Seat of a trusted proxy's connection, which stands for one of its clients after the other.
    pub(crate) proxy: Option<Arc<Seat>>,
    /// Reservation for the buffers of the connection.
    pub(crate) buffers: Charge,
}

/// Serves requests until the client leaves or is too slow, an upgrade takes the socket, or a drain
/// ends the connection.
pub(crate) async fn serve<Io: ClientSocket>(
    mut stream: Io,
    Peer {
        address,
        proxy,
        mut buffers,
    }: Peer,
    server: Arc<Server>,
    drain: DrainGuard,
) {
    let peer: Arc<str> = address.to_string().into();
    let mut ahead = Bytes::new();
    let answered = loop {
        // Boxed, so that its memory is free while an answer is held.
        let next = Box::pin(serve_requests(
            stream,
            ahead,
            peer.clone(),
            proxy.clone(),
            server.clone(),
            drain.clone(),
        ))
        .await;
        let (io, held, read) = match next {
            NextStage::Closed => return,
            NextStage::Linger(stream) => break stream,
            NextStage::Hold { io, held, ahead } => (io, *held, ahead),
        };
        // A smaller amount than before is never refused.
        _ = buffers.fit(server.hub.budget(), 0);
        match held::write(io, held, read, server.clone(), drain.clone()).await {
            Ok(Some(written)) if written.goes_on => {
                if memory::admit(&mut buffers, server.hub.budget()).is_err() {
                    note_scarcity(&server);
                    return;
                }
                (stream, ahead) = (written.io, written.ahead);
            }
            Ok(Some(written)) => break written.io,
            Ok(None) => return,
            Err(error) => {
                // With any other error the client has left.
                if error.kind() == io::ErrorKind::TimedOut {
                    count_late(&server, &peer, Lateness::Reader);
                }
                return;
            }
        }
    };
    // A client that is still sending does not hold the drain.
    drop(drain);
    Box::pin(linger::close(
        answered,
        server.config.linger_within,
        server.config.linger_bytes_max,
    ))
    .await;
}

/// Reason why hyper serves no more requests.
enum ServingEnd {
    /// The client left, or an upgrade took the socket.
    Over,
    /// The last answer has gone to the socket.
    Answered,
    Held(Box<HeldAnswer>),
    Late(Lateness),
    /// There is no memory for the client's bytes, or for a waiting connection.
    Refused {
        /// True if a part of a head came; its client receives the reason.
        has_begun: bool,
    },
    /// An answer broke off, and only the end of the connection can show it.
    BrokenOff,
}

/// Next stage of a connection that hyper no longer serves.
enum NextStage<Io> {
    /// There is no connection left.
    Closed,
    /// The last answer has gone to the socket.
    Linger(Io),
    /// An answer has to be held.
    Hold {
        io: Io,
        held: Box<HeldAnswer>,
        /// Bytes that the client has sent after its request.
        ahead: Bytes,
    },
}

/// Handles requests until the connection ends or an answer has to be held. `ahead` has bytes that
/// were read before.
async fn serve_requests<Io: ClientSocket>(
    stream: Io,
    ahead: Bytes,
    peer: Arc<str>,
    proxy: Option<Arc<Seat>>,
    server: Arc<Server>,
    drain: DrainGuard,
) -> NextStage<Io> {
    let mut stopping = drain.stopping.clone();
    let memory = ConnectionMemory::new(server.hub.budget());
    let state = Arc::<ConnectionState>::default();
    let service = {
        let (server, state, peer, memory) =
            (server.clone(), state.clone(), peer.clone(), memory.clone());
        service_fn(move |mut request: http::Request<Incoming>| {
            state.begin(!request.body().is_end_stream());
            memory.begin_request();
            let version = request.version();
            let upgrade = request
                .extensions_mut()
                .remove::<OnUpgrade>()
                .map(upgrade_handle::<Io>);
            let request = request.map(|body| RequestBody::new(body, &state));
            let mut exchange = Exchange {
                server: server.clone(),
                drain: drain.clone(),
                peer: peer.clone(),
                proxy: proxy.clone(),
                scheme: None,
                state: state.clone(),
                memory: memory.clone(),
                upgrade,
            };
            let framing = if version == http::Version::HTTP_11 {
                HeldFraming::Chunked
            } else {
                HeldFraming::UntilClose
            };
            // Boxed: hyper would reserve the room for it as long as the connection lasts.
            Box::pin(async move {
                exchange.state.turn.begin().await;
                let answer = exchange.answer(request).await;
                let answer = held::offer(&exchange.state, framing, answer).await;
                Ok::<_, Infallible>(
                    answer.map(|body| Http1Body::new(body, version, exchange.state)),
                )
            })
        })
    };
    let paced = PacedSocket::new(
        stream,
        ahead,
        state.clone(),
        memory.clone(),
        server.config.linger_bytes_max,
    );
    let mut connection = http1::Builder::new()
        // `Watch` times heads: it distinguishes an idle connection from a slow one.
        .header_read_timeout(None)
        .max_buf_size(server.config.header_bytes_max.max(READ_BYTES_MIN))
        .max_header_size(server.config.header_bytes_max)
        // A client may end its sending direction and still wait for its answer.
        .half_close(true)
        .serve_connection(TokioIo::new(paced), service)
        .with_upgrades();
    let mut stopped = pin!(stopping.wait_for(|stopping| *stopping));
    let (mut is_stopped, mut watch) = (false, Watch::new(server.clone()));
    let mut hurries = memory.hurries();
    let end = poll_fn(|cx| {
        if !is_stopped && stopped.as_mut().poll(cx).is_ready() {
            is_stopped = true;
            Pin::new(&mut connection).graceful_shutdown();
            watch.drain();
        }
        if memory.is_evicted(cx.waker()) {
            return Poll::Ready(ServingEnd::Over);
        }
        loop {
            state.turn.begin_poll();
            match Pin::new(&mut connection).poll(cx) {
                Poll::Ready(_) if state.is_given_up() => {
                    return Poll::Ready(ServingEnd::Late(Lateness::Reader));
                }
                Poll::Ready(_) if state.is_broken_off() => {
                    return Poll::Ready(ServingEnd::BrokenOff);
                }
                Poll::Ready(_) if memory.is_refused() => {
                    return Poll::Ready(ServingEnd::Refused { has_begun: true });
                }
                // Errors come from the client: it left, or its bytes are not a request and hyper
                // has answered with an error.
                Poll::Ready(_) => return Poll::Ready(ServingEnd::Answered),
                Poll::Pending => {}
            }
            // `offer` stores an answer while the connection is polled.
            if let Some(held) = held::take(&state) {
                return Poll::Ready(ServingEnd::Held(held));
            }
            // A drain waits for whole requests only; hyper would also wait for the rest of a head.
            if is_stopped && !state.is_busy() && state.is_flushed() {
                return Poll::Ready(ServingEnd::Over);
            }
            let asked = memory.hurries();
            if std::mem::replace(&mut hurries, asked) != asked
                && state.is_flushed()
                && let Some(late) = watch.has_waited(HURRIED_PATIENCE, &state)
            {
                return Poll::Ready(ServingEnd::Refused {
                    has_begun: late == Lateness::Head,
                });
            }
            match ready!(watch.poll_late(&state, cx)) {
                // The body has ended for the app, which may answer now.
                Lateness::Body => count_late(&server, &peer, Lateness::Body),
                Lateness::Look => {}
                late => return Poll::Ready(ServingEnd::Late(late)),
            }
        }
    });
    let end = end.await;
    let Some(http1::Parts { io, read_buf, .. }) = connection.into_parts() else {
        return NextStage::Closed;
    };
    let mut stream = io.into_inner().into_inner();
    match end {
        ServingEnd::Over => NextStage::Closed,
        ServingEnd::BrokenOff => {
            stream.abort();
            NextStage::Closed
        }
        ServingEnd::Answered => NextStage::Linger(stream),
        ServingEnd::Held(held) => NextStage::Hold {
            io: stream,
            held,
            ahead: read_buf,
        },
        ServingEnd::Refused { has_begun } => {
            note_scarcity(&server);
            if has_begun {
                _ = write_at_once(&mut stream, answer::NO_SEAT).await;
            }
            NextStage::Closed
        }
        ServingEnd::Late(late) => {
            count_late(&server, &peer, late);
            match late {
                Lateness::Reader => stream.abort(),
                Lateness::Head => {
                    return answer_late(&mut stream)
                        .await
                        .map_or(NextStage::Closed, |()| NextStage::Linger(stream));
                }
                Lateness::Answer if !state.is_answered() => {
                    return answer_late(&mut stream)
                        .await
                        .map_or(NextStage::Closed, |()| NextStage::Linger(stream));
                }
                Lateness::Idle
                | Lateness::Body
                | Lateness::Answer
                | Lateness::Left
                | Lateness::Look => {}
            }
            NextStage::Closed
        }
    }
}

/// Returns a handle that gives the socket to a WebSocket when hyper has written the 101.
fn upgrade_handle<Io: ClientSocket>(on_upgrade: OnUpgrade) -> UpgradeHandle {
    UpgradeHandle::new(|accepted| {
        tokio::spawn(async move {
            // The client may have left before it received its 101: then no connection was opened.
            let Ok(upgraded) = on_upgrade.await else {
                return;
            };
            let Ok(parts) = upgraded.downcast::<TokioIo<PacedSocket<Io>>>() else {
                return;
            };
            accepted.start(parts.io.into_inner().into_inner(), parts.read_buf);
        });
    })
}

/// Maximum time without a whole request while connections are closed for lack of memory.
const HURRIED_PATIENCE: Duration = Duration::from_secs(1);

/// Counts a connection that ends for lack of memory.
fn note_scarcity(server: &Server) {
    server
        .sockets
        .note(SeatRefusal::Memory, server.hub.counters(), Instant::now());
}

/// Minimum size of hyper's buffer, in bytes.
const READ_BYTES_MIN: usize = 8 << 10;

fn count_late(server: &Server, peer: &str, late: Lateness) {
    let counters = server.hub.counters();
    let reason = match late {
        // There was no request, or it was counted when its body was given up.
        Lateness::Idle | Lateness::Answer | Lateness::Left | Lateness::Look => return,
        Lateness::Head => {
            counters.late_heads.add(1);
            "the head of its request took too long"
        }
        Lateness::Body => {
            counters.stalled_uploads.add(1);
            "it sent a body too slowly"
        }
        Lateness::Reader => {
            counters.stalled_readers.add(1);
            "it took its answer too slowly"
        }
    };
    tracing::debug!(target: ACCESS, peer, "closed a connection: {reason}");
}

/// Writes a 408 where hyper can't. Returns `None` if the socket does not take it at once.
async fn answer_late(stream: &mut impl ClientSocket) -> Option<()> {
    let answer = b"HTTP/1.1 408 Request Timeout\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";
    write_at_once(stream, answer).await
}

/// Writes an answer where hyper can't. Returns `None` if the socket does not take it at once.
async fn write_at_once(stream: &mut impl ClientSocket, answer: &[u8]) -> Option<()> {
    poll_fn(|cx| {
        Poll::Ready(
            matches!(
                Pin::new(&mut *stream).poll_write(cx, answer),
                Poll::Ready(Ok(_))
            )
            .then_some(()),
        )
    })
    .await
}
