//! Accepts connections, hands each to a worker, and drains them all when it is told to stop.

use crate::{Origins, assets::Assets, http1};
use std::{future::Future, io, net::TcpListener, path::PathBuf, pin::pin, sync::Arc, time::Duration};
use tidegate_hub::{App, Close, Hub, Table};
use tokio::{
    net::TcpStream,
    runtime::Handle,
    sync::{mpsc, watch},
    time::{sleep, timeout},
};

/// How the edge treats clients. A plain struct: take the default and change what you must.
#[derive(Clone, Debug)]
pub struct Config {
    /// Which pages may open a WebSocket.
    pub origins: Origins,
    /// Whether a request for a WebSocket without `Origin` (not from a browser) is refused.
    pub require_origin: bool,
    /// Files that are served by their exact path, before the app's routes.
    pub assets: Option<PathBuf>,
    /// For a request's head to come whole; also how long an idle connection is kept.
    pub header_within: Duration,
    /// Bytes of a request's head; beyond it 431 (or 414).
    pub header_bytes_max: usize,
    /// For a bounded body to come whole, then 408.
    pub body_within: Duration,
    /// For connections and requests to end after the shutdown began.
    pub drain_within: Duration,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            origins: Origins::SameOrigin,
            require_origin: false,
            assets: None,
            header_within: Duration::from_secs(30),
            header_bytes_max: 64 << 10,
            body_within: Duration::from_secs(30),
            drain_within: Duration::from_secs(10),
        }
    }
}

/// One served app: what every connection of it needs.
pub struct Server {
    pub(crate) hub: Arc<Hub>,
    pub(crate) app: Arc<dyn App>,
    pub(crate) table: Table,
    pub(crate) config: Config,
    pub(crate) assets: Option<Assets>,
}

impl Server {
    /// Puts the parts together; opens nothing.
    pub fn new(hub: Arc<Hub>, app: Arc<dyn App>, table: Table, config: Config) -> Arc<Server> {
        let assets = config.assets.as_deref().map(Assets::new);
        Arc::new(Server { hub, app, table, config, assets })
    }
}

/// How the drain went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Drained {
    /// Whether every connection ended within `drain_within`; otherwise the rest is cut off.
    pub in_time: bool,
}

/// What each connection's tasks hold: the news of the shutdown, and a sign of life.
#[derive(Clone)]
pub(crate) struct Lifeline {
    pub(crate) stopping: watch::Receiver<bool>,
    _alive: mpsc::Sender<()>,
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
    let (stop, stopping) = watch::channel(false);
    let (alive, mut all_gone) = mpsc::channel(1);
    let lifeline = Lifeline { stopping, _alive: alive };

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
                    http1::serve(stream, peer, server, lifeline).await;
                }
            });
        }
    }
}
