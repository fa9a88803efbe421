//! `tidegate serve`: an app behind a socket, until a signal.

use crate::{
    args::{LogFormat, ServeArgs},
    assemble,
    config::Config,
    control,
    failure::Failure,
    report::{self, Report},
    site::Site,
};
use std::sync::Arc;
use tokio::sync::mpsc::Receiver;

/// Serves until SIGINT or SIGTERM, and drains. At each SIGHUP the app's file is loaded again.
pub(crate) fn run(args: &ServeArgs, format: LogFormat) -> Result<(), Failure> {
    let config = args.config()?;
    assemble::runtime()?.block_on(serve(args, &config, format))
}

async fn serve(args: &ServeArgs, config: &Config, format: LogFormat) -> Result<(), Failure> {
    let (loaded, table) = assemble::load(&args.load.app, config).await?;
    assemble::raise_open_files();
    let listener = config.listen.open()?;
    let workers = assemble::workers(config.workers)?;
    let (stop, wishes) = assemble::signals()?;

    let compiled = loaded.compiled();
    let site = Site::new(&args.load.app, config, &workers[0], loaded, table)?;
    let door = control::open(&workers[0], &config.data, &site);
    let _door = door.inspect_err(|error| tracing::warn!("there is no control socket: {error:#}")).ok();
    tokio::spawn(reload_all(site.clone(), wishes));
    let manifest = site.manifest();
    let report = Report { address: listener.local_addr()?, app: &args.load.app, compiled, manifest: manifest.as_deref(), config };
    report.tell(format);

    let drained = tidegate_edge::serve(listener, site.server().clone(), &workers, stop).await?;
    if !drained.in_time {
        tracing::warn!("cut off what was still open; give it longer with --drain");
    }
    report::tell_stopped(site.hub(), format);
    Ok(())
}

async fn reload_all(site: Arc<Site>, mut wishes: Receiver<()>) {
    while wishes.recv().await.is_some() {
        _ = site.reload().await; // told in the log
    }
}
