//! A served fake app on port 0, and clients that speak raw bytes.
#![allow(dead_code, unreachable_pub, reason = "each test file uses its part")]

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{Arc, mpsc},
    thread::JoinHandle,
    time::Duration,
};
use tidegate_edge::{Config, Drained, Server, Version, serve};
use tidegate_hub::{Hub, Limits, testing::FakeApp};
use tidegate_routing::{Exports, Guard, Manifest, Route, Router, Target};
use tokio::sync::oneshot;

/// Maximum wait, longer than any step of a test; after it, a client has failed.
pub const PATIENCE: Duration = Duration::from_secs(10);

pub fn routes(routes: &[(&str, &str, Target)]) -> Manifest {
    let route =
        |(method, pattern, target): &(&str, &str, Target)| Route::new(method, pattern, *target);
    Manifest {
        routes: routes.iter().map(route).collect(),
        guards: vec![],
        pages: vec![],
    }
}

pub fn usual() -> Manifest {
    routes(&[
        ("GET", "/hello", Target::Http),
        ("POST", "/items/{id}", Target::Http),
        ("GET", "/ws", Target::WebSocket),
        ("GET", "/feed", Target::Feed),
        ("", "/stream", Target::Stream),
    ])
}

pub fn guarded(mut manifest: Manifest, patterns: &[&str]) -> Manifest {
    manifest.guards = patterns
        .iter()
        .map(|pattern| Guard {
            pattern: pattern.to_string(),
        })
        .collect();
    manifest
}

pub struct Served {
    pub address: SocketAddr,
    pub hub: Arc<Hub>,
    pub server: Arc<Server>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<Drained>>,
}

impl Served {
    pub fn usual(app: FakeApp) -> Served {
        Served::new(app, usual(), Limits::default(), Config::default())
    }

    pub fn new(app: FakeApp, manifest: Manifest, limits: Limits, config: Config) -> Served {
        let router = Router::new(&manifest, Exports::ALL)
            .unwrap_or_else(|violations| panic!("{violations:?}"));
        let hub = Hub::new(limits, Default::default(), 1);
        let server = Server::new(
            hub.clone(),
            Arc::new(Version {
                app: Arc::new(app),
                router,
            }),
            config,
        );
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel();
        let served = server.clone();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            let workers = [runtime.handle().clone()];
            let shutdown = async { _ = stopped.await };
            runtime
                .block_on(serve(vec![listener], served, &workers, shutdown))
                .unwrap()
        });
        Served {
            address,
            hub,
            server,
            stop: Some(stop),
            thread: Some(thread),
        }
    }

    pub fn raw(&self) -> Raw {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Raw(stream)
    }

    /// Sends these bytes and returns the whole answer. The connection must end, also by
    /// `Connection: close`.
    pub fn ask(&self, bytes: &str) -> String {
        let mut raw = self.raw();
        raw.send(bytes.as_bytes());
        raw.rest()
    }

    pub fn get(&self, path: &str) -> String {
        self.ask(&format!(
            "GET {path} HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n"
        ))
    }

    /// Connects and completes the WebSocket handshake.
    pub fn websocket(&self) -> Raw {
        let mut raw = self.raw();
        raw.send(handshake("/ws", "").as_bytes());
        let head = raw.head();
        assert!(head.starts_with("HTTP/1.1 101"), "{head}");
        raw
    }

    pub fn stop(&mut self) {
        self.stop.take();
    }

    pub fn drained(mut self) -> Drained {
        self.stop();
        self.thread.take().unwrap().join().unwrap()
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.stop();
        if let Some(thread) = self.thread.take() {
            _ = thread.join();
        }
    }
}

pub fn handshake(path: &str, more: &str) -> String {
    format!(
        "GET {path} HTTP/1.1\r\nhost: test\r\nupgrade: websocket\r\nconnection: Upgrade\r\n\
         sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n{more}\r\n"
    )
}

pub struct Raw(pub TcpStream);

impl Raw {
    pub fn send(&mut self, bytes: &[u8]) {
        // The server may have closed already: in that case its answer counts.
        _ = self.0.write_all(bytes);
    }

    pub fn head(&mut self) -> String {
        self.until("\r\n\r\n")
    }

    /// Returns everything up to and including this text.
    pub fn until(&mut self, end: &str) -> String {
        String::from_utf8(self.bytes_until(end)).unwrap()
    }

    pub fn bytes_until(&mut self, end: &str) -> Vec<u8> {
        let mut text = Vec::new();
        while !text.ends_with(end.as_bytes()) {
            let mut byte = [0];
            match self.0.read(&mut byte) {
                Ok(1) => text.push(byte[0]),
                end => panic!("{end:?} after {:?}", String::from_utf8_lossy(&text)),
            }
        }
        text
    }

    /// Returns everything up to the end of the connection.
    pub fn rest(&mut self) -> String {
        String::from_utf8_lossy(&self.rest_bytes()).into_owned()
    }

    pub fn rest_bytes(&mut self) -> Vec<u8> {
        let mut rest = Vec::new();
        match self.0.read_to_end(&mut rest) {
            Ok(_) => rest,
            Err(error) => panic!("{error} after {:?}", String::from_utf8_lossy(&rest)),
        }
    }

    /// Reads one unmasked frame; returns its first byte and its payload.
    pub fn frame(&mut self) -> (u8, Vec<u8>) {
        let mut head = [0; 2];
        self.0.read_exact(&mut head).unwrap();
        let length = match head[1] {
            126 => {
                let mut long = [0; 2];
                self.0.read_exact(&mut long).unwrap();
                u16::from_be_bytes(long) as usize
            }
            127 => {
                let mut long = [0; 8];
                self.0.read_exact(&mut long).unwrap();
                u64::from_be_bytes(long) as usize
            }
            short => short as usize,
        };
        let mut payload = vec![0; length];
        self.0.read_exact(&mut payload).unwrap();
        (head[0], payload)
    }

    /// Returns the code and reason of the close frame, which must be next.
    pub fn close_frame(&mut self) -> (u16, String) {
        let (first, payload) = self.frame();
        assert_eq!(first, 0x88, "{payload:?}");
        (
            u16::from_be_bytes([payload[0], payload[1]]),
            String::from_utf8(payload[2..].to_vec()).unwrap(),
        )
    }

    pub fn text(&mut self, text: &str) {
        self.send(&masked(0x81, text.as_bytes()));
    }

    pub fn close(&mut self, code: u16) {
        self.send(&masked(0x88, &code.to_be_bytes()));
    }
}

/// Returns a client's frame. Its mask is zero, which is allowed and easy to read.
pub fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![first];
    match payload.len() {
        length @ 0..126 => frame.push(0x80 | length as u8),
        length @ 126..65536 => {
            frame.extend([&[0x80 | 126][..], &(length as u16).to_be_bytes()].concat())
        }
        length => frame.extend([&[0x80 | 127][..], &(length as u64).to_be_bytes()].concat()),
    }
    frame.extend([0; 4]);
    frame.extend(payload);
    frame
}

/// Returns a channel from an app to its test, and a function that waits for the next report.
pub fn report_channel() -> (mpsc::Sender<String>, impl Fn() -> String) {
    let (report, reports) = mpsc::channel();
    (report, move || {
        reports
            .recv_timeout(PATIENCE)
            .expect("the app reports in time")
    })
}

/// Waits until the condition holds.
pub fn wait_until(condition: &str, mut is_met: impl FnMut() -> bool) {
    let deadline = std::time::Instant::now() + PATIENCE;
    while !is_met() {
        assert!(std::time::Instant::now() < deadline, "{condition}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
