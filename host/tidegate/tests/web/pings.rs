//! Pings of an app on the network: they arrive in their place, and the client's pongs are neither
//! events nor a flood.

use crate::support::{
    Tidegate,
    client::{Message, Socket},
    component,
};

const CONTROL_FRAMES_MAX: usize = 5;

fn serve() -> Tidegate {
    let limit = format!("control_frames_max={CONTROL_FRAMES_MAX}");
    Tidegate::serve(&component("rogue"), &["--limit", &limit])
}

#[tokio::test]
async fn a_ping_of_an_app_arrives_with_its_payload_after_earlier_messages() {
    let server = serve();
    for path in ["/socket", "/rooms/tea"] {
        let mut ann = Socket::connect(server.ws(path)).await;
        for payload in ["", "still there?", &"x".repeat(125)] {
            ann.send(format!("send-ping {payload}")).await;
            assert_eq!(ann.frame().await, Message::Ping(payload.to_owned().into()));
        }
        let refused = ann.ask(&format!("send-ping {}", "x".repeat(126))).await;
        assert!(refused.contains("larger than"), "{refused}");
        // The large payload of a message is not copied; a ping must not come within it.
        if path == "/socket" {
            ann.send("big 100000").await;
            ann.send("send-ping next").await;
            assert_eq!(ann.frame().await.len(), 100_000);
            assert_eq!(ann.frame().await, Message::Ping("next".into()));
        }
        ann.close().await;
    }
}

#[tokio::test]
async fn pongs_that_an_app_asked_for_are_no_flood_and_others_are() {
    let server = serve();
    let mut ann = Socket::connect(server.ws("/socket")).await;
    // The library answers each ping with the next frame that it sends.
    for _ in 0..10 * CONTROL_FRAMES_MAX {
        ann.send("send-ping x").await;
        assert_eq!(ann.frame().await, Message::Ping("x".into()));
    }
    assert_eq!(ann.ask("say still here").await, "still here");
    for _ in 0..10 * CONTROL_FRAMES_MAX {
        ann.send(Message::Pong("x".into())).await;
    }
    assert_eq!(ann.closed().await.0, 1008);
    assert_eq!(server.stop().counter("control_floods"), 1);
}
