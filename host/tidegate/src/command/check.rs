//! `tidegate check`: checks every rule that `serve` enforces when it loads an app.

use crate::{
    args::CheckArgs,
    assemble, colour,
    command::{plural, print},
    command_error::CommandError,
    logging,
    problem::Warnings,
};
use serde_json::{Value, json};
use std::{path::Path, sync::Arc};
use tidegate_routing::{Manifest, Target};

/// Prints warnings and OK, or reports every problem.
pub(crate) fn run(args: &CheckArgs) -> Result<(), CommandError> {
    let config = args.load.config()?;
    let loaded = assemble::runtime()?.block_on(assemble::load(&args.load.app, config.app));
    match loaded {
        Ok((loaded, _)) if args.json => {
            let warnings = Warnings::new(&args.load.app, loaded.ungranted());
            print(&format!(
                "{:#}\n",
                json(&args.load.app, loaded.manifest(), &warnings)
            ))
        }
        Ok((loaded, _)) => {
            logging::print(
                &Warnings::new(&args.load.app, loaded.ungranted()).report(colour::is_on()),
            );
            print(&match loaded.manifest() {
                Some(manifest) => format!("OK: {}\n", counts(manifest)),
                None => "OK: no manifest; its wasi:http export answers every path\n".into(),
            })
        }
        Err(CommandError::Rejected(rejection)) if args.json => {
            print(&format!("{:#}\n", rejection.json()))?;
            Err(CommandError::AlreadyReported)
        }
        Err(failure) => Err(failure),
    }
}

fn json(app: &Path, manifest: Option<&Arc<Manifest>>, warnings: &Warnings<'_>) -> Value {
    let count = |count: fn(&Manifest) -> usize| manifest.map_or(0, |manifest| count(manifest));
    json!({
    "app": app.display().to_string(),
    "ok": true,
    "problems": [],
    "warnings": warnings.json(),
    "routes": count(|manifest| manifest.routes.len()),
    "guards": count(|manifest| manifest.guards.len()),
    "pages": count(|manifest| manifest.pages.len()),
    })
}

/// Formats the counts: "3 routes (2 http, 1 websocket), 1 guard".
fn counts(manifest: &Manifest) -> String {
    let targets = [
        Target::Http,
        Target::Stream,
        Target::WebSocket,
        Target::Feed,
    ];
    let of = |target: &Target| {
        manifest
            .routes
            .iter()
            .filter(|route| route.target == *target)
            .count()
    };
    let each: Vec<String> = targets
        .iter()
        .filter(|target| of(target) > 0)
        .map(|target| format!("{} {target}", of(target)))
        .collect();
    let each = if each.is_empty() {
        String::new()
    } else {
        format!(" ({})", each.join(", "))
    };
    let pages = match manifest.pages.len() {
        0 => String::new(),
        pages => format!(", {}", plural(pages, "page")),
    };
    format!(
        "{}{each}, {}{pages}",
        plural(manifest.routes.len(), "route"),
        plural(manifest.guards.len(), "guard")
    )
}
