//! The streams of the browser's side under Node, over a network that breaks in every way.

use crate::support::{Tidegate, component, workspace};
use std::{env, process::Command};

/// A few hundred cuts; `TIDEGATE_CUTS=2000 TIDEGATE_SEED=7` for as many as wanted, and others.
#[tokio::test]
async fn over_cuts_silence_and_storms_nothing_is_lost_without_a_notice() {
    let number = |name: &str, usual: u32| {
        env::var(name).map_or(usual, |text| text.parse().expect("a number"))
    };
    let (cuts, seed, history) = (number("TIDEGATE_CUTS", 400), number("TIDEGATE_SEED", 1), 50);
    let limits = [
        format!("history_messages_max={history}"),
        "comment_every=100ms".to_owned(),
    ];
    let args: Vec<&str> = limits.iter().flat_map(|limit| ["--limit", limit]).collect();
    let server = Tidegate::serve(&component("rogue"), &args);
    let script = workspace().join("host/tidegate/tests/web/cuts.mjs");
    let mut node = Command::new("node");
    node.args(["--experimental-websocket", "--no-warnings"])
        .arg(script)
        .arg(server.url(""));
    node.args([cuts, seed, history].map(|number| number.to_string()));
    let ended = tokio::task::spawn_blocking(move || {
        node.output()
            .expect("node is installed: run scripts/setup tests")
    })
    .await
    .unwrap();
    let (counts, wrong) = (
        String::from_utf8_lossy(&ended.stdout),
        String::from_utf8_lossy(&ended.stderr),
    );
    println!("{counts}");
    assert!(ended.status.success(), "{counts}{wrong}");
    assert_eq!(server.stop().counter("faults"), 0);
}
