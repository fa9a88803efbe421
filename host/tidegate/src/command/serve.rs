//! `tidegate serve`: an app behind a socket, until a signal.

use crate::{
    args::{LogFormat, ServeArgs},
    assemble,
    config::Config,
    failure::Failure,
    report::{self, Report},
};
use std::sync::Arc;
use tidegate_edge::Server;
use tidegate_hub::App;

/// Serves until SIGINT or SIGTERM, and drains.
pub(crate) fn run(args: &ServeArgs, format: LogFormat) -> Result<(), Failure> {
    let config = args.config()?;
    assemble::runtime()?.block_on(serve(args, &config, format))
}

async fn serve(args: &ServeArgs, config: &Config, format: LogFormat) -> Result<(), Failure> {
    let (loaded, table) = assemble::load(&args.load.app, config).await?;
    assemble::raise_open_files();
    let listener = config.listen.open()?;
    let workers = assemble::workers(config.workers)?;
    let stop = assemble::stop_signal()?;

    let hub = assemble::hub(config);
    let (manifest, compiled) = (loaded.manifest().cloned(), loaded.compiled());
    let app: Arc<dyn App> = loaded.start(hub.clone());
    let (app, _door) = match manifest.as_ref().filter(|manifest| manifest.has_rooms()) {
        Some(manifest) => assemble::with_rooms(app, &hub, manifest, config, &workers[0])?,
        None => {
            assemble::tick(&workers[0], &hub, |hub| hub.tick(assemble::unix_ms()));
            (app, None)
        }
    };
    let report = Report { address: listener.local_addr()?, app: &args.load.app, compiled, manifest: manifest.as_ref(), config };
    report.tell(format);

    let server = Server::new(hub.clone(), app, table, config.edge.clone());
    let drained = tidegate_edge::serve(listener, server, &workers, stop).await?;
    if !drained.in_time {
        tracing::warn!("cut off what was still open; give it longer with --drain");
    }
    report::tell_stopped(&hub, format);
    Ok(())
}
