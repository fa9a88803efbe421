//! A client that floods or a guest that spins leaves the others their share of a worker.

use crate::support::{
    Tidegate,
    client::{Message, Raw, Socket, soon},
    component,
};
use futures_util::future::{join_all, select};
use reqwest::Client;
use std::{
    future::pending,
    pin::pin,
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
};

const SPINNERS: usize = 30;

fn rogue(args: &[&str]) -> Tidegate {
    Tidegate::serve(
        &component("rogue"),
        &[
            &[
                "--workers",
                "1",
                "--wall",
                "1h",
                "--drain",
                "0",
                "--log",
                "off",
            ],
            args,
        ]
        .concat(),
    )
}

async fn status(server: &Tidegate, client: &Client, path: &str) -> u16 {
    soon(path, client.get(server.url(path)).send())
        .await
        .unwrap()
        .status()
        .as_u16()
}

/// Sends one request after another, and counts the answers, until `other` ends.
async fn calm_answers(server: &Tidegate, other: impl Future) -> usize {
    let (client, count) = (Client::new(), AtomicUsize::new(0));
    let ask = async {
        loop {
            assert_eq!(status(server, &client, "/calm").await, 200);
            count.fetch_add(1, Relaxed);
        }
    };
    select(pin!(ask), pin!(other)).await;
    count.load(Relaxed)
}

#[tokio::test]
async fn short_calls_run_before_busy_guests() {
    let server = rogue(&["--cpu", "200ms"]);
    let spinners = async {
        let client = Client::new();
        let spinners = join_all((0..SPINNERS).map(|_| status(&server, &client, "/do/spin"))).await;
        assert_eq!(spinners, [500; SPINNERS]);
    };
    // The spinners compute for 600 ticks in all. If each had one tick before every answer, there
    // would be 20 answers.
    let answers = calm_answers(&server, spinners).await;
    assert!(
        answers >= 4 * 20,
        "{answers} answers beside {SPINNERS} spinners"
    );
}

#[tokio::test]
async fn a_busy_guest_gets_a_tenth_of_a_loaded_worker() {
    let server = rogue(&["--cpu", "100ms"]);
    let client = Client::new();
    let busy = join_all((0..8).map(|_| calm_answers(&server, pending::<()>())));
    let spinner = pin!(status(&server, &client, "/do/spin"));
    match select(pin!(busy), spinner).await {
        futures_util::future::Either::Right((status, _)) => assert_eq!(status, 500),
        futures_util::future::Either::Left(_) => unreachable!("they never end"),
    }
}

/// Writes `piece` repeatedly, and reads the answers, until it is dropped.
async fn flood(mut raw: Raw, piece: Vec<u8>) {
    let mut wrote = true;
    while wrote {
        wrote = raw.exchange(&piece).await;
    }
}

#[tokio::test]
async fn a_flooding_client_does_not_starve_others() {
    const HANDSHAKE: &str = "upgrade: websocket\r\nconnection: upgrade\r\nsec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    let server = rogue(&[]);
    let requests = "GET /calm HTTP/1.1\r\nhost: x\r\n\r\n"
        .repeat(1000)
        .into_bytes();
    let frames = [0x81, 0x82, 0, 0, 0, 0, b'h', b'i'].repeat(8000);
    // Messages of empty frames, with as many frames as a message may have.
    let fragments = [
        [0x01, 0x80, 0, 0, 0, 0].to_vec(),
        [0x00, 0x80, 0, 0, 0, 0].repeat(1022),
        [0x80, 0x80, 0, 0, 0, 0].to_vec(),
    ]
    .concat()
    .repeat(10);
    let large = {
        const LENGTH: usize = 900_000;
        let head = [&[0x82, 0x80 | 127], &LENGTH.to_be_bytes()[..], &[0; 4]].concat();
        [head, vec![b'x'; LENGTH]].concat()
    };
    let floods = join_all((0..8).map(|number| {
        let (server, piece, is_socket) = (
            &server,
            match number % 4 {
                1 => frames.clone(),
                2 => large.clone(),
                3 => fragments.clone(),
                _ => requests.clone(),
            },
            number % 4 > 0,
        );
        async move {
            let mut raw = Raw::connect(server.address()).await;
            if is_socket {
                raw.write(format!(
                    "GET /socket HTTP/1.1\r\nhost: x\r\n{HANDSHAKE}\r\n"
                ))
                .await;
                raw.until("\r\n\r\n").await;
            }
            flood(raw, piece).await;
        }
    }));
    let good = async {
        let client = Client::new();
        let mut socket = Socket::connect(server.ws("/socket")).await;
        for number in 0..50 {
            assert_eq!(status(&server, &client, "/calm").await, 200);
            socket.send(Message::text(format!("say {number}"))).await;
            assert_eq!(socket.text().await, number.to_string());
        }
    };
    match select(pin!(floods), pin!(good)).await {
        futures_util::future::Either::Right(_) => {}
        futures_util::future::Either::Left(_) => {
            panic!("the floods ended before the good client had its answers")
        }
    }
}
