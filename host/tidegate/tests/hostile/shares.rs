//! Loaders, renders and actions have shares of the instances, so that however many clients hold
//! them, everything else finds one.

use crate::support::{
    Tidegate,
    client::{Raw, Socket, soon},
    component,
};
use futures_util::future::join_all;
use std::time::Duration;
use tokio::time::sleep;

/// Number of instances of each server. The shares are three of them for loaders, two for actions,
/// one for renders, four for loaders, streams and actions together.
const INSTANCES: usize = 8;

fn serve() -> Tidegate {
    let instances = INSTANCES.to_string();
    let args = ["--instances", &instances, "--wall", "1h", "--drain", "0"];
    Tidegate::serve(&component("rogue"), &args)
}

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
}

/// Returns a form whose action reports once, and then waits for an hour.
fn lingering() -> String {
    let form = "__action=linger";
    format!(
        "POST /page HTTP/1.1\r\nhost: x\r\nconnection: close\r\naccept: text/event-stream\r\n\
         content-type: application/x-www-form-urlencoded\r\ncontent-length: {}\r\n\r\n{form}",
        form.len()
    )
}

/// Sends this so many times, and waits for `until` each time.
async fn hold(server: &Tidegate, count: usize, request: &str, until: &str) -> Vec<Raw> {
    let one = async || {
        let mut raw = Raw::send(server.address(), request).await;
        raw.until(until).await;
        raw
    };
    join_all((0..count).map(|_| one())).await
}

async fn status(server: &Tidegate, path: &str) -> u16 {
    soon(path, reqwest::get(server.url(path)))
        .await
        .unwrap()
        .status()
        .as_u16()
}

/// Checks that plain routes, guards, rooms, pages and sockets find an instance.
async fn assert_everything_else_is_served(server: &Tidegate, beside: &str) {
    for path in [
        "/calm",
        "/guarded/calm",
        "/rooms/one",
        "/rooms/two",
        "/form",
        "/stream/collect",
    ] {
        assert!(
            [200, 204].contains(&status(server, path).await),
            "{path} beside {beside}"
        );
    }
    let mut socket = Socket::connect(server.ws("/socket")).await;
    assert_eq!(socket.ask("say x").await, "x", "beside {beside}");
}

#[tokio::test]
async fn loaders_hold_at_most_their_share() {
    let server = serve();
    let held = hold(&server, 3, &get("/parting"), "still here").await;
    // The page is served, and its loader reports that no instance is free.
    let mut beyond = Raw::send(server.address(), &get("/parting")).await;
    let told = beyond.until("\"parting\",503").await;
    assert!(told.starts_with("HTTP/1.1 200"), "{told}");
    assert_everything_else_is_served(&server, "loaders").await;
    drop(held);
    hold(&server, 3, &get("/parting"), "still here").await;
}

#[tokio::test]
async fn actions_hold_at_most_their_share() {
    let server = serve();
    let held = hold(&server, 2, &lingering(), "begun").await;
    let told = Raw::send(server.address(), &lingering()).await.rest().await;
    assert!(told.contains("\"status\":503"), "{told}");
    assert_everything_else_is_served(&server, "actions").await;
    drop(held);
    hold(&server, 2, &lingering(), "begun").await;
}

#[tokio::test]
async fn loaders_streams_and_actions_together_hold_at_most_one_half() {
    let server = serve();
    let _loaders = hold(&server, 2, &get("/parting"), "still here").await;
    let _streams = hold(&server, 1, &get("/stream/idle"), "a first piece").await;
    let _actions = hold(&server, 1, &lingering(), "begun").await;
    for request in [get("/stream/idle"), lingering()] {
        let told = Raw::send(server.address(), &request).await.rest().await;
        let is_refused = told.starts_with("HTTP/1.1 503") || told.contains("\"status\":503");
        assert!(is_refused, "{request}: {told}");
    }
    for path in [
        "/calm",
        "/guarded/calm",
        "/rooms/one",
        "/rooms/two",
        "/form",
    ] {
        assert_eq!(status(&server, path).await, 200, "{path}");
    }
}

#[tokio::test]
async fn renders_hold_at_most_their_share() {
    let server = serve();
    let pages = join_all((0..INSTANCES).map(|_| async {
        // The room that the render waits for takes longer than a call waits for an instance.
        status(&server, "/parting?render=8000").await
    }));
    let others = async {
        while !server.stderr().contains("a call waits") {
            sleep(Duration::from_millis(20)).await;
        }
        assert_eq!(status(&server, "/calm").await, 200);
        // One instance renders, and one is the room's.
        let rest = (2..INSTANCES).map(|_| status(&server, "/pause/300"));
        let statuses = join_all(rest).await;
        assert!(
            statuses.iter().all(|status| [200, 204].contains(status)),
            "{statuses:?}"
        );
    };
    let (mut statuses, ()) = tokio::join!(pages, others);
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 503, 503, 503, 503, 503, 503, 503]);
}
