//! Code shared by several fuzz targets: a server in this process, and clients that send bytes in
//! pieces.

use std::{
    sync::{Arc, Mutex, OnceLock},
    time::Duration,
};
use tidegate_edge::{Config, InProcess, Server, Version};
use tidegate_hub::{Hub, Limits, Message, page::{ActionOutcome, ActionStep, Form}, testing::FakeApp};
use tidegate_routing::{Exports, Manifest, Page, Route, Router, Target};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    runtime::{Builder, Runtime},
    task::yield_now,
    time::timeout,
};

/// Maximum duration of one exchange. The client signals the end of its input, so a longer exchange
/// is a hang.
const PATIENCE: Duration = Duration::from_secs(20);

/// A server of an app that sends messages back and reads forms to their end.
pub struct Stage {
    runtime: Runtime,
    local: InProcess,
    messages: Arc<Mutex<Vec<Message>>>,
}

/// The one of this process.
pub fn stage() -> &'static Stage {
    static STAGE: OnceLock<Stage> = OnceLock::new();
    STAGE.get_or_init(Stage::new)
}

impl Stage {
    fn new() -> Stage {
        let messages = Arc::<Mutex<Vec<Message>>>::default();
        let log = messages.clone();
        let app = FakeApp {
            messages: Box::new(move |(conn, messages)| {
                log
                    .lock()
                    .expect("no holder of the lock panics")
                    .extend(messages.iter().cloned());
                messages
                    .into_iter()
                    .for_each(|message| _ = conn.send(message));
                Ok(())
            }),
            act: Arc::new(|_, _, form| Box::pin(read(form))),
            ..FakeApp::default()
        };
        let page = Page {
            pattern: "/page".into(),
            actions: vec!["buy".into()],
            ..Page::default()
        };
        let routes = vec![Route::new("GET", "/ws", Target::WebSocket)];
        let manifest = Manifest {
            routes,
            guards: vec![],
            pages: vec![page],
        };
        let router = Router::new(&manifest, Exports::ALL)
            .unwrap_or_else(|violations| panic!("{violations:?}"));
        // So small that a fuzzer crosses them.
        let limits = Limits {
            message_bytes_max: 600,
            frame_bytes_max: 400,
            fragments_max: 4,
            inbox_bytes_max: 300,
            inbox_messages_max: 3,
            body_bytes_max: 500,
            upload_bytes_max: 2000,
            ..Limits::default()
        };
        let version = Arc::new(Version {
            app: Arc::new(app),
            router,
        });
        let server = Server::new(
            Hub::new(limits, Default::default(), 1),
            version,
            Config::default(),
        );
        let runtime = Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("the system has a runtime");
        Stage {
            runtime,
            local: InProcess::new(server),
            messages,
        }
    }

    /// Sends these pieces as one client, then ends the input. Returns the server's output and the
    /// messages that the app received.
    pub fn exchange(&self, pieces: &[&[u8]]) -> (Vec<u8>, Vec<Message>) {
        self.messages.lock().expect("no holder of the lock panics").clear();
        let answered = self.runtime.block_on(async {
            let (mut reader, mut writer) = tokio::io::split(self.local.connect());
            let write = async {
                for piece in pieces {
                    // An answer that ends the connection may come before the request has.
                    if writer.write_all(piece).await.is_err() {
                        break;
                    }
                    for _ in 0..3 {
                        yield_now().await;
                    }
                }
                _ = writer.shutdown().await;
            };
            let mut answer = Vec::new();
            let read = async {
                _ = reader.read_to_end(&mut answer).await;
            };
            let done = timeout(PATIENCE, async { tokio::join!(write, read) }).await;
            assert!(done.is_ok(), "the connection does not end after {answer:?}");
            answer
        });
        (
            answered,
            std::mem::take(&mut *self.messages.lock().expect("no holder of the lock panics")),
        )
    }
}

async fn read(mut form: Box<dyn Form>) -> Result<Vec<ActionStep>, tidegate_hub::Fault> {
    let mut fields = 0;
    while let Ok(Some(_)) = form.next().await {
        fields += 1;
        while let Ok(Some(piece)) = form.read().await {
            assert!(!piece.is_empty(), "an empty piece is no end");
        }
    }
    Ok(vec![ActionStep::Done(Ok(ActionOutcome::Success {
        value: fields.to_string(),
        stale: vec![],
    }))])
}

/// Divides bytes into pieces, whose lengths the first of them say.
pub fn pieces(lengths: &[u8], mut bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut pieces = Vec::new();
    for length in lengths.iter().map(|length| usize::from(*length)) {
        let (piece, rest) = bytes.split_at(length.min(bytes.len()));
        pieces.push(piece.to_vec());
        bytes = rest;
    }
    pieces.push(bytes.to_vec());
    pieces.retain(|piece| !piece.is_empty());
    pieces
}

/// Panics unless these bytes begin as an answer of HTTP/1; its status otherwise. None if there is
/// no answer.
pub fn status(answer: &[u8]) -> Option<u16> {
    if answer.is_empty() {
        return None;
    }
    let line = answer
        .get(..13)
        .and_then(|line| std::str::from_utf8(line).ok())
        .unwrap_or_else(|| panic!("no status line: {answer:?}"));
    assert!(
        line.starts_with("HTTP/1.1 ") || line.starts_with("HTTP/1.0 "),
        "{line:?}"
    );
    let status = line[9..12].parse().unwrap_or_else(|_| panic!("{line:?}"));
    assert!((100..600).contains(&status), "{line:?}");
    Some(status)
}

/// Panics unless these bytes are whole frames of a server (RFC 6455 section 5.2) with nothing after
/// a close; the payloads of data frames.
pub fn frames(mut bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut payloads = Vec::new();
    let mut is_closed = false;
    while let [first, second, rest @ ..] = bytes {
        assert!(!is_closed, "something comes after a close");
        assert!(
            first & 0x70 == 0 && second & 0x80 == 0,
            "a reserved bit, or a mask"
        );
        let (opcode, length) = (first & 0x0f, usize::from(second & 0x7f));
        let (length, rest) = match length {
            126 => (
                usize::from(u16::from_be_bytes([rest[0], rest[1]])),
                &rest[2..],
            ),
            127 => (
                u64::from_be_bytes(rest[..8].try_into().expect("eight bytes")) as usize,
                &rest[8..],
            ),
            length => (length, rest),
        };
        assert!(matches!(opcode, 0..=2 | 8..=10), "opcode {opcode}");
        assert!(
            opcode < 8 || length < 126 && first & 0x80 != 0,
            "a control frame that is long or in parts"
        );
        assert!(rest.len() >= length, "a frame broke off");
        is_closed = opcode == 8;
        if opcode < 8 {
            payloads.push(rest[..length].to_vec());
        }
        bytes = &rest[length..];
    }
    assert!(bytes.is_empty(), "half a frame");
    payloads
}
