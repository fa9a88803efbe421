//! `tidegate routes`: lists an app's routes, for people or as JSON.

use crate::{args::RoutesArgs, assemble, command::print, command_error::CommandError, report};
use serde_json::{Value, json};
use tidegate_routing::{LoaderInfo, Manifest};

/// Prints routes, guards and pages of an app.
pub(crate) fn run(args: &RoutesArgs) -> Result<(), CommandError> {
    let config = args.load.config()?;
    let (loaded, _) = assemble::runtime()?.block_on(assemble::load(&args.load.app, config.app))?;
    let manifest = loaded.manifest().map(|manifest| &**manifest);
    print(&if args.json {
        format!("{:#}\n", to_json(manifest))
    } else {
        to_text(manifest)
    })
}

fn to_text(manifest: Option<&Manifest>) -> String {
    let mut text: String = report::route_lines(manifest)
        .into_iter()
        .map(|line| line + "\n")
        .collect();
    let guards = manifest.map_or(&[][..], |manifest| &manifest.guards);
    if !guards.is_empty() {
        text += "\nguards, in their order\n";
        text.extend(guards.iter().map(|guard| format!("{}\n", guard.pattern)));
    }
    text
}

/// Returns the manifest as JSON. Without a manifest `whole` is true: the `wasi:http` export of the
/// app answers every path.
fn to_json(manifest: Option<&Manifest>) -> Value {
    let whole = manifest.is_none();
    let manifest = manifest.cloned().unwrap_or_default();
    let routes = manifest.routes.iter().enumerate().map(|(index, route)| {
        let mut json = json!({ "index": index, "methods": route.methods, "pattern": route.pattern, "target": route.target.to_string() });
        if let Some(class) = &route.room {
            json["room"] = class.as_str().into();
        }
        json
    });
    let guards = manifest
        .guards
        .iter()
        .enumerate()
        .map(|(index, guard)| json!({ "index": index, "pattern": guard.pattern }));
    let pages = manifest.pages.iter().enumerate().map(|(index, page)| {
        let loader = |loader: &LoaderInfo| json!({ "name": loader.name, "live": loader.is_live, "due": loader.first_value.to_string() });
        let loaders: Vec<Value> = page.loaders.iter().map(loader).collect();
        json!({ "index": index, "pattern": page.pattern, "loaders": loaders, "actions": page.actions, "fallback": page.is_fallback })
    });
    json!({
        "whole": whole,
        "routes": routes.collect::<Vec<_>>(),
        "guards": guards.collect::<Vec<_>>(),
        "pages": pages.collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidegate_routing::FirstValue;
    use tidegate_routing::{Guard, Page, Route, Target};

    #[test]
    fn text_and_json_list_the_same_routes() {
        let chat = Route {
            room: Some("chat".into()),
            ..Route::new("", "/ws", Target::WebSocket)
        };
        let routes = vec![Route::new("GET", "/users/{id}", Target::Http), chat];
        let loaders = vec![LoaderInfo {
            name: "stock".into(),
            is_live: true,
            first_value: FirstValue::Soon,
        }];
        let pages = vec![Page {
            pattern: "/shop".into(),
            loaders,
            actions: vec!["buy".into()],
            is_fallback: false,
        }];
        let manifest = Manifest {
            routes,
            guards: vec![Guard {
                pattern: "/*".into(),
            }],
            pages,
        };
        let text = "GET       /users/{id}  http\nany       /ws          websocket of room chat\nGET,POST  /shop        page\n\nguards, in their order\n/*\n";
        assert_eq!(to_text(Some(&manifest)), text);
        let json = json!({
            "whole": false,
            "routes": [
                { "index": 0, "methods": ["GET"], "pattern": "/users/{id}", "target": "http" },
                { "index": 1, "methods": [], "pattern": "/ws", "target": "websocket", "room": "chat" },
            ],
            "guards": [{ "index": 0, "pattern": "/*" }],
            "pages": [{ "index": 0, "pattern": "/shop", "loaders": [{ "name": "stock", "live": true, "due": "soon" }], "actions": ["buy"], "fallback": false }],
        });
        assert_eq!(to_json(Some(&manifest)), json);
        assert_eq!(
            to_json(None),
            json!({ "whole": true, "routes": [], "guards": [], "pages": [] })
        );
    }
}
