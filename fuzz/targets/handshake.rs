//! The rest of a head that asks for a WebSocket, in pieces.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tidegate_fuzz::{pieces, stage, status};

fuzz_target!(|data: &[u8]| {
    let [one, two, head @ ..] = data else { return };
    let request = [b"GET /ws HTTP/1.1\r\n", head, b"\r\n\r\n"].concat();
    let pieces = pieces(&[*one, *two], &request);
    let (answer, _) = stage().exchange(&pieces.iter().map(Vec::as_slice).collect::<Vec<_>>());
    if status(&answer) == Some(101) {
        let head = String::from_utf8_lossy(head).to_ascii_lowercase();
        for part in [
            "host:",
            "upgrade:",
            "websocket",
            "connection:",
            "sec-websocket-version:",
            "13",
            "sec-websocket-key:",
            "==",
        ] {
            assert!(head.contains(part), "accepted without {part:?}: {head:?}");
        }
        assert!(answer.windows(4).any(|end| end == b"\r\n\r\n"));
    }
});
