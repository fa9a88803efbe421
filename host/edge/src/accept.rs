//! Accepts connections, hands each to a worker, and drains them all when it is told to stop.

use crate::{http1, lifeline::Lifeline, pace, server::Server};
use std::{future::Future, io, net::TcpListener, pin::pin, sync::Arc, time::Duration};
use tidegate_hub::Close;
use tokio::{
    net::TcpStream,
    runtime::Handle,
    time::{sleep, timeout},
};

/// How the drain went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Drained {
    /// Whether every connection ended within `drain_within`; otherwise the rest is cut off.
    pub in_time: bool,
}

/// Serves until `shutdown` is ready, then stops accepting, closes WebSockets with 1001, ends feeds
/// and waits for requests. Connections go to `workers` in turn: runtimes that others keep running.
///
/// # Errors
/// If the listener can't be used.
pub async fn serve(
    listener: TcpListener,
    server: Arc<Server>,
    workers: &[Handle],
    shutdown: impl Future<Output = ()>,
) -> io::Result<Drained> {
    let (lifeline, stop, mut all_gone) = Lifeline::new();

    accept(listener, &server, workers, &lifeline, shutdown).await?;

    server.hub.connections().close_all(&Close::new(1001, "the server is going away"));
    stop.send_replace(true);
    drop(lifeline);
    let in_time = timeout(server.config.drain_within, all_gone.recv()).await.is_ok();
    Ok(Drained { in_time })
}

async fn accept(
    listener: TcpListener,
    server: &Arc<Server>,
    workers: &[Handle],
    lifeline: &Lifeline,
    shutdown: impl Future<Output = ()>,
) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    // A server that listens again keeps the first address: only requests without `Host` see it.
    _ = server.address.set(listener.local_addr()?);
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let mut shutdown = pin!(shutdown);
    let mut turn = workers.iter().cycle();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = &mut shutdown => return Ok(()),
        };
        let Ok((stream, peer)) = accepted else {
            // Out of files, most likely: those that are open have to end before another can begin.
            sleep(Duration::from_millis(50)).await;
            continue;
        };
        // A socket belongs to the runtime where it is first used: this one gives it up.
        if let (Ok(stream), Some(worker)) = (stream.into_std(), turn.next()) {
            let (server, lifeline) = (server.clone(), lifeline.clone());
            worker.spawn(async move {
                if let Ok(stream) = TcpStream::from_std(stream) {
                    _ = stream.set_nodelay(true);
                    pace::bound(&stream, server.config.write_within);
                    http1::serve(stream, peer, server, lifeline).await;
                }
            });
        }
    }
}
