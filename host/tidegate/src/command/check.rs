//! `tidegate check`: every rule that `serve` enforces when it loads an app, and nothing served.

use crate::{args::LoadArgs, assemble, command::say, failure::Failure};
use tidegate_hub::{Manifest, Target};

/// Says OK, or fails with every violation.
pub(crate) fn run(args: &LoadArgs) -> Result<(), Failure> {
    let config = args.config()?;
    let (loaded, _) = assemble::runtime()?.block_on(assemble::load(&args.app, config.app))?;
    say(&match loaded.manifest() {
        Some(manifest) => format!("OK: {}\n", counts(manifest)),
        None => "OK: no manifest; its wasi:http export answers every path\n".into(),
    })
}

/// "3 routes (2 http, 1 websocket), 1 guard"
fn counts(manifest: &Manifest) -> String {
    let targets = [Target::Http, Target::Stream, Target::WebSocket, Target::Events];
    let of = |target: &Target| manifest.routes.iter().filter(|route| route.target == *target).count();
    let each: Vec<String> = targets.iter().filter(|target| of(target) > 0).map(|target| format!("{} {target}", of(target))).collect();
    let each = if each.is_empty() { String::new() } else { format!(" ({})", each.join(", ")) };
    format!("{}{each}, {}", plural(manifest.routes.len(), "route"), plural(manifest.guards.len(), "guard"))
}

fn plural(count: usize, word: &str) -> String {
    format!("{count} {word}{}", if count == 1 { "" } else { "s" })
}
