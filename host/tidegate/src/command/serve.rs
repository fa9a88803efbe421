//! `tidegate serve`: serves an app until a signal.

use crate::{
    args::ServeArgs,
    assemble::{self, Signals},
    command_error::CommandError,
    config::Config,
    control,
    deployment::{self, Deployment, Environment},
    logging::LogFormat,
    memory,
    report::{self, Report},
};
use anyhow::Context as _;
use std::{
    future::Future,
    io,
    net::{SocketAddr, TcpListener},
    path::{Path, PathBuf},
    pin::Pin,
    sync::Arc,
};
use tidegate_edge::Hosts;
use tidegate_routing::Router;
use tidegate_wasm::{Compilation, LoadedApp};
use tokio::{runtime::Handle, sync::mpsc::Receiver};

/// Serves until SIGINT or SIGTERM, then drains. Each SIGHUP loads the app's file again.
pub(crate) fn run(args: &ServeArgs, format: LogFormat) -> Result<(), CommandError> {
    let signals = Signals::handle()?;
    let config = args.config()?;
    control::check_path(&config.data)?;
    assemble::runtime()?.block_on(async {
        let (loaded, router) = assemble::load(&args.load.app, config.app.clone()).await?;
        let serving = Serving::open(&args.load.app, &config, loaded, router, signals).await?;
        serving.announce(format)?;
        if config.edge.hosts == Hosts::Any {
            tracing::warn!(
                "requests may name any host: list the hosts of this server as hosts in [server] of tidegate.toml, or set hosts = \"*\" to allow any"
            );
        }
        serving.run(format).await
    })
}

/// A server with open sockets, before it accepts connections.
pub(crate) struct Serving {
    app: PathBuf,
    config: Config,
    compiled: Compilation,
    deployment: Arc<Deployment>,
    listeners: Vec<TcpListener>,
    workers: Vec<Handle>,
    stop: Pin<Box<dyn Future<Output = ()>>>,
    /// Kept for its `Drop`, which removes the socket's file.
    _control_socket: Option<control::ControlSocket>,
}

impl Serving {
    pub(crate) async fn open(
        app: &Path,
        config: &Config,
        loaded: LoadedApp,
        router: Router,
        signals: Signals,
    ) -> Result<Serving, CommandError> {
        let mut resolved = config.clone();
        let (sockets_max, warning) =
            assemble::sockets_max(assemble::raise_open_files(), config.edge.sockets_max);
        resolved.edge.sockets_max = sockets_max;
        if let Some(warning) = warning {
            tracing::warn!("{warning}");
        }
        let listeners = config.listen.open()?;
        config.app.outbound.own.set(addresses(&listeners)?);
        let workers = assemble::workers(config.workers)?;
        let compiled = loaded.compiled();
        let deployment = Deployment::new(
            app,
            &resolved,
            Environment::Real(workers[0].clone()),
            loaded,
            router,
        )?;
        let (stop, reloads) = signals.serve();
        memory::watch(&deployment, &workers).context("can't watch the memory of the process")?;
        let _control_socket = control::open(&workers[0], &config.data, &deployment)
            .inspect_err(|error| {
                tracing::warn!("the server runs without a control socket: {error:#}")
            })
            .ok();
        tokio::spawn(reload_all(deployment.clone(), reloads));
        Ok(Serving {
            app: app.to_owned(),
            config: config.clone(),
            compiled,
            deployment,
            listeners,
            workers,
            stop: Box::pin(stop),
            _control_socket,
        })
    }

    pub(crate) fn deployment(&self) -> &Arc<Deployment> {
        &self.deployment
    }

    /// Returns the addresses on which the server listens: at least one.
    pub(crate) fn addresses(&self) -> Result<Vec<SocketAddr>, CommandError> {
        Ok(addresses(&self.listeners)?)
    }

    /// Prints the start report.
    pub(crate) fn announce(&self, format: LogFormat) -> Result<(), CommandError> {
        let manifest = self.deployment.manifest();
        let Serving {
            app,
            config,
            compiled,
            ..
        } = self;
        let report = Report {
            addresses: self.addresses()?,
            app,
            compiled: *compiled,
            manifest: manifest.as_deref(),
            config,
        };
        report.print(format);
        Ok(())
    }

    pub(crate) async fn run(self, format: LogFormat) -> Result<(), CommandError> {
        let drained = tidegate_edge::serve(
            self.listeners,
            self.deployment.server().clone(),
            &self.workers,
            self.stop,
        )
        .await?;
        if !drained.in_time {
            tracing::warn!(
                "requests or connections were cut off at the end of the drain; allow more time with --drain"
            );
        }
        let undelivered = self.deployment.hub().connections().owed_closes();
        if undelivered > 0 {
            tracing::warn!("on-close events that were not delivered within --drain: {undelivered}");
        }
        report::report_stop(self.deployment.hub(), format);
        Ok(())
    }
}

fn addresses(listeners: &[TcpListener]) -> io::Result<Vec<SocketAddr>> {
    listeners.iter().map(TcpListener::local_addr).collect()
}

async fn reload_all(deployment: Arc<Deployment>, mut reloads: Receiver<()>) {
    while reloads.recv().await.is_some() {
        _ = deployment::log_outcome(deployment.reload().await);
    }
}
